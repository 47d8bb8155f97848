// The cases in Node, with WebAssembly and without, against both servers.

import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { cases, cleanUp } from "./cases.mjs";
import { controls, oddServer, packageFolder, Peer, tools } from "./harness.mjs";

const options = globalThis.WebSocket ? {} : { WebSocket: tools("ws") };

for (const file of ["index.js", "nowasm.js"]) {
  for (const lang of ["rust", "go"]) {
    describe(`${file} with a server in ${lang}`, () => {
      const peer = new Peer(lang);
      let env;
      let odd;
      before(async () => {
        await peer.start();
        odd = await oddServer();
        env = {
          ...(await import(pathToFileURL(join(packageFolder, file)))),
          options,
          control: controls(peer, odd),
          repliesInText: lang === "go",
        };
      });
      after(async () => {
        odd.end();
        await peer.stop();
      });
      for (const [name, run] of Object.entries(cases)) {
        test(name, { timeout: 60_000 }, async () => {
          try {
            await run({ ...env, url: peer.url });
          } finally {
            await cleanUp();
          }
        });
      }
    });
  }
}
