// What cases say and wait for, in a page as in Node.

/** Nothing takes this long. */
const DEADLINE = 20_000;

export function equal(got, expected, what = "") {
  const [a, b] = [JSON.stringify(got), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what} got ${a?.slice(0, 500)}\nexpected ${b?.slice(0, 500)}`);
}

export function ok(value, what) {
  if (!value) throw new Error(`not so: ${what}`);
}

/** The error that it throws or rejects with, which is to have this code. */
export async function fails(f, code) {
  const error = await Promise.resolve()
    .then(f)
    .then(
      (value) => new Error(`expected ${code}, not ${String(value)}`),
      (error) => error,
    );
  if (error?.code !== code) throw error;
  return error;
}

/** What the promise gives, or an error that says what did not come. */
export function soon(promise, what) {
  let late;
  const never = new Promise((_, reject) => {
    late = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), DEADLINE);
  });
  return Promise.race([promise, never]).finally(() => clearTimeout(late));
}

/** What a callback is told next. */
export function told(subscribe, what = "a callback") {
  return soon(new Promise(subscribe), what);
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function unhex(digits) {
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** The text that these bytes are; undefined where they are none. */
export function textOf(digits) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(unhex(digits));
  } catch {
    return undefined;
  }
}

const open = new Set();

/** A client that `end` closes. Errors that it reports are in `errors`. */
export function make(env, url, options = {}) {
  const client = new env.Client(url, { ...env.options, ...options });
  const errors = [];
  client.onError((error) => errors.push(error));
  open.add(client);
  return { client, errors, wire: env.wire, next: () => env.wire("next") };
}

/** A connected client and the other end of its wire. */
export async function pair(env, options) {
  const made = make(env, await env.wire("open"), options);
  await made.client.connect();
  made.dialled = await made.next();
  return made;
}

/** These happen on the wire, and nothing else: on two connections, so which is told first is open. */
export async function inAnyOrder(next, expected) {
  const rest = expected.map((one) => JSON.stringify(one));
  while (rest.length > 0) {
    const got = JSON.stringify(await next());
    const at = rest.indexOf(got);
    ok(at >= 0, `${got} is one of ${rest}`);
    rest.splice(at, 1);
  }
}

/** All that was sent to the client has been handled: what is sent last is answered. */
export async function handled({ client, wire, next }) {
  const off = client.on("mark", () => undefined);
  await wire("text", "mark||1||");
  equal(await next(), { text: "__ack_mark||1" });
  off();
}

/** Closes what cases have left open. */
export async function closeAll() {
  await Promise.all(Array.from(open, (client) => client.close()));
  open.clear();
}
