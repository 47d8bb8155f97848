// What all servers and clients of this thread share: one call from the core for a batch of events, one back for their
// replies. The core's thread begins with the first of them and ends with the last.
"use strict";

// The globals of these names are getters.
const { Buffer } = require("node:buffer");
const { setMaxListeners } = require("node:events");
const process = require("node:process");
const { Pump } = require("./load.js");
const { markAsUntransferable } = require("node:worker_threads");
const { EtpError, shown } = require("./error.js");
const key = require("./keys.js");
const { keep, take, forget, look, makeError, delivering, kept } = require("./kept.js");

/** The core's side: every call of it is on this thread. */
const native = new Pump(makeError);

// --- Who is at work ------------------------------------------------------------------------------------------------

/** Servers and clients at work, by number. */
const sites = new Map();
/** Connections that are known, by slot. */
const conns = [];
/** Sockets whose bytes are carried, by number. */
const bridges = new Map();
/** Calls that wait for the core, by number. */
const calls = new Map();
let lastCall = 0;
/** Counts the times that the core began: what is left of an earlier one concerns nobody. */
let epoch = 0;
let running = false;
let holders = 0;

/** Begins the core if need be, and gives a new site its number. */
function enter(site) {
  if (!running) {
    native.begin(wake, process.versions.bun === undefined && process.versions.deno === undefined);
    running = true;
    epoch += 1;
    process.on("exit", farewell);
  }
  site.epoch = epoch;
  site.id = native.nextSite();
  sites.set(site.id, site);
  if (site.bytes) wantsBytes = true;
  return site;
}

/** A site is over. */
function leave(site) {
  sites.delete(site.id);
  if (sites.size > 0) return;
  setImmediate(end);
  // Calls that wait have their outcome on the way; should one be lost, nothing is left behind for it.
  const mine = epoch;
  setTimeout(() => {
    if (mine === epoch) end(true);
  }, 1000).unref();
}

function end(now = false) {
  if (sites.size > 0 || !running || (calls.size > 0 && !now)) return;
  flush();
  running = false;
  wantsBytes = false;
  unfinished = false;
  more = false;
  process.off("exit", farewell);
  native.end();
  conns.length = 0;
  for (const socket of bridges.values()) socket.destroy();
  bridges.clear();
  const left = [...calls.values()];
  calls.clear();
  for (const call of left) call.reject(new EtpError("connection_closed", "the connection is closed"));
  // Nobody will say any more that a value is not wanted.
  kept.clear();
}

/** The process exits. */
function farewell() {
  flush();
  running = false;
  native.farewell();
}

/** Whether what a site was asked can be answered: numbers of an earlier life of the core may be others' by now. */
function current(site) {
  return running && site.epoch === epoch;
}

/** Counts who keeps the process alive. */
function hold(more) {
  holders += more ? 1 : -1;
  if (running && holders === (more ? 1 : 0)) native.hold(more);
}

/** Asks the core for something that comes in a batch: `begin(id)` asks, the promise is of its outcome. */
function call(begin, { decode, signal } = {}) {
  return new Promise((resolve, reject) => {
    if (signal !== undefined) signal.throwIfAborted();
    do lastCall = (lastCall + 1) & 0x7fffffff;
    while (calls.has(lastCall));
    const id = lastCall;
    const entry = { resolve, reject, decode, signal, abort: undefined };
    calls.set(id, entry);
    try {
      begin(id);
    } catch (error) {
      calls.delete(id);
      throw error;
    }
    if (signal !== undefined) {
      // Many calls may share one signal.
      setMaxListeners(0, signal);
      entry.abort = () => {
        calls.delete(id);
        native.giveUp(id);
        reject(signal.reason);
      };
      // What `begin` ran of the application's may have aborted it.
      if (signal.aborted) entry.abort();
      else signal.addEventListener("abort", entry.abort, { once: true });
    }
  });
}

function settle(id, failed, value) {
  const entry = calls.get(id);
  if (entry === undefined) return;
  calls.delete(id);
  if (sites.size === 0) setImmediate(end);
  if (entry.abort !== undefined) entry.signal.removeEventListener("abort", entry.abort);
  if (failed) entry.reject(value);
  else if (entry.decode === undefined) entry.resolve(value);
  else {
    try {
      entry.resolve(entry.decode(value));
    } catch (error) {
      entry.reject(error);
    }
  }
}

