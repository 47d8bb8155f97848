// Next's custom server, sharing its port with etp-ws: `node server.js [dev]`. Says where it listens, ends after SIGTERM.

import { once } from "node:events";
import { createServer } from "node:http";
import { Server } from "etp-ws";
import next from "next";

const http = createServer();
const server = new Server();
server.on("greet", (_conn, name) => `hello ${name}`);
server.attach(http, { path: "/events" });

http.listen(0, "127.0.0.1");
await once(http, "listening");
const { port } = http.address();
process.env.ETP_URL = `ws://127.0.0.1:${port}/events`;

const app = next({ dev: process.argv[2] === "dev", httpServer: http, hostname: "127.0.0.1", port });
await app.prepare();
const handle = app.getRequestHandler();
http.on("request", (request, response) => handle(request, response));
console.log(`LISTENING 127.0.0.1:${port}`);

await once(process, "SIGTERM");
await server.shutdown();
process.exit();
