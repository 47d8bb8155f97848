// What peers and careless handlers must not be able to do to a server and to others' connections.

import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { once } from "node:events";
import { createServer } from "node:http";
import { describe, test } from "node:test";
import { MessageChannel } from "node:worker_threads";
import { Accept, Client, Server } from "etp-ws";
import { until } from "./internals.mjs";
import { peer } from "./peers.mjs";

const LIMIT = { timeout: 90_000 };
const block = (milliseconds) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);

async function begin(t, options) {
  const server = new Server(options);
  t.after(() => server.shutdown({ timeout: 0 }));
  return server.listen();
}

describe("strangers", LIMIT, () => {
  test("events that nobody handles count as handlers in flight, so that no more of them are read than are looked at", async (t) => {
    const server = await begin(t, { maxInflight: 8 });
    let told = 0;
    server.onError(() => {
      told += 1;
    });
    const one = await peer(server.url);
    const sent = 100_000;
    for (let number = 0; number < sent; number += 1) one.send("nobody||0||");
    await until(() => told > 0);
    // While the loop stands still the core reads on, but only as far as the limits of waiting events allow.
    block(300);
    assert.ok(server.stats().handlersInFlight <= 8);
    await until(() => told === sent);
  });

  test("connections that came while the loop was busy are known to the first handler that asks for them", async (t) => {
    const server = await begin(t, {});
    const seen = [];
    server.on("who", () => {
      seen.push(
        server.conns.map((conn) => conn.id.length),
        server.to().conns.length,
      );
      return `${server.conns.length}`;
    });
    const peers = [];
    for (let number = 0; number < 5; number += 1) peers.push(await peer(server.url));
    for (const one of peers) one.send("who||1||");
    block(200);
    for (const one of peers) assert.equal(await one.next(), "__ack_who||1||5");
    assert.deepEqual(seen[0], [32, 32, 32, 32, 32]);
  });

  test("onError is given the living connection, with its data, and may close it", async (t) => {
    const server = await begin(t, {});
    server.onUpgrade(() => ({ user: "ann" }));
    const told = new Promise((resolve) => {
      server.onError((conn, error) => {
        conn.close(1008, "no such event");
        resolve([conn.data.user, conn.request.path, error.code, server.conn(conn.id) === conn]);
      });
    });
    const one = await peer(server.url);
    one.send("nobody||0||");
    assert.deepEqual(await told, ["ann", "/ws", "no_handler", true]);
    assert.deepEqual(await one.ended, [1008, "no such event"]);
  });

  test("payloads of others survive that a handler gives its own away", async (t) => {
    const server = await begin(t, { codec: "bytes" });
    const { port1, port2 } = new MessageChannel();
    t.after(() => port1.close());
    const kept = [];
    server.on("keep", (conn, data) => void kept.push(data));
    server.on("give", (conn, data) => port2.postMessage(data, [data.buffer]));
    server.on("echo", (conn, data) => data);
    const one = await peer(server.url);
    for (const message of ["keep||0||mine", "give||0||yours", "echo||1||still here"]) one.send(message);
    assert.equal(await one.next(), "__ack_echo||1||still here");
    assert.equal(kept[0].toString(), "mine");
  });

  test("handlers that take long leave timers and immediates their turn", async (t) => {
    const server = await begin(t, {});
    let handled = 0;
    let turns = 0;
    const sent = 500;
    const over = new Promise((resolve) => {
      server.on("work", () => {
        const end = performance.now() + 1;
        while (performance.now() < end);
        handled += 1;
        if (handled === sent) resolve();
      });
    });
    const one = await peer(server.url);
    for (let number = 0; number < sent; number += 1) one.send("work||0||");
    await until(() => handled > 0);
    const count = () => {
      turns += 1;
      if (handled < sent) setImmediate(count);
    };
    setImmediate(count);
    await over;
    // Each turn has a few milliseconds of work; all of it in one turn would be one.
    assert.ok(turns >= 20, `${turns} turns of the loop`);
  });

  test("a connection that was let in only to be closed leaves nothing behind, and false keeps one out", async (t) => {
    const server = new Server();
    t.after(() => server.shutdown());
    const httpServer = createServer();
    server.attach(httpServer);
    httpServer.listen(0, "127.0.0.1");
    t.after(() => httpServer.close());
    await once(httpServer, "listening");
    const url = `ws://127.0.0.1:${httpServer.address().port}/ws`;
    server.onError(() => {});
    server.onUpgrade(() => new Accept({ close: { code: 4001, reason: "log in" } }));
    const one = await peer(url);
    assert.deepEqual(await one.ended, [4001, "log in"]);
    server.onUpgrade(() => false);
    await assert.rejects(new Client(url, { reconnect: false }).connect(), { code: "rejected", status: 403 });
    server.onUpgrade(() => true);
    const client = await new Client(url, { reconnect: false }).connect();
    assert.deepEqual(server.conns[0].data, {});
    await client.close();
  });

  test("whoever comes first does not lend the others its async context", async (t) => {
    const store = new AsyncLocalStorage();
    const server = new Server();
    t.after(() => server.shutdown());
    server.on("who", () => `${store.getStore()}`);
    const httpServer = createServer();
    httpServer.on("upgrade", (request, socket, head) => {
      store.run(request.url, () => server.handleUpgrade(request, socket, head));
    });
    httpServer.listen(0, "127.0.0.1");
    t.after(() => httpServer.close());
    await once(httpServer, "listening");
    for (const name of ["ann", "bob"]) {
      const one = await peer(`ws://127.0.0.1:${httpServer.address().port}/${name}`);
      assert.equal(await one.ask("who", ""), "undefined");
    }
  });

  test("a dial that is given up when it has just succeeded ends", async (t) => {
    const server = await begin(t, {});
    for (let time = 0; time < 20; time += 1) {
      const gone = new AbortController();
      const client = new Client(server.url);
      const connected = client.connect({ signal: gone.signal });
      block(20);
      gone.abort();
      await assert.rejects(connected, { name: "AbortError" });
      assert.equal(client.state, "closed");
    }
    await until(() => server.stats().connections === 0);
  });

  test("onDisconnect runs once for each onConnect that began, also when the shutdown's time was over before that had ended", async () => {
    for (const wait of [5, 30]) {
      const server = await new Server().listen();
      let begun = 0;
      let ended = 0;
      server.onConnect(async () => {
        begun += 1;
        await new Promise((resolve) => setTimeout(resolve, wait));
      });
      server.onDisconnect(() => {
        ended += 1;
      });
      server.onError(() => {});
      const clients = Array.from({ length: 20 }, () => new Client(server.url, { reconnect: false }));
      const dials = clients.map((client) => client.connect().catch(() => {}));
      await until(() => begun > 0);
      await server.shutdown({ timeout: 10 });
      await Promise.all(dials);
      await until(() => ended >= begun);
      assert.equal(ended, begun);
      await Promise.all(clients.map((client) => client.close()));
    }
  });
});
