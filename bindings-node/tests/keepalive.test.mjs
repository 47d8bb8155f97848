// Keepalive where the event loop is blocked: the core pings and answers by itself. What is blocked are programs of their
// own, of this same file.

import assert from "node:assert/strict";
import { readSync } from "node:fs";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client, Server } from "etp-ws";
import { WebSocketServer } from "ws";
import { peer } from "./peers.mjs";
import { Program } from "./programs.mjs";

/** How often is pinged, and how long a pong may take; and for how long the loop is blocked. */
const PING = { pingInterval: 1_000, pingTimeout: 1_000 };
const BLOCKED = 5_000;
const CONNECTIONS = 20;
const LIMIT = { timeout: 90_000 };

/** Blocks the event loop, asleep or at work. */
function block(how) {
  const end = performance.now() + BLOCKED;
  if (how === "asleep") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, BLOCKED);
  while (performance.now() < end);
}

/** Blocks the event loop until something comes to the standard input. */
function blockUntilTold() {
  for (;;) {
    try {
      readSync(0, Buffer.alloc(1));
      return;
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

// --- The programs ----------------------------------------------------------------------------------------------------

const programs = {
  /** A server whose handler blocks the loop. */
  async server(how) {
    const server = new Server(PING);
    server.on("ready", () => "yes");
    server.on("first", () => "first");
    server.on("emits", (conn) => conn.emit("emitted"));
    server.on("block", () => {
      console.log("BLOCKS");
      block(how);
      return "blocked";
    });
    server.on("hold", () => {
      console.log("HOLDS");
      blockUntilTold();
      return "held";
    });
    let left = 0;
    server.onDisconnect(() => {
      left += 1;
    });
    await server.listen();
    console.log("READY", server.url);
    process.stdin.once("data", async () => {
      process.stdin.destroy();
      console.log("COUNT", server.stats().connections, left, JSON.stringify(server.stats().closes));
      await server.shutdown();
    });
  },

  /** A server of `ws` with the heartbeat that its documentation shows. */
  async control(how) {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    let beats = 0;
    let lost = 0;
    server.on("connection", (ws) => {
      ws.isAlive = true;
      ws.on("error", console.error);
      ws.on("pong", () => {
        ws.isAlive = true;
      });
    });
    const interval = setInterval(() => {
      if (beats === 0 && server.clients.size < CONNECTIONS) return;
      beats += 1;
      for (const ws of server.clients) {
        if (!ws.isAlive) {
          ws.terminate();
          lost += 1;
          continue;
        }
        ws.isAlive = false;
        ws.ping();
      }
      if (beats > 1) return;
      setImmediate(() => {
        console.log("BLOCKS");
        block(how);
      });
    }, PING.pingInterval);
    server.on("listening", () => console.log("READY", `ws://127.0.0.1:${server.address().port}/`));
    process.stdin.once("data", () => {
      process.stdin.destroy();
      clearInterval(interval);
      console.log("LOST", lost);
      server.close();
    });
  },

  /** A client whose handler blocks the loop; its server is in the test. */
  async client(how, url) {
    const client = new Client(url, { ...PING, reconnect: false });
    client.on("block", () => {
      console.log("BLOCKS");
      block(how);
      return "blocked";
    });
    client.onDisconnect(({ code, reason }) => console.log("GONE", code, JSON.stringify(reason)));
    await client.connect();
    console.log("READY");
    process.stdin.once("data", async () => {
      process.stdin.destroy();
      await client.close();
    });
  },

  /** A client of `ws`, whose pongs are JavaScript's. */
  async "client control"(how, url) {
    const one = await peer(url);
    console.log("READY");
    assert.equal(await one.next(), "block||0||");
    block(how);
    console.log("GONE", (await one.ended)[0]);
  },
};

// --- The tests -------------------------------------------------------------------------------------------------------

/** A program of this file, which is gone at the test's end. */
function begin(t, ...args) {
  const program = new Program(
    `../${fileURLToPath(import.meta.url)
      .split("/")
      .at(-1)
      .replace(/\.mjs$/, "")}`,
    args,
  );
  t.after(() => program.kill());
  return program;
}

/** Connections to the program, each with its end where it ended. */
async function connections(url, options) {
  const peers = await Promise.all(Array.from({ length: CONNECTIONS }, () => peer(url, options)));
  const lost = [];
  for (const one of peers) one.ended.then(([code]) => lost.push(code));
  return { peers, lost };
}

function tests() {
  describe("while an event loop is blocked for longer than pings and pongs may take", {
    ...LIMIT,
    concurrency: 6,
  }, () => {
    for (const how of ["asleep", "at work"]) {
      test(`a server loses none of its connections (${how})`, async (t) => {
        const program = begin(t, "server", how);
        const { peers, lost } = await connections(await program.line("READY"));
        let pings = 0;
        for (const { ws } of peers) ws.on("ping", () => (pings += 1));
        peers[0].send("block||1||");
        await program.line("BLOCKS");
        assert.equal(await peers[0].next(), "__ack_block||1||blocked");
        // The core has pinged all of them meanwhile, and has had the pongs.
        assert.ok(pings >= 2 * CONNECTIONS, `${pings} pings`);
        for (const one of peers) assert.equal(await one.ask("ready"), "yes");
        assert.deepEqual(lost, []);
        program.tell();
        assert.equal(await program.line("COUNT"), `${CONNECTIONS} 0 {}`);
        await Promise.all(peers.map(({ ended }) => ended));
        await program.end();
      });
    }

    test("a control with ws and a heartbeat of timers loses its connections", async (t) => {
      const program = begin(t, "control", "asleep");
      // Pongs come while the loop is blocked, which is soon enough: whether one comes before is chance otherwise.
      const { peers, lost } = await connections(await program.line("READY"), { autoPong: false });
      const blocks = program.line("BLOCKS");
      for (const { ws } of peers) ws.on("ping", (data) => blocks.then(() => ws.pong(data)));
      await Promise.all(peers.map(({ ended }) => ended));
      assert.deepEqual(lost, new Array(CONNECTIONS).fill(1006));
      program.tell();
      assert.equal(await program.line("LOST"), String(CONNECTIONS));
      await program.end();
    });

    test("a client keeps its connection to a server that pings as often", async (t) => {
      const server = new Server(PING);
      t.after(() => server.shutdown({ timeout: 0 }));
      await server.listen();
      const program = begin(t, "client", "at work", server.url);
      await program.line("READY");
      const [conn] = server.conns;
      assert.equal(await conn.emitWithAck("block", "", { timeout: 60_000 }), "blocked");
      assert.ok(conn.isOpen);
      assert.deepEqual([server.stats().connects, { ...server.stats().closes }], [1, {}]);
      program.tell();
      await program.end();
      assert.deepEqual(program.said, ["READY", "BLOCKS", 'GONE 1000 ""']);
    });

    test("a control of ws, whose pongs are JavaScript's, loses it to the same server", async (t) => {
      const server = new Server(PING);
      t.after(() => server.shutdown({ timeout: 0 }));
      await server.listen();
      const program = begin(t, "client control", "at work", server.url);
      await program.line("READY");
      const [conn] = server.conns;
      conn.emit("block");
      await conn.closed;
      await program.end();
      assert.deepEqual({ ...server.stats().closes }, { "ping timeout": 1 });
    });

    test("what handlers answered and emitted before one that blocks is delivered meanwhile", async (t) => {
      const program = begin(t, "server");
      const one = await peer(await program.line("READY"));
      // One batch, as they come in one packet.
      one.ws._socket.cork();
      for (const frame of ["first||1||", "emits||0||", "hold||2||", "first||3||"]) one.send(frame);
      one.ws._socket.uncork();
      await program.line("HOLDS");
      for (const message of ["__ack_first||1||first", "emitted||0||"]) assert.equal(await one.next(), message);
      // The loop is blocked until now.
      program.tell();
      for (const message of ["__ack_hold||2||held", "__ack_first||3||first"]) assert.equal(await one.next(), message);
      program.tell();
      await one.ended;
      await program.end();
    });
  });
}

const [name, ...args] = process.argv.slice(2);
if (name === undefined) tests();
else await programs[name](...args);
