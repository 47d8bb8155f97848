// A server as an editor sees it: what is right compiles, and each line below `@ts-expect-error` does not.

import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { Accept, type Conn, type Disconnect, EtpError, Reject, Server, type ServerOptions, type Stats } from "etp-ws";
import type { FromClients, FromServer, User } from "./events.js";

const server = new Server<FromClients, FromServer, User>({ codec: "json", pingInterval: null, maxConnections: null });

// Handlers

server.on("hello", (conn, data) => {
  const name: string = data.name;
  // @ts-expect-error: the event has no age
  data.age;
  conn.data.name = name;
  // @ts-expect-error: the user has none either
  conn.data.age;
  return { hi: name };
});
server.on("hello", async (_conn, { name }) => ({ hi: name }));
server.on("hello", () => {});
// @ts-expect-error: no reply to this event
server.on("hello", () => ({ ho: "x" }));
// @ts-expect-error: nor when it comes later
server.on("hello", async () => 5);
// @ts-expect-error: there is no such event
server.on("hallo", () => {});
// @ts-expect-error: the server emits it
server.on("news", () => {});
server.on("typing", (_conn, typing) => !typing);
// @ts-expect-error: it carries a boolean
server.on("typing", (_conn, typing: string) => typing);
server.on("whoami", (conn, data) => {
  const nothing: undefined = data;
  return conn.data.name + (nothing ?? "");
});
server.on("more", (_conn, limit) => {
  const count: number | undefined = limit;
  // @ts-expect-error: it may carry nothing
  const always: number = limit;
  return [String(count), String(always)];
});
server.on("forget", (_conn, id) => void id.length);
const off: () => void = server.on("typing", () => {});
off();
server.off("typing");
// @ts-expect-error: there is no such event
server.off("hallo");

// Handshakes

server.onUpgrade((request) => {
  const token: string | undefined = request.token;
  if (token === undefined) return new Reject(401, "who are you?", { headers: { "www-authenticate": "Bearer" } });
  if (request.headers.cookie === undefined) throw new Reject(403);
  if (request.query.get("old")) {
    return new Accept({ data: { name: token }, close: { code: 4000, reason: "update" }, protocol: "v2" });
  }
  return { name: request.incoming?.url ?? request.clientIp ?? token };
});
server.onUpgrade(async () => new Accept({ data: { name: "ann" }, headers: [["set-cookie", "a=b"]] }));
const bare = new Accept({ headers: new Map([["x-served-by", "a"]]) });
server.onUpgrade(() => bare);
server.onUpgrade(() => {});
// @ts-expect-error: no user
server.onUpgrade(() => ({ nome: "ann" }));
// @ts-expect-error: no user either
server.onUpgrade(() => 5);
// @ts-expect-error: nor in an Accept
server.onUpgrade(() => new Accept({ data: { nome: "ann" } }));
// @ts-expect-error: a close has a code
new Accept({ close: { reason: "x" } });

// Life of a connection

