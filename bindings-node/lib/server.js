// The server.
"use strict";

const { adopt, attach, refuse } = require("./attach.js");
const { Broadcast, Conn } = require("./conn.js");
const { call, current, forget, keep, native, shown } = require("./environment.js");
const { EtpError, checkOptions, checkCloseCode, checkText } = require("./error.js");
const key = require("./keys.js");
const { Handlers, Site } = require("./handlers.js");
const { Accept, Reject, Request, flatHeaders } = require("./request.js");

const OPTIONS = new Set(
  [
    "codec",
    "origins",
    "hosts",
    "path",
    "tls",
    "trustedProxies",
    "maxMessageSize",
    "maxInflight",
    "maxInflightTotal",
  ].concat(
    ["maxOutbox", "maxPendingAcks", "ackTimeout", "pingInterval", "pingTimeout", "handshakeTimeout", "upgradeTimeout"],
    ["maxConnections", "closeTimeout", "shutdownTimeout"],
  ),
);

/** Options with their defaults where the core can't tell "not given" from null. A name that is no option is an error. */
function checked(options, known, what) {
  if (options === null || typeof options !== "object") {
    throw new EtpError("invalid_option", `a ${what}'s options are an object`);
  }
  for (const name of Object.keys(options)) {
    if (!known.has(name)) {
      const near = [...known].find((one) => one.toLowerCase() === name.toLowerCase().replaceAll("_", ""));
      const hint = near === undefined ? "" : `; did you mean "${near}"?`;
      throw new EtpError("invalid_option", `"${name}" is no option of a ${what}${hint}`);
    }
  }
  return { ...options, pingInterval: options.pingInterval === undefined ? 25_000 : options.pingInterval };
}

/** `instanceof`, of values whose traps may throw. */
function is(value, Class) {
  try {
    return value instanceof Class;
  } catch {
    return false;
  }
}

class Server {
  #handlers;
  #options;
  #path;
  #site;
  #bound = null;
  #url = null;
  #detaching = [];
  #ending;
  /** It was shut down, and has not begun anew. */
  #over = false;
  /** Requests that were let in only to be closed. */
  #closedAtOnce = new WeakSet();

  constructor(options = {}) {
    const given = checked(options, OPTIONS, "server");
    this.#handlers = new Handlers(this, given.codec, false);
    if (typeof given.origins === "string") given.origins = [given.origins];
    native.checkServer(given);
    this.#options = given;
    this.#path = given.path ?? "/ws";
    this[key.isReferenced] = true;
  }

  on(name, handler) {
    return this.#handlers.on(name, handler);
  }

  off(name) {
    this.#handlers.off(name);
  }

