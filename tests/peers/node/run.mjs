// The server of the peers' contract: every event that tests and benchmarks drive, as a user's program would serve it.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { EtpError, Server } from "etp-ws";

const { values: options } = parseArgs({
  options: {
    listen: { type: "string", default: "127.0.0.1:0" },
    attach: { type: "boolean" }, // on the port of an http.Server instead of one of its own
    "attach-tls": { type: "boolean" }, // on that of an https.Server
    certificates: { type: "string" }, // a folder with its cert.pem and key.pem
  },
});

const server = new Server({ codec: "bytes", origins: "*" });
const seen = { connects: 0, disconnects: 0, errors: 0, unknown: 0 }; // calls of the callbacks
const never = new Int32Array(new SharedArrayBuffer(4));

const bytes = (value) => Buffer.from(String(value));

/** What is before the first newline, as text, and what is behind it. */
function split(data) {
  const end = data.indexOf("\n");
  return [data.toString("utf8", 0, end), data.subarray(end + 1)];
}

server.onConnect(() => {
  seen.connects += 1;
});
server.onDisconnect(() => {
  seen.disconnects += 1;
});
server.onError(() => {
  seen.errors += 1;
});
server.onUnknownEvent((conn, name) => {
  seen.unknown += 1;
  return bytes(`unknown:${name}`);
});

server.on("echo", (conn, data) => data);
server.on("id", (conn) => bytes(conn.id));
server.on("url", (conn) => bytes(conn.request.url));

server.on("join", (conn, data) => {
  const room = data.toString();
  conn.join(room);
  return bytes(server.memberCount(room));
});
server.on("leave", (conn, data) => {
  const room = data.toString();
  conn.leave(room);
  return bytes(server.memberCount(room));
});
server.on("rooms", (conn) => bytes(JSON.stringify(conn.rooms.sort())));
server.on("shout", (conn, data) => {
  const [room, payload] = split(data);
  return bytes(server.to(room).emit("shout", payload));
});
server.on("others", (conn, data) => {
  const [room, payload] = split(data);
  return bytes(server.to(room).except(conn).emit("shout", payload));
});

server.on("set", (conn, data) => {
  const [key, value] = split(data);
  conn.data.values ??= new Map();
  conn.data.values.set(key, value);
});
server.on("get", (conn, key) => conn.data.values?.get(key.toString()));

server.on("slow", async (conn, milliseconds) => {
  await sleep(Number(milliseconds), undefined, { ref: false }); // when the server has ended nobody waits for it
  return bytes("done");
});
// Beyond the contract: what a careless handler does to the event loop.
server.on("block", (conn, milliseconds) => {
  Atomics.wait(never, 0, 0, Number(milliseconds));
  return bytes("done");
});
server.on("fail", () => {
  throw new Error("asked to fail");
});
server.on("empty", () => {});
server.on("ask", async (conn, data) => {
  try {
    return await conn.emitWithAck("question", data, { timeout: 1000 });
  } catch (error) {
    if (error instanceof EtpError) return bytes(`error:${error.code}`);
    throw error;
  }
});
server.on("close", (conn) => conn.close());
server.on("seen", () => bytes(JSON.stringify(seen)));

const [host, port] = options.listen.split(":");

/** Serves on a listener of the package's own. */
async function serve() {
  process.once("SIGTERM", () => server.shutdown());
  await server.listen({ host, port: Number(port) });
  console.log(`LISTENING ${server.url}`);
}

/** Serves as a part of an application that has a server for HTTP already. */
function serveOn(httpServer, scheme) {
  process.once("SIGTERM", () => {
    httpServer.close();
    server.shutdown();
  });
  server.attach(httpServer);
  httpServer.listen(Number(port), host, () => {
    console.log(`LISTENING ${scheme}://${host}:${httpServer.address().port}/ws`);
  });
}

const pem = (name) => readFileSync(join(options.certificates, name));
const notFound = (request, response) => response.writeHead(404).end();

if (options["attach-tls"]) {
  serveOn(createTlsServer({ cert: pem("cert.pem"), key: pem("key.pem") }, notFound), "wss");
} else if (options.attach) {
  serveOn(createServer(notFound), "ws");
} else {
  await serve();
}
