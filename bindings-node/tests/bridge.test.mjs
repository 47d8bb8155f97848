// Connections whose socket stays Node's: TLS, and what can't be handed over. The core's rules hold on them, and their memory is bounded.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { describe, test } from "node:test";
import { ATTACHED, DOORS, etp, frame, head, LIMIT, listening, Raw, trust } from "./hosts.mjs";
import { peer } from "./peers.mjs";

const MIB = 1024 * 1024;

/** Under https: a server, its URL, and what its `https.Server` has. */
async function secured(t, options) {
  const server = etp(t, options);
  const { url, httpServer } = await DOORS["an https.Server"](t, server);
  return { server, url: `${url}/ws`, httpServer };
}

/** The next connection's end, as `onDisconnect` is told of it. */
function end(server) {
  return new Promise((resolve) => server.onDisconnect((conn, how) => resolve(how)));
}

function connected(server) {
  return new Promise((resolve) => server.onConnect(resolve));
}

describe("under https", LIMIT, () => {
  test("events are acknowledged in both directions, many at once", async (t) => {
    const { server, url } = await secured(t);
    const asked = connected(server);
    const one = await peer(url, trust(url));
    for (let id = 1; id <= 2000; id += 1) one.send(`echo||${id}||${id}`);
    for (let id = 1; id <= 2000; id += 1) assert.equal(await one.next(), `__ack_echo||${id}||${id}`);
    const answer = (await asked).emitWithAck("question", "why");
    assert.equal(await one.next(), "question||1||why");
    one.send("__ack_question||1||because");
    assert.equal(await answer, "because");
  });

  test("messages of 1 MiB go both ways, and larger ones end their connection", async (t) => {
    const { url } = await secured(t);
    const one = await peer(url, trust(url));
    const other = await peer(url, trust(url));
    const asked = "echo||1||";
    const large = Buffer.alloc(MIB - "__ack_".length - asked.length, "0123456789").toString();
    for (let time = 0; time < 4; time += 1) assert.equal((await one.ask("echo", large)) === large, true);
    one.send(asked + "x".repeat(MIB));
    assert.equal((await one.ended)[0], 1009);
    assert.equal(await other.ask("echo", "x"), "x");
  });

  test("close codes and reasons go both ways", async (t) => {
    const { server, url } = await secured(t);
    const theirs = end(server);
    const one = await peer(url, trust(url));
    one.ws.close(4001, "theirs");
    assert.deepEqual(await one.ended, [4001, "theirs"]);
    assert.deepEqual(await theirs, { code: 4001, reason: "theirs", clean: true, normal: false });

    const ours = end(server);
    server.on("leave", (conn) => conn.close(4002, "ours"));
    const other = await peer(url, trust(url));
    other.send("leave||0||");
    assert.deepEqual(await other.ended, [4002, "ours"]);
    assert.deepEqual(await ours, { code: 4002, reason: "ours", clean: true, normal: false });
  });

  test("shutdown() sends what was emitted, and tells 1000 `server shutdown`", async (t) => {
    const { server, url } = await secured(t);
    const conn = connected(server);
    const one = await peer(url, trust(url));
    const texts = Array.from({ length: 64 }, (_, index) => `${index}`.padEnd(16_000, "."));
    for (const text of texts) (await conn).emit("last", text);
    await server.shutdown();
    for (const text of texts) assert.equal(await one.next(), `last||0||${text}`);
    assert.deepEqual(await one.ended, [1000, "server shutdown"]);
  });

  test("a peer that resets ends its own connection alone", async (t) => {
    const { server, url } = await secured(t);
    const other = await peer(url, trust(url));
    for (const when of ["idle", "in the middle of a frame", "while events come"]) {
      const ended = end(server);
      const raw = await Raw.to(url);
      await raw.upgrade();
      assert.equal(await raw.ask("echo", "x"), "__ack_echo||1||x");
      if (when === "in the middle of a frame") raw.write(frame("echo||1||x").subarray(0, 5));
      if (when === "while events come") for (let id = 1; id < 100; id += 1) raw.write(frame(`echo||${id}||${id}`));
      raw.tcp.resetAndDestroy();
      assert.deepEqual(await ended, { code: 1006, reason: "", clean: false, normal: false });
      assert.equal(await other.ask("echo", when), when);
    }
    assert.equal(server.conns.length, 1);
  });

  test("a reader that does not read is sent no more than fits, and other connections go on", async (t) => {
    const { server, url, httpServer } = await secured(t, { maxOutbox: MIB });
    const sockets = [];
    httpServer.on("secureConnection", (socket) => sockets.push(socket));
    const TIMES = 1024;
    const text = "x".repeat(32 * 1024);
    let emitted = 0;
    let blocked;
    const full = new Promise((resolve) => {
      blocked = resolve;
    });
    server.on("flood", async (conn) => {
      while (emitted < TIMES) {
        try {
          conn.emit("flood", `${emitted} ${text}`);
          emitted += 1;
        } catch (error) {
          assert.equal(error.code, "outbox_full");
          blocked();
          await conn.drain();
        }
      }
    });
    const slow = await peer(url, trust(url));
    const other = await peer(url, trust(url));
    slow.ws.pause();
    slow.send("flood||0||");
    await full;
    let held = 0;
    for (let time = 0; time < 1000; time += 1) {
      assert.equal(await other.ask("echo", `${time}`), `${time}`);
      held = Math.max(held, sockets[0].writableLength);
    }
    // The kernel takes some MiB; the rest of these 32 MiB waits for the reader.
    assert.ok(emitted < TIMES, `${emitted} were emitted`);
    assert.ok(held <= 128 * 1024, `${held} bytes wait in the socket`);
    assert.ok(server.stats().bytesQueued <= MIB + 64 * 1024, `${server.stats().bytesQueued} bytes are queued`);
    slow.ws.resume();
    for (let time = 0; time < TIMES; time += 1) {
      const message = await slow.next();
      assert.equal(message.slice(0, 20), `flood||0||${time} ${text}`.slice(0, 20));
    }
  });

  test("a server whose handlers do not end stops reading, and goes on when they do", async (t) => {
    const { server, url, httpServer } = await secured(t, { maxInflight: 4 });
    const sockets = [];
    httpServer.on("secureConnection", (socket) => sockets.push(socket));
    let release;
    const released = new Promise((resolve) => {
      release = resolve;
    });
    server.on("slow", async (conn, data) => {
      await released;
      return `${data.length}`;
    });
    const busy = await peer(url, trust(url));
    const other = await peer(url, trust(url));
    const paused = once(sockets[0], "pause");
    const text = "x".repeat(64 * 1024);
    const TIMES = 512;
    for (let id = 1; id <= TIMES; id += 1) busy.send(`slow||${id}||${text}`);
    await paused;
    for (let time = 0; time < 500; time += 1) assert.equal(await other.ask("echo", `${time}`), `${time}`);
    assert.ok(sockets[0].bytesRead < (TIMES / 2) * text.length, `${sockets[0].bytesRead} bytes were read`);
    assert.ok(sockets[0].readableLength <= 128 * 1024, `${sockets[0].readableLength} bytes wait in the socket`);
    release();
    for (let id = 1; id <= TIMES; id += 1) assert.equal(await busy.next(), `__ack_slow||${id}||${text.length}`);
  });
});

