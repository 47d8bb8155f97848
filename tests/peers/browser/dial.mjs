// etp-ws-client as the client of the peers' contract: JSON lines in, JSON lines out.
//
//   dial.mjs node URL [--nowasm]      in this Node
//   dial.mjs chromium URL [--nowasm]  in a page, of a Chromium of its own or of that of `shared.mjs` at the port ETP_BROWSER

import { connect } from "node:net";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
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

if (where === "node") await inNode();
else if (process.env.ETP_BROWSER) await inShared(Number(process.env.ETP_BROWSER));
else await inOwn();

async function inNode() {
  const client = await import(pathToFileURL(join(root, ".build/js-client/package", file)));
  const contract = await import("./contract.js");
  const options = globalThis.WebSocket ? {} : { WebSocket: tools("ws") };
  await commanded(await contract.begin(client, url, options, say, note));
}

async function inOwn() {
  const { pages } = await import("./pages.mjs");
  const own = await pages();
  const { obey } = await own.dial(file, url, say, note);
  await commanded(obey);
  await own.close();
}

async function commanded(obey) {
  if (obey === undefined) {
    process.exitCode = 1;
    return;
  }
  // A command begins while the next line is being waited for: emits keep their order.
  for await (const line of createInterface({ input: process.stdin })) obey(JSON.parse(line));
  await obey({ do: "close" });
}

async function inShared(port) {
  const socket = connect(port, "127.0.0.1");
  socket.write(`${JSON.stringify({ file, url })}\n`);
  process.stdin.pipe(socket);
  for await (const line of createInterface({ input: socket })) {
    const told = JSON.parse(line.slice(1));
    if (line[0] === "o") say(told);
    else if (line[0] === "e") note(told);
    else process.exit(told);
  }
  throw new Error("the shared Chromium is gone");
}
