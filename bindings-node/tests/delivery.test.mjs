// What is delivered, in which order, and how waiting for it ends; beside that what handlers see: rooms, signals, context.

import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { getEventListeners } from "node:events";
import { describe, test } from "node:test";
import { Worker } from "node:worker_threads";
import { Client, Server } from "etp-ws";
import { connect } from "etp-ws/testing";
import { peer } from "./peers.mjs";

/** A whole test may take so long before it hangs. */
const LIMIT = { timeout: 90_000 };

/** A server on a port, with handlers that `prepare` sets. */
async function begin(t, options, prepare) {
  const server = new Server(options);
  t.after(() => server.shutdown({ timeout: 0 }));
  prepare?.(server);
  return server.listen();
}

/** A server, a client of it over a socket, and the connection of the two. */
async function pair(t, { client: more, setup, prepare, ...options } = {}) {
  const server = await begin(t, options, prepare);
  const client = new Client(server.url, { codec: options.codec, reconnect: false, ...more });
  t.after(() => client.close());
  setup?.(client);
  await client.connect();
  return { server, client, conn: server.conns[0] };
}

/** What a callback is called with, one after the other: `next()` is awaited. */
function gather() {
  const gathered = [];
  const waiting = [];
  const take = (...args) => {
    if (waiting.length > 0) waiting.shift()(args);
    else gathered.push(args);
  };
  const next = () => (gathered.length > 0 ? gathered.shift() : new Promise((resolve) => waiting.push(resolve)));
  return { take, next, gathered };
}

const soon = () => new Promise((resolve) => setImmediate(resolve));

/** Bytes that tell where they belong. */
function pattern(size, seed) {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += 1) bytes[at] = (seed * 31 + at * 7 + (at >> 8)) & 0xff;
  return bytes;
}

/** Waits without letting the loop on until the server has read so many events. */
function blockUntilRead(server, count) {
  const still = new Int32Array(new SharedArrayBuffer(4));
  for (let left = 60_000; server.stats().eventsIn < count; left -= 1) {
    assert.ok(left > 0, `${server.stats().eventsIn} of ${count} events were read`);
    Atomics.wait(still, 0, 0, 1);
  }
}

describe("order", LIMIT, () => {
  test("replies, emits and broadcasts of one connection go out in the order in which handlers made them", async (t) => {
    const sizes = [0, 1, 100, 5_000, 70_000];
    for (const codec of ["text", "bytes"]) {
      const server = await begin(t, { codec }, (server) => {
        const value = (data) => (codec === "bytes" ? Buffer.from(data.toString()) : data);
        server.on("reply", (conn, data) => value(data));
        server.on("tell", (conn, data) => conn.emit("told", value(data)));
        server.on("shout", (conn, data) => void server.emit("told", value(data)));
        server.on("both", (conn, data) => {
          conn.emit("told", value(data));
          return value(data);
        });
      });
      const one = await peer(server.url);
      const expected = [];
      for (let number = 1; number <= 1_000; number += 1) {
        const name = ["reply", "tell", "both", "shout", "reply"][number % 5];
        const data = `${number}${"x".repeat(sizes[number % 7] ?? 10)}`;
        const acked = name === "reply" || name === "both";
        one.send(`${name}||${acked ? number : 0}||${data}`);
        if (name !== "reply") expected.push(`told||0||${data}`);
        if (acked) expected.push(`__ack_${name}||${number}||${data}`);
      }
      for (const message of expected) assert.equal(await one.next(), message);
      await one.close();
    }
  });

  test("the last words before close arrive, replies among them", async (t) => {
    const server = await begin(t, {}, (server) => {
      server.on("reply", () => "one");
      server.on("end", (conn) => {
        conn.emit("two");
        conn.close(4001, "enough");
      });
    });
    const one = await peer(server.url);
    one.send("reply||1||");
    one.send("end||0||");
    assert.deepEqual(await one.ended, [4001, "enough"]);
    assert.equal(await one.next(), "__ack_reply||1||one");
    assert.equal(await one.next(), "two||0||");
  });

  test("handlers start in the order of arrival, with or without acknowledgment or handler", async (t) => {
    const { take, next } = gather();
    const { client } = await pair(t, {
      prepare(server) {
        server.on("sync", (conn, data) => take(data));
        server.on("async", async (conn, data) => take(data));
        server.onUnknownEvent((conn, name, data) => take(data));
      },
    });
    for (let number = 0; number < 3_000; number += 1) {
      const name = ["sync", "async", "nobody"][number % 3];
      if (number % 2 === 0) client.emit(name, String(number));
      else client.emitWithAck(name, String(number)).catch(() => {});
    }
    for (let number = 0; number < 3_000; number += 1) assert.deepEqual(await next(), [String(number)]);
  });
});

