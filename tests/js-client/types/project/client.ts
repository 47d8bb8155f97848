// A client as an editor sees it: what is right compiles, and each line below `@ts-expect-error` does not.

import {
  type Ack,
  type AckOptions,
  type AnyEvents,
  Client,
  type ClientConn,
  type ClientOptions,
  type Codec,
  type Disconnect,
  type ErrorCode,
  EtpError,
  type Event,
  type Events,
  type MiddlewareEvent,
  type Next,
  type Off,
  type Payload,
  type Probe,
  type Reconnect,
  type State,
} from "etp-ws-client";
import type { Equal, Expect } from "./equal.js";
import type { FromClients, FromServer } from "./events.js";

const client = new Client<FromServer, FromClients>(async () => "wss://example.org/ws", {
  codec: "json",
  auth: () => "token",
  reconnect: { base: 100, cap: 1000 },
  queue: 10,
  shouldReconnect: ({ code, willReconnect }) => willReconnect && code !== 4000,
  probe: { event: "typing" },
});

// Handlers

client.on("news", ({ title }) => void title.length);
client.on("question", (text) => text.length);
client.on("question", async (text) => text.length);
client.on("question", async () => {});
client.on("bell", (nothing: undefined) => nothing);
client.on("bell", () => {});
client.once("question", (text) => text.length);
client.once("news", async () => {})();
client.off("bell");
// @ts-expect-error: the answer is a number
client.on("question", (text) => text);
// @ts-expect-error: nor does it become one
client.on("question", async (text) => text);
// @ts-expect-error: once as well
client.once("question", (text) => text);
// @ts-expect-error: clients emit it
client.on("hello", () => {});
// @ts-expect-error: there is no such event
client.on("olds", () => {});
// @ts-expect-error: there is no such event
client.off("old");
// @ts-expect-error: it carries news
client.once("news", (text: string) => text);
// @ts-expect-error: a handler has the payload alone
client.on("news", (conn, news) => [conn, news]);
// @ts-expect-error: no handler
client.on("news");
client.on("news", (news) => {
  // @ts-expect-error: news have no text
  news.text;
});

// Callbacks

client.onConnect(async (conn) => {
  conn.emit("typing", true);
  const { hi } = await conn.emitWithAck("hello", { name: "ann" }, { timeout: 1000 });
  await conn.drain();
  const open: boolean = conn.isOpen;
  // @ts-expect-error: it stays what it is
  conn.isOpen = open;
  // @ts-expect-error: a client's connection is in no room
  conn.join("lobby");
  // @ts-expect-error: nor has it handlers
  conn.on("news", () => {});
  // @ts-expect-error: the server emits it
  conn.emit("news", { title: hi });
  // @ts-expect-error: the name is missing
  conn.emitWithAck("hello", {});
});
client.onDisconnect((end) => {
  const { code, reason, clean, normal, willReconnect }: Disconnect = end;
  // @ts-expect-error: it stays what it is
  end.willReconnect = false;
  return [code, reason, clean, normal, willReconnect];
});
client.onError((error) => {
  if (error.code === "handler_failed") throw error.cause;
  // @ts-expect-error: there is no such code
  if (error.code === "handler_fell") return;
  const closed: [number | undefined, string | undefined] = [error.closeCode, error.closeReason];
  console.error(error.message, closed);
});
client.onUnknownEvent((name, data) => [name.length, data]);
// @ts-expect-error: callbacks are functions
client.onDisconnect("closed");
client
  .use(async (event, next) => {
    event.data = [event.data];
    // @ts-expect-error: it stays what it is
    event.name = "other";
    return await next();
  })
  .use((_event, next) => next());
// @ts-expect-error: next takes nothing
client.use((event, next) => next(event));

