// The same module as plain JavaScript, for engines without WebAssembly and pages that forbid it.

import instantiateModule from "etp-ws-client-wasm2js";
import type { Exports } from "../engine.js";

export function instantiate(): Exports {
  return instantiateModule();
}
