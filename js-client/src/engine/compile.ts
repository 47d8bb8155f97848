import type { Exports } from "../engine.js";
import { type EtpError, failure, shown } from "../error.js";

/** Where an engine has no WebAssembly, a page does not allow it, or a file is not there. */
export function unsupported(error: unknown): EtpError {
  return failure(
    "unsupported_platform",
    `no WebAssembly (${shown(error)}): allow 'wasm-unsafe-eval' in the Content-Security-Policy's script-src, or use etp-ws-client/nowasm`,
    error,
  );
}

export function compile(source: BufferSource | WebAssembly.Module): Exports {
  try {
    const module = source instanceof WebAssembly.Module ? source : new WebAssembly.Module(source);
    return new WebAssembly.Instance(module).exports as unknown as Exports;
  } catch (error) {
    throw unsupported(error);
  }
}
