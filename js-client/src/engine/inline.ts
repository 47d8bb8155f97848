// The module within this file: nothing else has to be served.

import text from "etp-ws-client-bytes";
import { type Exports, encoder } from "../engine.js";
import { compile } from "./compile.js";

export function instantiate(): Exports {
  // As `printable` in build.mjs wrote it, over itself. A cold page runs this once, and not compiled: a plain loop over bytes.
  const bytes = encoder.encode(text.replaceAll("!", "\\"));
  let length = 0;
  let page = 0;
  for (let at = 0; at < bytes.length; at++) {
    const code = bytes[at]!;
    if (code > 124) {
      page = code > 125 ? 88 : 176;
    } else {
      bytes[length++] = code - 39 + page;
      page = 0;
    }
  }
  return compile(bytes.subarray(0, length));
}