  onUpgrade(f) {
    return this.#handlers.callback("upgrade", f);
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

  // --- Life --------------------------------------------------------------------------------------------------------

  #enter() {
    if (this.#ending !== undefined) throw new EtpError("invalid_state", "the server is shutting down");
    this.#site ??= this.#handlers.enter(new Site(this.#handlers, Conn), (id) =>
      native.server(id, this.#options, this.#handlers.codec.bytes),
    );
    return this.#site;
  }

  async listen(options = {}) {
    checkOptions(options, "listen");
    const { port = 0, host = "127.0.0.1", path } = options;
    if (path !== undefined && typeof path !== "string")
      throw new EtpError("invalid_option", "path is a Unix socket's path");
    if (!Number.isInteger(port) || port < 0 || port > 65_535) {
      throw new EtpError("invalid_option", `port is ${shown(port)}; it is a number from 0 to 65535`);
    }
    if (typeof host !== "string") throw new EtpError("invalid_option", "host is a name or an address");
    this.#over = false;
    const site = this.#enter();
    const bound = await site.during(
      call((id) => {
        if (path !== undefined) native.listenUnix(site.id, id, path);
        else native.listen(site.id, id, `${host.includes(":") ? `[${host}]` : host}:${port}`);
      }),
    );
    // Also where it was bound before the shutdown that was asked for meanwhile.
    if (this.#site !== site || this.#ending !== undefined)
      throw new EtpError("connection_closed", "the server was shut down");
    site.active = true;
    site.holds();
    const { url, address, port: at } = bound;
    this.#url = url;
    this.#bound = path ?? { address, port: at, family: address.includes(":") ? "IPv6" : "IPv4" };
    return this;
  }

  address() {
    return this.#bound;
  }

  get url() {
    return this.#url;
  }

  attach(server, options = {}) {
    if (![server?.on, server?.off, server?.listenerCount].every((f) => typeof f === "function")) {
      throw new TypeError("attach takes an http.Server or https.Server");
    }
    checkOptions(options, "attach");
    const { path = this.#path } = options;
    if (typeof path !== "string" || !path.startsWith("/")) {
      throw new EtpError("invalid_option", `path is ${shown(path)}; it begins with "/"`);
    }
    this.#over = false;
    this.#enter();
    this.#detaching.push(
      attach(server, path, (request, socket, head) => {
        this.handleUpgrade(request, socket, head);
      }),
    );
    return this;
  }

  async handleUpgrade(request, socket, head) {
    if (typeof socket?.on !== "function" || typeof request?.url !== "string") {
      throw new TypeError("handleUpgrade takes what `upgrade` listeners of an http.Server get");
    }
    // Whatever becomes of the socket is no error of this program.
    socket.on("error", () => {});
    if (this.#over || this.#ending !== undefined) {
      refuse(socket, 503, "Service Unavailable");
      return false;
    }
    const site = this.#enter();
    site.attached += 1;
    site.holds();
    let accepted = false;
    try {
      accepted = await adopt(site.id, request, socket, head ?? Buffer.alloc(0));
    } catch (error) {
      // A stranger sent it, and the caller may not wait for this.
      site.failed(undefined, error);
    } finally {
      // One that was let in only to be closed has no end that is told.
      if (!accepted || this.#closedAtOnce.has(request)) site.detachedOne();
    }
    return accepted;
  }

  async shutdown(options = {}) {
    checkOptions(options, "shutdown");
    const site = this.#site;
    if (site === undefined) return;
    const { timeout } = options;
    if (timeout !== undefined && !(typeof timeout === "number" && timeout >= 0)) {
      throw new EtpError("invalid_option", `timeout is ${shown(timeout)}; it is a number of milliseconds`);
    }
    if (this.#ending === undefined) {
      native.shutdown(site.id, timeout);
      for (const detach of this.#detaching.splice(0)) detach();
      this.#over = true;
      this.#ending = site.during(site.over);
    }
    await this.#ending;
  }

  async [Symbol.asyncDispose]() {
    await this.shutdown();
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

  // --- Everybody ---------------------------------------------------------------------------------------------------

  emit(name, data) {
    return this.except().emit(name, data);
  }

  to(...rooms) {
    return new Broadcast(this.#handlers, rooms.flat(), []);
  }

  except(...whom) {
    return new Broadcast(this.#handlers, undefined, []).except(...whom);
  }

  get conns() {
    return this.except().conns;
  }

  conn(id) {
    checkText(id, "the id of a connection");
    const site = this.#site;
    return site?.known(native.find(site.id, id))[0];
  }

  get rooms() {
    return this.#site === undefined ? [] : native.rooms(this.#site.id);
  }

  members(room) {
    return this.to(room).conns;
  }

  memberCount(room) {
    checkText(room, "the name of a room");
    return this.#site === undefined ? 0 : native.memberCount(this.#site.id, room);
  }

  clearRoom(room) {
    checkText(room, "the name of a room");
    if (this.#site !== undefined) native.clearRoom(this.#site.id, room);
  }

  stats() {
    return native.stats(this.#site?.id ?? 0);
  }

  // --- What the core tells -----------------------------------------------------------------------------------------

  /** The number of the server at work, for clients in memory. */
  [key.siteId]() {
    return this.#enter().id;
  }

  [key.siteEnded](site) {
    if (this.#site !== site) return;
    this.#site = undefined;
    this.#bound = null;
    this.#url = null;
    this.#ending = undefined;
  }

  async [key.upgraded](site, ticket, raw, incoming) {
    const request = new Request(raw, incoming);
    let answer;
    let failed = false;
    try {
      answer = await this.#handlers.callbacks.upgrade?.(request);
    } catch (error) {
      answer = error;
      failed = !is(error, Reject);
    } finally {
      request.incoming = undefined;
    }
    if (!current(site)) return;
    try {
      if (failed) throw answer;
      this.#answer(ticket, answer, incoming);
    } catch (error) {
      native.failUpgrade(ticket, keep(error), shown(error));
    }
  }

  #answer(ticket, answer, incoming) {
    // What `verifyClient` and the like of others mean by it.
    if (answer === false) {
      native.reject(ticket, 403, undefined, []);
      return;
    }
    if (is(answer, Reject)) {
      native.reject(ticket, answer.status, answer.body, flatHeaders(answer.headers));
      return;
    }
    const { data, headers, protocol, close } = is(answer, Accept)
      ? answer
      : { data: answer === true ? undefined : answer };
    if (close !== undefined) {
      checkCloseCode(close.code);
      if (incoming !== undefined) this.#closedAtOnce.add(incoming);
    }
    const flat = flatHeaders(headers);
    const kept = data === undefined ? undefined : keep(data);
    try {
      native.accept(ticket, kept, flat, protocol, close?.code, close?.reason ?? "");
    } catch (error) {
      if (kept !== undefined) forget(kept);
      throw error;
    }
  }

  async [key.disconnected](conn, end) {
    await this.#handlers.callbacks.disconnect?.(conn, end);
  }
}

module.exports = { Server, checked };
