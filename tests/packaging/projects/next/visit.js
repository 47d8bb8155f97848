// Visits the custom server: `node visit.js HOST:PORT [dev]` prints what its page, its route, its events and, in development, its
// hot reloading say, one after the other on one line.

import { once } from "node:events";
import { Client } from "etp-ws";

const [host, mode] = process.argv.slice(2);
const said = [];

const client = await new Client(`ws://${host}/events`).connect();
said.push(await client.emitWithAck("greet", "ann"));

const page = await (await fetch(`http://${host}/`)).text();
said.push(/<p>(a page)<\/p>/.exec(page)?.[1]);
said.push(await (await fetch(`http://${host}/ask`)).text());

if (mode === "dev") {
  const hot = new WebSocket(`ws://${host}/_next/hmr`);
  const [{ data }] = await once(hot, "message");
  said.push(`hot: ${typeof data}`);
  hot.close();
}

said.push(await client.emitWithAck("greet", "ann again"));
await client.close();
console.log(said.join(" | "));
