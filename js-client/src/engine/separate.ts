// The module in a file of its own, which a page loads before its first client.

import type { Exports } from "../engine.js";
import { failure } from "../error.js";
import { compile, unsupported } from "./compile.js";

let loaded: WebAssembly.Module | undefined;

type Source = string | URL | Response | BufferSource | WebAssembly.Module;

export async function load(source: Source | Promise<Source>): Promise<void> {
  try {
    let given: any = await source;
    if (typeof given === "string" || given instanceof URL) given = await fetch(given);
    if (given.arrayBuffer) {
      if (!given.ok) throw `${given.status} ${given.url}`;
      given = await given.arrayBuffer();
    }
    loaded = given instanceof WebAssembly.Module ? given : await WebAssembly.compile(given);
  } catch (error) {
    throw unsupported(error);
  }
}

export function instantiate(): Exports {
  if (!loaded) throw failure("invalid_state", "await load() before the first client is made");
  return compile(loaded);
}
