// The entries beside the first: the same names and types, and how the WebAssembly is loaded.

import * as whole from "etp-ws-client";
import * as nowasm from "etp-ws-client/nowasm";
import type * as separate from "etp-ws-client/separate";
import { Client, EtpError, load } from "etp-ws-client/separate";
import type { Equal, Expect } from "./equal.js";
import type { FromClients, FromServer } from "./events.js";

export type Inferred = [
  Expect<Equal<keyof typeof whole, "Client" | "EtpError">>,
  Expect<Equal<keyof typeof nowasm, "Client" | "EtpError">>,
  Expect<Equal<keyof typeof separate, "Client" | "EtpError" | "load">>,
  Expect<Equal<typeof nowasm.Client, typeof whole.Client>>,
  Expect<Equal<separate.ClientOptions, whole.ClientOptions>>,
  Expect<Equal<nowasm.ErrorCode, whole.ErrorCode>>,
  Expect<Equal<ReturnType<typeof load>, Promise<void>>>,
];

export async function start(): Promise<unknown> {
  await load("/etp-ws-client.wasm");
  await load(new URL("https://example.org/etp-ws-client.wasm"));
  await load(fetch("/etp-ws-client.wasm"));
  await load(await fetch("/etp-ws-client.wasm"));
  await load(new Uint8Array(8));
  await load(new ArrayBuffer(8));
  await load(WebAssembly.compileStreaming(fetch("/etp-ws-client.wasm")));
  await load(await WebAssembly.compile(new Uint8Array(8)));
  // @ts-expect-error: from where
  await load();
  // @ts-expect-error: no source
  await load(5);
  // @ts-expect-error: the first has its WebAssembly in it
  whole.load;
  // @ts-expect-error: this one has none
  nowasm.load;

  const client = new Client<FromServer, FromClients>("/ws", { codec: "json" });
  const plain: nowasm.Client<FromServer, FromClients> = client;
  // @ts-expect-error: other events
  const swapped: Client<FromClients, FromServer> = client;
  // @ts-expect-error: there is no such event
  new nowasm.Client<FromServer, FromClients>("/ws").emit("hallo");
  return [plain, swapped, new EtpError("invalid_state", "it is not loaded"), new nowasm.EtpError("overflow", "late")];
}
