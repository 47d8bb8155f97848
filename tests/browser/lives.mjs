// Long lives of clients, of which nothing may stay behind: what is in use after the first tenth is compared to the end.

import { closeAll, make } from "./expect.mjs";

/** What wasm has for memory, which never shrinks. Filled before the first client is made. */
const memories = [];
if (globalThis.WebAssembly) {
  const { Instance } = WebAssembly;
  WebAssembly.Instance = class extends Instance {
    constructor(...given) {
      super(...given);
      memories.push(this.exports.memory);
    }
  };
}

const wasmBytes = () => memories.reduce((sum, { buffer }) => sum + buffer.byteLength, 0);

/** What is in use when all that can be collected has been. */
async function used(env) {
  for (let n = 0; n < 8; n++) {
    env.gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { heap: env.used(), wasm: wasmBytes() };
}

/**
 * Does `work(n)` so many times, as many at once; answers what was in use after the first tenth and at the end. In the first tenth
 * twice as many are at once: tables have the size of the most that ever waited, and later there are never more.
 */
async function measured(env, { times, atOnce }, work) {
  let n = 0;
  const until = async (end, atOnce) => {
    const worker = async () => {
      while (n < end) await work(n++);
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
  };
  await until(times / 10, 2 * atOnce);
  const early = await used(env);
  await until(times, atOnce);
  return { early, late: await used(env), memories: memories.length };
}

export const cases = {
  connections: (env) =>
    measured(env, env, async (n) => {
      const client = new env.Client(env.url, env.options);
      client.on("question", () => "");
      client.onDisconnect(() => {});
      const events = client.events();
      await client.connect();
      if ((await client.emitWithAck("echo", `${n}`)) !== `${n}`) throw new Error("another's reply");
      await client.close();
      if (!(await events.next()).done) throw new Error("an event that nobody sent");
    }),

  async acknowledgments(env) {
    const { client } = make(env, env.url);
    await client.connect();
    // One signal for all, which is never aborted, as that of a page's own life. Its listeners are counted from outside.
    const { signal } = new AbortController();
    globalThis.signal = signal;
    env.manyListen(signal);
    const counts = { aborted: 0, late: 0 };
    const outcome = await measured(env, env, async (n) => {
      const kind = n % 1000;
      if (kind === 0) {
        const given = new AbortController();
        const aborted = client.emitWithAck("echo", "", { signal: given.signal }).catch((error) => error.name);
        given.abort();
        if ((await aborted) === "AbortError") counts.aborted += 1;
      } else if (kind === 1) {
        const late = client.emitWithAck("fail", "", { timeout: 1, signal }).catch((error) => error.code);
        if ((await late) === "ack_timeout") counts.late += 1;
      } else if ((await client.emitWithAck("echo", `${n}`, { timeout: 60_000, signal })) !== `${n}`) {
        throw new Error("another's reply");
      }
    });
    return { ...outcome, counts };
  },

  listen() {
    globalThis.signal.addEventListener("abort", () => {});
  },
};

export const end = closeAll;
