// A connection, and broadcasts.
"use strict";

const { inspect } = require("node:util");
const { before, call, native, schedule } = require("./environment.js");
const { EtpError, checkCloseCode, checkText, checkTimeout } = require("./error.js");
const { Request } = require("./request.js");

class Conn {
  constructor(site, slot, generation) {
    if (typeof slot !== "number") throw new TypeError("a Conn is made by its server");
    // Where the core has it; -1 when it is known no more.
    this.slot = slot;
    this.generation = generation;
    this.site = site;
    this.ownData = undefined;
    this.knownId = undefined;
    this.knownRequest = undefined;
    this.lastRooms = undefined;
    this.end = undefined;
    this.watch = undefined;
  }

  get id() {
    this.knownId ??= native.connId(this.slot, this.generation);
    return this.knownId;
  }

  get request() {
    if (!(this.knownRequest instanceof Request)) {
      const raw = this.knownRequest ?? native.connRequest(this.slot, this.generation);
      if (raw === null || raw === undefined) return undefined;
      this.knownRequest = new Request(raw);
    }
    return this.knownRequest;
  }

  get data() {
    this.ownData ??= {};
    return this.ownData;
  }

  set data(data) {
    this.ownData = data;
  }

  get isOpen() {
    return native.connIsOpen(this.slot, this.generation);
  }

  get closed() {
    return this.watched().closed;
  }

  get signal() {
    return this.watched().controller.signal;
  }

  get rooms() {
    return this.lastRooms ?? native.connRooms(this.slot, this.generation);
  }

  emit(name, data) {
    const encoded = this.site.encode(data);
    before();
    if (this.slot < 0) throw this.closedError();
    native.connEmit(this.slot, this.generation, name, encoded);
    schedule();
  }

  emitWithAck(name, data, options) {
    const { timeout, signal } = options ?? {};
    return call(
      (id) => {
        checkTimeout(timeout);
        const encoded = this.site.encode(data);
        before();
        if (this.slot < 0) throw this.closedError();
        native.connAsk(this.slot, this.generation, id, name, encoded, timeout, signal !== undefined);
        schedule();
      },
      { decode: this.site.decode ?? undefined, signal },
    );
  }

  ping() {
    return call((id) => {
      if (this.slot < 0) throw this.closedError();
      native.connPing(this.slot, this.generation, id);
      schedule();
    });
  }

  drain() {
    return call((id) => {
      before();
      if (this.slot < 0) throw this.closedError();
      native.connDrain(this.slot, this.generation, id);
      schedule();
    });
  }

  join(room) {
    checkText(room, "the name of a room");
    native.connJoin(this.slot, this.generation, room);
  }

  leave(room) {
    checkText(room, "the name of a room");
    native.connLeave(this.slot, this.generation, room);
  }

  to(...rooms) {
    return new Broadcast(this.site.table, rooms.flat(), []);
  }

  close(code = 1000, reason = "") {
    checkCloseCode(code);
    checkText(reason, "the reason of a close");
    before();
    native.connClose(this.slot, this.generation, code, reason);
    schedule();
  }

  [inspect.custom]() {
    return `Conn { ${this.id} }`;
  }

  // --- What the core tells ---------------------------------------------------------------------------------------

  watched() {
    if (this.watch === undefined) {
      const controller = new AbortController();
      let resolve;
      const closed = new Promise((done) => {
        resolve = done;
      });
      this.watch = { controller, closed, resolve };
      if (!native.connWatch(this.slot, this.generation)) this.closing();
    }
    return this.watch;
  }

  closing() {
    if (this.watch === undefined) return;
    this.watch.resolve();
    // Listeners that throw reach the process as they do on any EventTarget.
    if (!this.watch.controller.signal.aborted) this.watch.controller.abort(this.closedError());
  }

  ended(end, id, rooms) {
    this.end = end;
    this.knownId = id;
    this.lastRooms = rooms;
    this.closing();
  }

  forgotten() {
    this.knownRequest ??= native.connRequest(this.slot, this.generation);
    this.slot = -1;
  }

  closedError() {
    if (this.end === undefined) return new EtpError("connection_closed", "the connection is closed");
    const { code, reason } = this.end;
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
