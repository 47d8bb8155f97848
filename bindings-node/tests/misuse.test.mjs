// Uses that can't be: each is an error that says why, and none ends the process or hurts others.

import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { test } from "node:test";
import { Client, EtpError, Server } from "etp-ws";
import { connect } from "etp-ws/testing";
import { ODD } from "./hostile.mjs";

async function pair(t, options) {
  const server = new Server(options);
  t.after(() => server.shutdown({ timeout: 0 }));
  server.on("alive", () => (options?.codec === "bytes" ? Buffer.from("yes") : "yes"));
  const client = await connect(server, { codec: options?.codec });
  t.after(() => client.close());
  return { server, client };
}

/** Fails unless an error is one that the package throws knowingly, or that JavaScript itself does. */
function isClear(error, what) {
  // Of the values' own traps, and the reasons of signals.
  if (error?.message === "a trap" || ["AbortError", "TimeoutError"].includes(error?.name)) return;
  const clear = error instanceof EtpError || error instanceof TypeError || error instanceof RangeError;
  assert.ok(clear, `${what} threw ${error?.constructor?.name}, ${error?.code}: ${error?.message}`);
  assert.notEqual(error.code, "internal_error", `${what} threw ${error.message}`);
}

/** Calls a function with odd values in each place, and in all at once. */
async function oddly(what, places, f) {
  for (const [name, value] of Object.entries(ODD)) {
    for (let place = 0; place <= places.length; place += 1) {
      const args = places.map((usual, at) => (at === place || place === places.length ? value : usual));
      try {
        // What it resolves with is looked at elsewhere; what never comes is not waited for.
        const outcome = f(...args);
        if (outcome instanceof Promise) outcome.catch((error) => isClear(error, `${what} with ${name} at ${place}`));
      } catch (error) {
        isClear(error, `${what} with ${name} at ${place}`);
      }
    }
  }
}

const f = () => {};

async function listened(options) {
  const server = new Server();
  await server.listen(options);
  await server.shutdown();
}

test("odd arguments of a server's methods are clear errors, or nothing", async (t) => {
  const { server, client } = await pair(t);
  client.onUnknownEvent(f);
  await oddly("on", ["name", f], (name, handler) => server.on(name, handler)());
  await oddly("off", ["name"], (name) => server.off(name));
  for (const on of ["onUpgrade", "onConnect", "onDisconnect", "onError", "onUnknownEvent"]) {
    await oddly(on, [f], (handler) => server[on](handler)());
  }
  await oddly("use", [1], (middleware) => typeof middleware === "function" || server.use(middleware));
  await oddly("attach", [{}, { path: "/" }], (to, options) => server.attach(to, options));
  await oddly("attach's path", ["/ws"], (path) => server.attach(new EventEmitter(), { path }));
  await oddly("handleUpgrade", [{}, {}, Buffer.alloc(0)], (...args) => server.handleUpgrade(...args));
  await oddly("listen's options", [{}], (options) => listened(options === undefined ? null : options));
  await oddly("listen's port", [0], (port) => listened({ port: port ?? "none" }));
  await oddly("listen's host", ["127.0.0.1"], (host) => listened({ host: host ?? 1 }));
  await oddly("listen's path", ["/nowhere/at/all"], (path) => listened({ path: path ?? 1 }));
  await oddly("shutdown", [{}], (options) => new Server().shutdown(options));
  await oddly("emit", ["name", "data"], (...args) => server.emit(...args));
  await oddly("to", ["room"], (room) => server.to(room).emit("name"));
  await oddly("to's members", ["room"], (room) => server.to(room).conns);
  await oddly("except", ["room"], (whom) => server.except(whom).emit("name"));
  await oddly("conn", ["id"], (id) => server.conn(id));
  for (const of of ["members", "memberCount", "clearRoom"]) await oddly(of, ["room"], (room) => server[of](room));
  assert.equal(await client.emitWithAck("alive"), "yes");
});

test("odd arguments of a connection's methods are clear errors, or nothing", async (t) => {
  const { server, client } = await pair(t);
  client.onUnknownEvent(f);
  const [conn] = server.conns;
  await oddly("emit", ["name", "data"], (...args) => conn.emit(...args));
  await oddly("emitWithAck", ["name", "data", { timeout: 50 }], (...args) => conn.emitWithAck(...args));
  await oddly("emitWithAck's timeout", [50], (timeout) => conn.emitWithAck("name", "", { timeout }));
  await oddly("emitWithAck's signal", [AbortSignal.timeout(1)], (signal) => conn.emitWithAck("name", "", { signal }));
  for (const of of ["join", "leave", "to"]) await oddly(of, ["room"], (room) => conn[of](room));
  assert.equal(await client.emitWithAck("alive"), "yes");
  await oddly("close", [99_999, ""], (...args) => conn.close(...args));
});

