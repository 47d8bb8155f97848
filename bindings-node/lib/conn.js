// A connection, and broadcasts.
"use strict";

const { inspect } = require("node:util");
const { before, call, native, schedule } = require("./environment.js");
const key = require("./keys.js");
const { EtpError, checkOptions, checkCloseCode, checkText, checkTimeout } = require("./error.js");
const { Request } = require("./request.js");

class Conn {
  constructor(site, slot, generation) {
    if (typeof slot !== "number") throw new TypeError("a Conn is made by its server");
    // Where the core has it; -1 when it is known no more.
    this[key.slot] = slot;
    this[key.generation] = generation;
    this[key.site] = site;
    this[key.ownData] = undefined;
    this[key.knownId] = undefined;
    this[key.knownRequest] = undefined;
    this[key.lastRooms] = undefined;
    this[key.end] = undefined;
    this[key.watch] = undefined;
  }

  get id() {
    this[key.knownId] ??= native.connId(this[key.slot], this[key.generation]);
    return this[key.knownId];
  }

  get request() {
    if (!(this[key.knownRequest] instanceof Request)) {
      const raw = this[key.knownRequest] ?? native.connRequest(this[key.slot], this[key.generation]);
      if (raw === null || raw === undefined) return undefined;
      this[key.knownRequest] = new Request(raw);
    }
    return this[key.knownRequest];
  }

  get data() {
    this[key.ownData] ??= {};
    return this[key.ownData];
  }

  set data(data) {
    this[key.ownData] = data;
  }

  get isOpen() {
    return native.connIsOpen(this[key.slot], this[key.generation]);
  }

  get closed() {
    return this[key.watched]().closed;
  }

  get signal() {
    return this[key.watched]().controller.signal;
  }

  get rooms() {
    return this[key.lastRooms] ?? native.connRooms(this[key.slot], this[key.generation]);
  }

  emit(name, data) {
    const encoded = this[key.site].encode(data);
    before();
    if (this[key.slot] < 0) throw this[key.closedError]();
    native.connEmit(this[key.slot], this[key.generation], name, encoded);
    schedule();
  }

  emitWithAck(name, data, options) {
    if (options !== undefined) checkOptions(options, "emitWithAck");
    const { timeout, signal } = options ?? {};
    return call(
      (id) => {
        checkTimeout(timeout);
        const encoded = this[key.site].encode(data);
        before();
        if (this[key.slot] < 0) throw this[key.closedError]();
        native.connAsk(this[key.slot], this[key.generation], id, name, encoded, timeout, signal !== undefined);
        schedule();
      },
      { decode: this[key.site].decode ?? undefined, signal },
    );
  }

  ping() {
    return call((id) => {
      if (this[key.slot] < 0) throw this[key.closedError]();
      native.connPing(this[key.slot], this[key.generation], id);
      schedule();
    });
  }

  drain() {
    return call((id) => {
      before();
      if (this[key.slot] < 0) throw this[key.closedError]();
      native.connDrain(this[key.slot], this[key.generation], id);
      schedule();
    });
  }

  join(room) {
    checkText(room, "the name of a room");
    native.connJoin(this[key.slot], this[key.generation], room);
  }

  leave(room) {
    checkText(room, "the name of a room");
    native.connLeave(this[key.slot], this[key.generation], room);
  }

  to(...rooms) {
    return new Broadcast(this[key.site].table, rooms.flat(), []);
  }

  close(code = 1000, reason = "") {
    checkCloseCode(code);
    checkText(reason, "the reason of a close");
    before();
    native.connClose(this[key.slot], this[key.generation], code, reason);
    schedule();
  }

  [inspect.custom]() {
    return `Conn { ${this.id} }`;
  }

  // --- What the core tells ---------------------------------------------------------------------------------------

  [key.watched]() {
    if (this[key.watch] === undefined) {
      const controller = new AbortController();
      let resolve;
      const closed = new Promise((done) => {
        resolve = done;
      });
      this[key.watch] = { controller, closed, resolve };
      if (!native.connWatch(this[key.slot], this[key.generation])) this[key.closing]();
    }
    return this[key.watch];
  }

  [key.closing]() {
    if (this[key.watch] === undefined) return;
    this[key.watch].resolve();
    // Listeners that throw reach the process as they do on any EventTarget.
    if (!this[key.watch].controller.signal.aborted) this[key.watch].controller.abort(this[key.closedError]());
  }

  [key.ended](end, id, rooms) {
    this[key.end] = end;
    this[key.knownId] = id;
    this[key.lastRooms] = rooms;
    this[key.closing]();
  }

  [key.forgotten]() {
    this[key.knownRequest] ??= native.connRequest(this[key.slot], this[key.generation]);
    this[key.slot] = -1;
  }

  [key.closedError]() {
    if (this[key.end] === undefined) return new EtpError("connection_closed", "the connection is closed");
    const { code, reason } = this[key.end];
    const why = reason === "" ? `code ${code}` : `code ${code}, ${JSON.stringify(reason)}`;
    const error = new EtpError("connection_closed", `the connection is closed (${why})`);
    error.closeCode = code;
    error.closeReason = reason;
    return error;
  }
}

/** To whom: the members of rooms, or everybody (no rooms), less those left out. */
class Broadcast {
  #table;
  #rooms;
  #left;
  constructor(table, rooms, left) {
    if (table?.codec === undefined) throw new TypeError("a Broadcast is made by `to` or `except`");
    for (const room of rooms ?? []) checkText(room, "the name of a room");
    this.#table = table;
    this.#rooms = rooms;
    this.#left = left;
  }

  except(...whom) {
    const left = whom.flat().map((one) => {
      if (one instanceof Conn) return one.id;
      if (typeof one === "string") return one;
      throw new TypeError("except takes connections, their ids, and names of rooms");
    });
    return new Broadcast(this.#table, this.#rooms, [...this.#left, ...left]);
  }

  emit(name, data) {
    const { site, codec } = this.#table;
    const encoded = codec.encode(data);
    if (site === undefined) {
      native.checkName(name);
      return 0;
    }
    before();
    const reached = native.broadcast(site.id, this.#rooms, this.#left, name, encoded);
    schedule();
    return reached;
  }

  get conns() {
    const { site } = this.#table;
    return site === undefined ? [] : site.known(native.selected(site.id, this.#rooms, this.#left));
  }
}

module.exports = { Broadcast, Conn };
