// A server on a port of its own and on an http.Server's, and a client: for runtimes that are not Node.

import { once } from "node:events";
import { createServer } from "node:http";
import { Client, EtpError, Server } from "etp-ws";

const server = new Server({ codec: "json" });
server.on("greet", async (_conn, name) => ({ hello: name }));
const http = createServer((_request, response) => response.end("a page"));

async function talk(url) {
  const client = await new Client(url, { codec: "json" }).connect();
  const reply = await client.emitWithAck("greet", "ann");
  await client.close();
  return JSON.stringify(reply);
}

await server.listen();
console.log("listen:", await talk(server.url));

server.attach(http);
http.listen(0, "127.0.0.1");
await once(http, "listening");
const host = `127.0.0.1:${http.address().port}`;
console.log("attach:", await talk(`ws://${host}/ws`), await (await fetch(`http://${host}/`)).text());

await server.shutdown();
await new Promise((resolve) => http.close(resolve));
const error = await new Client("ws://127.0.0.1:1/ws", { reconnect: false }).connect().catch((error) => error);
console.log("error:", error instanceof EtpError, error.code);
