// Promises of the client that only the other end of the wire shows, or that need a server with odd manners.

import { closeAll, equal, fails, handled, hex, inAnyOrder, make, ok, pair, soon, told, unhex } from "./expect.mjs";

const codes = (errors) => errors.splice(0).map(({ code }) => code);

/** Comes back at once. */
const AT_ONCE = { base: 0, cap: 0 };
/** Would come back after longer than any test takes. */
const NEVER = { base: 600_000, cap: 600_000 };

export const cases = {
  // --- Messages ------------------------------------------------------------------------------------------------------

  async "each codec writes text where it can, and binary else"(env) {
    const bytes = (digits) => unhex(digits);
    for (const [codec, value, expected] of [
      ["text", "a||b\u{1f600}\0", { text: "e||0||a||b\u{1f600}\0" }],
      ["text", undefined, { text: "e||0||" }],
      ["text", "\ufeffx", { text: "e||0||\ufeffx" }],
      ["json", { a: null }, { text: 'e||0||{"a":null}' }],
      ["json", "\ud800", { text: 'e||0||"\\ud800"' }],
      ["json", undefined, { text: "e||0||" }],
      ["json", null, { text: "e||0||null" }],
      ["bytes", bytes("c3a4"), { text: "e||0||\u00e4" }],
      ["bytes", bytes("c3"), { hex: "657c7c307c7cc3" }],
      ["bytes", bytes("00ff00").subarray(1, 2), { hex: "657c7c307c7cff" }],
      ["bytes", new DataView(bytes("00ff00").buffer, 1, 1), { hex: "657c7c307c7cff" }],
      ["bytes", bytes("ff").buffer, { hex: "657c7c307c7cff" }],
      ["bytes", null, { text: "e||0||" }],
      ["pair of text", 1, { text: "e||0||1" }],
      ["pair of bytes", 200, { hex: "657c7c307c7cc8" }],
      ["pair of bytes", undefined, { text: "e||0||" }],
    ]) {
      const pairs = {
        "pair of text": [String, () => 0],
        "pair of bytes": [(n) => Uint8Array.of(n), () => 0],
      };
      const { client, next } = await pair(env, { codec: pairs[codec] ?? codec });
      client.emit("e", value);
      equal(await next(), expected, `${codec}: `);
      await closeAll();
      await env.wire("end");
    }
  },

  async "each codec reads text and binary messages alike, and reports what it can't read"(env) {
    const calls = { text: ["e||0||hi", "657c7c307c7c6869"], broken: "657c7c307c7cff" };
    for (const [codec, read] of [
      ["text", "hi"],
      ["bytes", "6869"],
      [[String, hex], "6869"],
    ]) {
      const made = await pair(env, { codec });
      const got = [];
      made.client.on("e", (data) => void got.push(typeof data === "string" ? data : hex(data)));
      await made.wire("text", calls.text[0]);
      await made.wire("hex", calls.text[1]);
      await handled(made);
      equal(got, [read, read]);
      await made.wire("hex", calls.broken);
      await handled(made);
      equal(codes(made.errors), codec === "text" ? ["invalid_payload"] : []);
      await closeAll();
      await env.wire("end");
    }
    const { client, errors, wire, next } = await pair(env, { codec: "json" });
    client.on("e", () => ok(false, "not JSON is no event"));
    const call = client.emitWithAck("q");
    await next();
    await wire("text", "e||0||{");
    await wire("text", "__ack_q||1||{");
    ok((await fails(() => call, "invalid_payload")).cause instanceof SyntaxError, "the cause is told");
    equal(codes(errors), ["invalid_payload"]);
    equal(client.state, "connected");
  },

  async "a handler whose reply can't be sent sends none, and says so"(env) {
    const made = await pair(env, { maxMessageSize: 1000 });
    for (const [value, code] of [
      ["\ud800", "invalid_payload"],
      ["x".repeat(1001), "message_too_large"],
      [7, "invalid_payload"],
    ]) {
      made.client.on("e", () => value);
      await made.wire("text", "e||5||");
      await handled(made);
      equal(codes(made.errors), [code]);
    }
  },

  async "names and payloads of the limit's very size"(env) {
    const limit = 2000;
    const { client, next, wire } = await pair(env, { maxMessageSize: limit, reconnect: false });
    const fits = "\u4e16".repeat(Math.floor((limit - "e||0||".length) / 3));
    client.emit("e", `${fits}x`);
    equal((await next()).text.length, `e||0||${fits}x`.length);
    await fails(() => client.emit("e", `${fits}xyz`), "message_too_large");
    await fails(() => client.emitWithAck("e", `${fits}xyz`), "message_too_large");
    const got = told((tell) => client.on("e", tell));
    await wire("text", `e||0||${"y".repeat(limit - 6)}`);
    equal((await got).length, limit - 6);
    const ended = told((tell) => client.onDisconnect(tell));
    await wire("text", `e||0||${"y".repeat(limit - 5)}`);
    const { code, reason, willReconnect } = await ended;
    equal([code, reason, willReconnect], [1009, "message too large", false]);
    equal(await next(), { closed: 4009, reason: "message too large" });
  },

  // --- Closing -------------------------------------------------------------------------------------------------------

  async "closes are told as they came, to both ends"(env) {
    for (const [code, reason] of [
      [1000, ""],
      [1000, "banned"],
      [1011, "oops"],
      [4242, "w\u00e4rum"],
    ]) {
      const { client, wire } = await pair(env, { reconnect: false });
      const call = client.emitWithAck("q");
      const ended = told((tell) => client.onDisconnect(tell));
      await wire("close", code, reason);
      equal(await ended, { code, reason, clean: true, normal: code === 1000, willReconnect: false });
      const { closeCode, closeReason } = await fails(() => call, "connection_closed");
      equal([closeCode, closeReason], [code, reason]);
      await env.wire("end");
    }
    for (const [code, reason] of [
      [undefined, undefined],
      [3000, "a"],
      [4999, "x".repeat(123)],
    ]) {
      const { client, next } = await pair(env);
      client.emit("last", "words");
      await client.close(code, reason);
      equal(await next(), { text: "last||0||words" });
      equal(await next(), { closed: code ?? 1000, reason: reason ?? "" });
      await env.wire("end");
    }
  },

  async "too many malformed frames close with the code that a script may send"(env) {
    const { client, errors, wire, next } = await pair(env);
    const ended = told((tell) => client.onDisconnect(tell));
    for (let n = 0; n < 17; n++) await wire("text", "e||+1||");
    equal(await next(), { closed: 4008, reason: "malformed frames" });
    const { code, reason, willReconnect } = await ended;
    equal([code, reason, willReconnect], [1008, "malformed frames", false]);
    equal(codes(errors), Array(17).fill("malformed_frame"));
  },

  async "a failing onConnect closes; later it comes back and tries again"(env) {
    const { client, errors, next, wire } = make(env, await env.wire("open"), { reconnect: AT_ONCE });
    const failure = new Error("no");
    let calls = 0;
    client.onConnect(async () => {
      calls += 1;
      if (calls % 2) throw failure;
    });
    equal((await fails(() => client.connect(), "connect_failed")).cause.cause, failure);
    await next();
    equal(await next(), { closed: 4011, reason: "onConnect failed" });
    equal(client.state, "closed");
    equal(codes(errors), ["handler_failed"]);
    await client.connect();
    const ends = [];
    client.onDisconnect((end) => void ends.push(end.code));
    await next();
    await wire("cut");
    await next();
    await next();
    await inAnyOrder(next, [
      { closed: 4011, reason: "onConnect failed" },
      { connected: "/ws", protocols: null },
    ]);
    equal(ends, [1006, 1011]);
  },

  async "a close ends at closeTimeout where the server does not answer"(env) {
    const { client, wire } = await pair(env, { closeTimeout: 50 });
    await wire("pause");
    const ended = told((tell) => client.onDisconnect(tell));
    await soon(client.close(4000, "bye"), "the end");
    const { code, clean, willReconnect } = await ended;
    equal([code, clean, willReconnect], [1006, false, false]);
    equal(client.state, "closed");
  },

  async "a close ends at closeTimeout where the server has begun it and stays"(env) {
    const { client, wire } = await pair(env, { closeTimeout: 50 });
    const ended = told((tell) => client.onDisconnect(tell));
    await wire("linger", 1001);
    await refuses(client, "connection_closed");
    await soon(client.close(), "the end");
    equal((await ended).willReconnect, false);
    equal(client.state, "closed");
  },

  async "a server that has begun to close and stays is left at closeTimeout by whoever emits"(env) {
    const { client, wire } = await pair(env, { closeTimeout: 50, reconnect: NEVER });
    const ended = told((tell) => client.onDisconnect(tell));
    await wire("linger", 1001);
    await refuses(client, "connection_closed");
    equal((await ended).willReconnect, true);
  },

  async "what a closed client emits is refused, queue or not"(env) {
    const { client, wire, next } = await pair(env, { queue: 10, closeTimeout: 50, reconnect: NEVER });
    await wire("pause");
    const closed = client.close();
    await fails(() => client.emit("e"), "connection_closed");
    await fails(() => client.emitWithAck("e"), "connection_closed");
    await closed;
    await env.wire("end");
    const away = await pair(env, { queue: 10, reconnect: NEVER });
    const lost = told((tell) => away.client.onDisconnect(tell));
    await wire("cut");
    await lost;
    away.client.emit("waits");
    const over = away.client.close();
    await fails(() => away.client.emit("e"), "connection_closed");
    await over;
    // What another life has ended with is not told of this one.
    const again = away.client.connect();
    const { closeCode } = await fails(() => away.client.emitWithAck("e", "", { timeout: 0 }), "ack_timeout");
    equal(closeCode, undefined);
    await again;
    equal((await next()).closed, 1006);
    ok((await next()).connected, "again");
  },

  // --- Dialling ------------------------------------------------------------------------------------------------------

  async "a function that is asked for the URL may close or abort"(env) {
    const url = await env.wire("open");
    let meanwhile = () => {};
    const { client, next, wire } = make(
      env,
      () => {
        meanwhile();
        return url;
      },
      { reconnect: AT_ONCE },
    );
    let closed;
    meanwhile = () => {
      closed = client.close();
    };
    await fails(() => client.connect(), "connection_closed");
    await soon(closed, "the end");
    equal(client.state, "closed");
    const given = new AbortController();
    const reason = new Error("mine");
    meanwhile = () => given.abort(reason);
    ok((await client.connect({ signal: given.signal }).catch((error) => error)) === reason, "the signal's reason");
    meanwhile = () => {};
    await client.connect();
    ok((await next()).connected, "the first dial of all");
    const asked = new Promise((resolve) => {
      meanwhile = () => {
        closed = client.close();
        resolve();
      };
    });
    await wire("cut");
    await soon(asked, "the next dial");
    await soon(closed, "the end");
    equal(client.state, "closed");
    equal((await next()).closed, 1006);
    meanwhile = () => {};
    await client.connect();
    ok((await next()).connected, "no other dial");
  },

  async "a dial that was given up while the URL was asked for is not made"(env) {
    const url = await env.wire("open");
    let give;
    const asked = new Promise((resolve) => {
      give = resolve;
    });
    let dials = 0;
    class Counted extends (env.options.WebSocket ?? WebSocket) {
      constructor(...how) {
        super(...how);
        dials += 1;
      }
    }
    const { client, next } = make(env, () => asked, { WebSocket: Counted });
    const given = new AbortController();
    const connecting = client.connect({ signal: given.signal });
    given.abort();
    equal((await connecting.catch((error) => error)).name, "AbortError");
    give(`${url}/given-up`);
    await asked;
    await make(env, `${url}/another`).client.connect();
    equal((await next()).connected, "/ws/another");
    equal(dials, 0);
  },

  async "a WebSocket is given its URL as text, and need not tell what waits"(env) {
    const url = await env.wire("open");
    const given = [];
    const Real = env.options.WebSocket ?? WebSocket;
    class Bare extends Real {
      constructor(url, protocols) {
        super(url, protocols);
        given.push(url);
      }
      get bufferedAmount() {
        return undefined;
      }
    }
    const { client, next } = make(env, url.replace("ws:", "http:"), { WebSocket: Bare });
    await client.connect();
    await next();
    equal(given, [url]);
    client.emit("e");
    await client.drain();
    equal(await next(), { text: "e||0||" });
  },

  async "a dial that nobody answers ends by time, by abort and by close"(env) {
    const url = await env.wire("open", "deaf");
    const { client } = make(env, url, { dialTimeout: 1000 });
    const error = await fails(() => client.connect(), "connect_failed");
    ok(error.message.includes("dialTimeout"), error.message);
    const { client: patient, next } = make(env, url);
    await next();
    const given = new AbortController();
    const aborted = patient.connect({ signal: given.signal }).catch((error) => error);
    await next();
    equal(patient.state, "connecting");
    const reason = new Error("mine");
    given.abort(reason);
    ok((await aborted) === reason, "the signal's reason");
    equal(patient.state, "closed");
    const closed = patient.connect();
    await next();
    patient.close();
    await fails(() => closed, "connection_closed");
    equal(patient.state, "closed");
    const before = AbortSignal.abort(reason);
    ok((await patient.connect({ signal: before }).catch((error) => error)) === reason, "nothing is dialled");
  },

  async "a refused handshake says what failed, and no secret"(env) {
    const url = await env.wire("open", "refusing");
    const { client } = make(env, `${url}?token=secret`, { auth: "hidden" });
    const { message } = await fails(() => client.connect(), "connect_failed");
    ok(message.includes(url) && !/secret|hidden/.test(message), message);
  },

  async "the URL and the token are asked for at each dial, and one that fails is asked again"(env) {
    const url = await env.wire("open");
    let dials = 0;
    const { client, errors, next, wire } = make(
      env,
      async () => {
        dials += 1;
        if (dials === 2) throw new Error("no URL today");
        return `${url}/${dials}`;
      },
      { reconnect: AT_ONCE, auth: async () => String(dials) },
    );
    await client.connect();
    equal(await next(), { connected: "/ws/1", protocols: ["etp", "etp.auth.MQ"] });
    await wire("cut");
    equal((await next()).closed, 1006);
    equal(await next(), { connected: "/ws/3", protocols: ["etp", "etp.auth.Mw"] });
    equal(codes(errors), ["connect_failed"]);
  },

  async "without a token no subprotocol is asked for"(env) {
    equal((await pair(env)).dialled, { connected: "/ws", protocols: null });
  },

  async "shouldReconnect decides, and one that fails leaves it to the rule"(env) {
    for (const [should, code, reason, again, reported] of [
      [() => false, 1001, "", false, []],
      [() => true, 1008, "", true, []],
      [({ code, willReconnect }) => code === 1000 && !willReconnect, 1000, "kicked", true, []],
      [
        () => {
          throw new Error("can't say");
        },
        1001,
        "",
        true,
        ["handler_failed"],
      ],
    ]) {
      const { client, errors, wire } = await pair(env, { reconnect: NEVER, shouldReconnect: should });
      const ended = told((tell) => client.onDisconnect(tell));
      await wire("close", code, reason);
      equal((await ended).willReconnect, again);
      equal(codes(errors), reported);
      await closeAll();
      await env.wire("end");
    }
    const { client } = await pair(env, { shouldReconnect: () => true });
    const ended = told((tell) => client.onDisconnect(tell));
    await client.close();
    equal((await ended).willReconnect, false);
  },

  async "a client that is closed while it waits to come back tells what waited"(env) {
    const { client, wire } = await pair(env, { reconnect: NEVER, queue: 2 });
    const lost = told((tell) => client.onDisconnect(tell));
    await wire("cut");
    await lost;
    const waits = client.emitWithAck("q");
    const closed = client.close();
    await fails(() => waits, "connection_closed");
    await closed;
    equal(client.state, "closed");
  },

  // --- The time away -------------------------------------------------------------------------------------------------

  async "what waited goes out in order when onConnect has ended, what onConnect emits before"(env) {
    const { client, errors, next, wire } = await pair(env, { reconnect: AT_ONCE, queue: 10 });
    let goOn;
    let entered;
    const greeting = new Promise((resolve) => {
      entered = resolve;
    });
    client.onConnect(async (conn) => {
      conn.emit("hello");
      entered();
      await new Promise((resolve) => {
        goOn = resolve;
      });
      equal(await conn.emitWithAck("login", "me"), "in");
      client.emit("waits", "too");
    });
    const lost = told((tell) => client.onDisconnect(tell));
    await wire("cut");
    await lost;
    client.emit("one");
    const two = client.emitWithAck("two");
    const given = new AbortController();
    const aborted = client.emitWithAck("aborted", "", { signal: given.signal });
    const late = client.emitWithAck("late", "", { timeout: 1 });
    client.emit("three");
    given.abort();
    equal((await aborted.catch((error) => error)).name, "AbortError");
    await fails(() => late, "ack_timeout");
    await soon(greeting, "onConnect");
    equal((await next()).closed, 1006);
    ok((await next()).connected, "again");
    equal(await next(), { text: "hello||0||" });
    // Comes while onConnect runs: handled after it.
    const handled = [];
    client.on("e", (data) => void handled.push(data));
    await wire("text", "e||0||early");
    goOn();
    equal(await next(), { text: "login||1||me" });
    equal(handled, []);
    await wire("text", "__ack_login||1||in");
    for (const text of ["one||0||", "two||2||", "three||0||", "waits||0||too"]) equal(await next(), { text });
    await wire("text", "__ack_two||2||2");
    equal(await soon(two, "the reply"), "2");
    equal(handled, ["early"]);
    equal(errors.length, 0);
  },

  async "the connection of onConnect is of no use after its end"(env) {
    const { client, next, wire } = make(env, await env.wire("open"), { reconnect: AT_ONCE, queue: 10 });
    const conns = [];
    client.onConnect((conn) => void conns.push(conn));
    await client.connect();
    await next();
    equal(conns[0].isOpen, true);
    const again = told((tell) => client.onDisconnect(tell));
    await wire("cut");
    await again;
    equal(conns[0].isOpen, false);
    await fails(() => conns[0].emit("e"), "connection_closed");
    await fails(() => conns[0].emitWithAck("e"), "connection_closed");
    await fails(() => conns[0].drain(), "connection_closed");
    equal((await next()).closed, 1006);
    ok((await next()).connected, "again");
    await fails(() => conns[0].emit("e"), "connection_closed");
  },

  async "a call that is late when the queue is sent leaves the others their ids"(env) {
    const { client, next, wire } = await pair(env, { reconnect: AT_ONCE, queue: 10 });
    const given = new AbortController();
    let login;
    let late;
    let asked;
    client.onConnect((conn) => {
      login = conn.emitWithAck("login");
      late = client.emitWithAck("late", "", { timeout: 1 }).catch((error) => error);
      asked = client.emitWithAck("asked", "", { signal: given.signal }).catch((error) => error);
      // No timer runs meanwhile: the late one is found when its turn comes.
      for (const from = performance.now(); performance.now() - from < 100; );
    });
    await wire("cut");
    equal((await next()).closed, 1006);
    ok((await next()).connected, "again");
    equal(await next(), { text: "login||1||" });
    equal(await next(), { text: "asked||2||" });
    equal((await late).code, "ack_timeout");
    given.abort();
    equal((await asked).name, "AbortError");
    await wire("text", "__ack_login||1||in");
    equal(await soon(login, "its reply"), "in");
  },

  async "the connection of onConnect takes nothing once it closes, queue or not"(env) {
    const { client, next, wire } = await pair(env, { queue: 10, reconnect: AT_ONCE });
    let conn;
    client.onConnect((one) => {
      conn ??= one;
    });
    await wire("cut");
    equal((await next()).closed, 1006);
    ok((await next()).connected, "again");
    await handled({ client, wire, next });
    await wire("linger", 1001);
    await soon(
      (async () => {
        while (conn.isOpen) await new Promise((resolve) => setTimeout(resolve));
      })(),
      "the close",
    );
    await fails(() => conn.emit("for this one only"), "connection_closed");
    await fails(() => conn.emitWithAck("for this one only"), "connection_closed");
  },

  // --- Calls ---------------------------------------------------------------------------------------------------------

  async "a signal that is aborted while its payload is encoded ends the call"(env) {
    const { client, next } = await pair(env, { codec: "json" });
    const given = new AbortController();
    const reason = new Error("mine");
    const payload = {
      toJSON() {
        given.abort(reason);
        return "x";
      },
    };
    const call = client.emitWithAck("q", payload, { signal: given.signal });
    ok((await call.catch((error) => error)) === reason, "the signal's reason");
    client.emit("e");
    equal(await next(), { text: "e||0||" });
  },

  async "errors quote no payload and no password"(env) {
    const { client, errors, wire, next } = await pair(env, { codec: "json" });
    client.on("e", () => {});
    await wire("text", "e||0||secret");
    await handled({ client, wire, next });
    await closeAll();
    await env.wire("end");
    const { client: text } = await pair(env);
    const told = [...errors, await fails(() => text.emit("e", ["secret"]), "invalid_payload")];
    await closeAll();
    await env.wire("end");
    const url = await env.wire("open", "refusing");
    told.push(await fails(() => make(env, url.replace("//", "//user:secret@")).client.connect(), "connect_failed"));
    equal(told.length, 3);
    for (const { message } of told) ok(!message.includes("secret"), message);
  },

  async "an aborted call is not sent, or its reply is nobody's"(env) {
    const made = await pair(env);
    const { client, next, wire } = made;
    const reason = new Error("mine");
    const before = client.emitWithAck("before", "", { signal: AbortSignal.abort(reason) });
    ok((await before.catch((error) => error)) === reason, "the signal's reason");
    const given = new AbortController();
    const during = client.emitWithAck("during", "", { signal: given.signal }).catch((error) => error);
    equal(await next(), { text: "during||1||" });
    given.abort(reason);
    ok((await during) === reason, "the signal's reason");
    await wire("text", "__ack_during||1||late");
    await handled(made);
    const after = client.emitWithAck("after");
    equal(await next(), { text: "after||2||" });
    await wire("text", "__ack_during||2||of another");
    await wire("text", "__ack_after||2||x");
    equal(await after, "x");
    equal(made.errors.length, 0);
  },

  async "maxPendingAcks counts the calls that wait, however they end"(env) {
    const { client, next, wire } = await pair(env, { maxPendingAcks: 1 });
    const given = new AbortController();
    const aborted = client.emitWithAck("a", "", { signal: given.signal });
    await fails(() => client.emitWithAck("b"), "too_many_acks");
    client.emit("plain");
    given.abort();
    await aborted.catch(() => {});
    await fails(() => client.emitWithAck("c", "", { timeout: 1 }), "ack_timeout");
    const answered = client.emitWithAck("d");
    for (const text of ["a||1||", "plain||0||", "c||2||", "d||3||"]) equal(await next(), { text });
    await wire("text", "__ack_d||3");
    equal(await answered, "");
    client.emitWithAck("e").catch(() => {});
    equal(await next(), { text: "e||4||" });
  },

  async "a server that does not read fills the outbox, and nothing is lost"(env) {
    const { client, next, wire } = await pair(env, { maxOutbox: 1 << 20 });
    await wire("pause");
    const payload = "x".repeat(1 << 16);
    let sent = 0;
    const full = (() => {
      // As many as no buffer of a system takes.
      for (; sent < 10_000; sent++) {
        try {
          client.emit("e", `${sent} ${payload}`);
        } catch (error) {
          return error;
        }
      }
    })();
    equal(full?.code, "outbox_full");
    equal(client.state, "connected");
    const drained = client.drain();
    await wire("resume");
    await soon(drained, "drain");
    client.emit("last");
    for (let n = 0; n < sent; n++) ok((await next()).text.startsWith(`e||0||${n} x`), `message ${n}`);
    equal(await next(), { text: "last||0||" });
  },

  // --- Handlers ------------------------------------------------------------------------------------------------------

  async "handlers and callbacks may emit and close re-entrantly"(env) {
    const { client, errors, next, wire } = await pair(env, { reconnect: false });
    client.on("emit", () => {
      for (let n = 0; n < 3; n++) client.emit("within", n === 1 ? "x".repeat(500) : "");
      const call = client.emitWithAck("asked");
      client.on("emit", () => "another");
      return call;
    });
    await wire("text", "emit||7||");
    equal(await next(), { text: "within||0||" });
    equal(await next(), { text: `within||0||${"x".repeat(500)}` });
    equal(await next(), { text: "within||0||" });
    equal(await next(), { text: "asked||1||" });
    await wire("text", "emit||8||");
    equal(await next(), { text: "__ack_emit||8||another" });
    await wire("text", "__ack_asked||1||done");
    equal(await next(), { text: "__ack_emit||7||done" });
    const steps = [];
    client.onDisconnect(async (end) => {
      steps.push(end.code, client.state);
      await fails(() => client.emit("e"), "connection_closed");
      await fails(() => client.connect(), "invalid_state");
      await client.close();
      steps.push("told");
    });
    client.on("close", () => client.close(4000, "enough").then(() => steps.push("closed")));
    await wire("text", "close||9||");
    equal(await next(), { closed: 4000, reason: "enough" });
    await soon(client.close(), "the end");
    equal(steps, [4000, "closed", "told", "closed"]);
    equal(errors.length, 0);
  },

  async "a callback of the garbage collector may emit"(env) {
    const { client, next, wire } = await pair(env);
    let collected = false;
    const registry = new FinalizationRegistry(() => {
      if (collected) return;
      collected = true;
      client.emit("collected");
      client.emitWithAck("asked").then((reply) => client.emit("answered", reply));
    });
    (() => {
      for (let n = 0; n < 100; n++) registry.register({ n }, n);
    })();
    while (!collected) {
      env.gc();
      await new Promise((resolve) => setTimeout(resolve));
    }
    equal(await next(), { text: "collected||0||" });
    equal(await next(), { text: "asked||1||" });
    await wire("text", "__ack_asked||1||yes");
    equal(await next(), { text: "answered||0||yes" });
  },

  async "what nobody handles is reported; onUnknownEvent answers, after middleware"(env) {
    const made = await pair(env);
    const { client, errors, wire, next } = made;
    await wire("text", "e||0||");
    await wire("text", "e||5||");
    await handled(made);
    equal(codes(errors), ["no_handler", "no_handler"]);
    const seen = [];
    client.use((event, go) => {
      seen.push(event.name);
      return go();
    });
    const off = client.onUnknownEvent((name, data) => `${name} ${data}`);
    await wire("text", "e||6||x");
    equal(await next(), { text: "__ack_e||6||e x" });
    equal(seen, ["e"]);
    off();
    await wire("text", "e||7||x");
    await handled(made);
    equal(codes(errors), ["no_handler"]);
  },

  async "without onError what goes wrong is logged, and an onError that fails too"(env) {
    const { client, wire, next } = await pair(env);
    const logged = [];
    const log = console.error;
    console.error = (...what) => logged.push(...what.map(({ code }) => code));
    try {
      // The last one is gone with its own callback.
      client.onError(() => {})();
      await wire("text", "e||0||");
      await handled({ client, wire, next });
      client.onError(() => {
        throw new Error("not this either");
      });
      await wire("text", "e||0||");
      await handled({ client, wire, next });
    } finally {
      console.error = log;
    }
    equal(logged, ["no_handler", "no_handler", "handler_failed"]);
  },

  async "middleware that fails or calls next twice is reported, and one that does not call it answers"(env) {
    const made = await pair(env);
    const { client, errors, wire, next } = made;
    let manner;
    client.use((event, go) => manner(event, go));
    client.on("e", (data) => data);
    const failure = new Error("no");
    for (const failing of [
      () => {
        throw failure;
      },
      async () => {
        throw failure;
      },
    ]) {
      manner = failing;
      await wire("text", "e||1||x");
      await reported(made, () => {
        manner = (_, go) => go();
      });
      equal(errors[0]?.cause, failure);
      equal(codes(errors), ["handler_failed"]);
    }
    manner = async (_, go) => {
      await go();
      return go();
    };
    await wire("text", "e||2||x");
    await reported(made, () => {
      manner = (_, go) => go();
    });
    equal(codes(errors), ["handler_failed"]);
    // Whose middleware has ended without waiting for it.
    let fail;
    client.on("later", () => new Promise((_, reject) => (fail = reject)));
    for (const impatient of [(_, go) => void go(), async (_, go) => void go()]) {
      manner = impatient;
      await wire("text", "later||6||");
      equal(await next(), { text: "__ack_later||6" });
      manner = (_, go) => go();
      fail(failure);
      await reported(made, () => {});
      equal(errors[0]?.cause, failure);
      equal(codes(errors), ["handler_failed"]);
    }
    manner = () => "from the middle";
    await wire("text", "e||3||x");
    equal(await next(), { text: "__ack_e||3||from the middle" });
    manner = async (event, go) => {
      event.data = `<${event.data}>`;
      return `${await go()}!`;
    };
    await wire("text", "e||4||x");
    equal(await next(), { text: "__ack_e||4||<x>!" });
  },

  async "once is for one event, also of two that come together; off takes the handler that is meant"(env) {
    const made = await pair(env);
    const { client, errors, wire } = made;
    const got = [];
    client.once("e", (data) => void got.push(data));
    await wire("text", "e||0||1");
    await wire("text", "e||0||2");
    await handled(made);
    equal(got.splice(0), ["1"]);
    equal(codes(errors), ["no_handler"]);
    const first = client.on("e", () => void got.push("first"));
    const second = client.on("e", () => void got.push("second"));
    first();
    await wire("text", "e||0||");
    await handled(made);
    equal(got.splice(0), ["second"]);
    second();
    client.on("e", () => void got.push("third"));
    client.off("e");
    await wire("text", "e||0||");
    await handled(made);
    equal(got, []);
    equal(codes(errors), ["no_handler"]);
  },

  async "whatever a handler returns is one reply"(env) {
    const made = await pair(env);
    // biome-ignore lint/suspicious/noThenProperty: what an application may return
    const thenable = (then) => Object.defineProperty({}, "then", { value: then });
    const twice = (resolve) => {
      resolve("first");
      resolve("second");
    };
    for (const [returned, reply] of [
      [() => thenable(twice), "first"],
      [() => thenable((resolve) => resolve(Promise.resolve("inner"))), "inner"],
      [async () => "promised", "promised"],
    ]) {
      made.client.on("e", returned);
      await made.wire("text", "e||5||");
      equal(await made.next(), { text: `__ack_e||5||${reply}` });
      await handled(made);
    }
    made.client.on("e", () => thenable((resolve) => resolve(Promise.reject(new Error("no")))));
    await made.wire("text", "e||5||");
    await reported(made, () => {});
    equal(codes(made.errors), ["handler_failed"]);
  },

  // --- Iterators -----------------------------------------------------------------------------------------------------

  async "iterators get copies, each its own, until they return or fall behind"(env) {
    const made = await pair(env);
    const { client, errors, wire } = made;
    const all = client.events();
    const some = client.events("e", { buffer: 2 });
    const behind = client.events("e", { buffer: 1 });
    const returned = client.events("e");
    equal(await returned.return(), { done: true });
    equal(await returned.next(), { done: true });
    await wire("text", "e||0||1");
    await wire("text", "f||0||2");
    await wire("text", "e||0||3");
    await handled(made);
    // Whom an iterator takes needs no handler.
    equal(codes(errors), []);
    const data = async (iterator) => (await soon(iterator.next(), "an event")).value?.data;
    equal([await data(all), await data(all), await data(all)], ["1", "2", "3"]);
    equal([await data(some), await data(some)], ["1", "3"]);
    equal(await data(behind), "1");
    await fails(() => behind.next(), "overflow");
    equal(await behind.next(), { done: true });
    const got = [];
    const looping = (async () => {
      for await (const event of client.events("e")) {
        got.push(event);
        if (got.length === 2) break;
      }
    })();
    await wire("text", "e||0||4");
    await wire("text", "e||0||5");
    await soon(looping, "the loop");
    equal(got, [
      { name: "e", data: "4" },
      { name: "e", data: "5" },
    ]);
    // An iterator never replies.
    await wire("text", "e||9||6");
    await handled(made);
    equal(codes(errors), ["no_handler"]);
    const waiting = some.return().then(() => client.events("never").next());
    await fails(() => client.events("e", { buffer: 0 }), "invalid_option");
    await fails(() => client.events("e||f"), "invalid_event");
    await handled(made);
    await client.close();
    equal(await soon(waiting, "the end"), { done: true });
  },

  async "an iterator goes on over a lost connection"(env) {
    const { client, next, wire } = await pair(env, { reconnect: AT_ONCE });
    const events = client.events("e");
    await wire("text", "e||0||before");
    equal((await events.next()).value.data, "before");
    await wire("cut");
    await next();
    ok((await next()).connected, "again");
    await wire("text", "e||0||after");
    equal((await soon(events.next(), "an event")).value.data, "after");
  },

  // --- Liveness ------------------------------------------------------------------------------------------------------

  async "a probe that is answered, or followed by anything, keeps the connection"(env) {
    const made = await pair(env, { probe: { event: "alive", interval: 1, timeout: 2000 } });
    const { client, wire, next } = made;
    client.onDisconnect(({ reason }) => made.errors.push({ code: reason }));
    // Whatever comes shows that somebody is there, and most often it is the reply.
    for (const answer of ["__ack_alive||1", "__ack___etp||0||", "__ack_alive||3"]) {
      ok((await next()).text.startsWith("alive||"), "a probe");
      await wire("text", answer);
    }
    equal(await next(), { text: "alive||4||" });
    equal(made.errors, []);
    equal(client.state, "connected");
  },

  async "a probe that nobody answers ends the connection, and the client comes back"(env) {
    const { client, next } = await pair(env, {
      probe: { event: "alive", interval: 1, timeout: 300 },
      reconnect: AT_ONCE,
    });
    const { code, reason, clean, willReconnect } = await told((tell) => client.onDisconnect(tell));
    equal([code, reason, clean, willReconnect], [1006, "probe timeout", false, true]);
    equal(await next(), { text: "alive||1||" });
    await inAnyOrder(next, [
      { closed: 4000, reason: "probe timeout" },
      { connected: "/ws", protocols: null },
      { text: "alive||1||" },
    ]);
  },

  async "a probe that can't even be asked ends the connection after as long a silence"(env) {
    const probe = { event: "alive", interval: 1, timeout: 100 };
    const { client, wire } = await pair(env, { probe, reconnect: NEVER, maxOutbox: 1 << 16, maxPendingAcks: 1 });
    const ended = told((tell) => client.onDisconnect(tell));
    await wire("pause");
    client.emitWithAck("holds the only place", "", { timeout: 600_000 }).catch(() => {});
    const { code, reason, willReconnect } = await ended;
    equal([code, reason, willReconnect], [1006, "probe timeout", true]);
  },
};

/** Emits until that is refused. */
async function refuses(client, code) {
  const deadline = soon(new Promise(() => {}), "a refusal");
  const emitting = (async () => {
    for (;;) {
      try {
        client.emit("e");
      } catch (error) {
        equal(error.code, code);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve));
    }
  })();
  await Promise.race([emitting, deadline]);
}

/** As `handled`, once an error is there and the middleware lets the mark pass. */
async function reported(made, letPass) {
  await soon(
    new Promise((resolve) => {
      const look = () => (made.errors.length > 0 ? resolve() : setTimeout(look));
      look();
    }),
    "a report",
  );
  letPass();
  await handled(made);
}

export const end = closeAll;
