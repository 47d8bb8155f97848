// The in-memory client as an editor sees it.

import { type Client, Server } from "etp-ws";
import { connect } from "etp-ws/testing";
import type { FromClients, FromServer, User } from "./events.js";

const server = new Server<FromClients, FromServer, User>();

export async function talk(): Promise<unknown[]> {
  const client: Client<FromServer, FromClients> = await connect<FromServer, FromClients>(server, {
    path: "/ws?a=b",
    headers: { origin: "https://example.org" },
    codec: "json",
    setup: (client) => client.on("news", ({ title }) => void title.length),
  });
  const { hi } = await client.emitWithAck("hello", { name: "ann" });
  // @ts-expect-error: there is no such event
  client.emit("hallo");
  const open = await connect(server);
  open.emit("anything", 1);
  return [hi.length, open];
}
// @ts-expect-error: nothing is dialled
connect(server, { tls: { cert: "a", key: "b" } });
// @ts-expect-error: no server
connect({});
