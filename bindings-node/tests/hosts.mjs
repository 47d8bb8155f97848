// What a server of ours is attached to, and connections to it that are written by hand.

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { Server } from "etp-ws";

/** What waits for something that never comes has failed; a busy machine is no failure. */
export const LIMIT = { timeout: 120_000 };

let made;

/** A certificate for 127.0.0.1 and its key, made by the program `openssl`. */
export function certificate() {
  if (made !== undefined) return made;
  const folder = mkdtempSync(join(tmpdir(), "etp-ws-"));
  const [cert, key] = ["cert.pem", "key.pem"].map((name) => join(folder, name));
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
  execFileSync("openssl", ["req", "-x509", ...kind, ...names, "-keyout", key, "-out", cert], { stdio: "pipe" });
  made = { cert: readFileSync(cert), key: readFileSync(key) };
  rmSync(folder, { recursive: true });
  return made;
}

/** A server of ours with an echo, until the end of the test. */
export function etp(t, options) {
  const server = new Server(options);
  server.on("echo", (conn, data) => data);
  server.onError(() => {});
  t.after(() => server.shutdown({ timeout: 0 }));
  return server;
}

/** Listens until the end of the test; answers host and port. */
export async function listening(t, httpServer) {
  httpServer.listen(0, "127.0.0.1");
  await once(httpServer, "listening");
  t.after(() => {
    httpServer.close();
    httpServer.closeAllConnections();
  });
  return `127.0.0.1:${httpServer.address().port}`;
}

async function attached(t, server, httpServer, scheme) {
  server.attach(httpServer);
  return { url: `${scheme}://${await listening(t, httpServer)}`, httpServer };
}

const page = (request, response) => response.end("page");

/** The ways into a server: each answers the URL of its listener, without a path, and the listener if it is Node's. */
export const DOORS = {
  "its own port": async (t, server) => {
    await server.listen();
    return { url: new URL(server.url).origin };
  },
  "an http.Server": (t, server) => attached(t, server, http.createServer(page), "ws"),
  "an https.Server": (t, server) => attached(t, server, https.createServer(certificate(), page), "wss"),
};

/** Those that an application has already. */
export const ATTACHED = ["an http.Server", "an https.Server"];

export function isTls(url) {
  return url.startsWith("wss:") || url.startsWith("https:");
}

/** What a client needs to trust the server: options of `ws`, `tls` and `https`. */
export function trust(url) {
  return isTls(url) ? { ca: certificate().cert } : {};
}

/** A request without a connection that outlives it: its status, headers as they were sent, and body. */
export async function get(url, { method = "GET", headers = {} } = {}) {
  const { request } = isTls(url) ? https : http;
  const sent = request(url.replace(/^ws/, "http"), { method, headers, agent: false, ...trust(url) });
  sent.end();
  const answered = await Promise.race([once(sent, "response"), once(sent, "upgrade")]);
  const [response, socket] = answered;
  if (socket !== undefined) {
    socket.destroy();
    return { status: response.statusCode, headers: response.headers, body: "" };
  }
  let body = "";
  for await (const part of response.setEncoding("utf8")) body += part;
  return { status: response.statusCode, headers: response.headers, body };
}

const HANDSHAKE = {
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Version": "13",
  "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
};

/** A handshake by hand; a header that is undefined is left out. */
export function knock(url, { method, headers = {} } = {}) {
  const all = Object.entries({ ...HANDSHAKE, ...headers }).filter(([, value]) => value !== undefined);
  return get(url, { method, headers: Object.fromEntries(all) });
}

/** A masked text frame. */
export function frame(text) {
  const payload = Buffer.from(text);
  const { length } = payload;
  if (length > 0xffff) throw new RangeError("a longer frame is none that this makes");
  const size = length < 126 ? [0x80 | length] : [0x80 | 126, length >> 8, length & 255];
  // A mask of zeros leaves the payload as it is.
  return Buffer.concat([Buffer.from([0x81, ...size, 0, 0, 0, 0]), payload]);
}

/** The head of a handshake. */
export function head(path = "/ws", more = []) {
  const lines = Object.entries(HANDSHAKE).map(([name, value]) => `${name}: ${value}`);
  return Buffer.from([`GET ${path} HTTP/1.1`, "Host: 127.0.0.1", ...lines, ...more, "", ""].join("\r\n"));
}

/** A connection whose bytes are written by hand. */
export class Raw {
  #received = Buffer.alloc(0);
  #reading;

  static async to(url) {
    const { hostname: host, port } = new URL(url);
    const raw = new Raw();
    raw.tcp = net.connect({ host, port, allowHalfOpen: true });
    raw.socket = isTls(url) ? tls.connect({ socket: raw.tcp, allowHalfOpen: true, ...trust(url) }) : raw.tcp;
    raw.ended = new Promise((resolve) => {
      raw.socket.on("end", resolve).on("close", resolve);
    });
    raw.socket.on("error", () => {});
    raw.tcp.on("error", () => {});
    raw.#reading = raw.socket[Symbol.asyncIterator]();
    await once(raw.socket, isTls(url) ? "secureConnect" : "connect");
    return raw;
  }

  write(...bytes) {
    this.socket.write(Buffer.concat(bytes.map((one) => Buffer.from(one))));
  }

  async #until(enough) {
    for (;;) {
      const length = enough(this.#received);
      if (length >= 0 && this.#received.length >= length) {
        const taken = this.#received.subarray(0, length);
        this.#received = this.#received.subarray(length);
        return taken;
      }
      const { value, done } = await this.#reading.next();
      if (done) throw new Error(`the connection ended after ${JSON.stringify(this.#received.toString("latin1"))}`);
      this.#received = Buffer.concat([this.#received, value]);
    }
  }

  /** The head of an HTTP response, and its body if it says how long that is. */
  async response() {
    const top = (
      await this.#until((bytes) => {
        const at = bytes.indexOf("\r\n\r\n");
        return at < 0 ? -1 : at + 4;
      })
    ).toString();
    const length = Number(/^content-length: (\d+)/im.exec(top)?.[1] ?? 0);
    const body = (await this.#until(() => length)).toString();
    return { status: Number(top.split(" ")[1]), body };
  }

  /** The payload of the next frame. */
  async message() {
    const bytes = await this.#until((all) => {
      if (all.length < 4) return -1;
      return (all[1] & 127) < 126 ? 2 + all[1] : 4 + all.readUInt16BE(2);
    });
    return bytes.subarray(bytes[1] < 126 ? 2 : 4).toString();
  }

  /** Becomes a WebSocket. */
  async upgrade(path) {
    this.write(head(path));
    const { status } = await this.response();
    if (status !== 101) throw new Error(`answered with ${status}`);
  }

  /** Emits an event with an acknowledgment; answers the message that comes. */
  ask(name, data = "") {
    this.write(frame(`${name}||1||${data}`));
    return this.message();
  }

  destroy() {
    this.socket.destroy();
    this.tcp.destroy();
  }
}
