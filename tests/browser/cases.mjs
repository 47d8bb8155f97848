// What the browser's client promises, as cases that know neither where they run nor which server answers.
//
// A case takes { Client, EtpError, url, options, control, repliesInText }: `control(what)` asks the harness to "stop" or "start" the server, or for
// another one ("odd"), whose connections send what they are told: frames, binary ones, closes. `repliesInText`: the server writes bytes
// into text messages whatever they are, as the Go module does, and a WebSocket closes then.

export const cases = {
  async "acknowledgments come back to their callers, many at once"(env) {
    const client = await connected(env);
    const replies = await Promise.all(Array.from({ length: 1000 }, (_, n) => client.emitWithAck("echo", String(n))));
    equal(replies.join(), Array.from({ length: 1000 }, (_, n) => n).join());
  },

  async "payloads arrive as they were sent"(env) {
    const client = await connected(env);
    for (const text of [
      "",
      "||",
      "a||b||c",
      "\u{1f600} \u00e4\u4e16",
      "\0\0",
      "|",
      "x".repeat((1 << 20) - 40),
      "\ufeffBOM",
    ]) {
      equal(await client.emitWithAck("echo", text), text);
    }
  },

  async "bytes go as text where they are UTF-8, and binary else"(env) {
    const client = await connected(env, { codec: "bytes" });
    for (const bytes of [[], [104, 105], [0xff, 0xfe, 0, 1], [0xc3, 0xa4], [0xef, 0xbb, 0xbf, 65]]) {
      if (bytes[0] === 0xff && env.repliesInText) continue;
      equal([...(await client.emitWithAck("echo", new Uint8Array(bytes)))].join(), bytes.join());
    }
    equal((await client.emitWithAck("echo", new Uint8Array([104]).buffer))[0], 104);
    await fails(() => client.emit("echo", "text"), "invalid_payload");
  },

  async "json and codecs of one's own"(env) {
    const json = await connected(env, { codec: "json" });
    equal(JSON.stringify(await json.emitWithAck("echo", { a: [1, null, "\u{1f600}"] })), '{"a":[1,null,"\u{1f600}"]}');
    equal(await json.emitWithAck("echo", null), null);
    equal(await json.emitWithAck("echo"), undefined);
    await fails(() => json.emit("echo", () => {}), "invalid_payload");
    await fails(
      () =>
        json
          .emitWithAck("join", "lobby-of-nobody")
          .then(() => json.emitWithAck("rooms"))
          .then(() => json.emitWithAck("echo", 1n)),
      "invalid_payload",
    );
    const pair = await connected(env, { codec: [(n) => new Uint8Array([n]), (bytes) => bytes[0]] });
    equal(await pair.emitWithAck("echo", 100), 100);
    equal(await pair.emitWithAck("echo"), undefined);
  },

  async "lone surrogates are refused"(env) {
    const client = await connected(env);
    await fails(() => client.emit("echo", "a\ud800b"), "invalid_payload");
    await fails(() => client.emit("a\ud800", "b"), "invalid_event");
  },

  async "an acknowledgment ends at its deadline, at an abort and with the connection"(env) {
    const client = await connected(env);
    await fails(() => client.emitWithAck("slow", "2000", { timeout: 50 }), "ack_timeout");
    await fails(() => client.emitWithAck("fail", "", { timeout: 50 }), "ack_timeout");
    const reason = new Error("mine");
    const given = new AbortController();
    const aborted = client.emitWithAck("slow", "2000", { signal: given.signal });
    given.abort(reason);
    equal(await aborted.catch((error) => error), reason);
    equal(await client.emitWithAck("echo", "x", { signal: given.signal }).catch((error) => error), reason);
    const lost = client.emitWithAck("slow", "2000").catch((error) => error);
    await client.emitWithAck("close").catch(() => {});
    const error = await lost;
    equal(error.code, "connection_closed");
    // The Go module ends the connection before the browser has answered its close.
    if (!env.repliesInText) equal(error.closeCode, 1000);
  },

  async "limits are told to their caller"(env) {
    const client = await connected(env, { maxMessageSize: 100, maxPendingAcks: 1 });
    await fails(() => client.emit("echo", "x".repeat(100)), "message_too_large");
    await fails(() => client.emit("echo", "\u4e16".repeat(33)), "message_too_large");
    equal(await client.emitWithAck("echo", "x".repeat(92 - 10)), "x".repeat(82));
    const one = client.emitWithAck("slow", "20");
    await fails(() => client.emitWithAck("echo", "x"), "too_many_acks");
    equal(await one, "done");
    const small = await connected(env, { maxOutbox: 10 });
    await fails(() => small.emit("echo", "0123456789"), "outbox_full");
    await small.drain();
    const usual = await connected(env);
    for (const name of ["", "a||b", "a|", "__ack_x", "__etp", "n".repeat(257), "\u4e16".repeat(86)]) {
      await fails(() => usual.emit(name), "invalid_event");
      await fails(() => usual.on(name, () => {}), "invalid_event");
    }
    client.emit("n".repeat(90));
  },

  async "handlers answer, and one that fails answers nothing"(env) {
    const client = await connected(env);
    const errors = [];
    client.onError((error) => errors.push(error));
    client.on("question", (data) => `${data}!`);
    equal(await client.emitWithAck("ask", "why"), "why!");
    client.on("question", async (data) => {
      client.emit("echo", "within");
      equal(await client.emitWithAck("echo", "re-entered"), "re-entered");
      return data;
    });
    equal(await client.emitWithAck("ask", "again"), "again");
    const failure = new Error("no");
    for (const handler of [
      () => {
        throw failure;
      },
      async () => {
        throw failure;
      },
    ]) {
      client.on("question", handler);
      equal(await client.emitWithAck("ask", "x"), "error:ack_timeout");
      const [error] = errors.splice(0);
      equal(error.code, "handler_failed");
      equal(error.cause, failure);
    }
    client.off("question");
    equal(await client.emitWithAck("ask", "x"), "error:ack_timeout");
    equal(errors.splice(0)[0].code, "no_handler");
    client.onUnknownEvent((name, data) => `${name}:${data}`);
    equal(await client.emitWithAck("ask", "x"), "question:x");
  },

  async "middleware wraps, once is once, and iterators take copies"(env) {
    const client = await connected(env);
    const steps = [];
    client.use(async (event, next) => {
      steps.push("outer");
      return `<${await next()}>`;
    });
    client.use((event, next) => {
      steps.push("inner");
      event.data += "?";
      return next();
    });
    const copies = client.events("question", { buffer: 2 });
    client.on("question", (data) => data);
    equal(await client.emitWithAck("ask", "a"), "<a?>");
    equal(steps.join(), "outer,inner");
    equal((await copies.next()).value.data, "a");
    const off = client.once("question", () => "once");
    equal(await client.emitWithAck("ask", "b"), "<once>");
    off();
    client.on("question", () => "");
    await client.emitWithAck("ask", "c");
    await client.emitWithAck("ask", "d");
    equal((await copies.next()).value.data, "b");
    equal((await copies.next()).value.data, "c");
    await fails(() => copies.next(), "overflow");
    equal((await copies.next()).done, true);
    const ended = client.events().next();
    await client.close();
    equal((await ended).done, true);
  },

  async "closing is told once, with its code"(env) {
    const client = await connected(env);
    const ends = [];
    client.onDisconnect((end) => {
      ends.push(end);
      return client.close();
    });
    await fails(() => client.close(1001), "invalid_option");
    await fails(() => client.close(3000, "x".repeat(124)), "invalid_option");
    await Promise.all([client.close(4001, "bye"), client.close()]);
    equal(JSON.stringify(ends), '[{"code":4001,"reason":"bye","clean":true,"normal":false,"willReconnect":false}]');
    equal(client.state, "closed");
    await fails(() => client.emit("echo", "x"), "connection_closed");
    await client.connect();
    equal(await client.emitWithAck("echo", "anew"), "anew");
  },

  async "it comes back after a restart, logs in first, and sends what waited"(env) {
    const { url } = env;
    let asked = 0;
    const client = await connected(
      { ...env, url: () => [url, asked++][0] },
      { queue: 3, reconnect: { base: 50, cap: 100 } },
    );
    const seen = [];
    client.onConnect(async (conn) => {
      await conn.emitWithAck("echo", "login");
      seen.push("login");
    });
    const lost = happens((told) => client.onDisconnect(told));
    await env.control("stop");
    equal((await lost).willReconnect, true);
    client.onError(() => {});
    const first = client.emitWithAck("echo", "1", { timeout: 20_000 }).then(() => seen.push("1"));
    const second = client.emitWithAck("echo", "2", { timeout: 20_000 }).then(() => seen.push("2"));
    const late = client.emitWithAck("echo", "late", { timeout: 30 });
    await fails(() => client.emit("echo", "4"), "outbox_full");
    await fails(() => late, "ack_timeout");
    await env.control("start");
    await Promise.all([first, second]);
    // Handlers of a server may run beside each other: the order of their replies is theirs. That of the frames `promises.mjs` looks at.
    equal(seen.shift(), "login");
    equal(seen.sort().join(), "1,2");
    equal(client.state, "connected");
    if (asked < 2) throw new Error("the URL is asked for at each dial");
  },

  async "a dial that fails says so, and can be given up"(env) {
    const client = make(env, {}, "ws://127.0.0.1:1/ws?token=secret");
    const error = await client.connect().catch((error) => error);
    equal(error.code, "connect_failed");
    if (error.message.includes("secret")) throw new Error("an error shows a query");
    equal(client.state, "closed");
    const reason = new Error("mine");
    const given = new AbortController();
    const never = make(env, {}, () => new Promise(() => {}));
    const connecting = never.connect({ signal: given.signal }).catch((error) => error);
    equal(never.state, "connecting");
    await fails(() => never.connect(), "invalid_state");
    given.abort(reason);
    equal(await connecting, reason);
    await fails(() => make(env, { dialTimeout: 20 }, () => new Promise(() => {})).connect(), "connect_failed");
    const closed = make(env, {}, () => new Promise(() => {}));
    const refused = closed.connect();
    await closed.close();
    await fails(() => refused, "connection_closed");
    await fails(() => make(env, {}, () => Promise.reject(new Error("no url"))).connect(), "connect_failed");
    const failing = make(env);
    failing.onError(() => {});
    failing.onConnect(() => {
      throw new Error("not today");
    });
    await fails(() => failing.connect(), "connect_failed");
    equal(failing.state, "closed");
  },

  async "options that can't be are refused by name"(env) {
    for (const options of [
      { ackTimeout: -1 },
      { queue: "many" },
      { codec: "xml" },
      { akcTimeout: 1 },
      { reconnect: { bas: 1 } },
      { auth: 5 },
      { probe: { interval: 5 } },
      { maxOutbox: Number.NaN },
      { toString: () => "" },
    ]) {
      await fails(() => make(env, options), "invalid_option");
    }
    const message = await fails(() => make(env, { auth: 5 }), "invalid_option");
    equal(message, "auth is 5; it is to be string or function");
    await fails(() => make(env, {}, ""), "invalid_option");
  },

  async "a hundred clients in one place"(env) {
    const clients = await Promise.all(Array.from({ length: 100 }, () => connected(env)));
    const replies = await Promise.all(clients.map((client, n) => client.emitWithAck("echo", `${n}`)));
    equal(replies.join(), clients.map((_, n) => n).join());
    await Promise.all(clients.map((client) => client.close()));
  },

  // --- From here on a server that does what it is told -------------------------------------------------------------

  async "ack ids beyond 2^53 are echoed digit by digit"(env) {
    const odd = await env.control("odd");
    const client = await connected({ ...env, url: odd });
    client.on("e", (data) => data);
    for (const id of ["9007199254740993", "9223372036854775807"]) {
      equal(await client.emitWithAck("send", `e||${id}||x`), `__ack_e||${id}||x`);
    }
    equal(await client.emitWithAck("send", "e||7"), "__ack_e||7");
    equal(await client.emitWithAck("send-binary", "e||8||x"), "__ack_e||8||x");
  },

  async "malformed frames are told, and too many close"(env) {
    const odd = await env.control("odd");
    const client = await connected({ ...env, url: odd }, { reconnect: false });
    const errors = [];
    client.onError((error) => errors.push(error.code));
    const ended = happens((told) => client.onDisconnect(told));
    for (let n = 0; n < 17; n++) client.emit("send", "e||007||x");
    equal((await ended).code, 1008);
    equal(errors.join(), Array(17).fill("malformed_frame").join());
  },

  async "a kick keeps it away, a restart does not"(env) {
    const odd = await env.control("odd");
    for (const [close, again] of [
      ["1000 kicked", false],
      ["1008 no", false],
      ["1000 server shutdown", true],
      ["1000 ", true],
      ["4000 x", true],
    ]) {
      const client = await connected({ ...env, url: odd }, { reconnect: { base: 1, cap: 1 } });
      const ended = happens((told) => client.onDisconnect(told));
      client.emit("close", close);
      equal((await ended).willReconnect, again);
      await client.close();
    }
    const stubborn = await connected(
      { ...env, url: odd },
      { reconnect: { base: 1, cap: 1 }, shouldReconnect: () => true },
    );
    const back = happens((told) => stubborn.onConnect(told));
    stubborn.emit("close", "1000 kicked");
    await back;
  },

  async "a token travels as a subprotocol"(env) {
    const odd = await env.control("odd");
    const client = await connected({ ...env, url: odd }, { auth: async () => "t\u00e4/+=" });
    equal(await client.emitWithAck("protocols"), "etp,etp.auth.dMOkLys9");
  },

  async "a probe finds out that nobody is there"(env) {
    const odd = await env.control("odd");
    const options = { probe: { event: "send", interval: 20, timeout: 50 }, reconnect: { base: 1, cap: 1 } };
    const lively = await connected(
      { ...env, url: odd },
      { ...options, probe: { ...options.probe, timeout: 20_000, event: "protocols" } },
    );
    const client = await connected({ ...env, url: odd }, options);
    const end = await happens((told) => client.onDisconnect(told));
    equal(`${end.code} ${end.reason} ${end.clean}`, "1006 probe timeout false");
    equal(lively.state, "connected");
  },
};

const open = new Set();

function make(env, options = {}, url = env.url) {
  const client = new env.Client(url, { ...env.options, ...options });
  open.add(client);
  return client;
}

function connected(env, options) {
  return make(env, options).connect();
}

/** Closes what a case has left open. */
export async function cleanUp() {
  await Promise.all(Array.from(open, (client) => client.close()));
  open.clear();
}

function equal(got, expected) {
  if (!Object.is(got, expected))
    throw new Error(`got ${String(got).slice(0, 300)}\nexpected ${String(expected).slice(0, 300)}`);
}

async function fails(f, code) {
  const outcome = await Promise.resolve()
    .then(f)
    .then(
      () => "nothing",
      (error) => error,
    );
  if (outcome?.code !== code) throw new Error(`expected ${code}, not ${outcome?.stack ?? outcome}`);
  return outcome.message;
}

/** What a callback is told first. */
function happens(subscribe) {
  return new Promise(subscribe);
}
