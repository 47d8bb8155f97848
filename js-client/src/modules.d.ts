// What the build puts in: which way the engine comes, its bytes, and the same as JavaScript.

declare module "etp-ws-client-module" {
  export function instantiate(): import("./engine.js").Exports;
}

declare module "etp-ws-client-bytes" {
  const text: string;
  export default text;
}

declare module "etp-ws-client-wasm2js" {
  export default function instantiate(): import("./engine.js").Exports;
}
