// A TypeScript program, as its compiler and as Node itself reads it.

import { type AnyEvents, Client, Server } from "etp-ws";

interface FromClients {
  greet: (name: string) => { hello: string };
}

const server = new Server<FromClients>({ codec: "json" });
server.on("greet", (_conn, name) => ({ hello: name }));
await server.listen();
const client = await new Client<AnyEvents, FromClients>(server.url as string, { codec: "json" }).connect();
const { hello } = await client.emitWithAck("greet", "ann");
console.log(hello);
await client.close();
await server.shutdown();
