// A chat with rooms: an http.Server that serves a page at `/` and ETP at `/ws`, on one port.
// The page and its client are those of the repository: `make js-client` there builds the client.
//
//     npm install etp-ws
//     node chat.mjs
//
// Then open http://127.0.0.1:8080 in two windows. `ADDR=127.0.0.1:9000` takes another port.

import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { Server } from "etp-ws";

const repository = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

const files = {
  "/": { path: repository("js-client/examples/chat.html"), type: "text/html; charset=utf-8" },
  "/etp-ws-client.js": {
    path: repository(".build/js-client/package/index.js"),
    type: "text/javascript; charset=utf-8",
  },
};
const missing = (path) => `There is no ${path}: \`make js-client\` in the repository builds what the page needs.`;

// The page says what somebody typed as it is and everything else as JSON, so payloads are text here.
// `conn.data.guest` is who somebody is, and where.
const server = new Server({ codec: "text" });

/** The names of those in a room. */
const names = (room) => server.members(room).map((conn) => conn.data.guest.name);

/** Tells a room who is in it now. */
const tellMembers = (room) => server.to(room).emit("members", JSON.stringify(names(room)));

function short(text, what) {
  const trimmed = text.trim();
  if (!trimmed || trimmed.length > 40) throw new Error(`${what} is empty or longer than 40 characters`);
  return trimmed;
}

/** Leaves the room, if there is one, and tells those who stay. */
function leave(conn) {
  const { guest } = conn.data;
  if (!guest) return;
  delete conn.data.guest;
  conn.leave(guest.room);
  tellMembers(guest.room);
}

server.on("enter", (conn, data) => {
  const who = JSON.parse(data);
  // A handler that throws sends no reply, and the page says so.
  const guest = { name: short(who.name, "the name"), room: short(who.room, "the room") };
  leave(conn);
  conn.data.guest = guest;
  conn.join(guest.room);
  tellMembers(guest.room);
  return JSON.stringify({ room: guest.room, members: names(guest.room) });
});

server.on("say", (conn, text) => {
  const { guest } = conn.data;
  if (!guest) throw new Error("enter a room first");
  server.to(guest.room).emit("said", JSON.stringify({ name: guest.name, text }));
});

server.on("leave", (conn) => leave(conn));
server.on("alive", () => {}); // that it is answered is the answer

server.onDisconnect((conn) => leave(conn));

const httpServer = createServer((request, response) => {
  if (!Object.hasOwn(files, request.url)) return response.writeHead(404).end();
  const { path, type } = files[request.url];
  if (!existsSync(path)) return response.writeHead(404, { "Content-Type": "text/plain" }).end(missing(path));
  response.writeHead(200, { "Content-Type": type, "Cache-Control": "no-cache" }).end(readFileSync(path));
});
server.attach(httpServer);

const [host, port] = (process.env.ADDR ?? "127.0.0.1:8080").split(":");
httpServer.listen(Number(port), host, () => {
  const url = `http://${host}:${httpServer.address().port}`;
  console.log(`The chat is at ${url} - open it in two windows, enter a room and talk.`);
  for (const { path } of Object.values(files)) if (!existsSync(path)) console.error(missing(path));
  console.log("Ctrl-C ends it; the page comes back by itself when you start it again.");
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    httpServer.close();
    server.shutdown({ timeout: 3000 });
  });
}
