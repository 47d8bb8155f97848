// A server whose end of the wire the case holds: it sees each message as it came, and sends, closes and keeps silent as it is told.
// Everything crosses as JSON, as cases also run in a page.

import { once } from "node:events";
import { createServer } from "node:http";
import { tools } from "./harness.mjs";

const { WebSocketServer } = tools("ws");

/** Nothing takes this long. */
const DEADLINE = 20_000;

export class Wire {
  #http;
  #server;
  /** The connection that came last, and what is below it. */
  #last;
  #tcp;
  /** What happened, in order, until it is asked for. */
  #log = [];
  #waiting;

  /** A new server and a new log; answers its URL. `"deaf"` answers no handshake, `"refusing"` none with a connection. */
  async open(manner) {
    this.#server = new WebSocketServer({ noServer: true, maxPayload: 1 << 26, handleProtocols: () => "etp" });
    this.#http = createServer();
    this.#http.on("upgrade", (request, socket, head) => {
      if (manner === "deaf") this.#tell({ dialled: request.url });
      else if (manner === "refusing") socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
      else {
        this.#tcp = socket;
        this.#server.handleUpgrade(request, socket, head, (one) => this.#connected(one, request));
      }
      socket.on("error", () => {});
    });
    this.#http.on("connection", (socket) => this.#sockets.add(socket));
    this.#http.listen(0, "127.0.0.1");
    await once(this.#http, "listening");
    return `ws://127.0.0.1:${this.#http.address().port}/ws`;
  }

  #sockets = new Set();

  #connected(one, { headers, url }) {
    this.#last = one;
    const log = this.#log;
    this.#tell({ connected: url, protocols: headers["sec-websocket-protocol"]?.split(/, */) ?? null });
    one.on("message", (data, isBinary) => {
      if (one === this.#last) this.#tell(isBinary ? { hex: data.toString("hex") } : { text: data.toString() });
    });
    one.on("close", (code, reason) => {
      // Not into the log of the next case.
      if (log === this.#log) this.#tell({ closed: code, reason: reason.toString() });
    });
    one.on("error", () => {});
  }

  #tell(what) {
    this.#log.push(what);
    this.#waiting?.();
  }

  /** What happened next. */
  async next() {
    if (this.#log.length === 0) {
      await new Promise((resolve, reject) => {
        const late = setTimeout(() => reject(new Error("nothing happened on the wire")), DEADLINE);
        this.#waiting = () => {
          clearTimeout(late);
          this.#waiting = undefined;
          resolve();
        };
      });
    }
    return this.#log.shift();
  }

  text(frame) {
    this.#last.send(frame);
  }

  hex(frame) {
    this.#last.send(Buffer.from(frame, "hex"), { binary: true });
  }

  close(code, reason) {
    this.#last.close(code, reason);
  }

  /** Ends the connection without a close frame. */
  cut() {
    this.#last.terminate();
  }

  /** Reads nothing any more, close frames included. */
  pause() {
    this.#last.pause();
  }

  /** Sends a close frame, reads nothing any more, and stays. */
  linger(code) {
    this.#last.pause();
    this.#tcp.write(Buffer.from([0x88, 2, code >> 8, code & 255]));
  }

  resume() {
    this.#last.resume();
  }

  async end() {
    if (!this.#http) return;
    this.#last = undefined;
    this.#log = [];
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
    this.#server.close();
    this.#http.close();
    await once(this.#http, "close");
    this.#http = undefined;
  }
}
