// The client.
"use strict";

const { AsyncLocalStorage } = require("node:async_hooks");
const { Conn } = require("./conn.js");
const { before, call, current, keep, native, schedule, shown } = require("./environment.js");
const { EtpError, checkOptions, checkCloseCode, checkText, checkTimeout } = require("./error.js");
const key = require("./keys.js");
const { Events } = require("./events.js");
const { Handlers, Site, checkFunction } = require("./handlers.js");
const { flatHeaders } = require("./request.js");
const { checked } = require("./server.js");

const OPTIONS = new Set(
  [
    "codec",
    "auth",
    "headers",
    "ca",
    "tls",
    "reconnect",
    "shouldReconnect",
    "queue",
    "dialTimeout",
    "maxMessageSize",
  ].concat(["maxInflight", "maxOutbox", "maxPendingAcks", "ackTimeout", "pingInterval", "pingTimeout", "closeTimeout"]),
);

/** Inside `onDisconnect`: closing there does not wait for it. */
const ending = new AsyncLocalStorage();

const URL_ASKED = 0;

class Client {
  #handlers;
  #url;
  #options;
  #auth;
  #shouldReconnect;
  #site;
  /** What is being closed. */
  #closing;
  /** Gives the dial up, while there is one. */
  #dial;
  #events = new Set();

  /** The connection of a dial that has not come to its end: handlers run already. */
  #first;

  constructor(url, options = {}) {
    if (url instanceof URL) url = url.href;
    if (typeof url !== "string" && typeof url !== "function") {
      throw new EtpError("invalid_option", "url is a string, or a function that returns one");
    }
    const given = checked(options, OPTIONS, "client");
    this.#handlers = new Handlers(this, given.codec, true);
    this.#url = url;
    const { auth, shouldReconnect, reconnect = true } = given;
    if (auth !== undefined && typeof auth !== "string" && typeof auth !== "function") {
      throw new EtpError("invalid_option", "auth is a string, or a function that returns one");
    }
    if (typeof reconnect !== "boolean" && (typeof reconnect !== "object" || reconnect === null)) {
      throw new EtpError("invalid_option", "reconnect is a boolean, or how to come back");
    }
    if (shouldReconnect !== undefined) checkFunction(shouldReconnect, "shouldReconnect");
    this.#auth = auth;
    this.#shouldReconnect = shouldReconnect;
    this.#options = {
      ...given,
      headers: flatHeaders(given.headers),
      reconnect: reconnect === true ? {} : reconnect === false ? undefined : reconnect,
    };
    native.checkClient(this.#options);
    this[key.isReferenced] = true;
  }

  on(name, handler) {
    return this.#handlers.on(name, handler);
  }

  once(name, handler) {
    checkFunction(handler, `the handler of event ${JSON.stringify(name)}`);
    const off = this.on(name, (data) => {
      off();
      return handler(data);
    });
    return off;
  }

  off(name) {
    this.#handlers.off(name);
  }

  onConnect(f) {
    return this.#handlers.callback("connect", f);
  }

  onDisconnect(f) {
    return this.#handlers.callback("disconnect", f);
  }

  onError(f) {
    return this.#handlers.callback("error", f);
  }

  onUnknownEvent(f) {
    return this.#handlers.callback("unknownEvent", f);
  }

  use(middleware) {
    this.#handlers.use(middleware);
    return this;
  }

  events(name, options) {
    if (typeof name === "object" && name !== null) [name, options] = [undefined, name];
    const { buffer = 1024 } = options ?? {};
    if (!Number.isInteger(buffer) || buffer < 1) {
      throw new EtpError("invalid_option", `buffer is ${shown(buffer)}; it is a whole number from 1`);
    }
    const events = new Events(name, buffer, () => {
      this.#events.delete(events);
      this.#handlers.untap(events);
    });
    this.#events.add(events);
    this.#handlers.tap(events);
    return events;
  }

  // --- Life --------------------------------------------------------------------------------------------------------

