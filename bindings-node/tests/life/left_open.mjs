// A server with connections open whose program ends, in each of the ways that a program can.

import { createInterface } from "node:readline";
import { Server } from "etp-ws";

const [how] = process.argv.slice(2);
const server = new Server();
const exit = () => process.exit(3);
const soon = () => new Promise((resolve) => setImmediate(resolve));

server.on("ready", () => "yes");
server.on("stuck", () => new Promise(() => {}));
server.on("sync", exit);
server.on("async", async () => exit());
server.on("late", async () => {
  await soon();
  exit();
});
server.on("throws", () => {
  throw new Error("for onError");
});
if (how === "middleware") server.use(exit);
if (how === "onUnknownEvent") server.onUnknownEvent(exit);
if (how === "onError") server.onError(exit);
if (how === "onError late") server.onError(() => soon().then(exit));
if (how === "onDisconnect") server.onDisconnect(exit);
// These with the second connection, so that the first can tell how it ended.
let seen = 0;
if (how === "onUpgrade") server.onUpgrade(() => (++seen > 1 ? exit() : undefined));
if (how === "onConnect") server.onConnect(() => (++seen > 1 ? exit() : undefined));
if (how === "onConnect late") server.onConnect(() => (++seen > 1 ? soon().then(exit) : undefined));
server.on("watch", (conn) => void conn.signal.addEventListener("abort", exit));

await server.listen();
console.log("READY", server.url);

createInterface({ input: process.stdin }).once("line", function () {
  this.close();
  process.stdin.destroy();
  if (how === "unref") server.unref();
  if (how === "exit" || how === "stuck") exit();
  if (how === "exit at exit") {
    // Nobody is reached any more, and it is no error.
    process.once("exit", () => console.log("REACHED", server.emit("last", "words")));
    server.unref();
  }
  if (how === "throw") throw new Error("elsewhere");
  if (how === "reject") Promise.reject(new Error("elsewhere"));
  if (how === "flush") {
    // What was written in the same turn still goes out.
    server.emit("last", "words");
    exit();
  }
  if (how === "shutting down") {
    server.shutdown();
    exit();
  }
  if (how === "still shutting down") {
    server.shutdown();
    setImmediate(() => setImmediate(exit));
  }
  if (how === "shut down") server.shutdown().then(() => exit());
  if (how === "survives") {
    process.on("uncaughtException", () => {
      console.log("CAUGHT");
      server.shutdown();
    });
    throw new Error("elsewhere");
  }
});