// --- In: a batch of records ------------------------------------------------------------------------------------------

const RECORD = 4;
const UNKNOWN = -1;
const UPGRADE = -3;
const CONNECT = -4;
const DISCONNECT = -5;
const CLOSING = -6;
const FAILED = -7;
const ASK = -8;
const ACKED = -9;
const SETTLED = -10;
const BRIDGED = -11;
const RESUME = -12;
const ENDED = -13;
const FORGET = -14;
const DETACH = -15;

/** Milliseconds that a carried socket gets to send what is left when its connection is over. */
const FAREWELL = 2000;

const NOTHING = 0;
const AGAIN = 2;

/** Four numbers of the batch, then four for each record; from the end backwards four for each connection that is met. */
const HEAD = 4;
const ints = new Int32Array(HEAD + RECORD * 4096);
// Payloads that are wanted as bytes become views of a chunk of this size, as those of Node's own pool do; where many wait, of a larger one.
const CHUNK_SIZE = 8 * 1024;
const CROWDED = 32 * 1024;
const CHUNKED = 1024;
const SMALL = 4096;
let chunk = Buffer.alloc(0);
let { buffer: memory } = chunk;
// A view of the chunk as a `Buffer`: what `Buffer.from` makes too, but by a way through C++. Where the species is `Buffer` itself, `new`
// means something else.
const Species = Buffer[Symbol.species];
const View = Species !== Buffer && Species?.prototype === Buffer.prototype ? Species : undefined;
let used = 0;
let wantsBytes = false;

let at = 0;
let until = 0;
let values = [];
let nextValue = 0;

// Handlers that take long leave timers and sockets their turn: after so many milliseconds of work the rest comes later.
const WORK = 2;
let began = 0;
let worked = 0;
/** Events between two looks at the clock. */
let step = 1;
/** Others have their turn. */
let resting = false;
/** There is more, or may be. */
let more = false;
/** The records of the last batch are not through. */
let unfinished = false;
let left = 0;

/** Called by the core when something waits. */
function wake() {
  if (!running) return;
  if (resting) {
    more = true;
    return;
  }
  // What handlers write goes out together, at the end.
  turn = true;
  began = performance.now();
  more = true;
  try {
    do more = batch();
    while (more && left === AGAIN && !isTired() && running);
  } finally {
    if (!unfinished) values = [];
    worked += performance.now() - began;
    if (more || worked > WORK) {
      resting = true;
      setImmediate(rested);
    }
    // What waits for nothing that takes time ends in this turn.
    turn = waiting;
    flush();
    if (waiting) {
      waiting = false;
      queueMicrotask(lastTick);
    }
  }
}

function rested() {
  resting = false;
  worked = 0;
  if (more) wake();
}

function isTired() {
  return performance.now() - began > WORK;
}

/** Handles a batch, or the rest of the last one; answers whether there is more. */
function batch() {
  // While a batch is not through the core may have called for the next.
  const resumed = unfinished;
  if (!resumed) drain();
  unfinished = false;
  while (at < until) {
    if (isTired()) {
      unfinished = true;
      return true;
    }
    const before = at;
    try {
      const what = ints[at];
      if (what >= UNKNOWN) {
        const site = conns[ints[at + 1]][key.site];
        site.scope.runInAsyncScope(events, undefined, site);
      } else {
        waiting = true;
        other(what);
      }
    } catch (error) {
      // A bug of ours, which must not cost others their events.
      if (at === before) at += RECORD;
      console.error("etp-ws: a bug, please report it:", error);
    }
  }
  return resumed || left !== NOTHING;
}