server.onConnect(async (conn) => {
  conn.join("lobby");
  conn.emit("news", { title: conn.request.path });
  conn.emit("bell");
  conn.emit("bell", undefined);
  // @ts-expect-error: it carries nothing
  conn.emit("bell", 1);
  // @ts-expect-error: it carries something
  conn.emit("news");
  // @ts-expect-error: it carries news
  conn.emit("news", { headline: "x" });
  // @ts-expect-error: clients emit it
  conn.emit("typing", true);
  const answer: number = await conn.emitWithAck("question", "6 * 7", { timeout: 1000, signal: conn.signal });
  // @ts-expect-error: a number
  const text: string = await conn.emitWithAck("question", "6 * 7");
  const later: Promise<number> = conn.emitWithAck("question", "6 * 7");
  // @ts-expect-error: in milliseconds
  conn.emitWithAck("question", "6 * 7", { timeout: "1 s" });
  // @ts-expect-error: options come after what it carries
  conn.emitWithAck("question", { timeout: 1000 });
  await conn.emitWithAck("bell", undefined, { timeout: 1000 });
  const reached: number = conn.to("lobby", "hall").except(conn, conn.id, "hall").emit("news", { title: "x" });
  conn.signal.addEventListener("abort", () => conn.leave("lobby"));
  const milliseconds: number = await conn.ping();
  await conn.drain();
  await conn.closed;
  conn.close(1000, "bye");
  // @ts-expect-error: it stays what it is
  conn.id = "x";
  return [answer, text, later, reached, milliseconds, conn.rooms, conn.isOpen];
});
server.onDisconnect((conn, end: Disconnect) => {
  const whole: [number, string, boolean, boolean] = [end.code, end.reason, end.clean, end.normal];
  return [conn.data, whole];
});
server.onError((conn, error) => {
  // @ts-expect-error: there may be none
  conn.id;
  if (error.code === "handler_failed") throw error.cause;
  // @ts-expect-error: there is no such code
  if (error.code === "handler_fell") return error.closeCode;
  const known: EtpError = error;
  return [conn?.id, known];
});
server.onUnknownEvent((conn, name, data) => [conn.id, name.length, data]);
server
  .use(async (conn, event, next) => {
    event.data = [conn.id, event.data];
    // @ts-expect-error: it stays what it is
    event.name = "other";
    return await next();
  })
  .use((_conn, _event, next) => next());

// Everybody

const many: number = server.emit("news", { title: "x" });
// @ts-expect-error: it carries news
server.emit("news", "x");
server.to("lobby").emit("bell");
server.except("lobby").emit("bell");
const conns: Conn<FromServer, User>[] = server.to("lobby").conns;
const one: Conn<FromServer, User> | undefined = server.conn("0123");
const names: string[] = server.members("lobby").map((conn) => conn.data.name);
// @ts-expect-error: connections are made by the server
new (conns[0] as any as typeof Conn)();

// Where it listens

async function serve(): Promise<unknown[]> {
  await using closing = server;
  await server.listen();
  await (await server.listen({ port: 0, host: "::1" })).shutdown();
  await server.listen({ path: "/run/chat.sock" });
  // @ts-expect-error: a port is a number
  await server.listen({ port: "8080" });
  server.attach(createServer()).attach(createTlsServer(), { path: "/chat" }).unref().ref();
  // @ts-expect-error: no server
  server.attach(8080);
  createServer().on("upgrade", (request, socket, head) => {
    const letIn: Promise<boolean> = server.handleUpgrade(request, socket, head);
    return letIn;
  });
  const address = server.address();
  const port = typeof address === "object" ? address?.port : address.length;
  await server.shutdown({ timeout: 1000 });
  const stats: Stats = server.stats();
  const ended: number | undefined = stats.closes["1000"];
  return [port, server.url?.length, stats.connections, ended, closing, many, one, names, server.rooms];
}
serve();

// Options

const options: ServerOptions = {
  codec: [(value) => JSON.stringify(value), (payload) => JSON.parse(payload.toString())],
  origins: ["https://example.org"],
  tls: { cert: "cert.pem", key: Buffer.from("") },
};
new Server(options);
// @ts-expect-error: there is no such codec
new Server({ codec: "yaml" });
// @ts-expect-error: null is for what can be turned off
new Server({ maxMessageSize: null });
// @ts-expect-error: there is no such option
new Server({ maxPayload: 5 });
// @ts-expect-error: keys come in pairs
new Server({ tls: { cert: "cert.pem" } });

// Without types of events everything goes

const open = new Server();
open.on("anything", (conn, data) => {
  conn.data.whatever = data.deep.inside;
  conn.emit("something");
  conn.emit("something", { else: 1 });
  return data;
});
open.emit("something", 1);

const error = new EtpError("ack_timeout", "no reply", { cause: 5 });
const code: "ack_timeout" | string = error.code;
// @ts-expect-error: there is no such code
new EtpError("timeout", "no reply");
export { code };
