// What is measured, in a page or in Node: the contestants, the traffic, and the first connection of a page.

import { Loopback } from "./loopback.js";

/** Each dials and answers how it asks and how it ends. Only what one contestant needs is loaded. */
const contestants = {
  etp: (url, WebSocket) => client("./etp.js", url, WebSocket),
  nowasm: (url, WebSocket) => client("./nowasm.js", url, WebSocket),
  hand: (url, WebSocket) => handwritten("Handwritten", url, WebSocket),
  "hand-timers": (url, WebSocket) => handwritten("HandwrittenTimers", url, WebSocket),
  async "socket.io"(url) {
    const { io } = await import("./socket.io.js");
    const socket = io(url, { transports: ["websocket"], forceNew: true });
    await new Promise((resolve, reject) => {
      socket.on("connect", resolve);
      socket.on("connect_error", reject);
    });
    return {
      // With a deadline, as the others have one.
      ask: (name, data) => socket.timeout(10_000).emitWithAck(name, data),
      close: () => socket.close(),
    };
  },
};

async function client(file, url, WebSocket) {
  const { Client } = await import(file);
  const client = new Client(url, WebSocket ? { WebSocket } : {});
  await client.connect();
  return { ask: (name, data) => client.emitWithAck(name, data), close: () => client.close() };
}

async function handwritten(name, url, WebSocket) {
  const client = new (await import("./hand.js"))[name]();
  await client.connect(url, WebSocket);
  return { ask: (name, data) => client.emitWithAck(name, data), close: () => client.close() };
}

/** Acknowledged echoes a second, so many in flight. Without a URL they come back from the loopback. */
export async function rate({ contestant, url, bytes, inFlight, seconds }) {
  const { ask, close } = url
    ? await contestants[contestant](url)
    : await contestants[contestant]("ws://loopback/ws", Loopback);
  const payload = "0123456789abcdef".repeat(bytes / 16);
  const begin = performance.now() + seconds * 250;
  let end = Infinity;
  let replies = 0;
  let from;
  let figure;
  // A loopback never lets a timer run, so the clock is looked at; not every time, as that costs too.
  const look = () => {
    const now = performance.now();
    if (from === undefined && now >= begin) {
      from = now;
      end = now + seconds * 1000;
      replies = 0;
    } else if (figure === undefined && now >= end) figure = (replies * 1000) / (now - from);
  };
  const lane = async () => {
    while (figure === undefined) {
      if ((await ask("echo", payload)) !== payload) throw new Error(`${contestant}: another payload came back`);
      if ((++replies & 15) === 0) look();
    }
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  await close();
  return figure;
}

/** Milliseconds from before the import to the first connection, and of its parts. */
export async function first({ contestant, url }) {
  const begin = performance.now();
  let made;
  let client;
  let connected;
  let imported;
  if (contestant === "hand") {
    const { Handwritten } = await import("./hand.js");
    imported = performance.now();
    client = new Handwritten();
    made = performance.now();
    await client.connect(url);
    connected = performance.now();
  } else {
    const { Client } = await import(`./${contestant}.js`);
    imported = performance.now();
    client = new Client(url);
    made = performance.now();
    await client.connect();
    connected = performance.now();
  }
  await client.close();
  return { total: connected - begin, import: imported - begin, make: made - imported, connect: connected - made };
}
