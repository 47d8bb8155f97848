// What has ended leaves nothing behind: no connection, ticket, call, descriptor, thread or memory.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { Server } from "etp-ws";
import { certificate } from "./hosts.mjs";
import { live, until } from "./internals.mjs";
import { Program } from "./programs.mjs";
import { CLOSE, frame, handshake } from "./raw.mjs";

const FLAGS = ["--expose-gc", "--max-semi-space-size=1"];
const REPLY = "__ack_echo||1||hello";
const MIB = 1024 * 1024;
const VISIT = Buffer.concat([handshake(), frame("echo||1||hello")]);

/** Comes and emits in one packet, leaves when it has its reply; resolves when the server has closed. */
function visit(port, from, tls) {
  return new Promise((resolve, reject) => {
    const options = { port, host: "127.0.0.1", localAddress: `127.0.0.${from}`, noDelay: true };
    const socket = tls === undefined ? connect(options) : connectTls({ ...options, ca: tls.cert });
    let received = "";
    socket.setEncoding("latin1");
    let answered = false;
    socket.on("data", (text) => {
      received += text;
      if (answered || !received.includes(REPLY)) return;
      answered = true;
      socket.write(CLOSE);
    });
    socket.on("error", reject);
    socket.on("close", () => {
      const whole = received.startsWith("HTTP/1.1 101 ") && answered;
      if (whole) resolve();
      else reject(new Error(`received ${JSON.stringify(received)}`));
    });
    socket.write(VISIT);
  });
}

/** So many visits, some at a time, from many addresses: none of them runs out of ports. */
async function visits(port, count, tls) {
  let left = count;
  const visitor = async (from) => {
    while (left-- > 0) await visit(port, from, tls);
  };
  await Promise.all(Array.from({ length: 32 }, (_, at) => visitor(2 + at)));
}

function check(before, after, threads) {
  assert.equal(after.descriptors, before.descriptors);
  assert.equal(after.threads, threads);
  const most = Math.max(before.rss / 20, 2 * MIB);
  assert.ok(after.rss - before.rss <= most, `${before.rss} bytes have become ${after.rss}`);
}

// Against what a round has left that others follow: 10 000 of 30 000, 3 000 of 6 000 where TLS has reached its size by then.
for (const [how, title, visitors, warm] of [
  ["own", "on a port of its own", 5000, 1],
  ["http", "through an http.Server", 5000, 1],
  ["https", "through an https.Server", 1000, 2],
]) {
  test(`${6 * visitors} connections ${title} leave nothing`, async () => {
    const tls = how === "https" ? certificate() : undefined;
    const pem = tls === undefined ? [] : [tls.cert, tls.key].map(String);
    const program = new Program("garbage", [how, ...pem], { flags: FLAGS });
    try {
      const port = Number(await program.line("READY"));
      const found = [];
      for (let round = 0; round < 6; round += 1) {
        await visits(port, visitors, tls);
        program.tell();
        found.push(JSON.parse(await program.line("LEFT")));
      }
      check(found[warm], found.at(-1), 1);
      program.close();
      const stats = { connects: 6 * visitors, closes: { 1000: 6 * visitors } };
      assert.deepEqual(JSON.parse(await program.line("STATS")), stats);
      await program.end();
    } finally {
      program.kill();
    }
  });
}

test("200 000 acknowledgments with signals and timeouts leave nothing", async () => {
  const program = new Program("garbage", ["acks"], { flags: FLAGS });
  try {
    const found = [];
    for (const _ of [1, 2]) {
      assert.equal(await program.line("LISTENERS"), "0 0 0");
      found.push(Number(await program.line("RSS")));
    }
    const [before, after] = found;
    assert.ok(after - before <= Math.max(before / 20, 2 * MIB), `${before} bytes have become ${after}`);
    const counts = JSON.parse(await program.line("COUNTS"));
    assert.equal(counts.ack_timeout, 50_000);
    // Of those given up a turn later some have come.
    assert.ok(counts.AbortError >= 75_000 && counts.AbortError + counts.came === 150_000, JSON.stringify(counts));
    await program.line("LEFT");
    assert.equal(JSON.parse(await program.line("LEFT")).threads, 0);
    await program.end();
  } finally {
    program.kill();
  }
});

for (const [how, title, threads] of [
  ["servers", "servers that begin and end leave no thread and no memory", 0],
  ["clients", "clients that come and go leave nothing in a process whose server stays", 1],
]) {
  test(title, async () => {
    const program = new Program("garbage", [how], { flags: FLAGS });
    try {
      const before = JSON.parse(await program.line("LEFT"));
      check(before, JSON.parse(await program.line("LEFT")), threads);
      await program.end();
    } finally {
      program.kill();
    }
  });
}

test("what onUpgrade returns for a peer that has gone is let go of", async (t) => {
  const server = await new Server({ upgradeTimeout: 60_000 }).listen();
  t.after(() => server.shutdown());
  server.onError(() => {});
  for (let time = 0; time < 20; time += 1) {
    let answer;
    const asked = new Promise((resolve) => {
      server.onUpgrade(() => {
        resolve();
        return new Promise((done) => {
          answer = done;
        });
      });
    });
    const socket = connect(server.address().port, "127.0.0.1");
    socket.write(handshake());
    await asked;
    socket.resetAndDestroy();
    answer({ nobody: "wants this" });
    await until(() => server.stats().handshakesFailed + server.stats().connects === time + 1);
  }
  await until(() => live().kept === undefined && live().tickets === undefined && server.stats().connections === 0);
});