test("odd arguments of a client's methods are clear errors, or nothing", async (t) => {
  const { server, client } = await pair(t);
  server.onUnknownEvent(f);
  for (const on of ["on", "once"]) await oddly(on, ["name", f], (...args) => client[on](...args)());
  await oddly("off", ["name"], (name) => client.off(name));
  for (const on of ["onConnect", "onDisconnect", "onError", "onUnknownEvent"]) {
    await oddly(on, [f], (handler) => client[on](handler)());
  }
  await oddly("events", ["name", { buffer: 1 }], (...args) => client.events(...args).return());
  await oddly("events' buffer", [1], (buffer) => client.events({ buffer }).return());
  await oddly("emit", ["name", "data"], (...args) => client.emit(...args));
  await oddly("emitWithAck", ["name", "data", { timeout: 50 }], (...args) => client.emitWithAck(...args));
  await oddly("Client", ["ws://127.0.0.1:1/ws", {}], (...args) => new Client(...args));
  await oddly("connect", [{}], (options) => new Client("ws://127.0.0.1:1/ws").connect(options));
  await oddly("a URL", ["ws://127.0.0.1:1/ws"], (url) => new Client(url, { reconnect: false }).connect());
  await oddly("an asked URL", [""], (url) => new Client(() => url, { reconnect: false }).connect());
  await oddly("connect in memory", [server, {}], (...args) => connect(...args));
  await oddly("a path", ["/"], (path) => connect(server, { path }));
  await oddly("headers", [{}], (headers) => connect(server, { headers }));
  await oddly("a header", ["value"], (value) => connect(server, { headers: { name: value } }));
  assert.equal(await client.emitWithAck("alive"), "yes");
  await oddly("close", [99_999, ""], (...args) => client.close(...args));
});

test("odd replies are sent, or told to onError", async (t) => {
  for (const codec of ["text", "json", "bytes", [String, String]]) {
    const { server, client } = await pair(t, { codec });
    const codes = new Set();
    server.onError((conn, error) => {
      isClear(error, "a reply");
      codes.add(error.code);
    });
    for (const value of Object.values(ODD)) {
      server.on("sync", () => value);
      server.on("async", async () => value);
      const asked = ["sync", "async"].map((name) => client.emitWithAck(name, undefined, { timeout: 1 }));
      await Promise.allSettled(asked);
      assert.equal(String(await client.emitWithAck("alive")), "yes");
    }
    for (const code of codes)
      assert.ok(["handler_failed", "invalid_payload", "message_too_large"].includes(code), code);
  }
});

test("promises of others' making have one outcome", async (t) => {
  const { server, client } = await pair(t);
  const failed = [];
  server.onError((conn, { code }) => failed.push(code));
  const both =
    (...values) =>
    (done) => {
      for (const value of values) done(value);
    };
  /* biome-ignore-start lint/suspicious/noThenProperty: that is what it is about */
  const made = {
    twice: { then: both("one", "two") },
    "then fails": {
      then(done, fail) {
        done("one");
        fail(new Error("two"));
      },
    },
    "then throws": {
      then: (done) => {
        done("one");
        throw new Error("two");
      },
    },
    "as a promise": { constructor: Promise, then: both("one", "two") },
    overridden: Object.assign(Promise.resolve("one"), { then: both("two", "three") }),
    late: { then: (done) => setImmediate(done, "one") },
    inner: { then: (done) => done(Promise.resolve("one")) },
  };
  const failing = {
    throws: {
      then() {
        throw new Error("boom");
      },
    },
    getter: {
      get then() {
        throw new Error("boom");
      },
    },
    "no promise": Object.create(Promise.prototype),
    "a Proxy": new Proxy(Promise.resolve("one"), {}),
  };
  /* biome-ignore-end lint/suspicious/noThenProperty: until here */
  for (const [name, value] of Object.entries(made)) {
    server.on("event", () => value);
    assert.equal(await client.emitWithAck("event"), "one", name);
    assert.equal(await client.emitWithAck("alive"), "yes", name);
  }
  assert.deepEqual(failed, []);
  for (const [name, value] of Object.entries(failing)) {
    server.on("event", () => value);
    client.emit("event");
    assert.equal(await client.emitWithAck("alive"), "yes");
    assert.deepEqual(failed.splice(0), ["handler_failed"], name);
  }
  // One that never comes holds up nothing but itself.
  server.on("event", () => new Promise(f));
  await assert.rejects(client.emitWithAck("event", "", { timeout: 1 }), { code: "ack_timeout" });
  assert.equal(await client.emitWithAck("alive"), "yes");
});
