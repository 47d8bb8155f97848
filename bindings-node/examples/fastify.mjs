// A Fastify application with ETP at `/ws`: a token is checked before there is a connection, a route emits to a room.
//
//     npm install etp-ws fastify
//     node fastify.mjs
//
// In a second terminal a client, which waits for news; in a third whoever has some:
//
//     node fastify.mjs ann-secret
//     curl -X POST -H "Authorization: Bearer bob-secret" "http://127.0.0.1:8080/rooms/lobby/news?text=hello"
//
// Pages of this application's own origin may connect; name others with `new Server({ origins: ["https://example.org"] })`.

import { Client, Reject, Server } from "etp-ws";
import Fastify from "fastify";

const addr = process.env.ADDR ?? "127.0.0.1:8080";

const users = new Map([
  ["ann-secret", { name: "ann" }],
  ["bob-secret", { name: "bob" }],
]);

/** Stands for your database, or for the check of a signature. */
async function findUser(token) {
  return users.get(token);
}

async function serve() {
  const app = Fastify();
  const server = new Server({ codec: "json" });

  // ETP

  server.onUpgrade(async (request) => {
    // A client's `auth`, or what a page sends: new WebSocket(url, ["etp", "etp.auth." + base64url(token)]).
    const user = await findUser(request.token);
    if (!user) throw new Reject(401);
    return user; // from now on this is `conn.data`
  });

  server.onConnect((conn) => conn.join("lobby"));
  server.on("whoami", (conn) => conn.data.name);

  // HTTP

  app.post("/rooms/:room/news", async (request, reply) => {
    const user = await findUser(request.headers.authorization?.replace(/^Bearer /, ""));
    if (!user) return reply.code(401).send();
    const news = { from: user.name, text: request.query.text };
    return { reached: server.to(request.params.room).emit("news", news) };
  });

  // One port for both. Fastify's own end waits for all connections: ours are told to go first.

  server.attach(app.server);
  app.addHook("preClose", () => server.shutdown());

  const [host, port] = addr.split(":");
  console.log("Listening on", await app.listen({ host, port: Number(port) }));
  process.once("SIGINT", () => app.close());
}

async function wait(token) {
  const client = new Client(`ws://${addr}/ws`, { codec: "json", auth: token });
  client.on("news", ({ from, text }) => console.log(`${from}: ${text}`));
  await client.connect();
  console.log("I am", await client.emitWithAck("whoami"));
}

const [token] = process.argv.slice(2);
if (token) await wait(token);
else await serve();
