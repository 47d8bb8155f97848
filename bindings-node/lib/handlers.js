// What servers and clients share: handlers by event, callbacks, middleware around every event; and a site, which is one
// of them at work.
"use strict";

const { AsyncResource } = require("node:async_hooks");
const { codecOf } = require("./codec.js");
const { conns, current, enter, hold, keep, leave, log, native, schedule, shown, take } = require("./environment.js");
const { EtpError } = require("./error.js");
const key = require("./keys.js");

function checkFunction(f, what) {
  if (typeof f !== "function")
    throw new TypeError(`${what} is to be a function, not ${f === null ? "null" : typeof f}`);
}

function failed(what, error) {
  return new EtpError("handler_failed", `${what}: ${shown(error)}`, { cause: error });
}

/** Handlers, callbacks and middleware. */
class Handlers {
  constructor(owner, codec, isClient) {
    this.owner = owner;
    this.codec = codecOf(codec);
    this.isClient = isClient;
    // Handlers run in the async context that the server or client was made in, not in that of whoever it began to work for.
    this.context = new AsyncResource(isClient ? "ETPCLIENT" : "ETPSERVER", { requireManualDestroy: true });
    // Nobody is told of its end: it is said at once that there will be no more.
    this.context.emitDestroy();
    /** Handlers as they are called, and the names they are for, by number. */
    this.called = [];
    this.names = [];
    this.numbers = new Map();
    this.given = new Map();
    this.unknownGiven = undefined;
    this.unknown = undefined;
    this.middleware = [];
    this.callbacks = { upgrade: undefined, connect: undefined, disconnect: undefined, error: undefined };
    this.taps = null;
    this.site = undefined;
  }

  on(name, handler) {
    if (typeof name !== "string")
      throw new EtpError("invalid_event", `the name of an event is a string, not ${typeof name}`);
    checkFunction(handler, `the handler of event ${JSON.stringify(name)}`);
    native.checkName(name);
    let number = this.numbers.get(name);
    if (number === undefined) {
      number = this.names.push(name) - 1;
      this.numbers.set(name, number);
    }
    this.given.set(name, handler);
    this.called[number] = this.wrapped(handler, name);
    if (this.site !== undefined) native.route(this.site.id, name, number);
    return () => {
      if (this.given.get(name) === handler) this.off(name);
    };
  }

  off(name) {
    if (!this.given.delete(name)) return;
    this.called[this.numbers.get(name)] = undefined;
    if (this.site !== undefined) native.route(this.site.id, name, -1);
  }

  callback(what, f) {
    checkFunction(f, `on${what[0].toUpperCase()}${what.slice(1)}`);
    if (what === "unknownEvent") {
      this.unknownGiven = f;
      this.unknown = this.wrappedUnknown(f);
    } else {
      this.callbacks[what] = f;
    }
    this.tell();
    return () => {
      if (what === "unknownEvent") {
        if (this.unknownGiven !== f) return;
        this.unknownGiven = undefined;
        this.unknown = undefined;
      } else {
        if (this.callbacks[what] !== f) return;
        this.callbacks[what] = undefined;
      }
      this.tell();
    };
  }

  use(middleware) {
    checkFunction(middleware, "middleware");
    this.middleware.push(middleware);
    for (const [name, handler] of this.given) this.called[this.numbers.get(name)] = this.wrapped(handler, name);
    if (this.unknownGiven !== undefined) this.unknown = this.wrappedUnknown(this.unknownGiven);
    if (this.site !== undefined) this.site.unknown = this.unknown;
  }

  /** Copies of events go here as well. */
  tap(tap) {
    this.taps = [...(this.taps ?? []), tap];
    this.tell();
  }

  untap(tap) {
    const left = (this.taps ?? []).filter((one) => one !== tap);
    this.taps = left.length > 0 ? left : null;
    this.tell();
  }

  wrapped(handler, name) {
    const call = this.isClient ? (_conn, data) => handler(data) : handler;
    if (this.middleware.length === 0) return call;
    return (conn, data) => this.through(conn, { name, data }, (event) => call(conn, event.data));
  }

  wrappedUnknown(f) {
    const call = this.isClient ? (_conn, name, data) => f(name, data) : f;
    if (this.middleware.length === 0) return call;
    return (conn, name, data) => this.through(conn, { name, data }, (event) => call(conn, event.name, event.data));
  }

  /** The first middleware that was added is the outermost. */
  through(conn, event, last) {
    const chain = this.middleware;
    let over = false;
    const step = (index) => {
      if (index === chain.length) return last(event);
      let gone = false;
      // An async function: what fails in it is a rejection, whoever awaits it.
      const next = () => {
        const outcome = after();
        // A middleware that does not wait for it must not leave a rejection that nobody handles.
        outcome.catch((error) => {
          if (over) this.site?.failed(conn, failed(`the handler of event ${JSON.stringify(event.name)} failed`, error));
        });
        return outcome;
      };
      const after = async () => {
        if (gone) throw new Error("next() was called twice by one middleware");
        gone = true;
        return step(index + 1);
      };
      return this.isClient ? chain[index](event, next) : chain[index](conn, event, next);
    };
    const outcome = step(0);
    const done = () => {
      over = true;
    };
    if (typeof outcome?.then === "function") Promise.resolve(outcome).then(done, done);
    else over = true;
    return outcome;
  }

