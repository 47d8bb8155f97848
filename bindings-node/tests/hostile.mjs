// Values that are no friends of whoever handles them: to be thrown, returned, and passed as arguments.

import { inspect } from "node:util";

function refuse() {
  throw new Error("a trap");
}

const traps = Object.fromEntries(Object.getOwnPropertyNames(Reflect).map((name) => [name, refuse]));

export function revoked() {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

function withGetters() {
  const names = ["then", "message", "name", "stack", "code", "constructor", "cause", "length", Symbol.toStringTag];
  return Object.defineProperties(
    {},
    Object.fromEntries([...names, Symbol.iterator, Symbol.toPrimitive].map((name) => [name, { get: refuse }])),
  );
}

function detached() {
  const bytes = new Uint8Array(8);
  structuredClone(bytes, { transfer: [bytes.buffer] });
  return bytes;
}

const looped = {};
looped.self = looped;

/** What may be thrown, by what it is. */
export const THROWN = {
  "an Error": new Error("boom"),
  undefined: undefined,
  null: null,
  "a string": "boom",
  "half of a surrogate pair": "\ud800",
  "a Symbol": Symbol("boom"),
  "a BigInt": 10n,
  "a function": () => {},
  "a frozen object": Object.freeze({ boom: true }),
  "an object without a prototype": Object.create(null),
  "an object that holds itself": looped,
  "an Error whose message is a Symbol": Object.assign(new Error(), { message: Symbol("boom"), name: Symbol("name") }),
  "an Error that can't be inspected": Object.assign(new Error("boom"), { [inspect.custom]: refuse }),
  "an object that can't be a string": { toString: refuse, [inspect.custom]: refuse },
  "an object whose getters throw": withGetters(),
  "a Proxy": new Proxy(new Error("boom"), {}),
  "a Proxy whose traps throw": new Proxy({}, traps),
  "a revoked Proxy": revoked(),
  // biome-ignore lint/suspicious/noThenProperty: that is what it is about
  "a thenable": { then: refuse },
};

/** What a function of an application's may wrongly be given, by what it is. */
export const ODD = {
  ...THROWN,
  NaN: NaN,
  "minus one": -1,
  "minus zero": -0,
  "a fraction": 1.5,
  "two to the 53rd": 2 ** 53,
  "a number beyond all time": 1.8e22,
  infinity: Infinity,
  true: true,
  "an empty string": "",
  "a huge string": "x".repeat(2 ** 21),
  "an array of everything": [undefined, null, Symbol("x"), 1n, {}, []],
  "an ArrayBuffer": new ArrayBuffer(8),
  "a detached ArrayBuffer": detached().buffer,
  "bytes of a detached ArrayBuffer": detached(),
  "a SharedArrayBuffer": new SharedArrayBuffer(8),
  "bytes of a SharedArrayBuffer": new Uint8Array(new SharedArrayBuffer(8)),
  "a DataView": new DataView(new ArrayBuffer(8)),
  "a Proxy of bytes": new Proxy(new Uint8Array(8), {}),
  "bytes whose length is a lie": Object.defineProperty(new Uint8Array(8), "length", { value: 2 ** 40 }),
  "a Date that is none": new Date(NaN),
  "a class": class {},
  "an aborted signal": AbortSignal.abort(),
};