describe("batches", LIMIT, () => {
  test("20 000 events that waited for a blocked loop arrive in order, and timers and immediates go on meanwhile", async (t) => {
    const count = 20_000;
    const got = [];
    const { server, client, conn } = await pair(t, {
      maxInflight: 2 * count,
      prepare: (server) => server.on("event", (conn, data) => got.push(data) && data),
    });
    const echoed = [];
    client.on("event", (data) => void echoed.push(data));
    for (let number = 0; number < count; number += 1) client.emit("event", String(number));
    await new Promise((resolve) => process.nextTick(resolve));
    blockUntilRead(server, count);
    assert.ok(got.length < count);
    let turns = 0;
    while (got.length < count) {
      await soon();
      turns += 1;
    }
    // A batch is of 4096 events at most, and the loop goes on after each.
    assert.ok(turns >= Math.floor(count / 4096), `${turns} turns`);
    assert.deepEqual(
      got,
      Array.from({ length: count }, (_, number) => String(number)),
    );
    for (let number = 0; number < count; number += 1) conn.emit("event", String(number));
    conn.emit("last");
    await new Promise((resolve) => client.on("last", resolve));
    assert.deepEqual(echoed, got);
  });

  for (const codec of ["text", "bytes"]) {
    test(`a batch larger than 64 KiB arrives whole, and so do its replies (${codec})`, async (t) => {
      const { server, client } = await pair(t, { codec, prepare: (server) => server.on("echo", (conn, data) => data) });
      const sent = Array.from({ length: 30 }, (_, number) => {
        const bytes = pattern(1_000 + number * 4_003, number);
        return codec === "bytes" ? bytes : bytes.toString("latin1");
      });
      const replies = sent.map((data) => client.emitWithAck("echo", data));
      await new Promise((resolve) => process.nextTick(resolve));
      blockUntilRead(server, sent.length);
      assert.deepEqual(await Promise.all(replies), sent);
    });
  }

  test("a flood that never ends leaves room for timers and immediates", async (t) => {
    for (const [codec, size] of [
      ["text", 10],
      ["bytes", 10],
      ["bytes", 4_000],
    ]) {
      let events = 0;
      const count = () => {
        events += 1;
      };
      const server = await begin(t, { codec }, (server) => server.on("flood", count));
      const flood = `
        import { Client } from ${JSON.stringify(import.meta.resolve("etp-ws"))};
        const client = await new Client(${JSON.stringify(server.url)}, { maxOutbox: 1 << 20, reconnect: false }).connect();
        const data = "x".repeat(${size});
        for (;;) {
          try {
            client.emit("flood", data);
          } catch (error) {
            if (error.code !== "outbox_full") process.exit();
            await client.drain();
          }
        }`;
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(flood)}`));
      try {
        while (events < 1_000) await soon();
        const enough = events + 5_000;
        for (let tick = 0; tick < 50 || events < enough; tick += 1) {
          await new Promise((resolve) => setTimeout(resolve, 1));
          await soon();
        }
      } finally {
        await worker.terminate();
      }
    }
  });
});

describe("payloads", LIMIT, () => {
  test("every size around the borders of chunks comes and goes intact as bytes", async (t) => {
    const { client } = await pair(t, {
      codec: "bytes",
      maxInflight: 1_000,
      prepare: (server) => server.on("echo", (conn, data) => data),
    });
    const sizes = [0, 1, 4095, 4096, 4097, 8192, 12_288, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1_000_000];
    const sent = Array.from({ length: 400 }, (_, number) => pattern(sizes[(number * number) % sizes.length], number));
    for (const border of [4096, 16_384])
      for (let off = -9; off < 9; off += 1) sent.push(pattern(border + off, off + 9));
    // All of one size at once, and in all mixtures.
    sent.push(
      ...sizes.slice(0, -1).flatMap((size) => Array.from({ length: 12 }, (_, number) => pattern(size, number))),
    );
    for (let at = 0; at < sent.length; at += 50) {
      const some = sent.slice(at, at + 50);
      const replies = await Promise.all(some.map((data) => client.emitWithAck("echo", data)));
      for (const [index, reply] of replies.entries()) {
        assert.ok(Buffer.isBuffer(reply));
        assert.ok(reply.equals(some[index]), `${some[index].length} bytes`);
      }
    }
  });

  test("Buffers that are kept are never written to again", async (t) => {
    const keptHere = [];
    const keptThere = [];
    const { client } = await pair(t, {
      codec: "bytes",
      prepare: (server) => server.on("keep", (conn, data) => keptThere.push(data) && data),
    });
    const count = 10_000;
    const sent = Array.from({ length: count }, (_, number) => pattern((number * 37) % 5_000, number));
    for (let at = 0; at < count; at += 200) {
      const some = sent.slice(at, at + 200);
      keptHere.push(...(await Promise.all(some.map((data) => client.emitWithAck("keep", data)))));
    }
    assert.equal(keptThere.length, count);
    for (let number = 0; number < count; number += 1) {
      assert.ok(keptThere[number].equals(sent[number]), `event ${number}`);
      assert.ok(keptHere[number].equals(sent[number]), `reply ${number}`);
    }
  });

  const texts = {
    "an emoji": "👋🏽 hi 👩‍👩‍👧",
    "U+FFFD itself": "a\uFFFDb",
    NUL: "a\0b\0",
    "one-byte letters beyond ASCII": "äöü ÿ",
    "a byte order mark": "\uFEFFa\uFEFF",
    bars: "||0||a||",
    "line ends": "\r\n\u2028\u2029",
    "a million letters": "x".repeat(1024 * 1024 - 300),
    "a quarter of a million emoji": "👋".repeat(256 * 1024 - 100),
  };
  test("all text comes and goes as it was, on its own and among others", async (t) => {
    const { server, client } = await pair(t, {
      prepare(server) {
        server.on("echo", (conn, data) => data);
        server.on("later", async (conn, data) => data);
        server.on("emit", (conn, data) => conn.emit("text", data));
      },
    });
    const { take, next } = gather();
    client.on("text", take);
    const one = await peer(server.url);
    for (const [what, text] of Object.entries(texts)) {
      const asked = [
        client.emitWithAck("echo", text),
        client.emitWithAck("later", text),
        client.emitWithAck("echo", "é"),
      ];
      assert.deepEqual(await Promise.all(asked), [text, text, "é"], what);
      client.emit("emit", text);
      assert.deepEqual(await next(), [text], what);
      assert.equal(await one.ask("echo", text), text, what);
    }
  });

  test("half of a surrogate pair is refused where it is emitted, and nothing is sent", async (t) => {
    const { server, client, conn } = await pair(t, { prepare: (server) => server.on("alive", (conn, data) => data) });
    const { take, next } = gather();
    client.onUnknownEvent((name, data) => take(name, data));
    for (const half of ["\uD83D", "\uDC4B", "a\uD83Db", "\uDC4B\uD83D", `${"x".repeat(100_000)}\uD83D`]) {
      for (const emitter of [client, conn, server, server.to("room"), server.except("room")]) {
        assert.throws(() => emitter.emit("half", half), { name: "EtpError", code: "invalid_payload" });
      }
      for (const asker of [client, conn]) {
        await assert.rejects(asker.emitWithAck("half", half), { code: "invalid_payload" });
      }
    }
    conn.emit("whole", "👋");
    assert.deepEqual(await next(), ["whole", "👋"]);
    assert.equal(await client.emitWithAck("alive", "👋"), "👋");
  });

  test("a handler's reply with half of a surrogate pair goes to onError, alone", async (t) => {
    const { take, next } = gather();
    const server = await begin(t, {}, (server) => {
      server.on("first", () => "👋\uD83D");
      server.on("second", () => "\uDC4B👋");
      server.on("later", async () => "\uD83D");
      server.on("fine", () => "👋");
      server.onError((conn, error) => take(conn, error));
    });
    const one = await peer(server.url);
    // Side by side the halves would be a pair.
    for (const frame of ["fine||1", "first||2||", "second||3||", "fine||4", "later||5||", "first||6||", "fine||7"]) {
      one.send(frame);
    }
    for (const id of [1, 4, 7]) assert.equal(await one.next(), `__ack_fine||${id}||👋`);
    for (let time = 0; time < 4; time += 1) {
      const [conn, error] = await next();
      assert.equal(conn, server.conns[0]);
      assert.equal(error.code, "invalid_payload");
    }
    assert.equal(await one.ask("fine"), "👋");
  });
});

describe("codecs", LIMIT, () => {
  const hex = [(value) => Buffer.from(value.toString(16)), (payload) => Number.parseInt(payload.toString(), 16)];
  const codecs = [
    ["text", "text", ["words", "0"], ""],
    ["json", "json", [{ a: [1, "👋", null] }, null, 0, "", false, "\uD83D"], undefined],
    ["bytes", "bytes", [Buffer.from([0, 255, 128]), Buffer.from("words")], Buffer.alloc(0)],
    ["a pair of functions", hex, [255, 0], undefined],
    [
      "a pair whose first gives a string",
      [(value) => `=${value}`, (payload) => payload.toString().slice(1)],
      ["👋"],
      undefined,
    ],
  ];
  for (const [title, codec, values, empty] of codecs) {
    test(`${title} makes of payloads what went in, both ways, and the empty payload stays one`, async (t) => {
      const { take, next } = gather();
      const { server, client, conn } = await pair(t, {
        codec,
        prepare(server) {
          server.on("echo", (conn, data) => data);
          server.on("late", async (conn, data) => data);
          server.on("nothing", (conn, data) => take(data));
        },
        setup(client) {
          client.on("echo", (data) => data);
          client.on("event", take);
        },
      });
      for (const value of [...values, undefined]) {
        const arrives = value === undefined ? empty : value;
        for (const asked of [client.emitWithAck("echo", value), client.emitWithAck("late", value)]) {
          assert.deepEqual(await asked, arrives);
        }
        assert.deepEqual(await conn.emitWithAck("echo", value), arrives);
        for (const emitter of [conn, server, server.except("nobody")]) {
          emitter.emit("event", value);
          assert.deepEqual(await next(), [arrives]);
        }
      }
      assert.deepEqual(await client.emitWithAck("nothing"), empty);
      assert.deepEqual(await next(), [empty]);
    });
  }

  test("bytes takes every view of bytes, and sends what it shows alone", async (t) => {
    const { client } = await pair(t, { codec: "bytes", prepare: (server) => server.on("echo", (conn, data) => data) });
    const all = Uint8Array.from({ length: 16 }, (_, number) => number);
    for (const view of [all.subarray(4, 8), new DataView(all.buffer, 4, 4), new Uint16Array(all.buffer, 4, 2)]) {
      assert.deepEqual([...(await client.emitWithAck("echo", view))], [4, 5, 6, 7]);
    }
    assert.deepEqual([...(await client.emitWithAck("echo", all.buffer))], [...all]);
  });

  test("JSON's null is a payload, undefined is the empty one", async (t) => {
    const server = await begin(t, { codec: "json" }, (server) => {
      server.on("null", () => null);
      server.on("nothing", () => undefined);
      server.on("tell", (conn) => {
        conn.emit("event", null);
        conn.emit("event");
      });
      server.on("kind", (conn, data) => String(data));
    });
    const one = await peer(server.url);
    one.send("null||1||");
    assert.equal(await one.next(), "__ack_null||1||null");
    one.send("nothing||2||");
    assert.equal(await one.next(), "__ack_nothing||2");
    one.send("tell||0||");
    assert.equal(await one.next(), "event||0||null");
    assert.equal(await one.next(), "event||0||");
    assert.equal(await one.ask("kind", "null"), '"null"');
    assert.equal(await one.ask("kind"), '"undefined"');
  });
});

describe("waiting", LIMIT, () => {
  /** Both ends of a connection, each with handlers that never answer, and what those have seen. */
  async function ends(t, options = {}) {
    const { take, next } = gather();
    let answer;
    const handlers = {
      never: (data) => {
        take(data);
        return new Promise((resolve) => {
          answer = resolve;
        });
      },
      alive: () => "yes",
    };
    const { ackTimeout } = options;
    const { server, client, conn } = await pair(t, {
      ...options,
      client: { ackTimeout },
      prepare(server) {
        for (const [name, f] of Object.entries(handlers)) server.on(name, (conn, data) => f(data));
      },
      setup(client) {
        for (const [name, f] of Object.entries(handlers)) client.on(name, f);
      },
    });
    return { server, client, conn, next, answer: (value) => answer(value) };
  }

  for (const side of ["client", "conn"]) {
    test(`an AbortSignal ends emitWithAck at once, with its reason (${side})`, async (t) => {
      const all = await ends(t);
      const asker = all[side];
      const stats = () => (side === "client" ? all.client : all.server).stats();
      const reasons = [new Error("enough"), "enough", null, 0];
      for (const reason of reasons) {
        const signal = AbortSignal.abort(reason);
        const early = await asker.emitWithAck("never", "early", { signal }).then(
          () => "a reply",
          (error) => [error],
        );
        assert.deepEqual(early, [reason]);

        const given = new AbortController();
        const asked = asker.emitWithAck("never", "later", { signal: given.signal });
        // The event whose signal was aborted already was not sent.
        assert.deepEqual(await all.next(), ["later"]);
        assert.equal(stats().acksPending, 1);
        let outcome;
        asked.catch((error) => {
          outcome = [error];
        });
        given.abort(reason);
        await Promise.resolve();
        assert.deepEqual(outcome, [reason]);
        // Nobody waits for the reply that comes after all.
        all.answer("late");
        assert.equal(await asker.emitWithAck("alive"), "yes");
        assert.equal(stats().acksPending, 0);
      }
      await assert.rejects(asker.emitWithAck("never", "", { signal: AbortSignal.abort() }), { name: "AbortError" });
      await assert.rejects(asker.emitWithAck("never", "", { signal: AbortSignal.timeout(1) }), {
        name: "TimeoutError",
      });
    });

    test(`a signal that is aborted after the reply changes nothing (${side})`, async (t) => {
      const asker = (await ends(t))[side];
      const given = new AbortController();
      for (let time = 0; time < 3; time += 1) {
        assert.equal(await asker.emitWithAck("alive", "", { signal: given.signal, timeout: 60_000 }), "yes");
      }
      assert.equal(getEventListeners(given.signal, "abort").length, 0);
      given.abort();
      assert.equal(await asker.emitWithAck("alive"), "yes");
    });

    test(`without a reply in time it is ack_timeout, by the call's timeout or the option (${side})`, async (t) => {
      const long = (await ends(t))[side];
      await assert.rejects(long.emitWithAck("never", "", { timeout: 1 }), { name: "EtpError", code: "ack_timeout" });
      assert.equal(await long.emitWithAck("alive"), "yes");
      const short = (await ends(t, { ackTimeout: 1 }))[side];
      await assert.rejects(short.emitWithAck("never"), { code: "ack_timeout" });
      assert.equal(await short.emitWithAck("alive", "", { timeout: 60_000 }), "yes");
    });

    for (const closer of ["client", "conn"]) {
      test(`closing by the ${closer} ends what the ${side} waits for, with the close code`, async (t) => {
        const all = await ends(t);
        const told = { code: "connection_closed", closeCode: 4002, closeReason: "enough" };
        const asked = [1, 2, 3].map((number) => assert.rejects(all[side].emitWithAck("never", `${number}`), told));
        for (let number = 1; number <= 3; number += 1) assert.deepEqual(await all.next(), [`${number}`]);
        all[closer].close(4002, "enough");
        await Promise.all(asked);
        await assert.rejects(all[side].emitWithAck("never"), { code: "connection_closed" });
        assert.throws(() => all[side].emit("never"), { code: "connection_closed" });
      });
    }
  }

  /** Emits to a peer that does not read, until nothing goes on; then lets the peer read. */
  async function fill(emitter, letGo) {
    const data = "x".repeat(10_000);
    let sent = 0;
    for (let before = -1; before < sent; ) {
      before = sent;
      try {
        for (;;) {
          emitter.emit("event", `${sent} ${data}`);
          sent += 1;
        }
      } catch (error) {
        assert.equal(error.name, "EtpError");
        assert.equal(error.code, "outbox_full");
      }
      // What the socket still takes goes on.
      for (let turn = 0; turn < 500; turn += 1) await soon();
    }
    for (let refused; refused === undefined; ) {
      emitter.emitWithAck("event", `${sent} ${data}`).catch((error) => {
        refused = error.code;
      });
      // It is refused at once, or sent: there may be room again.
      await Promise.resolve();
      if (refused === undefined) sent += 1;
      else assert.equal(refused, "outbox_full");
    }
    const drained = emitter.drain();
    letGo();
    await drained;
    emitter.emit("event", `${sent} ${data}`);
    return sent + 1;
  }

  test("a peer that does not read makes a server's emit outbox_full, until drain(); nothing that was taken is lost", async (t) => {
    const server = await begin(t, { maxMessageSize: 64 * 1024, maxOutbox: 256 * 1024 });
    const one = await peer(server.url);
    one.ws.pause();
    const [conn] = server.conns;
    const sent = await fill(conn, () => one.ws.resume());
    for (let number = 0; number < sent; number += 1) {
      assert.equal(Number.parseInt((await one.next()).split("||")[2], 10), number);
    }
    await conn.drain();
  });

  test("a server that does not read makes a client's emit outbox_full, until drain(); nothing that was taken is lost", async (t) => {
    const got = [];
    let letGo;
    const held = new Promise((resolve) => {
      letGo = resolve;
    });
    const { client } = await pair(t, {
      maxInflight: 1,
      client: { maxMessageSize: 64 * 1024, maxOutbox: 256 * 1024 },
      prepare(server) {
        server.on("event", async (conn, data) => {
          got.push(Number.parseInt(data, 10));
          await held;
        });
        server.on("alive", () => "yes");
      },
    });
    const sent = await fill(client, letGo);
    await client.drain();
    assert.equal(await client.emitWithAck("alive"), "yes");
    assert.deepEqual(
      got,
      Array.from({ length: sent }, (_, number) => number),
    );
  });
});

