// What has ended leaves nothing behind: does its work, lets the collector run, and says what is left.
// Begun with --expose-gc.

import { getEventListeners, setMaxListeners } from "node:events";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Accept, Server } from "etp-ws";
import { connect } from "etp-ws/testing";
import { descriptors, live, threads, until } from "../internals.mjs";

const [how, ...pem] = process.argv.slice(2);

/** What is resident when the collector has run, more than once: in between Node closes sockets and runs finalizers. */
async function resident() {
  let least = Infinity;
  for (let time = 0; time < 10; time += 1) {
    for (let turn = 0; turn < 4; turn += 1) await sleep(2);
    globalThis.gc();
    least = Math.min(least, process.memoryUsage.rss());
  }
  return least;
}

/** Says what there is once nothing is at work but `sites` servers. */
async function measure(sites) {
  const settled = () => {
    const { sites: now = 0, ...rest } = live();
    return now === sites && Object.keys(rest).length === 0;
  };
  await until(settled);
  const rss = await resident();
  await until(settled);
  console.log("LEFT", JSON.stringify({ rss, descriptors: descriptors(), threads: threads() }));
}

/** A server that peers come to and leave; measures at each line that it is told. */
async function connections() {
  const server = new Server();
  const http =
    how === "http"
      ? createServer()
      : how === "https"
        ? createTlsServer({ cert: pem[0], key: pem[1], ticketKeys: Buffer.alloc(48) })
        : undefined;
  server.onUpgrade((request) => new Accept({ data: { path: request.path }, headers: { "x-one": "two" } }));
  server.onConnect((conn) => {
    conn.data.self = conn;
    conn.join("all");
  });
  server.onDisconnect((conn) => conn.rooms);
  server.on("echo", async (conn, data) => {
    conn.signal.addEventListener("abort", () => {});
    conn.emitWithAck("never", "").catch(() => {});
    return data;
  });
  let port;
  if (http === undefined) {
    await server.listen();
    ({ port } = server.address());
  } else {
    server.attach(http);
    await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
    ({ port } = http.address());
  }
  console.log("READY", port);
  for await (const _ of createInterface({ input: process.stdin })) await measure(1);
  const { connects, closes } = server.stats();
  console.log("STATS", JSON.stringify({ connects, closes }));
  http?.close();
  await server.shutdown();
}

/** Acknowledgments that come, do not come, and are given up. */
async function acks() {
  const server = new Server();
  const client = await connect(server, { maxPendingAcks: 65_536 });
  client.on("echo", (data) => data);
  client.onError(() => {}); // nobody handles "nobody"
  const [conn] = server.conns;
  const { signal } = new AbortController();
  setMaxListeners(0, signal);
  const reasons = (promise) =>
    promise.then(
      () => "came",
      (error) => (error.name === "EtpError" ? error.code : error.name),
    );
  const counts = {};
  const round = async () => {
    const waiting = [];
    for (let time = 0; time < 250; time += 1) {
      const gone = new AbortController();
      waiting.push(
        conn.emitWithAck("echo", "x", { signal }),
        conn.emitWithAck("nobody", "x", { signal, timeout: 1 }),
        conn.emitWithAck("nobody", "x", { signal: gone.signal }),
        conn.emitWithAck("echo", "x", { signal: gone.signal }),
      );
      if (time % 2 === 0) gone.abort();
      else setImmediate(() => gone.abort());
    }
    for (const reason of await Promise.all(waiting.map(reasons))) counts[reason] = (counts[reason] ?? 0) + 1;
  };
  for (const rounds of [100, 100]) {
    for (let time = 1; time <= rounds; time += 1) {
      await round();
      if (time % 10 === 0) globalThis.gc();
    }
    // The connection in memory and its two ends are at work.
    console.log("LISTENERS", getEventListeners(signal, "abort").length, server.stats().acksPending, live().calls ?? 0);
    console.log("RSS", await resident());
  }
  console.log("COUNTS", JSON.stringify(counts));
  await client.close();
  await measure(1);
  await server.shutdown();
  await measure(0);
}

/** Servers and clients that begin and end, and iterators over events. */
async function servers() {
  for (const rounds of [1000, 500]) {
    for (let time = 0; time < rounds; time += 1) {
      const server = new Server();
      server.on("echo", (conn, data) => data);
      await server.listen();
      const client = await connect(server);
      const events = client.events("news");
      const all = client.events();
      server.emit("news", "x");
      await events.next();
      await all.return();
      if ((await client.emitWithAck("echo", "x")) !== "x") throw new Error("another reply");
      await client.close();
      await server.shutdown();
      await until(() => threads() === 0);
      if (time % 50 === 0) globalThis.gc();
    }
    await measure(0);
  }
}

/** Clients that come and go while their server stays. */
async function clients() {
  const server = await new Server().listen();
  for (const rounds of [6000, 6000]) {
    for (let time = 1; time <= rounds; time += 1) {
      await (await connect(server)).close();
      if (time % 500 === 0) globalThis.gc();
    }
    await measure(1);
  }
  await server.shutdown();
}

// Whoever prints for the first time opens something.
console.log("BEGIN");
if (how === "acks") await acks();
else if (how === "servers") await servers();
else if (how === "clients") await clients();
else await connections();
