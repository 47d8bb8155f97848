import { Said } from "./said.js";

export default async function Page({ searchParams }) {
  const { server } = await searchParams;
  return <Said server={server} />;
}
