// Nothing stays: after ten thousand connects and a million acknowledgments the engine's memory and JavaScript's heap are what they were
// after the first tenth. Run with --expose-gc.

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { packageFolder, Peer, tools } from "./harness.mjs";

const peer = new Peer("rust");
let memory;
let Client;
before(async () => {
  const { Instance } = WebAssembly;
  WebAssembly.Instance = class extends Instance {
    constructor(module, imports) {
      super(module, imports);
      // Node has modules of its own. The engine imports nothing.
      if (!imports) ({ memory } = this.exports);
    }
  };
  ({ Client } = await import(pathToFileURL(join(packageFolder, "index.js"))));
  await peer.start();
});
after(() => peer.stop());

const options = { WebSocket: globalThis.WebSocket ?? tools("ws") };

/** Heap in use when nothing is left to be collected. */
async function heap() {
  for (let turn = 0; turn < 5; turn += 1) {
    await new Promise(setImmediate);
    globalThis.gc();
  }
  return process.memoryUsage().heapUsed;
}

async function comesBack(rounds, round) {
  let first;
  for (let n = 1; n <= rounds; n += 1) {
    await round(n);
    if (n === rounds / 10) first = { heap: await heap(), wasm: memory.buffer.byteLength };
  }
  const last = await heap();
  assert.equal(memory.buffer.byteLength, first.wasm);
  assert.ok(last - first.heap <= Math.max(0.05 * first.heap, 2 << 20), `heap from ${first.heap} to ${last}`);
}

test("ten thousand connects", { timeout: 300_000 }, () =>
  comesBack(200, () =>
    Promise.all(
      Array.from({ length: 50 }, async () => {
        const client = await new Client(peer.url, options).connect();
        assert.equal(await client.emitWithAck("echo", "x"), "x");
        await client.close();
      }),
    ),
  ),
);

test("a million acknowledgments with signals, some aborted, some too late", { timeout: 300_000 }, async () => {
  const client = await new Client(peer.url, options).connect();
  const { signal } = new AbortController();
  await comesBack(1000, async () => {
    const given = new AbortController();
    const calls = Array.from({ length: 1000 }, (_, n) => {
      if (n === 0) return client.emitWithAck("fail", "", { timeout: 1, signal });
      return client.emitWithAck("echo", "x", { signal: n === 1 ? given.signal : signal });
    });
    given.abort();
    const outcomes = await Promise.allSettled(calls);
    assert.deepEqual(
      outcomes.slice(0, 3).map(({ status }) => status),
      ["rejected", "rejected", "fulfilled"],
    );
    assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 998);
  });
  assert.equal(getEventListeners(signal, "abort").length, 0);
  await client.close();
});
