// Nothing stays behind where leaks.test.mjs does not look: in pages, and without WebAssembly. ETP_LEAKS=long: ten times as much.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Peer } from "./harness.mjs";
import { hostsOfMany } from "./hosts.mjs";

const MIB = 1 << 20;
const TIMES = process.env.ETP_LEAKS === "long" ? 10 : 1;
const CONNECTS = 1000 * TIMES;
const ACKS = 100_000 * TIMES;

for (const host of hostsOfMany()) {
  describe(host.name, () => {
    const peer = new Peer("rust");
    before(async () => {
      await peer.start();
      await host.open({});
    });
    after(async () => {
      await host.close();
      await peer.stop();
    });

    function backToWhereItWas({ early, late, memories }) {
      assert.ok(memories > 0 || host.file === "nowasm.js", "wasm's memory is seen where there is one");
      assert.equal(late.wasm, early.wasm, "wasm's memory grew");
      const most = early.heap + Math.max(early.heap / 20, 2 * MIB);
      assert.ok(late.heap <= most, `${late.heap} bytes of heap at the end, ${early.heap} after the first tenth`);
    }

    test(`${CONNECTS} connections`, { timeout: 900_000 }, async () => {
      const told = { url: peer.url, times: CONNECTS, atOnce: host.dials };
      backToWhereItWas(await host.run("lives.mjs", "connections", told));
    });

    test(`${ACKS} acknowledgments`, { timeout: 900_000 }, async () => {
      const outcome = await host.run("lives.mjs", "acknowledgments", { url: peer.url, times: ACKS, atOnce: 256 });
      backToWhereItWas(outcome);
      assert.deepEqual(outcome.counts, { aborted: ACKS / 1000, late: ACKS / 1000 });
      assert.equal(await host.listeners(), 0, "listeners of the signal");
      // What counts them sees one.
      await host.run("lives.mjs", "listen");
      assert.equal(await host.listeners(), 1);
    });
  });
}