describe("rooms", LIMIT, () => {
  /** Clients by name, which gather what they hear. */
  async function people(t, ...names) {
    const server = new Server();
    t.after(() => server.shutdown({ timeout: 0 }));
    server.on("me", (conn) => conn.id);
    const all = [];
    for (const name of names) {
      const heard = [];
      const client = await connect(server, { setup: (client) => client.on("say", (data) => void heard.push(data)) });
      const conn = server.conn(await client.emitWithAck("me"));
      conn.data.name = name;
      all.push({ heard, client, conn });
    }
    /** What each has heard since the last time. */
    const heard = async () => {
      await Promise.all(all.map(({ client }) => client.emitWithAck("me")));
      return all.map(({ heard }) => heard.splice(0).join(" "));
    };
    return { server, conns: all.map(({ conn }) => conn), clients: all.map(({ client }) => client), heard };
  }
  const named = (conns) => conns.map(({ data }) => data.name).sort();

  test("a broadcast reaches each member of its rooms once, less those left out", async (t) => {
    const { server, conns, heard } = await people(t, "ann", "bob", "cyd", "dan");
    const [ann, bob, cyd] = conns;
    for (const conn of [ann, bob]) conn.join("red");
    for (const conn of [bob, cyd]) conn.join("blue");
    assert.equal(server.emit("say", "all"), 4);
    assert.equal(server.to("red").emit("say", "red"), 2);
    assert.equal(server.to("red", "blue").emit("say", "both"), 3);
    assert.equal(server.to("red", "blue").except(bob).emit("say", "conn"), 2);
    assert.equal(server.to("red", "blue").except(bob.id).emit("say", "id"), 2);
    assert.equal(server.to("red", "blue").except("red").emit("say", "room"), 1);
    assert.equal(server.except(ann, cyd.id, "nowhere").emit("say", "few"), 2);
    assert.equal(server.except("red").except(cyd).emit("say", "one"), 1);
    assert.equal(server.to("nowhere").emit("say", "nobody"), 0);
    assert.equal(
      server
        .except("red", "blue")
        .except(...server.conns)
        .emit("say", "nobody"),
      0,
    );
    assert.deepEqual(await heard(), [
      "all red both conn id",
      "all red both few",
      "all both conn id room",
      "all few one",
    ]);
  });

  test("conn.to includes the connection itself, if it is a member", async (t) => {
    const { conns, heard } = await people(t, "ann", "bob", "cyd");
    const [ann, bob, cyd] = conns;
    for (const conn of [ann, bob]) conn.join("red");
    assert.equal(ann.to("red").emit("say", "self"), 2);
    assert.equal(ann.to("red").except(ann).emit("say", "others"), 1);
    assert.equal(cyd.to("red").emit("say", "outside"), 2);
    assert.deepEqual(await heard(), ["self outside", "self others outside", ""]);
  });

  test("who is where can be asked, changed and cleared", async (t) => {
    const { server, conns, clients, heard } = await people(t, "ann", "bob", "cyd");
    const [ann, bob, cyd] = conns;
    assert.deepEqual(server.rooms, []);
    for (const conn of conns) conn.join("red");
    for (let time = 0; time < 2; time += 1) ann.join("blue");
    assert.deepEqual(server.rooms.sort(), ["blue", "red"]);
    assert.deepEqual(ann.rooms.sort(), ["blue", "red"]);
    assert.deepEqual(named(server.members("red")), ["ann", "bob", "cyd"]);
    assert.deepEqual(server.members("blue"), [ann]);
    assert.deepEqual(named(server.to("red").except("blue").conns), ["bob", "cyd"]);
    assert.deepEqual(named(server.except(bob).conns), ["ann", "cyd"]);
    assert.deepEqual(
      ["red", "blue", "nowhere"].map((room) => server.memberCount(room)),
      [3, 1, 0],
    );
    bob.leave("red");
    bob.leave("nowhere");
    assert.equal(server.memberCount("red"), 2);
    server.to("red").emit("say", "before");
    server.clearRoom("red");
    server.clearRoom("nowhere");
    assert.equal(server.to("red").emit("say", "after"), 0);
    assert.deepEqual(server.rooms, ["blue"]);
    assert.deepEqual(cyd.rooms, []);
    assert.deepEqual(await heard(), ["before", "", "before"]);
    await clients[0].close();
    await ann.closed;
    while (server.conn(ann.id) !== undefined) await soon();
    assert.deepEqual([server.rooms, server.members("blue"), named(server.conns)], [[], [], ["bob", "cyd"]]);
  });
});

