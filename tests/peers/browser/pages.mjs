// Pages of a Chromium with etp-ws-client in them, each for one client at a time.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, launched } from "./chromium.mjs";

const packageFolder = fileURLToPath(new URL("../../../.build/js-client/package", import.meta.url));

export async function pages() {
  const files = { "/contract.js": readFileSync(new URL("contract.js", import.meta.url)) };
  for (const file of ["index.js", "nowasm.js"]) files[`/${file}`] = readFileSync(join(packageFolder, file));
  const site = createServer(({ url: path }, response) => {
    const type = files[path] ? "text/javascript" : "text/html";
    response.writeHead(files[path] || path === "/" ? 200 : 404, { "content-type": `${type}; charset=utf-8` });
    response.end(files[path] ?? "<!doctype html><title>a client</title>");
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  const blank = `http://127.0.0.1:${site.address().port}/`;
  const browser = await chromium.launch(launched);
  const context = await browser.newContext();
  const idle = [];

  async function make() {
    const made = { page: await context.newPage(), say: () => {}, note: () => {} };
    await made.page.exposeFunction("say", (line) => made.say(line));
    await made.page.exposeFunction("note", (text) => made.note(text));
    await made.page.goto(blank);
    return made;
  }

  return {
    /** A client of this file that has begun to connect: `obey` takes its commands, or is undefined if it can't. */
    async dial(file, url, say, note) {
      const one = idle.pop() ?? (await make());
      Object.assign(one, { say, note });
      const connected = await one.page.evaluate(
        async ({ file, url }) => {
          const [client, contract] = await Promise.all([import(`/${file}`), import("/contract.js")]);
          globalThis.obey = await contract.begin(client, url, {}, globalThis.say, globalThis.note);
          return globalThis.obey !== undefined;
        },
        { file, url },
      );
      return {
        obey: connected ? (command) => one.page.evaluate((command) => globalThis.obey(command), command) : undefined,
        /** Whatever is left of it ends with its document. */
        async end() {
          Object.assign(one, { say() {}, note() {} });
          await one.page.goto(blank);
          idle.push(one);
        },
      };
    },
    async close() {
      await browser.close();
      site.close();
    },
  };
}