function drain() {
  if (wantsBytes && chunk.length - used < CHUNKED) {
    chunk = Buffer.allocUnsafeSlow(left === AGAIN ? CROWDED : CHUNK_SIZE);
    memory = chunk.buffer;
    // Others' payloads lie there too.
    markAsUntransferable(memory);
    used = 0;
  }
  delivering(true);
  try {
    values = native.drain(ints, chunk, used);
  } finally {
    delivering(false);
  }
  nextValue = 0;
  at = HEAD;
  until = HEAD + RECORD * ints[0];
  left = ints[1];
  for (let met = ints.length - RECORD * ints[2]; met < ints.length; met += RECORD) {
    sites.get(ints[met + 1])?.meet(ints[met], ints[met + 2] >>> 0, ints[met + 3]);
  }
}

/** Runs the events of one site that follow each other. */
function events(site) {
  const { handlers } = site;
  for (let count = 1; at < until; count += 1) {
    const what = ints[at];
    if (what < UNKNOWN) return;
    if (count % step === 0) {
      // The clock is looked at the more often the longer handlers take.
      if (isTired()) {
        step = Math.max(1, step >> 2);
        return;
      }
      step = Math.min(32, step * 2);
    }
    const conn = conns[ints[at + 1]];
    if (conn[key.site] !== site) return;
    const ticket = ints[at + 2];
    const length = ints[at + 3];
    at += RECORD;
    const name = what === UNKNOWN ? values[nextValue++] : undefined;
    let payload;
    if (length < 0) {
      payload = values[nextValue++];
    } else {
      payload = View === undefined ? Buffer.from(memory, used, length) : new View(memory, used, length);
      used += length;
    }
    if (name === undefined && site.taps === null && handlers[what] !== undefined) {
      event(site, conn, handlers[what], ticket, payload);
    } else {
      odd(site, conn, name ?? site.names[what], handlers[what], ticket, payload);
    }
  }
}

/** An event without a handler, or one that iterators get a copy of. */
function odd(site, conn, name, handler, ticket, payload) {
  let data;
  try {
    data = site.decode === null ? payload : site.decode(payload);
  } catch (error) {
    failPayload(site, ticket, error);
    return;
  }
  let taken = false;
  for (const tap of site.taps ?? []) taken = tap.push(name, data) || taken;
  const { unknown } = site;
  if (handler !== undefined) run(site, handler, conn, data, ticket);
  else if (unknown !== undefined) run(site, (conn, data) => unknown(conn, name, data), conn, data, ticket);
  else if (taken && ticket >= UNWANTED) reply(site, ticket, undefined);
  else native.noHandler(ticket & ~UNWANTED);
}

function event(site, conn, handler, ticket, payload) {
  let data = payload;
  if (site.decode !== null) {
    try {
      data = site.decode(payload);
    } catch (error) {
      failPayload(site, ticket, error);
      return;
    }
  }
  run(site, handler, conn, data, ticket);
}

/** Added to the ticket of an event that asks for no acknowledgment. */
const UNWANTED = 1 << 30;

const { then } = Promise.prototype;
const { isView } = ArrayBuffer;

/** Runs a handler; what it returns, or resolves to, is the reply. */
function run(site, handler, conn, data, ticket) {
  try {
    const outcome = handler(conn, data);
    // Whatever has a `then` is awaited, but for bytes: asking them for one takes as long as all the rest here.
    if (typeof outcome !== "object" || outcome === null || isView(outcome) || typeof outcome.then !== "function") {
      reply(site, ticket, outcome);
      return;
    }
    // Others' promises may call back twice, or throw.
    then.call(
      Promise.resolve(outcome),
      (value) => lateReply(site, ticket, value),
      (error) => fail(site, ticket, error),
    );
    waiting = true;
  } catch (error) {
    fail(site, ticket, error);
  }
}

function lateReply(site, ticket, value) {
  try {
    reply(site, ticket, value);
  } catch (error) {
    fail(site, ticket, error);
  }
}