describe("connections", LIMIT, () => {
  const leaves = { closes: (one) => one.ws.close(), "is cut": (one) => one.ws.terminate() };
  for (const [how, leave] of Object.entries(leaves)) {
    test(`conn.signal and conn.closed tell a handler that waits that its peer has left, which ${how}`, async (t) => {
      const { take, next } = gather();
      const server = await begin(t, {}, (server) => {
        server.on("signal", async (conn) => {
          const { signal } = conn;
          assert.equal(signal.aborted, false);
          take("in");
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
          take("signal", conn.isOpen, signal.reason.code, conn.signal === signal);
        });
        server.on("closed", async (conn) => {
          const { closed } = conn;
          take("in");
          await closed;
          take("closed", conn.isOpen, conn.signal.aborted, conn.closed === closed);
        });
        server.on("late", async (conn) => {
          take("in");
          while (conn.isOpen) await soon();
          await conn.closed;
          take("late", conn.signal.aborted);
        });
      });
      const one = await peer(server.url);
      for (const name of ["signal", "closed", "late"]) one.send(`${name}||1||`);
      for (let time = 0; time < 3; time += 1) assert.deepEqual(await next(), ["in"]);
      leave(one);
      const told = [await next(), await next(), await next()].sort();
      assert.deepEqual(told, [
        ["closed", false, true, true],
        ["late", true],
        ["signal", false, "connection_closed", true],
      ]);
    });
  }

  test("a connection that is kept after its end still answers, and sends nothing", async (t) => {
    const server = await begin(t, {}, (server) => {
      server.onUpgrade(({ query }) => ({ name: query.get("name") }));
      server.onConnect((conn) => conn.join("red"));
      server.on("ready", () => "yes");
    });
    const { take, next } = gather();
    server.onDisconnect(take);
    // Its events wait for onConnect.
    const ready = async (one) => assert.equal(await one.ask("ready"), "yes");
    const one = await peer(`${server.url}?name=ann`);
    await ready(one);
    const [conn] = server.conns;
    const { id, data } = conn;
    one.ws.close(4001, "enough");
    const [gone, end] = await next();
    assert.equal(gone, conn);
    assert.deepEqual({ ...end }, { code: 4001, reason: "enough", clean: true, normal: false });
    // Its place is another's by now.
    while (server.stats().connections > 0) await soon();
    const others = await Promise.all([peer(server.url), peer(server.url)]);
    await Promise.all(others.map(ready));
    assert.equal(conn.id, id);
    assert.match(id, /^[0-9a-f]{32}$/);
    assert.equal(conn.data, data);
    assert.deepEqual(data, { name: "ann" });
    assert.deepEqual(conn.rooms, ["red"]);
    assert.equal(conn.request.query.get("name"), "ann");
    assert.equal(conn.isOpen, false);
    assert.equal(conn.signal.aborted, true);
    await conn.closed;
    const told = { name: "EtpError", code: "connection_closed", closeCode: 4001, closeReason: "enough" };
    assert.throws(() => conn.emit("event"), told);
    for (const ask of [conn.emitWithAck("event"), conn.ping(), conn.drain()]) await assert.rejects(ask, told);
    conn.join("blue");
    conn.leave("red");
    conn.close();
    assert.deepEqual([conn.rooms, server.memberCount("blue"), server.memberCount("red")], [["red"], 0, 2]);
    assert.equal(server.conn(id), undefined);
    assert.equal(server.except(conn).emit("event"), 2);
    for (const other of others) assert.equal(await other.next(), "event||0||");
  });
});