  get state() {
    if (this.#site === undefined) return "closed";
    return native.clientState(this.#site.id) ?? (this.#dial === undefined ? "closed" : "connecting");
  }

  async connect(options = {}) {
    const asks = typeof this.#url === "function" || this.#shouldReconnect !== undefined;
    return this.#begin((site, id) => native.connect(site, id, asks ? undefined : this.#url), options.signal);
  }

  /** Connects to a server in this process, without a port. Headers are names and values in turn. */
  async [key.connectTo](server, path, headers) {
    return this.#begin((site, id) => native.connectTo(site, id, server[key.siteId](), path, headers));
  }

  async #begin(dial, signal) {
    signal?.throwIfAborted();
    if (this.#site !== undefined) {
      const what = this.#closing === this.#site ? "is still closing" : `is ${this.state} already`;
      throw new EtpError("invalid_state", `this client ${what}`);
    }
    const site = new Site(this.#handlers, Conn);
    site.wantsEnds = this.#shouldReconnect !== undefined;
    this.#handlers.enter(site, (id) =>
      native.client(id, this.#options, this.#handlers.codec.bytes, this.#auth !== undefined, site.wantsEnds),
    );
    this.#site = site;
    const given = new AbortController();
    this.#dial = given;
    site.active = true;
    site.holds();
    let begun = false;
    try {
      await site.during(
        call(
          (id) => {
            dial(site.id, id);
            begun = true;
          },
          { signal: signal === undefined ? given.signal : AbortSignal.any([signal, given.signal]) },
        ),
      );
    } catch (error) {
      // What has begun to dial ends by itself, unless it had come to its end already.
      if (begun) native.clientStop(site.id);
      else site.discard();
      await site.over;
      throw error;
    } finally {
      this.#first = undefined;
      if (this.#dial === given) this.#dial = undefined;
    }
    return this;
  }

  async close(code = 1000, reason = "") {
    checkCloseCode(code);
    checkText(reason, "the reason of a close");
    const site = this.#site;
    if (site === undefined) return;
    if (this.#dial !== undefined) {
      this.#dial.abort(new EtpError("connection_closed", "the client was closed while it connected"));
      await site.during(site.over);
      return;
    }
    before();
    this.#closing = site;
    const closing = call((id) => native.clientClose(site.id, id, code, reason));
    if (ending.getStore()?.client === this) {
      closing.catch(() => {});
      return;
    }
    await site.during(closing.then(() => site.over));
  }

  async [Symbol.asyncDispose]() {
    await this.close();
  }

  ref() {
    this[key.isReferenced] = true;
    this.#site?.holds();
    return this;
  }

  unref() {
    this[key.isReferenced] = false;
    this.#site?.holds();
    return this;
  }

  stats() {
    return native.stats(this.#site?.id ?? 0);
  }

  // --- Calls -------------------------------------------------------------------------------------------------------

  emit(name, data) {
    if (this.#first !== undefined) {
      this.#first.emit(name, data);
      return;
    }
    const encoded = this.#handlers.codec.encode(data);
    before();
    native.clientEmit(this.#site?.id ?? 0, name, encoded);
    schedule();
  }

  emitWithAck(name, data, options) {
    if (options !== undefined) checkOptions(options, "emitWithAck");
    if (this.#first !== undefined) return this.#first.emitWithAck(name, data, options);
    const { timeout, signal } = options ?? {};
    const { codec } = this.#handlers;
    return call(
      (id) => {
        checkTimeout(timeout);
        const encoded = codec.encode(data);
        before();
        native.clientAsk(this.#site?.id ?? 0, id, name, encoded, timeout, codec.bytes);
        schedule();
      },
      { decode: codec.decode ?? undefined, signal },
    );
  }

  ping() {
    if (this.#first !== undefined) return this.#first.ping();
    return call((id) => native.clientPing(this.#site?.id ?? 0, id));
  }

  drain() {
    if (this.#first !== undefined) return this.#first.drain();
    before();
    return call((id) => native.clientDrain(this.#site?.id ?? 0, id));
  }

  // --- What the core tells -----------------------------------------------------------------------------------------

  [key.connected](conn) {
    if (this.#dial !== undefined) this.#first = conn;
  }

  [key.siteEnded](site) {
    if (this.#site !== site) return;
    this.#site = undefined;
    for (const events of [...this.#events]) events.end();
  }

  async [key.asked](site, question, what) {
    const asked = what === URL_ASKED ? this.#url : this.#auth;
    let answer;
    let failure;
    try {
      answer = typeof asked === "function" ? await asked() : asked;
    } catch (error) {
      failure = { error };
    }
    if (!current(site)) return;
    if (failure !== undefined) native.answer(question, undefined, keep(failure.error), shown(failure.error));
    else if (typeof answer === "string") native.answer(question, answer, undefined, "");
    else native.answer(question, undefined, undefined, `${what === URL_ASKED ? "url" : "auth"} gave no string`);
  }

  async [key.disconnected](conn, end, willReconnect) {
    let comesBack = willReconnect;
    if (this.#shouldReconnect !== undefined && willReconnect) comesBack = this.#decide(conn, end);
    const told = { ...end, willReconnect: comesBack };
    const during = { client: this };
    try {
      await ending.run(during, () => this.#handlers.callbacks.disconnect?.(told));
    } finally {
      // What it began goes on in the same context, and may wait for a close.
      during.client = undefined;
    }
  }

  #decide(conn, end) {
    // The usual rule, for a function that fails.
    let again = end.code !== 1008 && !(end.code === 1000 && end.reason !== "" && end.reason !== "server shutdown");
    try {
      again = Boolean(this.#shouldReconnect({ ...end, willReconnect: again }));
    } catch (error) {
      const failure = new EtpError("handler_failed", `shouldReconnect failed: ${shown(error)}`, { cause: error });
      this.#site?.failed(conn, failure);
    }
    if (!again && this.#site !== undefined) native.clientStop(this.#site.id);
    return again;
  }
}

module.exports = { Client };
