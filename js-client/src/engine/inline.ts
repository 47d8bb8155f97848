// The module within this file: nothing else has to be served.

import text from "etp-ws-client-bytes";
import type { Exports } from "../engine.js";
import { compile } from "./compile.js";

export function instantiate(): Exports {
  // As `printable` in build.mjs wrote it. A cold page runs this once, and not compiled: a plain loop.
  const bytes = new Uint8Array(text.length);
  let length = 0;
  let page = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code > 124) {
      page = code > 125 ? 88 : 176;
    } else {
      bytes[length++] = (code === 33 ? 92 : code) - 39 + page;
      page = 0;
    }
  }
  return compile(bytes.subarray(0, length));
}