test(
  "handlers and callbacks see the AsyncLocalStorage that their own server or client was made in",
  LIMIT,
  async (t) => {
    const store = new AsyncLocalStorage();
    const seen = [];
    const open = async (name) => {
      const see = (what) => seen.push([what, store.getStore(), name]);
      const server = await store.run(name, () =>
        begin(t, {}, (server) => {
          server.onUpgrade(() => void see("upgrade"));
          server.onConnect(() => see("connect"));
          server.onDisconnect(() => see("disconnect"));
          server.onError(() => see("error"));
          server.onUnknownEvent(() => store.getStore());
          server.use((conn, event, next) => see("middleware") && next());
          server.on("sync", () => store.getStore());
          server.on("async", async (conn) => {
            await soon();
            const [inside, answer] = await store.run("inner", async () => [
              store.getStore(),
              await conn.emitWithAck("ask").then((answer) => `${answer} ${store.getStore()}`),
            ]);
            return `${store.getStore()} ${inside} ${answer}`;
          });
          server.on("throws", () => {
            throw new Error("thrown");
          });
        }),
      );
      const client = store.run(`client of ${name}`, () => new Client(server.url, { reconnect: false }));
      client.on("ask", () => store.getStore());
      await client.connect();
      return client;
    };
    const names = ["one", "two", undefined];
    const clients = await Promise.all(names.map(open));
    await Promise.all(
      clients.flatMap((client, index) => {
        const name = names[index];
        // What the caller is in is its own.
        return Array.from({ length: 50 }, () =>
          store.run("caller", async () => {
            client.emit("throws");
            assert.equal(await client.emitWithAck("sync"), name ?? "");
            assert.equal(await client.emitWithAck("nobody"), name ?? "");
            assert.equal(await client.emitWithAck("async"), `${name} inner client of ${name} inner`);
            assert.equal(store.getStore(), "caller");
          }),
        );
      }),
    );
    await Promise.all(clients.map((client) => client.close()));
    while (seen.filter(([what]) => what === "disconnect").length < names.length) await soon();
    for (const [what, inside, name] of seen) assert.equal(inside, name, what);
    assert.deepEqual([...new Set(seen.map(([what]) => what))].sort(), [
      "connect",
      "disconnect",
      "error",
      "middleware",
      "upgrade",
    ]);
  },
);