for (const door of Object.keys(DOORS)) {
  test(`a peer of ${door} that ends its direction has ended, and what it sent before was handled`, LIMIT, async (t) => {
    const server = etp(t);
    const { url } = await DOORS[door](t, server);
    const said = [];
    server.on("say", (conn, text) => said.push(text));
    const ended = end(server);
    const raw = await Raw.to(url);
    t.after(() => raw.destroy());
    await raw.upgrade();
    raw.write(frame("say||0||last"));
    raw.socket.end();
    assert.deepEqual(await ended, { code: 1006, reason: "", clean: false, normal: false });
    assert.deepEqual(said, ["last"]);
    await raw.ended;
  });
}

describe("data that arrives with the upgrade request is not lost", LIMIT, () => {
  for (const door of Object.keys(DOORS)) {
    test(`in the same packet, at ${door}`, async (t) => {
      const { url } = await DOORS[door](t, etp(t));
      const raw = await Raw.to(url);
      t.after(() => raw.destroy());
      const frames = Array.from({ length: 100 }, (_, index) => frame(`echo||${index + 1}||${"x".repeat(100)}`));
      raw.write(head(), ...frames, frame("echo||101||half").subarray(0, 7));
      assert.equal((await raw.response()).status, 101);
      for (let id = 1; id <= 100; id += 1) assert.equal(await raw.message(), `__ack_echo||${id}||${"x".repeat(100)}`);
      raw.write(frame("echo||101||half").subarray(7));
      assert.equal(await raw.message(), "__ack_echo||101||half");
    });
  }

  for (const door of ATTACHED) {
    for (const amount of [1, 4000]) {
      test(`in ${amount} later packets while the application of ${door} decides`, async (t) => {
        const server = etp(t);
        const { url, httpServer } = await DOORS[door](t, etp(t, { path: "/another" }));
        let decides;
        const deciding = new Promise((resolve) => {
          decides = resolve;
        });
        httpServer.on("upgrade", async (request, socket, first) => {
          decides();
          // Until something has come; of much, more than a socket holds.
          while (socket.readableLength < (amount === 1 ? 1 : socket.readableHighWaterMark)) {
            await new Promise(setImmediate);
          }
          assert.equal(await server.handleUpgrade(request, socket, first), true);
        });
        const raw = await Raw.to(url);
        t.after(() => raw.destroy());
        raw.write(head());
        await deciding;
        const text = "x".repeat(100);
        for (let id = 1; id <= amount; id += 1) raw.write(frame(`echo||${id}||${text}`));
        assert.equal((await raw.response()).status, 101);
        for (let id = 1; id <= amount; id += 1) assert.equal(await raw.message(), `__ack_echo||${id}||${text}`);
      });
    }
  }
});

test("a socket with pending writes keeps them, and works", LIMIT, async (t) => {
  const server = etp(t);
  const httpServer = http.createServer();
  const sockets = [];
  httpServer.on("upgrade", async (request, socket, first) => {
    sockets.push(socket);
    socket.cork();
    socket.write("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
    const accepted = server.handleUpgrade(request, socket, first);
    socket.uncork();
    assert.equal(await accepted, true);
  });
  const at = await listening(t, httpServer);
  const raw = await Raw.to(`ws://${at}`);
  t.after(() => raw.destroy());
  raw.write(head());
  assert.equal((await raw.response()).status, 103);
  assert.equal((await raw.response()).status, 101);
  for (const text of ["x", "y".repeat(20_000)]) assert.equal(await raw.ask("echo", text), `__ack_echo||1||${text}`);
  assert.equal(sockets[0].destroyed, false, "it is bridged");
});
