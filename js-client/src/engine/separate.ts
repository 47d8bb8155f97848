// The module in a file of its own, which a page loads before its first client.

import type { Exports } from "../engine.js";
import { EtpError } from "../error.js";
import { compile, unsupported } from "./compile.js";

let loading: Promise<void> | undefined;
let loaded: WebAssembly.Module | undefined;

type Source = string | URL | Response | BufferSource | WebAssembly.Module;

/** Loads the module; once is enough. */
export async function load(source: Source | Promise<Source>): Promise<void> {
  loading ??= fetched(source);
  try {
    await loading;
  } catch (error) {
    loading = undefined;
    throw error;
  }
}

async function fetched(given: Source | Promise<Source>): Promise<void> {
  let source = await given;
  if (typeof source === "string" || source instanceof URL) source = await fetch(source);
  if (source instanceof Response) {
    if (!source.ok) {
      throw new EtpError("unsupported_platform", `${source.url} can't be loaded: ${source.status} ${source.statusText}`);
    }
    source = await source.arrayBuffer();
  }
  try {
    loaded = source instanceof WebAssembly.Module ? source : await WebAssembly.compile(source);
  } catch (error) {
    throw unsupported(error);
  }
}

export function instantiate(): Exports {
  if (!loaded) throw new EtpError("invalid_state", 'await load("…/etp-ws-client.wasm") before the first client is made');
  return compile(loaded);
}
