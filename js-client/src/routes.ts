// Handlers, callbacks, middleware and iterators: who an event goes to.

import { checkFunction, type EtpError, failure, invalidOption, shown } from "./error.js";
import { type Event, type Events, events } from "./events.js";

export type Handler = (data: any) => unknown;
export type Middleware = (event: Event, next: () => Promise<any>) => any;
type Callback = (...args: any[]) => any;

export function failed(what: string, error: unknown): EtpError {
  return failure("handler_failed", `${what} failed: ${shown(error)}`, error);
}

export type Routes = ReturnType<typeof routing>;

export function routing() {
  const handlers = new Map<string, Handler>();
  const callbacks = new Map<string, Callback>();
  const chain: Middleware[] = [];
  const iterators = new Set<Events>();

  function iterate(name: string | undefined, buffer: number): Events {
    if (!(Number.isInteger(buffer) && buffer > 0)) throw invalidOption("buffer", buffer, "a whole number from 1");
    const made = events(name, buffer, (one) => iterators.delete(one));
    iterators.add(made);
    return made;
  }

  /** Calls `onError`, or logs. */
  async function report(error: unknown): Promise<void> {
    try {
      await (callbacks.get("onError") ?? console.error)(error);
    } catch (another) {
      console.error(error, failed("onError", another));
    }
  }

  /** Calls a callback, if there is one; it may fail. */
  async function call(name: string, argument: unknown): Promise<void> {
    try {
      await callbacks.get(name)?.(argument);
    } catch (error) {
      throw failed(name, error);
    }
  }

  /** Hands an event on. `reply` takes what its handler returns, where that is wanted. */
  function dispatch(name: string, data: any, reply?: (value: any) => void) {
    let taken = false;
    for (const one of iterators) taken = one.offer({ name, data }) || taken;
    const unknown = callbacks.get("onUnknownEvent");
    const handler = handlers.get(name) ?? (unknown && ((data) => unknown(name, data)));
    if (!handler) {
      if (reply || !taken) report(failure("no_handler", `event ${shown(name)} has no handler`));
      return;
    }
    const wrong = (error: unknown) => report(failed(`the handler of event ${shown(name)}`, error));
    const event = { name, data };
    // The first middleware that was added is the outermost.
    const through = (index: number): any => {
      const middleware = chain[index];
      if (!middleware) return handler(event.data);
      let called = false;
      let over = false;
      const outcome = middleware(event, () => {
        const next = (async () => {
          if (called) throw new Error("next() was called twice");
          called = true;
          return through(index + 1);
        })();
        // Who does not wait for it is not told; somebody has to be.
        next.catch((error) => void (over && wrong(error)));
        return next;
      });
      if (typeof outcome?.finally === "function") outcome.finally(() => (over = true)).catch(() => {});
      else over = true;
      return outcome;
    };
    try {
      const result = through(0);
      // A promise of our own answers once, whatever theirs does.
      if (typeof result?.then === "function") (async () => result)().then(reply, wrong);
      else reply?.(result);
    } catch (error) {
      wrong(error);
    }
  }

  return { handlers, callbacks, chain, iterators, iterate, report, call, dispatch };
}

/** Puts something into a table; answers what takes it out again. */
export function put<V>(table: Map<string, V>, name: string, value: V): () => void {
  checkFunction(value, name);
  table.set(name, value);
  return () => {
    if (table.get(name) === value) table.delete(name);
  };
}
