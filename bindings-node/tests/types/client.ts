// A client as an editor sees it: what is right compiles, and each line below `@ts-expect-error` does not.

import { Client, type ClientDisconnect, type Event, type EtpError, type State } from "etp-ws";
import type { FromClients, FromServer } from "./events.js";

const client = new Client<FromServer, FromClients>(async () => "ws://127.0.0.1:8080/ws", {
  codec: "json",
  auth: () => "token",
  headers: { "x-tenant": "a", accept: ["a", "b"] },
  reconnect: { base: 100, cap: 1000 },
  queue: 10,
  shouldReconnect: ({ code, willReconnect }) => willReconnect && code !== 4000,
});

client.on("news", ({ title }) => void title.length);
client.on("question", (text) => text.length);
client.on("question", async (text) => text.length);
client.on("bell", (nothing: undefined) => nothing);
client.once("news", async () => {})();
client.off("bell");
// @ts-expect-error: the answer is a number
client.on("question", (text) => text);
// @ts-expect-error: clients emit it
client.on("hello", () => {});
// @ts-expect-error: there is no such event
client.off("old");
// @ts-expect-error: it carries news
client.once("news", (text: string) => text);

client.onConnect((conn) => {
  conn.emit("typing", true);
  // @ts-expect-error: a client's connection is in no room
  conn.join("lobby");
});
client.onDisconnect((end: ClientDisconnect) => end.willReconnect);
client.onError((error: EtpError) => error.code);
client.onUnknownEvent((name, data) => [name.length, data]);
client.use(async (event, next) => [event.name, await next()]);

export async function talk(): Promise<unknown[]> {
  await using closing = client;
  await client.connect({ signal: AbortSignal.timeout(1000) });
  const state: State = client.state;

  client.emit("typing", true);
  client.emit("whoami");
  client.emit("more");
  client.emit("more", 5);
  // @ts-expect-error: it carries nothing
  client.emit("whoami", 5);
  // @ts-expect-error: it carries a boolean
  client.emit("typing");
  // @ts-expect-error: it carries a boolean
  client.emit("typing", "yes");
  // @ts-expect-error: the server emits it
  client.emit("news", { title: "x" });

  const { hi }: { hi: string } = await client.emitWithAck("hello", { name: "ann" });
  const name: string = await client.emitWithAck("whoami");
  const again: string = await client.emitWithAck("whoami", undefined, { timeout: 5 });
  const some: string[] = await client.emitWithAck("more", 5, { signal: AbortSignal.timeout(1000) });
  const all: string[] = await client.emitWithAck("more");
  const nothing: void = await client.emitWithAck("forget", "5");
  const anything: Date = await client.emitWithAck("typing", false);
  // @ts-expect-error: a reply of another kind
  const wrong: number = await client.emitWithAck("hello", { name: "ann" });
  // @ts-expect-error: the name is missing
  await client.emitWithAck("hello", {});
  // @ts-expect-error: what it carries is missing
  await client.emitWithAck("hello");
  // @ts-expect-error: there is no such option
  await client.emitWithAck("more", 5, { retries: 3 });

  for await (const event of client.events("news")) {
    const { name, data }: { name: "news"; data: { title: string } } = event;
    // @ts-expect-error: news have no text
    data.text;
    if (name.length > data.title.length) break;
  }
  for await (const event of client.events({ buffer: 10 })) {
    const any: Event = event;
    if (any.name === "bell") break;
  }
  // @ts-expect-error: clients emit it
  client.events("typing");

  await client.ping();
  await client.drain();
  await client.close(1000, "bye");
  return [state, hi, name, again, some, all, nothing, anything, wrong, closing, client.stats(), client.ref().unref()];
}

new Client("wss://example.org/ws", { ca: "ca.pem", tls: { cert: "cert.pem", key: "key.pem" }, reconnect: false });
// A URL object is one as well.
new Client(new URL("ws://127.0.0.1"));
// @ts-expect-error: a server's option
new Client("ws://127.0.0.1", { origins: "*" });

const open = new Client("ws://127.0.0.1");
open.on("anything", (data) => data.deep.inside);
open.emit("something", 1);
open.emit("something");
