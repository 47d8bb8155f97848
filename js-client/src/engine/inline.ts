// The module within this file: nothing else has to be served.

import text from "etp-ws-client-bytes";
import type { Exports } from "../engine.js";
import { compile } from "./compile.js";

export function instantiate(): Exports {
  // As `printable` in build.mjs wrote it.
  const bytes: number[] = [];
  let page = 0;
  for (const letter of text.replace(/!/g, "\\")) {
    const code = letter.charCodeAt(0);
    if (code > 124) {
      page = code > 125 ? 88 : 176;
    } else {
      bytes.push(code - 39 + page);
      page = 0;
    }
  }
  return compile(new Uint8Array(bytes));
}
