// An iterator over events: a bounded buffer of copies.
"use strict";

const { EtpError } = require("./error.js");

class Events {
  #name;
  #buffer;
  #release;
  #gathered = [];
  #waiting = [];
  #over = false;
  #overflow;

  constructor(name, buffer, release) {
    this.#name = name;
    this.#buffer = buffer;
    this.#release = release;
  }

  /** An event has arrived; answers whether it is one of these. */
  push(name, data) {
    if (this.#over || (this.#name !== undefined && name !== this.#name)) return false;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      waiting.resolve({ value: { name, data }, done: false });
    } else if (this.#gathered.length < this.#buffer) {
      this.#gathered.push({ name, data });
    } else {
      this.#overflow = new EtpError("overflow", `the iterator fell behind by more than ${this.#buffer} events`);
      this.end();
    }
    return true;
  }

  /** No event will arrive any more; what has gathered can still be read. */
  end() {
    if (this.#over) return;
    this.#over = true;
    this.#release();
    for (const waiting of this.#waiting.splice(0)) waiting.resolve({ value: undefined, done: true });
  }

  next() {
    if (this.#gathered.length > 0) return Promise.resolve({ value: this.#gathered.shift(), done: false });
    if (this.#overflow !== undefined) {
      const error = this.#overflow;
      this.#overflow = undefined;
      return Promise.reject(error);
    }
    if (this.#over) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  return() {
    this.#gathered = [];
    this.#overflow = undefined;
    this.end();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}

module.exports = { Events };