  /** Tells the core which callbacks there are. */
  tell() {
    const { site } = this;
    if (site === undefined) return;
    site.unknown = this.unknown;
    site.taps = this.taps;
    const { upgrade, connect, disconnect } = this.callbacks;
    native.callbacks(site.id, upgrade !== undefined, connect !== undefined, disconnect !== undefined || site.wantsEnds);
  }

  /** Begins to be at work. `begin(id)` makes the core's server or client. */
  enter(site, begin) {
    enter(site);
    try {
      begin(site.id);
    } catch (error) {
      site.discard();
      throw error;
    }
    this.site = site;
    for (const name of this.given.keys()) native.route(site.id, name, this.numbers.get(name));
    this.tell();
    return site;
  }
}

/** A server or client at work: what the core calls about it. */
class Site {
  constructor(handlers, Conn) {
    this.table = handlers;
    this.owner = handlers.owner;
    this.Conn = Conn;
    this.id = 0;
    this.epoch = 0;
    this.handlers = handlers.called;
    this.names = handlers.names;
    this.unknown = handlers.unknown;
    this.taps = handlers.taps;
    this.bytes = handlers.codec.bytes;
    this.encode = handlers.codec.encode;
    this.decode = handlers.codec.decode;
    this.wantsEnds = false;
    this.scope = handlers.context;
    this.over = new Promise((resolve) => {
      this.detached = () => {
        this.close();
        resolve();
      };
    });
    this.attached = 0;
    this.active = false;
    this.awaited = 0;
    this.held = false;
  }

  /** Whether the process stays alive for it. */
  holds() {
    const held = this.awaited > 0 || (this.owner[key.isReferenced] && (this.active || this.attached > 0));
    if (held === this.held) return;
    this.held = held;
    hold(held);
  }

  detachedOne() {
    this.attached -= 1;
    this.holds();
  }

  /** What its caller awaits keeps the process alive, also where the owner was let go of. */
  async during(outcome) {
    this.awaited += 1;
    this.holds();
    try {
      return await outcome;
    } finally {
      this.awaited -= 1;
      this.holds();
    }
  }

  /** Nothing of it comes any more. */
  close() {
    this.active = false;
    this.attached = 0;
    this.holds();
    if (this.table.site === this) this.table.site = undefined;
    this.owner[key.siteEnded](this);
    // For whoever counts what is open: Jest with --detectOpenHandles.
  }

  discard() {
    native.discard(this.id);
    leave(this);
    this.detached();
  }

  meet(slot, generation, data) {
    const conn = new this.Conn(this, slot, generation);
    if (data >= 0) conn.data = take(data);
    conns[slot] = conn;
    this.owner[key.connected]?.(conn);
    return conn;
  }

  /** Connections from the core: slot, generation where it is new, number of data. */
  known(flat) {
    const found = [];
    for (let at = 0; at < flat.length; at += 3) {
      const conn = flat[at + 1] < 0 ? conns[flat[at]] : this.meet(flat[at], flat[at + 1], flat[at + 2]);
      // One that has ended is there until its `onDisconnect` has.
      if (conn !== undefined) found.push(conn);
    }
    return found;
  }

  /** A connection that is known no more, for a late error. */
  gone(id, request) {
    const conn = new this.Conn(this, -1, 0);
    conn[key.knownId] = id;
    conn[key.knownRequest] = request;
    return conn;
  }

  upgraded(ticket, request, incoming) {
    this.owner[key.upgraded](this, ticket, request, incoming);
  }

  asked(question, what) {
    this.owner[key.asked](this, question, what);
  }

  /** Runs `onConnect`. */
  async connected(conn, ticket) {
    let failure;
    try {
      await this.table.callbacks.connect?.(conn);
    } catch (error) {
      failure = { error };
    }
    if (!current(this)) return;
    if (failure === undefined) native.connected(ticket, undefined, "");
    else native.connected(ticket, keep(failure.error), shown(failure.error));
    schedule();
  }

  /** Runs `onDisconnect`; `done` lets the connection go. */
  async disconnected(conn, end, willReconnect, done) {
    try {
      await this.owner[key.disconnected](conn, end, willReconnect);
    } catch (error) {
      this.failed(conn, failed("onDisconnect failed", error));
    } finally {
      done();
    }
  }

  /** Runs `onError`, which has nobody to fail to. */
  async failed(conn, error) {
    const { error: onError } = this.table.callbacks;
    if (onError === undefined) {
      log(conn, error);
      return;
    }
    try {
      await (this.table.isClient ? onError(error) : onError(conn, error));
    } catch (failure) {
      log(conn, error);
      log(conn, failure, "onError failed:");
    }
  }
}

module.exports = { Handlers, Site, checkFunction };
