// Exceptions and rejections in each callback: they reach `onError` with what was thrown as their cause, and nothing else happens.
// A test that leaves a rejection unhandled, or an exception uncaught, fails by that alone.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Client, Server } from "etp-ws";
import { connect } from "etp-ws/testing";
import { THROWN } from "./hostile.mjs";
import { run } from "./programs.mjs";

const WAYS = {
  throws: (value) => () => {
    throw value;
  },
  rejects: (value) => () => Promise.reject(value),
};

/** What `onError` is called with, one after the other. */
function errorsOf(owner) {
  const gathered = [];
  const waiting = [];
  owner.onError((...args) => {
    const error = args.at(-1);
    if (waiting.length > 0) waiting.shift()(error);
    else gathered.push(error);
  });
  return () => (gathered.length > 0 ? gathered.shift() : new Promise((resolve) => waiting.push(resolve)));
}

/** A server and a client of it, in memory. */
async function pair(t, { server: options, client: more, setup, prepare } = {}) {
  const server = new Server(options);
  t.after(() => server.shutdown({ timeout: 0 }));
  server.on("alive", () => "yes");
  prepare?.(server);
  const client = await connect(server, { codec: options?.codec, ...more, setup });
  t.after(() => client.close());
  return { server, client };
}

/** Awaits the error, and looks at it. */
async function isTold(next, code, value) {
  const error = await next();
  assert.equal(error.name, "EtpError");
  assert.equal(error.code, code);
  assert.ok(Object.is(error.cause, value), `${String(error)} has another cause`);
  assert.equal(typeof error.message, "string");
}

/** A test for each way and value; `body(f, value)` is given the function that fails. */
function each(title, body, ways = Object.keys(WAYS)) {
  for (const way of ways) {
    test(`${title} that ${way} reaches onError, whatever it is`, async (t) => {
      await body(t, async (attempt) => {
        for (const value of Object.values(THROWN)) await attempt(WAYS[way](value), value);
      });
    });
  }
}

describe("a server's callbacks", () => {
  each("a handler", async (t, all) => {
    const { server, client } = await pair(t);
    const next = errorsOf(server);
    await all(async (f, value) => {
      server.on("event", f);
      client.emit("event");
      await isTold(next, "handler_failed", value);
      assert.equal(await client.emitWithAck("alive"), "yes");
    });
  });

  each("middleware", async (t, all) => {
    const { server, client } = await pair(t);
    const next = errorsOf(server);
    let fails = null;
    server.use((conn, event, go) => (fails === null ? go() : fails()));
    await all(async (f, value) => {
      fails = f;
      client.emit("alive");
      await isTold(next, "handler_failed", value);
      fails = null;
      assert.equal(await client.emitWithAck("alive"), "yes");
    });
  });

  each("a handler behind middleware", async (t, all) => {
    const { server, client } = await pair(t);
    const next = errorsOf(server);
    server.use(async (conn, event, go) => await go());
    await all(async (f, value) => {
      server.on("event", f);
      client.emit("event");
      await isTold(next, "handler_failed", value);
    });
  });

  test("a handler that fails when its middleware has ended without waiting for it reaches onError", async (t) => {
    const { server, client } = await pair(t);
    const next = errorsOf(server);
    let impatient;
    let fail;
    server.use((conn, event, go) => impatient(go));
    server.on("later", () => new Promise((_, reject) => (fail = reject)));
    const failure = new Error("no");
    for (const one of [(go) => void go(), async (go) => void go()]) {
      impatient = one;
      assert.equal(await client.emitWithAck("later"), "");
      fail(failure);
      await isTold(next, "handler_failed", failure);
    }
  });

  each("onUnknownEvent", async (t, all) => {
    const { server, client } = await pair(t);
    const next = errorsOf(server);
    await all(async (f, value) => {
      server.onUnknownEvent(f);
      client.emit("nobody");
      await isTold(next, "handler_failed", value);
    });
  });

  each("onUpgrade", async (t, all) => {
    await all(async (f, value) => {
      // Of the failed handshakes of one server only so many are reported.
      const { server } = await pair(t);
      const next = errorsOf(server);
      server.onUpgrade(f);
      await assert.rejects(connect(server), { code: "handshake_failed", status: 500 });
      await isTold(next, "handshake_failed", value);
    });
  });

  each("onConnect", async (t, all) => {
    const { server } = await pair(t);
    const next = errorsOf(server);
    await all(async (f, value) => {
      server.onConnect(f);
      const ended = new Promise((resolve) => connect(server, { setup: (client) => client.onDisconnect(resolve) }));
      await isTold(next, "handler_failed", value);
      const { code, reason } = await ended;
      assert.deepEqual([code, reason], [1011, "on_connect failed"]);
    });
  });

  each("onDisconnect", async (t, all) => {
    const { server } = await pair(t);
    const next = errorsOf(server);
    await all(async (f, value) => {
      server.onDisconnect(f);
      await (await connect(server)).close();
      await isTold(next, "handler_failed", value);
    });
  });

  for (const side of ["encode", "decode"]) {
    each(
      `a codec's ${side}`,
      async (t, all) => {
        let fails = null;
        const codec = [
          (value) => (side === "encode" && fails !== null ? fails() : String(value)),
          (payload) => (side === "decode" && fails !== null ? fails() : String(payload)),
        ];
        const { server, client } = await pair(t, { server: { codec }, client: { codec: "text" } });
        const next = errorsOf(server);
        server.on("event", () => "reply");
        server.on("late", async () => "reply");
        await all(async (f, value) => {
          for (const name of ["event", "late"]) {
            fails = f;
            // A reply that nobody wants is not encoded.
            const gone = new AbortController();
            const reply = client.emitWithAck(name, "payload", { signal: gone.signal });
            await isTold(next, "invalid_payload", value);
            gone.abort();
            await assert.rejects(reply, { name: "AbortError" });
            fails = null;
            assert.equal(await client.emitWithAck(name, "payload"), "reply");
          }
        });
      },
      ["throws"],
    );
  }

  test("what a codec's encode throws, emit and emitWithAck throw with it as the cause", async (t) => {
    let fails = null;
    const codec = [(value) => (fails === null ? value : fails()), String];
    const { server, client } = await pair(t, { server: { codec } });
    const [conn] = server.conns;
    for (const value of Object.values(THROWN)) {
      fails = WAYS.throws(value);
      const told = (error) => error.code === "invalid_payload" && Object.is(error.cause, value);
      for (const emit of [conn, client, server, server.to("room")]) assert.throws(() => emit.emit("event", 1), told);
      for (const emit of [conn, client]) await assert.rejects(emit.emitWithAck("event", 1), told);
    }
  });

  for (const way of Object.keys(WAYS)) {
    test(`onError that ${way} is logged, with the error that it was told`, async (t) => {
      const logged = [];
      t.mock.method(console, "error", (...args) => logged.push(args));
      const { server, client } = await pair(t);
      server.on("event", () => {
        throw new Error("first");
      });
      for (const value of Object.values(THROWN)) {
        server.onError(WAYS[way](value));
        client.emit("event");
        assert.equal(await client.emitWithAck("alive"), "yes");
        while (logged.length < 2) await new Promise((resolve) => setImmediate(resolve));
        const [first, second] = logged.splice(0);
        assert.equal(first.at(-1).cause.message, "first");
        assert.ok(Object.is(second.at(-1), value));
      }
    });
  }

  test("without onError all of it is logged, and nothing that can't be shown ends the process", async (t) => {
    const written = [];
    t.mock.method(process.stderr, "write", (text) => written.push(text));
    const { server, client } = await pair(t);
    for (const value of Object.values(THROWN)) {
      server.on("event", WAYS.throws(value));
      client.emit("event");
      const before = written.length;
      assert.equal(await client.emitWithAck("alive"), "yes");
      while (written.length === before) await new Promise((resolve) => setImmediate(resolve));
      assert.match(written.at(-1), /^etp-ws, connection [0-9a-f]{32}: .*handler/);
    }
  });
});

