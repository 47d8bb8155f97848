// An iterator over events: a bounded buffer of copies.

import { EtpError } from "./error.js";

export interface Event {
  name: string;
  data: any;
}

type Waiting = (result: IteratorResult<Event, undefined>) => void;

export class Events implements AsyncIterableIterator<Event, undefined> {
  readonly #name: string | undefined;
  readonly #buffer: number;
  readonly #release: (events: Events) => void;
  #gathered: Event[] = [];
  #waiting: Waiting[] = [];
  #over = false;
  #overflow: EtpError | undefined;

  constructor(name: string | undefined, buffer: number, release: (events: Events) => void) {
    this.#name = name;
    this.#buffer = buffer;
    this.#release = release;
  }

  /** An event has arrived; answers whether it is one of these. */
  push(event: Event): boolean {
    if (this.#over || (this.#name !== undefined && event.name !== this.#name)) return false;
    const waiting = this.#waiting.shift();
    if (waiting) waiting({ value: event, done: false });
    else if (this.#gathered.length < this.#buffer) this.#gathered.push(event);
    else {
      this.#overflow = new EtpError("overflow", `the iterator fell behind by more than ${this.#buffer} events`);
      this.end();
    }
    return true;
  }

  /** No event will arrive any more; what has gathered can still be read. */
  end() {
    this.#over = true;
    this.#release(this);
    for (const waiting of this.#waiting.splice(0)) waiting({ value: undefined, done: true });
  }

  async next(): Promise<IteratorResult<Event, undefined>> {
    const value = this.#gathered.shift();
    if (value) return { value, done: false };
    const overflow = this.#overflow;
    this.#overflow = undefined;
    if (overflow) throw overflow;
    if (this.#over) return { value: undefined, done: true };
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async return(): Promise<IteratorResult<Event, undefined>> {
    this.#gathered = [];
    this.#overflow = undefined;
    this.end();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }
}