describe("middleware", LIMIT, () => {
  test("the first added is the outermost, around handlers that were set before and after it", async (t) => {
    const order = [];
    const { server, client, conn } = await pair(t, {
      prepare: (server) => server.on("early", (conn, data) => order.push("handler") && data),
    });
    const around = (name) => async (event, next) => {
      order.push(`${name} ${event.name}`);
      const reply = await next();
      order.push(`${name} ends`);
      return `${reply} ${name}`;
    };
    for (const name of ["first", "second"]) {
      server.use((conn, event, next) => around(name)(event, next));
      client.use(around(name));
    }
    server.on("late", async (conn, data) => order.push("handler") && data);
    server.onUnknownEvent((conn, name, data) => order.push("handler") && data);
    client.on("late", (data) => order.push("handler") && data);
    for (const [asker, names] of [
      [client, ["early", "late", "nobody"]],
      [conn, ["late"]],
    ]) {
      for (const name of names) {
        assert.equal(await asker.emitWithAck(name, "data"), "data second first");
        const expected = [`first ${name}`, `second ${name}`, "handler", "second ends", "first ends"];
        assert.deepEqual(order.splice(0), expected);
      }
    }
  });

  test("it may change what the handler gets, answer itself, and make a reply of a failure", async (t) => {
    const { client } = await pair(t, {
      prepare(server) {
        server.use((conn, event, next) => {
          if (event.data === "refused") return "no";
          event.data = `${event.data} changed`;
          return next();
        });
        server.use((conn, event, next) => next().catch((error) => `saved from ${error.message}`));
        server.on("echo", (conn, data) => data);
        server.on("throws", () => {
          throw new Error("harm");
        });
      },
    });
    assert.equal(await client.emitWithAck("echo", "data"), "data changed");
    assert.equal(await client.emitWithAck("echo", "refused"), "no");
    assert.equal(await client.emitWithAck("throws"), "saved from harm");
  });

  test("next() a second time is an error, and the handler runs once", async (t) => {
    let runs = 0;
    const { take, next: told } = gather();
    const { client } = await pair(t, {
      prepare(server) {
        server.onError((conn, error) => take(error));
        server.use(async (conn, event, next) => {
          await next();
          return next();
        });
        server.on("event", () => {
          runs += 1;
        });
      },
    });
    client.emit("event");
    const [error] = await told();
    assert.equal(error.code, "handler_failed");
    assert.match(error.cause.message, /next\(\) was called twice/);
    assert.equal(runs, 1);
  });
});