function other(what) {
  const first = ints[at + 1];
  const second = ints[at + 2];
  const third = ints[at + 3];
  at += RECORD;
  switch (what) {
    case UPGRADE: {
      const request = values[nextValue++];
      const incoming = values[nextValue++];
      const site = sites.get(first);
      const message = incoming < 0 ? undefined : look(incoming);
      if (site === undefined) native.reject(second, 503, undefined, []);
      else site.scope.runInAsyncScope(site.upgraded, site, second, request, message);
      break;
    }
    case CONNECT: {
      const conn = conns[first];
      const site = conn[key.site];
      site.scope.runInAsyncScope(site.connected, site, conn, second);
      break;
    }
    case DISCONNECT:
      disconnect(first, second, third);
      break;
    case CLOSING:
      if (first >= 0) conns[first]?.[key.closing]();
      break;
    case FAILED: {
      const error = values[nextValue++];
      const id = values[nextValue++];
      const request = values[nextValue++];
      const site = sites.get(second);
      const conn = first >= 0 ? conns[first] : id === undefined ? undefined : site?.gone(id, request);
      if (site === undefined) log(conn, error);
      else site.scope.runInAsyncScope(site.failed, site, conn, error);
      break;
    }
    case ASK: {
      const site = sites.get(first);
      if (site === undefined) native.answer(second, undefined, undefined, "the client is closed");
      else site.scope.runInAsyncScope(site.asked, site, second, third);
      break;
    }
    case ACKED:
    case SETTLED:
      settle(first, second === 1, values[nextValue++]);
      break;
    case BRIDGED: {
      const bytes = values[nextValue++];
      bridges.get(first)?.write(bytes, () => native.bridgeWritten(first, bytes.length));
      break;
    }
    case RESUME:
      bridges.get(first)?.resume();
      break;
    case ENDED: {
      const socket = bridges.get(first);
      if (socket === undefined) break;
      socket.destroySoon();
      // A peer that reads nothing must not keep it.
      setTimeout(() => socket.destroy(), FAREWELL).unref();
      break;
    }
    case FORGET:
      forget(first >>> 0);
      break;
    case DETACH: {
      const site = sites.get(first);
      if (site === undefined) break;
      native.discard(first);
      for (const conn of conns) {
        // `onConnect` has not ended, and nobody waits for it any more.
        if (conn?.[key.site] === site && conn[key.end] === undefined)
          over(conn, LOST, conn.id, conn.rooms, false, undefined);
      }
      leave(site);
      site.detached();
      break;
    }
  }
}

function disconnect(slot, ticket, last) {
  const site = sites.get(last >> 1);
  if ((last & 1) === 1) site?.detachedOne();
  if (slot < 0) return;
  const [code, reason, clean, normal, willReconnect, id, count] = values.slice(nextValue, nextValue + 7);
  nextValue += 7;
  const rooms = values.slice(nextValue, nextValue + count);
  nextValue += count;
  const end = { code, reason, clean: clean === 1, normal: normal === 1 };
  if (conns[slot] === undefined || conns[slot][key.end] !== undefined) {
    // It was told of its end when its server was lost, and is let go of there.
    native.disconnected(ticket, -1);
    return;
  }
  over(conns[slot], end, id, rooms, willReconnect === 1, ticket);
}

/** A connection that was lost with its server. */
const LOST = Object.freeze({ code: 1006, reason: "", clean: false, normal: false });
/** The place of no ticket. */
const NONE = 0xffffffff;

function over(conn, end, id, rooms, willReconnect, ticket = NONE) {
  const site = conn[key.site];
  const slot = conn[key.slot];
  conn[key.ended](end, id, rooms);
  const done = () => {
    if (!current(site)) return;
    conn[key.forgotten]();
    conns[slot] = undefined;
    native.disconnected(ticket, slot);
  };
  site.scope.runInAsyncScope(site.disconnected, site, conn, end, willReconnect, done);
}

const strangers = ["handshake_failed", "malformed_frame", "connect_failed", "no_handler"];
/** Lines in a second that strangers can cause. */
const MOST_LINES = 10;
let lines = 0;
let second = 0;

/** Whether one more line may be printed now. */
function mayPrint() {
  const now = Math.floor(performance.now() / 1000);
  if (now !== second) {
    if (lines > MOST_LINES) console.warn(`etp-ws: and ${lines - MOST_LINES} more in that second`);
    second = now;
    lines = 0;
  }
  lines += 1;
  return lines <= MOST_LINES;
}

