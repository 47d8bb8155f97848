// The HTTP request that a connection began with, and what it is answered with.
"use strict";

const { inspect } = require("node:util");
const { EtpError } = require("./error.js");

/** Headers as names and values in turn. */
function flatHeaders(headers) {
  if (headers === undefined || headers === null) return [];
  if (typeof headers !== "object") throw new TypeError("headers are an object, or pairs of name and value");
  const pairs = typeof headers[Symbol.iterator] === "function" ? [...headers] : Object.entries(headers);
  return pairs.flatMap(([name, value]) =>
    Array.isArray(value) ? value.flatMap((one) => [String(name), String(one)]) : [String(name), String(value)],
  );
}

// As `http.IncomingMessage` has them: of these the first counts, cookies are joined by a semicolon, all others by a comma.
const SINGLE = new Set(
  [
    "age",
    "authorization",
    "content-length",
    "content-type",
    "etag",
    "expires",
    "from",
    "host",
    "if-modified-since",
  ].concat(
    ["if-unmodified-since", "last-modified", "location", "max-forwards", "proxy-authorization", "referer"],
    ["retry-after", "server", "user-agent"],
  ),
);

function joined(flat) {
  const headers = {};
  for (let at = 0; at < flat.length; at += 2) {
    const name = flat[at].toLowerCase();
    const value = flat[at + 1];
    if (!Object.hasOwn(headers, name)) headers[name] = value;
    else if (!SINGLE.has(name)) headers[name] += (name === "cookie" ? "; " : ", ") + value;
  }
  return headers;
}

class Request {
  #raw;
  #headers;
  #query;
  constructor(raw, incoming) {
    this.#raw = raw;
    this.incoming = incoming;
  }
  get method() {
    return this.#raw.method;
  }
  get url() {
    return this.#raw.url;
  }
  get path() {
    return this.#raw.path;
  }
  get query() {
    this.#query ??= new URLSearchParams(this.#raw.query);
    return this.#query;
  }
  get headers() {
    this.#headers ??= joined(this.#raw.headers);
    return this.#headers;
  }
  get token() {
    return this.#raw.token ?? undefined;
  }
  get peer() {
    const { address, port } = this.#raw;
    return typeof address === "string" ? { address, port } : undefined;
  }
  get clientIp() {
    return this.#raw.clientIp ?? undefined;
  }
  get protocols() {
    return this.#raw.protocols;
  }
  [inspect.custom]() {
    // No query and no headers: they may be secrets.
    return `Request { ${this.method} ${this.path} }`;
  }
}

class Accept {
  constructor(options = {}) {
    this.data = options.data;
    this.headers = options.headers;
    this.protocol = options.protocol;
    this.close = options.close;
  }
}

class Reject extends Error {
  constructor(status, body, options = {}) {
    super(body === undefined ? `rejected with ${status}` : body);
    if (!Number.isInteger(status) || status < 0 || status > 65535) {
      throw new EtpError("invalid_option", `${status} is no HTTP status`);
    }
    this.status = status;
    this.body = body;
    this.headers = options.headers;
  }
}
Object.defineProperty(Reject.prototype, "name", { value: "Reject", configurable: true, writable: true });

module.exports = { Accept, Reject, Request, flatHeaders };
