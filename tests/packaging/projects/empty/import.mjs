// What `import` gives works, and is what `require` gives.

import { createRequire } from "node:module";
import { Client, EtpError, Server } from "etp-ws";
import { connect } from "etp-ws/testing";

const require = createRequire(import.meta.url);
const same = require("etp-ws").Server === Server && require("etp-ws/testing").connect === connect;

const server = new Server({ codec: "json" });
server.on("greet", async (conn, name) => {
  conn.join("greeted");
  return { hello: name };
});
await server.listen();
const client = new Client(server.url, { codec: "json" });
const told = new Promise((resolve) => client.on("news", resolve));
await client.connect();
const reply = await client.emitWithAck("greet", "ann");
const reached = server.to("greeted").emit("news", [1]);
console.log(JSON.stringify([reply, reached, await told, same]));
await client.close();
await server.shutdown();
const error = await client.connect({ signal: AbortSignal.timeout(10_000) }).catch((error) => error);
console.log(error instanceof EtpError, error.code);