export async function talk(): Promise<unknown[]> {
  await using closing = client;
  const same: Client<FromServer, FromClients> = await client.connect({ signal: AbortSignal.timeout(1000) });
  await client.connect();
  // @ts-expect-error: a signal stands among the options
  await client.connect(AbortSignal.timeout(1000));
  // @ts-expect-error: how long one dial may take is an option of the client
  await client.connect({ timeout: 1000 });
  // @ts-expect-error: it stays what it is
  client.state = "closed";
  // @ts-expect-error: there is no such state
  if (client.state === "open") return [];

  // Emits

  client.emit("typing", true);
  client.emit("whoami");
  client.emit("whoami", undefined);
  client.emit("more");
  client.emit("more", 5);
  // @ts-expect-error: it carries nothing
  client.emit("whoami", 5);
  // @ts-expect-error: it carries a boolean
  client.emit("typing");
  // @ts-expect-error: it carries a boolean
  client.emit("typing", "yes");
  // @ts-expect-error: one value
  client.emit("typing", true, false);
  // @ts-expect-error: the server emits it
  client.emit("news", { title: "x" });
  // @ts-expect-error: nobody waits for the reply of an emit
  client.emit("hello", { name: "ann" }).hi;

  // Acknowledgments

  const hi = client.emitWithAck("hello", { name: "ann" });
  const name = client.emitWithAck("whoami");
  const again = client.emitWithAck("whoami", undefined, { timeout: 5 });
  const some = client.emitWithAck("more", 5, { signal: AbortSignal.timeout(1000) });
  const all = client.emitWithAck("more");
  const nothing = client.emitWithAck("forget", "5");
  const anything = client.emitWithAck("typing", false, { timeout: 5, signal: new AbortController().signal });
  type Replies = [
    Expect<Equal<typeof hi, Promise<{ hi: string }>>>,
    Expect<Equal<typeof name, Promise<string>>>,
    Expect<Equal<typeof again, Promise<string>>>,
    Expect<Equal<typeof some, Promise<string[]>>>,
    Expect<Equal<typeof all, Promise<string[]>>>,
    Expect<Equal<typeof nothing, Promise<void>>>,
    Expect<Equal<typeof anything, Promise<any>>>,
  ];
  // @ts-expect-error: a reply of another kind
  const wrong: number = await client.emitWithAck("hello", { name: "ann" });
  // @ts-expect-error: it is to be awaited
  client.emitWithAck("hello", { name: "ann" }).hi;
  // @ts-expect-error: the name is missing
  await client.emitWithAck("hello", {});
  // @ts-expect-error: what it carries is missing
  await client.emitWithAck("hello");
  // @ts-expect-error: there is no such option
  await client.emitWithAck("more", 5, { retries: 3 });
  // @ts-expect-error: in milliseconds
  await client.emitWithAck("more", 5, { timeout: "1 s" });
  // @ts-expect-error: options come after what it carries
  await client.emitWithAck("whoami", { timeout: 5 });

  // Iterators

  for await (const event of client.events("news")) {
    type News = Expect<Equal<typeof event, Event<"news", { title: string }>>>;
    const news: News = true;
    // @ts-expect-error: news have no text
    event.data.text;
    // @ts-expect-error: it stays what it is
    event.data = { title: "x" };
    if (event.name.length > event.data.title.length) return [news];
  }
  for await (const event of client.events({ buffer: 10 })) {
    type Any = Expect<Equal<typeof event, Event<string, any>>>;
    const any: Any = true;
    if (event.name === "bell") return [any];
  }
  client.events();
  client.events("bell", { buffer: 10 });
  // @ts-expect-error: clients emit it
  client.events("typing");
  // @ts-expect-error: there is no such option
  client.events("bell", { size: 10 });
  // @ts-expect-error: there is no such option
  client.events({ size: 10 });
  // @ts-expect-error: copies are awaited
  for (const _event of client.events()) break;

  // The end

  await client.drain();
  await client.close();
  await client.close(4000);
  await client.close(1000, "bye");
  // @ts-expect-error: a code is a number
  await client.close("bye");
  await client[Symbol.asyncDispose]();
  // @ts-expect-error: closing takes its time
  client[Symbol.dispose]();
  // @ts-expect-error: browsers have none
  client.ping();
  // @ts-expect-error: rooms are the server's
  client.join("lobby");
  const replies: Replies | undefined = undefined;
  return [same, hi, name, again, some, all, nothing, anything, wrong, closing, replies];
}

// Every inferred type

const off = client.on("news", () => {});
const once = client.once("news", () => {});
const [connected, ended, failed, unknown] = [
  client.onConnect(() => {}),
  client.onDisconnect(() => {}),
  client.onError(() => {}),
  client.onUnknownEvent(() => {}),
];
const used = client.use((_event, next) => next());
const news = client.events("news");
const open = new Client("ws://127.0.0.1");

export type Inferred = [
  Expect<Equal<typeof off, Off>>,
  Expect<Equal<typeof once, Off>>,
  Expect<Equal<typeof connected, Off>>,
  Expect<Equal<typeof ended, Off>>,
  Expect<Equal<typeof failed, Off>>,
  Expect<Equal<typeof unknown, Off>>,
  Expect<Equal<Off, () => void>>,
  Expect<Equal<Next, () => Promise<any>>>,
  Expect<Equal<typeof used, Client<FromServer, FromClients>>>,
  Expect<Equal<typeof news, AsyncIterableIterator<Event<"news", { title: string }>>>>,
  Expect<Equal<typeof open, Client<AnyEvents, AnyEvents>>>,
  Expect<Equal<typeof client.state, State>>,
  Expect<Equal<State, "connecting" | "connected" | "reconnecting" | "closed">>,
  Expect<Equal<MiddlewareEvent["name"], string>>,
  Expect<Equal<ReturnType<ClientConn<FromClients>["emit"]>, void>>,
  Expect<Equal<Payload<FromClients, "hello">, { name: string }>>,
  Expect<Equal<Payload<FromClients, "typing">, boolean>>,
  Expect<Equal<Payload<FromClients, "whoami">, undefined>>,
  Expect<Equal<Payload<FromClients, "more">, number | undefined>>,
  Expect<Equal<Payload<FromServer, "bell">, undefined>>,
  Expect<Equal<Ack<FromClients, "hello">, { hi: string }>>,
  Expect<Equal<Ack<FromClients, "forget">, void>>,
  Expect<Equal<Ack<FromServer, "question">, number>>,
  Expect<Equal<Ack<FromClients, "typing">, any>>,
  Expect<Equal<Event<"news", number>, { readonly name: "news"; readonly data: number }>>,
  Expect<Equal<Event, Event<string, any>>>,
  Expect<
    Equal<
      Disconnect,
      {
        readonly code: number;
        readonly reason: string;
        readonly clean: boolean;
        readonly normal: boolean;
        readonly willReconnect: boolean;
      }
    >
  >,
];

