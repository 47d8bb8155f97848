// An iterator over events: a bounded buffer of copies.

import { type EtpError, failure } from "./error.js";

export interface Event {
  name: string;
  data: any;
}

type Waiting = (result: IteratorResult<Event, undefined>) => void;

export type Events = AsyncIterableIterator<Event, undefined> & {
  /** An event has arrived; answers whether it is one of these. */
  offer(event: Event): boolean;
  /** No event will arrive any more; what has gathered can still be read. */
  finish(): void;
};

export function events(name: string | undefined, buffer: number, release: (events: Events) => void): Events {
  let gathered: Event[] = [];
  const waiting: Waiting[] = [];
  let over = false;
  let overflow: EtpError | undefined;
  const done: IteratorResult<Event, undefined> = { value: undefined, done: true };
  const iterator: Events = {
    offer(event) {
      if (over || (name !== undefined && event.name !== name)) return false;
      if (waiting.length) waiting.shift()!({ value: event, done: false });
      else if (gathered.length < buffer) gathered.push(event);
      else {
        overflow = failure("overflow", `the iterator fell behind by more than ${buffer} events`);
        iterator.finish();
      }
      return true;
    },
    finish() {
      over = true;
      release(iterator);
      for (const one of waiting.splice(0)) one(done);
    },
    async next() {
      const value = gathered.shift();
      if (value) return { value, done: false };
      const error = overflow;
      overflow = undefined;
      if (error) throw error;
      return over ? done : new Promise((resolve) => waiting.push(resolve));
    },
    async return() {
      gathered = [];
      overflow = undefined;
      iterator.finish();
      return done;
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}
