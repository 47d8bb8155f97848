// The cases in a page of Chromium, with WebAssembly and without, against both servers; and what only a browser has.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { chromium, launched } from "../peers/browser/chromium.mjs";
import { cases } from "./cases.mjs";
import { controls, oddServer, packageFolder, Peer } from "./harness.mjs";

let browser;
let site;
before(async () => {
  browser = await chromium.launch(launched);
  site = createServer(({ url }, response) => {
    const file = { "/index.js": packageFolder, "/nowasm.js": packageFolder, "/cases.mjs": import.meta.dirname }[url];
    response.writeHead(file || url === "/" ? 200 : 404, { "content-type": file ? "text/javascript" : "text/html" });
    response.end(file ? readFileSync(join(file, url)) : "<!doctype html><title>cases</title>");
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
});
after(async () => {
  await browser.close();
  site.close();
});

/** A page that has the client and the cases. */
async function open(file, control) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.exposeFunction("control", control);
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.evaluate(async (file) => {
    globalThis.client = await import(file);
    globalThis.suite = await import("/cases.mjs");
  }, `/${file}`);
  return { context, page };
}

for (const file of ["index.js", "nowasm.js"]) {
  for (const lang of ["rust", "go"]) {
    describe(`${file} in Chromium with a server in ${lang}`, () => {
      const peer = new Peer(lang);
      let odd;
      let opened;
      before(async () => {
        await peer.start();
        odd = await oddServer();
        opened = await open(file, controls(peer, odd));
      });
      after(async () => {
        await opened.context.close();
        odd.end();
        await peer.stop();
      });
      for (const name of Object.keys(cases)) {
        test(name, { timeout: 60_000 }, async () => {
          const told = { name, url: peer.url, repliesInText: lang === "go" };
          const failure = await opened.page.evaluate(async ({ name, url, repliesInText }) => {
            const { cases, cleanUp } = globalThis.suite;
            try {
              await cases[name]({ ...globalThis.client, url, options: {}, control: globalThis.control, repliesInText });
            } catch (error) {
              return error.stack;
            } finally {
              await cleanUp();
            }
            return undefined;
          }, told);
          assert.equal(failure, undefined);
        });
      }
    });
  }
}

describe("what only a browser has", () => {
  const peer = new Peer("rust");
  let opened;
  before(() => peer.start());
  after(() => peer.stop());

  async function client(options) {
    opened = await open("index.js", () => {});
    await opened.page.evaluate(
      async ({ url, options }) => {
        globalThis.told = [];
        globalThis.c = new globalThis.client.Client(url, options);
        globalThis.c.onError(() => {});
        globalThis.c.onConnect(() => void globalThis.told.push("connected"));
        globalThis.c.onDisconnect((end) => void globalThis.told.push(`${end.code} ${end.reason}`.trim()));
        await globalThis.c.connect();
      },
      { url: peer.url, options },
    );
    return opened.page;
  }

  test("a network that is back ends the pause before the next dial", { timeout: 60_000 }, async () => {
    // So long that nothing but the event can be what ends it.
    const page = await client({ reconnect: { base: 600_000, cap: 600_000 } });
    await opened.context.setOffline(true);
    await peer.stop();
    await page.waitForFunction(() => globalThis.c.state === "reconnecting");
    await peer.start();
    await opened.context.setOffline(false);
    await page.waitForFunction(() => globalThis.c.state === "connected");
    await opened.context.close();
  });

  for (const event of ["pageshow", "visibilitychange"]) {
    test(`${event} ends the pause before the next dial`, { timeout: 60_000 }, async () => {
      const page = await client({ reconnect: { base: 600_000, cap: 600_000 } });
      await peer.stop();
      await page.waitForFunction(() => globalThis.c.state === "reconnecting");
      await peer.start();
      await page.evaluate(
        (event) => (event === "pageshow" ? globalThis : document).dispatchEvent(new Event(event)),
        event,
      );
      await page.waitForFunction(() => globalThis.c.state === "connected");
      await opened.context.close();
    });
  }

  test("a page that is being hidden ends no pause", { timeout: 60_000 }, async () => {
    const page = await client({ reconnect: { base: 600_000, cap: 600_000 } });
    await peer.stop();
    await page.waitForFunction(() => globalThis.c.state === "reconnecting");
    await peer.start();
    // A dial would ask for one of these.
    const dials = await page.evaluate(async () => {
      let dials = 0;
      const Real = globalThis.WebSocket;
      globalThis.WebSocket = class extends Real {
        constructor(...how) {
          super(...how);
          dials += 1;
        }
      };
      let hidden = true;
      Object.defineProperty(document, "hidden", { get: () => hidden });
      const counts = [];
      for (hidden of [true, false]) {
        document.dispatchEvent(new Event("visibilitychange"));
        await new Promise((resolve) => setTimeout(resolve));
        counts.push(dials);
      }
      return counts;
    });
    assert.deepEqual(dials, [0, 1]);
    await opened.context.close();
  });

  test("a page that slept while the server was started anew comes back", { timeout: 60_000 }, async () => {
    const page = await client({ reconnect: { base: 1, cap: 1 } });
    const devtools = await opened.context.newCDPSession(page);
    await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
    await peer.stop();
    await peer.start();
    await devtools.send("Page.setWebLifecycleState", { state: "active" });
    await page.waitForFunction(() => globalThis.told.filter((one) => one === "connected").length === 2);
    assert.equal(await page.evaluate(() => globalThis.c.emitWithAck("echo", "awake")), "awake");
    await opened.context.close();
  });

  test("a dial's error says that a browser does not say why", { timeout: 60_000 }, async () => {
    const { context, page } = await open("index.js", () => {});
    const message = await page.evaluate(() =>
      new globalThis.client.Client("ws://127.0.0.1:1/ws").connect().catch((error) => `${error.code} ${error.message}`),
    );
    assert.match(message, /^connect_failed .*ws:\/\/127\.0\.0\.1:1\/ws.*a browser does not say why/);
    await context.close();
  });

  test("a path is of the page's own server", { timeout: 60_000 }, async () => {
    const { context, page } = await open("index.js", () => {});
    const message = await page.evaluate(() =>
      new globalThis.client.Client("/ws").connect().catch((error) => error.message),
    );
    assert.match(message, new RegExp(`ws://127\\.0\\.0\\.1:${site.address().port}/ws`));
    await context.close();
  });
});
