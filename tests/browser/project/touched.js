// What the package touches of its surroundings.

const ENTRIES = ["index", "nowasm", "separate"];

/** Ways to leave something behind, to be called later, or to begin what only a client needs. */
const WATCHED = [
  [globalThis, "setTimeout", "setInterval", "setImmediate", "queueMicrotask", "requestAnimationFrame", "Promise"],
  [globalThis, "fetch", "WebSocket", "Worker", "BroadcastChannel", "MessageChannel", "TextEncoder", "TextDecoder"],
  [globalThis.EventTarget.prototype, "addEventListener"],
  [globalThis.process, "on", "once", "addListener", "emitWarning"],
  [WebAssembly, "Module", "Instance", "compile", "instantiate", "compileStreaming", "instantiateStreaming"],
];

/** Names of what is touched when `get` gives the entries, and `use` does something with each. */
export async function touched(get, use) {
  const seen = new Set();
  // What drives a browser has timers of its own in a page: only calls from the package's files count.
  const note = (name) => /node_modules\/etp-ws-client\//.test(new Error().stack) && seen.add(name);
  Error.stackTraceLimit = Infinity;
  for (const [owner, ...names] of WATCHED) {
    for (const name of names) if (owner?.[name]) watch(owner, name, () => note(name));
  }
  // Node tells of everything asynchronous that begins.
  const hooks = globalThis.process?.getBuiltinModule("node:async_hooks");
  hooks?.createHook({ init: (_, type) => note(type) }).enable();
  for (const entry of ENTRIES) await use(await get(`./node_modules/etp-ws-client/${entry}`));
  return [...seen].sort();
}

function watch(owner, name, called) {
  owner[name] = new Proxy(owner[name], {
    apply(...call) {
      called();
      return Reflect.apply(...call);
    },
    construct(...call) {
      called();
      return Reflect.construct(...call);
    },
  });
}
