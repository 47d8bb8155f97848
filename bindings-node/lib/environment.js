// What all servers and clients of this thread share: one call from the core for a batch of events, one back for their
// replies. The core's thread begins with the first of them and ends with the last.
"use strict";

// The globals of these names are getters.
const { Buffer } = require("node:buffer");
const process = require("node:process");
const { Pump } = require("./load.js");
const { EtpError, shown } = require("./error.js");
const { keep, take, forget, look, makeError, delivering, kept } = require("./kept.js");

/** Called around what is asked of the core. */
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
    native.begin(wake);
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
  setTimeout(end, 1000, true).unref();
}

function end(now = false) {
  if (sites.size > 0 || !running || (calls.size > 0 && !now)) return;
  flush();
  running = false;
  wantsBytes = false;
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
      entry.abort = () => {
        calls.delete(id);
        native.giveUp(id);
        reject(signal.reason);
      };
      signal.addEventListener("abort", entry.abort, { once: true });
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
const MEET = -2;
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

const MORE = 1;
const CHUNK = 2;

/** Two numbers of the batch, then four for each record. */
const ints = new Int32Array(2 + RECORD * 4096);
// Payloads that are wanted as bytes become views of a chunk of this size, as those of Node's own pool do.
const CHUNK_SIZE = 16 * 1024;
const SMALL = 4096;
let chunk = Buffer.alloc(0);
let { buffer: memory } = chunk;
let used = 0;
let wantsBytes = false;

let at = 0;
let until = 0;
let values = [];
let nextValue = 0;

/** Called by the core when something waits. */
function wake() {
  if (!running) return;
  // What handlers write goes out together, at the end.
  turn = true;
  let left = MORE;
  try {
    do left = batch();
    while (left === CHUNK && running);
  } finally {
    values = [];
    if (left === MORE) setImmediate(wake);
    flush();
    if (waiting) {
      // What waits for nothing that takes time ends in this turn.
      waiting = false;
      queueMicrotask(lastTick);
    } else {
      turn = false;
    }
  }
}

function batch() {
  if (wantsBytes && chunk.length - used < SMALL) {
    chunk = Buffer.allocUnsafeSlow(CHUNK_SIZE);
    memory = chunk.buffer;
    used = 0;
  }
  delivering(true);
  values = native.drain(ints, chunk, used);
  delivering(false);
  nextValue = 0;
  at = 2;
  until = 2 + RECORD * ints[0];
  const left = ints[1];
  while (at < until) {
    const what = ints[at];
    if (what >= UNKNOWN) {
      const { site } = conns[ints[at + 1]];
      site.scope.runInAsyncScope(events, undefined, site);
    } else {
      waiting = true;
      other(what);
    }
  }
  return left;
}

/** Runs the events of one site that follow each other. */
function events(site) {
  const { handlers } = site;
  while (at < until) {
    const what = ints[at];
    if (what < UNKNOWN) return;
    const conn = conns[ints[at + 1]];
    if (conn.site !== site) return;
    const ticket = ints[at + 2];
    const length = ints[at + 3];
    at += RECORD;
    let name;
    let acked = true;
    if (what === UNKNOWN) {
      name = values[nextValue++];
      acked = values[nextValue++] === 1;
    }
    let payload;
    if (length < 0) {
      payload = values[nextValue++];
    } else {
      payload = Buffer.from(memory, used, length);
      used += length;
    }
    if (name === undefined && site.taps === null && handlers[what] !== undefined) {
      event(site, conn, handlers[what], ticket, payload);
    } else {
      odd(site, conn, name ?? site.names[what], handlers[what], acked, ticket, payload);
    }
  }
}

/** An event without a handler, or one that iterators get a copy of. */
function odd(site, conn, name, handler, acked, ticket, payload) {
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
  else if (taken && !acked) reply(site, ticket, undefined);
  else native.noHandler(ticket);
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

const { then } = Promise.prototype;

/** Runs a handler; what it returns, or resolves to, is the reply. */
function run(site, handler, conn, data, ticket) {
  try {
    const outcome = handler(conn, data);
    // Whatever has a `then` is awaited.
    if (typeof outcome !== "object" || outcome === null || typeof outcome.then !== "function") {
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
    case MEET: {
      const generation = values[nextValue++];
      const data = values[nextValue++];
      sites.get(second).meet(first, generation, data);
      break;
    }
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
      conn.site.scope.runInAsyncScope(conn.site.connected, conn.site, conn, second);
      break;
    }
    case DISCONNECT:
      disconnect(first, second, third);
      break;
    case CLOSING:
      if (first >= 0) conns[first]?.closing();
      break;
    case FAILED: {
      const error = values[nextValue++];
      const id = values[nextValue++];
      const site = sites.get(second);
      const conn = first >= 0 ? conns[first] : id === undefined ? undefined : site?.gone(id);
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
    case ENDED:
      bridges.get(first)?.destroySoon();
      break;
    case FORGET:
      forget(first >>> 0);
      break;
    case DETACH: {
      const site = sites.get(first);
      if (site !== undefined) {
        leave(site);
        site.detached();
      }
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
  const conn = conns[slot];
  const end = { code, reason, clean: clean === 1, normal: normal === 1 };
  conn.ended(end, id, rooms);
  const done = () => {
    if (conn.site.epoch !== epoch || !running) return;
    conn.forgotten();
    conns[slot] = undefined;
    native.disconnected(ticket, slot);
  };
  conn.site.scope.runInAsyncScope(conn.site.disconnected, conn.site, conn, end, willReconnect === 1, done);
}

/** What happens to errors that nobody takes. What a stranger can cause is no error of this program. */
function log(conn, error, ...what) {
  const strangers = ["handshake_failed", "malformed_frame", "connect_failed"];
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
  try {
    encoded = site.encode(value);
  } catch (error) {
    failPayload(site, ticket, error);
    return;
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
  if (site.epoch === epoch && running) native.fail(ticket, keep(error), shown(error));
}

/** The codec could not read the payload, or write the reply. */
function failPayload(site, ticket, error) {
  if (site.epoch !== epoch || !running) return;
  const cause = error.cause === undefined ? undefined : keep(error.cause);
  native.failPayload(ticket, error.message, cause, shown(error.cause));
}

/** Sends what has gathered, and wakes the connections that it is for. */
function flush() {
  if (!running) return;
  const [sent, strings] = [count, text];
  count = 0;
  staged = 0;
  text = "";
  units = 0;
  native.flush(strings, outcomes, sent, staging);
}

/** Sends replies before what is written now: they came first. */
function before() {
  if (count > 0) flush();
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