describe("a client's callbacks", () => {
  for (const [name, set] of [
    ["a handler", (client, f) => client.on("event", f)],
    ["onUnknownEvent", (client, f) => client.onUnknownEvent(f)],
  ]) {
    each(name, async (t, all) => {
      const { server, client } = await pair(t);
      const next = errorsOf(client);
      await all(async (f, value) => {
        set(client, f);
        server.emit("event");
        await isTold(next, "handler_failed", value);
        assert.equal(await client.emitWithAck("alive"), "yes");
      });
    });
  }

  each("onConnect", async (t, all) => {
    const { server } = await pair(t);
    await all(async (f, value) => {
      let next;
      const setup = (client) => {
        next = errorsOf(client);
        client.onConnect(f);
      };
      await assert.rejects(connect(server, { setup }), { code: "connect_failed" });
      await isTold(next, "handler_failed", value);
    });
  });

  each("onDisconnect", async (t, all) => {
    const { server } = await pair(t);
    await all(async (f, value) => {
      const client = await connect(server);
      const next = errorsOf(client);
      client.onDisconnect(f);
      await client.close();
      await isTold(next, "handler_failed", value);
    });
  });

  for (const what of ["url", "auth"]) {
    each(`the function for ${what}`, async (t, all) => {
      await all(async (f, value) => {
        const client = what === "url" ? new Client(f) : new Client("ws://127.0.0.1:1/ws", { auth: f });
        const failed = await client.connect().catch((error) => error);
        assert.equal(failed.code, "connect_failed");
        assert.ok(Object.is(failed.cause, value));
        assert.equal(client.state, "closed");
      });
    });
  }

  each(
    "shouldReconnect",
    async (t, all) => {
      await all(async (f, value) => {
        const server = await new Server().listen();
        const client = new Client(server.url, { shouldReconnect: f });
        const next = errorsOf(client);
        const gone = new Promise((resolve) => client.onDisconnect(resolve));
        await client.connect();
        server.conns[0].close(1008, "no more");
        await isTold(next, "handler_failed", value);
        // The usual rule holds then.
        assert.equal((await gone).willReconnect, false);
        await server.shutdown();
      });
    },
    ["throws"],
  );
});

test("where the application has frozen Error, errors come as ever, and cost no event beside them its handler", async () => {
  const { said } = await run("frozen");
  assert.deepEqual(said, ["DONE"]);
});
