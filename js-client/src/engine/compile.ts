import type { Exports } from "../engine.js";
import { EtpError, shown } from "../error.js";

/** Where an engine has no WebAssembly, or a page does not allow it. */
export function unsupported(error: unknown): EtpError {
  return new EtpError(
    "unsupported_platform",
    `WebAssembly can't be used here (${shown(error)}). With a Content-Security-Policy allow 'wasm-unsafe-eval' in script-src, or import "etp-ws-client/nowasm", the same client without WebAssembly`,
    { cause: error },
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
