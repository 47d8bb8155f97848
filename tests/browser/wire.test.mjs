// What the client puts on the wire and makes of what comes: the vectors, and promises that only the other end of the wire shows.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { root } from "./harness.mjs";
import { hosts } from "./hosts.mjs";
import * as promises from "./promises.mjs";
import * as vectors from "./vectors.mjs";
import { Wire } from "./wire.mjs";

const read = (file) => JSON.parse(readFileSync(join(root, "tests/vectors", `${file}.json`), "utf8"));
const told = {
  vectors: {
    written: read("frames-written"),
    read: read("frames-read"),
    refused: read("frames-refused"),
    names: read("names-refused"),
    replies: read("replies"),
    reconnect: read("reconnect"),
  },
};

for (const host of hosts()) {
  describe(host.name, () => {
    const wire = new Wire();
    before(() => host.open({ wire: async (what, ...how) => wire[what](...how) }));
    after(() => host.close());
    for (const [module, { cases }] of Object.entries({ "vectors.mjs": vectors, "promises.mjs": promises })) {
      for (const name of Object.keys(cases)) {
        test(name, { timeout: 120_000 }, async () => {
          try {
            await host.run(module, name, told);
          } finally {
            await wire.end();
          }
        });
      }
    }
  });
}