// Where a client dials

new Client("/ws");
new Client(new URL("ws://127.0.0.1"));
new Client(() => "/ws");
new Client(async () => new URL("ws://127.0.0.1"));
// @ts-expect-error: where to
new Client();
// @ts-expect-error: a port is no address
new Client(8080);
// @ts-expect-error: nor does it become one
new Client(async () => 8080);

// Options

const reconnect: Reconnect = { base: 500, cap: 30_000, resetAfter: 30_000 };
const probe: Probe = { event: "alive", interval: 25_000, timeout: 10_000 };
const waiting: AckOptions = { timeout: 1000, signal: AbortSignal.timeout(1000) };
const codecs: Codec[] = [
  "text",
  "json",
  "bytes",
  [(value) => JSON.stringify(value), (payload) => new TextDecoder().decode(payload)],
  [(value: Date) => new Uint8Array([value.getDay()]), ([day]) => day],
];
const options: ClientOptions[] = [
  ...codecs.map((codec) => ({ codec })),
  { auth: "token" },
  { auth: async () => "token" },
  { auth: () => localStorage.getItem("token") },
  { reconnect, probe },
  { reconnect: false, probe: "alive" },
  { reconnect: true },
  { WebSocket },
  {
    WebSocket: class {
      constructor(readonly url: string) {}
    },
  },
  { shouldReconnect: (end: Disconnect) => end.normal },
  { ackTimeout: 1, dialTimeout: 1, closeTimeout: 1, queue: 1, maxMessageSize: 1, maxOutbox: 1, maxPendingAcks: 1 },
];
for (const one of options) new Client("/ws", one);
// @ts-expect-error: there is no such codec
new Client("/ws", { codec: "yaml" });
// @ts-expect-error: codecs come in pairs
new Client("/ws", { codec: [JSON.stringify] });
// @ts-expect-error: a payload is text or bytes
new Client("/ws", { codec: [(value: number) => value, (payload) => payload] });
// @ts-expect-error: what arrives at a codec is bytes
new Client("/ws", { codec: [String, (payload: string) => payload] });
// @ts-expect-error: a token is text
new Client("/ws", { auth: { token: "x" } });
// @ts-expect-error: a token is text
new Client("/ws", { auth: async () => 5 });
// @ts-expect-error: milliseconds
new Client("/ws", { reconnect: 500 });
// @ts-expect-error: there is no such option
new Client("/ws", { reconnect: { delay: 500 } });
// @ts-expect-error: it names an event
new Client("/ws", { probe: { interval: 500 } });
// @ts-expect-error: it names an event
new Client("/ws", { probe: true });
// @ts-expect-error: a yes or no
new Client("/ws", { shouldReconnect: () => "yes" });
// @ts-expect-error: a class
new Client("/ws", { WebSocket: "ws" });
// @ts-expect-error: what a package exports beside it is none
new Client("/ws", { WebSocket: { WebSocket } });
// @ts-expect-error: a script can set none
new Client("/ws", { headers: { "x-tenant": "a" } });
// @ts-expect-error: browsers have none
new Client("/ws", { pingInterval: 5000 });
// @ts-expect-error: never unlimited
new Client("/ws", { maxOutbox: null });

// Errors

const error = new EtpError("ack_timeout", "no reply", { cause: 5 });
const codes: ErrorCode[] = [error.code, "connection_closed", "unsupported_platform"];
const aName: "EtpError" = error.name;
const anError: Error = error;
// @ts-expect-error: there is no such code
new EtpError("timeout", "no reply");
// @ts-expect-error: it says something
new EtpError("ack_timeout");
// @ts-expect-error: it stays what it is
error.code = "overflow";
// @ts-expect-error: only a server's client knows it
error.status;

// Without types of events everything goes

const events: Events = { anything: 5 };
open.on("anything", (data) => data.deep.inside);
open.on("anything", async () => 5);
open.emit("something", 1);
open.emit("something");
open.emitWithAck("something").then((reply) => reply.deep.inside);
open.emitWithAck("something", { any: 1 }, { timeout: 5 });
// @ts-expect-error: a name is text
open.emit(5);

export { aName, anError, codes, events, waiting };
