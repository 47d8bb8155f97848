// Connections that use no code of ours: of the package `ws`.

import { once } from "node:events";
import { WebSocket } from "ws";

/** A connection that is open. */
export async function peer(url, options = {}) {
  const one = new Peer(url, options);
  await one.opened;
  return one;
}

export class Peer {
  #messages = [];
  #waiting = [];
  #over = false;

  constructor(url, options = {}) {
    this.ws = new WebSocket(url, { perMessageDeflate: false, ...options });
    // The close code and reason that came; 1006 where the connection was cut.
    this.ended = new Promise((resolve) => {
      this.ws.on("close", (code, reason) => {
        this.#over = true;
        for (const { reject } of this.#waiting.splice(0)) reject(new Error(`the connection ended with ${code}`));
        resolve([code, reason.toString()]);
      });
    });
    this.ws.on("error", () => {});
    this.ws.on("message", (data, isBinary) => {
      const message = isBinary ? data : data.toString();
      const waiting = this.#waiting.shift();
      if (waiting === undefined) this.#messages.push(message);
      else waiting.resolve(message);
    });
    this.opened = once(this.ws, "open");
    this.opened.catch(() => {});
  }

  send(frame) {
    this.ws.send(frame);
  }

  /** The next message. */
  next() {
    if (this.#messages.length > 0) return Promise.resolve(this.#messages.shift());
    if (this.#over) return Promise.reject(new Error("the connection has ended"));
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Emits an event with an acknowledgment, of which there is one at a time; answers its payload. */
  async ask(name, data = "") {
    this.send(`${name}||1||${data}`);
    const reply = `__ack_${name}||1`;
    for (;;) {
      const message = await this.next();
      if (message.startsWith(reply)) return message.slice(reply.length).replace(/^\|\|/, "");
    }
  }

  close() {
    this.ws.close();
    return this.ended;
  }
}
