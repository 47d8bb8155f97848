// etp-ws-client as the client of the peers' contract: JSON lines in, JSON lines out.
//
//   dial.mjs node URL [--nowasm]      in this Node
//   dial.mjs chromium URL [--nowasm]  in a page, of a Chromium of its own or of the one whose endpoint ETP_BROWSER names

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const packageFolder = join(root, ".build/js-client/package");
const tools = createRequire(join(root, ".build/browser/package.json"));

const [where, url, ...flags] = process.argv.slice(2);
if (!["node", "chromium"].includes(where) || url === undefined) {
  console.error("usage: dial.mjs node|chromium URL [--nowasm]");
  process.exit(2);
}
const file = flags.includes("--nowasm") ? "nowasm.js" : "index.js";
const say = (line) => console.log(JSON.stringify(line));
const note = (text) => console.error(text);
process.stdout.on("error", () => {}); // nobody reads any more: there is nobody to tell

const { begin, end } = where === "node" ? await inNode() : await inChromium();
const obey = await begin();
if (obey === undefined) process.exitCode = 1;
else {
  // A command begins while the next line is being waited for: emits keep their order.
  for await (const line of createInterface({ input: process.stdin })) obey(JSON.parse(line));
  await obey({ do: "close" });
}
await end();

async function inNode() {
  const client = await import(pathToFileURL(join(packageFolder, file)));
  const contract = await import("./contract.js");
  const options = globalThis.WebSocket ? {} : { WebSocket: tools("ws") };
  return { begin: () => contract.begin(client, url, options, say, note), end() {} };
}

async function inChromium() {
  const { chromium, launched } = await import("./chromium.mjs");
  const shared = process.env.ETP_BROWSER;
  const browser = shared ? await chromium.connect(shared) : await chromium.launch(launched);
  const files = {
    "/": ["text/html", "<!doctype html><title>a client</title>"],
    "/client.js": ["text/javascript", readFileSync(join(packageFolder, file))],
    "/contract.js": ["text/javascript", readFileSync(new URL("contract.js", import.meta.url))],
  };
  const server = createServer(({ url: path }, response) => {
    const [type, body] = files[path] ?? ["text/plain", ""];
    response.writeHead(files[path] ? 200 : 404, { "content-type": `${type}; charset=utf-8` }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.exposeFunction("say", say);
  await page.exposeFunction("note", note);
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const start = async () => {
    const connected = await page.evaluate(async (url) => {
      const [client, contract] = await Promise.all([import("/client.js"), import("/contract.js")]);
      globalThis.obey = await contract.begin(client, url, {}, globalThis.say, globalThis.note);
      return globalThis.obey !== undefined;
    }, url);
    return connected ? (command) => page.evaluate((command) => globalThis.obey(command), command) : undefined;
  };
  return {
    begin: start,
    async end() {
      await context.close();
      server.close();
      await browser.close();
    },
  };
}
