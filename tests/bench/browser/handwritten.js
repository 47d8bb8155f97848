// What one writes for a page that needs no more than events with acknowledgments: ETP without reconnecting, limits, codecs or checks.

export class Handwritten {
  #socket;
  #timeout;
  #handlers = new Map();
  #lastId = 0;
  #timer;
  calls = new Map();

  constructor({ timeout = 10_000 } = {}) {
    this.#timeout = timeout;
  }

  connect(url, WebSocket = globalThis.WebSocket) {
    const socket = new WebSocket(url);
    this.#socket = socket;
    return new Promise((resolve, reject) => {
      socket.onopen = () => resolve(this);
      socket.onmessage = ({ data }) => this.#receive(data);
      socket.onerror = () => reject(new Error("the connection failed"));
      socket.onclose = () => {
        clearTimeout(this.#timer);
        for (const id of this.calls.keys()) this.take(id).reject(new Error("the connection is closed"));
      };
    });
  }

  on(name, handler) {
    this.#handlers.set(name, handler);
  }

  emit(name, data = "") {
    this.#socket.send(`${name}||0||${data}`);
  }

  emitWithAck(name, data = "") {
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      this.wait(id, { resolve, reject }, this.#timeout);
      this.#socket.send(`${name}||${id}||${data}`);
    });
  }

  close() {
    this.#socket.close(1000);
  }

  wait(id, call, timeout) {
    call.deadline = performance.now() + timeout;
    this.calls.set(id, call);
    this.#timer ??= setTimeout(() => this.#expire(), timeout);
  }

  take(id) {
    const call = this.calls.get(id);
    this.calls.delete(id);
    return call;
  }

  // All wait equally long: who was first is due first, and one timer is enough.
  #expire() {
    this.#timer = undefined;
    const now = performance.now();
    for (const [id, { deadline }] of this.calls) {
      if (deadline > now) {
        this.#timer = setTimeout(() => this.#expire(), deadline - now);
        return;
      }
      this.take(id).reject(new Error("no reply in time"));
    }
  }

  #receive(frame) {
    const nameEnd = frame.indexOf("||");
    const idEnd = frame.indexOf("||", nameEnd + 2);
    const name = frame.slice(0, nameEnd);
    const id = frame.slice(nameEnd + 2, idEnd < 0 ? undefined : idEnd);
    const data = idEnd < 0 ? "" : frame.slice(idEnd + 2);
    if (name.startsWith("__ack_")) this.take(Number(id))?.resolve(data);
    else this.#handle(name, id, data);
  }

  async #handle(name, id, data) {
    const reply = await this.#handlers.get(name)?.(data);
    if (id !== "0") this.#socket.send(`__ack_${name}||${id}||${reply ?? ""}`);
  }
}

/** The same with a timer for each call, the more usual way. */
export class HandwrittenTimers extends Handwritten {
  wait(id, call, timeout) {
    call.timer = setTimeout(() => this.take(id).reject(new Error("no reply in time")), timeout);
    this.calls.set(id, call);
  }

  take(id) {
    const call = super.take(id);
    clearTimeout(call?.timer);
    return call;
  }
}