/** What happens to errors that nobody takes. What a stranger can cause is no error of this program. */
function log(conn, error, ...what) {
  if (what.length === 0 && strangers.includes(error.code) && !mayPrint()) return;
  const of = conn === undefined ? "etp-ws:" : `etp-ws, connection ${conn.id}:`;
  try {
    const print = what.length === 0 && strangers.includes(error.code) ? console.warn : console.error;
    print(of, ...what, error);
  } catch {
    // What was thrown can't be looked at.
    console.error(of, ...what, shown(error));
  }
}

// --- Out: replies gather until the turn's end ------------------------------------------------------------------------

/** Two numbers for each reply: its ticket, and its length. */
const outcomes = new Int32Array(2 * 4096);
const staging = Buffer.allocUnsafeSlow(64 * 1024);
let count = 0;
let staged = 0;
let text = "";
let units = 0;
/** A handler of this batch waits. */
let waiting = false;
/** The turn that a batch was handled in has not ended. */
let turn = false;
let scheduled = false;
/** Something was sent in this turn of the loop already; the rest goes together. */
let recent = false;

function reply(site, ticket, value) {
  let encoded;
  if (ticket >= UNWANTED) {
    // Nobody waits for it, so it may be anything.
    ticket -= UNWANTED;
  } else {
    try {
      encoded = site.encode(value);
    } catch (error) {
      failPayload(site, ticket, error);
      return;
    }
  }
  if (site.epoch !== epoch || !running) return;
  if (encoded === undefined) {
    outcomes[2 * count] = ticket;
    outcomes[2 * count + 1] = 0;
  } else if (typeof encoded === "string") {
    outcomes[2 * count] = ticket;
    outcomes[2 * count + 1] = encoded.length;
    text += encoded;
    units += encoded.length;
  } else {
    const { length } = encoded;
    if (length > SMALL) {
      flush();
      native.replyBytes(ticket, encoded);
      schedule();
      return;
    }
    if (staged + length > staging.length) flush();
    staging.set(encoded, staged);
    staged += length;
    outcomes[2 * count] = ticket;
    outcomes[2 * count + 1] = -1 - length;
  }
  count += 1;
  if (count === 4096 || units > 64 * 1024) flush();
  schedule();
}

/** The handler threw. */
function fail(site, ticket, error) {
  if (site.epoch === epoch && running) native.fail(ticket & ~UNWANTED, keep(error), shown(error));
}

/** The codec could not read the payload, or write the reply. */
function failPayload(site, ticket, error) {
  if (site.epoch !== epoch || !running) return;
  const cause = error.cause === undefined ? undefined : keep(error.cause);
  native.failPayload(ticket & ~UNWANTED, error.message, cause, shown(error.cause));
}

// What becomes of what this turn has written: it waits on; it is sent, and what is written from now on waits for the turn's
// end; it is sent, and the turn is over.
const WAIT = 0;
const SEND = 1;
const OVER = 2;

/** Sends what has gathered, and wakes the connections that it is for. */
function flush(then = turn ? SEND : OVER) {
  if (!running) return;
  const [sent, strings] = [count, text];
  count = 0;
  staged = 0;
  text = "";
  units = 0;
  native.flush(strings, outcomes, sent, staging, then);
}

/** Queues replies before what is written now: they came first. */
function before() {
  if (count > 0) flush(WAIT);
}

/** What was written in this turn goes out at its end. */
function schedule() {
  if (scheduled || turn) return;
  scheduled = true;
  if (recent) return;
  recent = true;
  setImmediate(turnOver);
  process.nextTick(flushScheduled);
}

function flushScheduled() {
  scheduled = false;
  flush();
}

function turnOver() {
  recent = false;
  if (scheduled) flushScheduled();
}

// Ticks come before microtasks, but one that is asked for by a microtask comes after all of them.
function lastTick() {
  process.nextTick(endTurn);
}

function endTurn() {
  turn = false;
  flushScheduled();
}

module.exports = {
  native,
  bridges,
  conns,
  before,
  call,
  current,
  enter,
  hold,
  leave,
  keep,
  log,
  schedule,
  shown,
  take,
  forget,
  // For tests: sites, connections, tickets, bridges, calls of the core's; calls, kept values and sockets of ours.
  live: () => [
    ...native.live(),
    calls.size,
    kept.size,
    bridges.size,
    conns.filter((conn) => conn !== undefined).length,
  ],
};