describe("handlers", LIMIT, () => {
  test("a second on replaces the first, whose off then takes nothing away", async (t) => {
    const { server, client, conn } = await pair(t);
    const { take, next } = gather();
    for (const [owner, asker] of [
      [server, client],
      [client, conn],
    ]) {
      owner.onError((...args) => take(args.at(-1)));
      const offFirst = owner.on("event", () => "first");
      assert.equal(await asker.emitWithAck("event"), "first");
      const offSecond = owner.on("event", () => "second");
      assert.equal(await asker.emitWithAck("event"), "second");
      offFirst();
      assert.equal(await asker.emitWithAck("event"), "second");
      offSecond();
      asker.emit("event");
      assert.equal((await next())[0].code, "no_handler");
      owner.on("event", () => "third");
      assert.equal(await asker.emitWithAck("event"), "third");
      owner.off("event");
      owner.off("event");
      asker.emit("event");
      assert.equal((await next())[0].code, "no_handler");
    }
  });

  test("once is for one event", async (t) => {
    const { client, conn } = await pair(t);
    client.onUnknownEvent((name, data) => `unknown ${name} ${data}`);
    client.once("event", (data) => `once ${data}`);
    const replies = ["a", "b", "c"].map((data) => conn.emitWithAck("event", data));
    assert.deepEqual(await Promise.all(replies), ["once a", "unknown event b", "unknown event c"]);
    client.once("event", () => "never")();
    assert.equal(await conn.emitWithAck("event", "d"), "unknown event d");
  });

  test("onUnknownEvent gets what has no handler, whatever its name, until it is taken away", async (t) => {
    const { server, client } = await pair(t);
    const { take, next } = gather();
    server.onError((conn, error) => take(error.code));
    const off = server.onUnknownEvent(async (conn, name, data) => `${name} ${data} ${conn === server.conns[0]}`);
    server.on("known", () => "known");
    for (const name of ["a|b", "👋", " ", "constructor", "__proto__", "x".repeat(256)]) {
      assert.equal(await client.emitWithAck(name, "data"), `${name} data true`);
    }
    assert.equal(await client.emitWithAck("known"), "known");
    off();
    client.emit("nobody");
    assert.deepEqual(await next(), ["no_handler"]);
  });
});

