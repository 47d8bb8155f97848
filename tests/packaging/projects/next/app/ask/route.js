// A route that imports the package: it asks the server of its own process, over a socket.

import { Client } from "etp-ws";

export const dynamic = "force-dynamic";

export async function GET() {
  const client = await new Client(process.env.ETP_URL).connect();
  try {
    return new Response(await client.emitWithAck("greet", "route"));
  } finally {
    await client.close();
  }
}