describe("iterators over events", LIMIT, () => {
  test("they get copies of the events of a name, or of all, beside handlers", async (t) => {
    const { client, conn } = await pair(t, { codec: "json" });
    client.on("handled", (data) => data * 2);
    const [some, all] = [client.events("number"), client.events()];
    conn.emit("number", 1);
    assert.equal(await conn.emitWithAck("handled", 2), 4);
    conn.emit("number", 3);
    const got = [];
    for await (const event of some) {
      got.push(event);
      if (event.data === 3) break;
    }
    assert.deepEqual(got, [
      { name: "number", data: 1 },
      { name: "number", data: 3 },
    ]);
    for (const data of [1, 2, 3]) assert.equal((await all.next()).value.data, data);
    // Several waits at once are served in their order.
    const waits = [all.next(), all.next()];
    for (const data of [4, 5]) conn.emit("number", data);
    assert.deepEqual(
      (await Promise.all(waits)).map(({ value }) => value.data),
      [4, 5],
    );
    assert.deepEqual(await some.next(), { value: undefined, done: true });
  });

  test("they never reply: who asks is told nothing, and onError of nobody to answer", async (t) => {
    const { client, conn } = await pair(t);
    const { take, next } = gather();
    client.onError(({ code }) => take(code));
    const all = client.events();
    const asked = conn.emitWithAck("event", "data", { timeout: 100 });
    await assert.rejects(asked, { code: "ack_timeout" });
    assert.deepEqual((await all.next()).value, { name: "event", data: "data" });
    assert.deepEqual(await next(), ["no_handler"]);
  });

  test("one that falls behind by more than its buffer throws overflow, after what it holds", async (t) => {
    const { client, conn } = await pair(t);
    client.on("alive", () => "yes");
    client.onError(() => {}); // nobody is there for the fifth
    const events = client.events("number", { buffer: 3 });
    for (const data of ["1", "2", "3", "4", "5"]) conn.emit("number", data);
    assert.equal(await conn.emitWithAck("alive"), "yes");
    for (const data of ["1", "2", "3"]) assert.equal((await events.next()).value.data, data);
    await assert.rejects(events.next(), { name: "EtpError", code: "overflow" });
    assert.deepEqual(await events.next(), { value: undefined, done: true });
  });

  test("they end when the client is closed, after what they hold", async (t) => {
    const { client, conn } = await pair(t);
    client.on("alive", () => "yes");
    const [some, all] = [client.events("number"), client.events("never")];
    for (const data of ["1", "2"]) conn.emit("number", data);
    assert.equal(await conn.emitWithAck("alive"), "yes");
    const waits = all.next();
    await client.close();
    assert.deepEqual(await waits, { value: undefined, done: true });
    const got = [];
    for await (const { data } of some) got.push(data);
    assert.deepEqual(got, ["1", "2"]);
  });
});
