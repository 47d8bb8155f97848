// The client, as applications see it.

import type { Dialled } from "./dial.js";
import { start } from "./engine.js";
import { checkFunction, type EtpError, invalidOption } from "./error.js";
import type { Events } from "./events.js";
import { type AckOptions, checkName, type Life, live } from "./life.js";
import { checkOptions, type End } from "./options.js";
import { type Handler, type Middleware, put, routing } from "./routes.js";

export class Client {
  readonly #routes = routing();
  readonly #life: Life;

  constructor(url: Dialled, options: object = {}) {
    if (!url) throw invalidOption("url", url, "a string, a URL or a function that gives one");
    const checked = checkOptions(options);
    start();
    if (checked.probe) checkName(checked.probe.event);
    this.#life = live(url, checked, this.#routes);
  }

  on(name: string, handler: Handler): () => void {
    checkName(name);
    return put(this.#routes.handlers, name, handler);
  }

  once(name: string, handler: Handler): () => void {
    checkFunction(handler, name);
    const off = this.on(name, (data) => {
      off();
      return handler(data);
    });
    return off;
  }

  off(name: string): void {
    this.#routes.handlers.delete(name);
  }

  onConnect(f: (conn: object) => unknown): () => void {
    return put(this.#routes.callbacks, "onConnect", f);
  }

  onDisconnect(f: (end: End) => unknown): () => void {
    return put(this.#routes.callbacks, "onDisconnect", f);
  }

  onError(f: (error: EtpError) => unknown): () => void {
    return put(this.#routes.callbacks, "onError", f);
  }

  onUnknownEvent(f: (name: string, data: any) => unknown): () => void {
    return put(this.#routes.callbacks, "onUnknownEvent", f);
  }

  use(middleware: Middleware): this {
    checkFunction(middleware, "middleware");
    this.#routes.chain.push(middleware);
    return this;
  }

  events(name?: string | { buffer?: number }, options?: { buffer?: number }): Events {
    if (typeof name === "object") return this.events(undefined, name);
    if (name !== undefined) checkName(name);
    return this.#routes.iterate(name, options?.buffer ?? 1024);
  }

  get state() {
    return this.#life.state();
  }

  async connect(options?: { signal?: AbortSignal }): Promise<this> {
    await this.#life.connect(options?.signal);
    return this;
  }

  close(code?: number, reason?: string): Promise<void> {
    return this.#life.close(code, reason);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  emit(name: string, data?: any): void {
    this.#life.push(name, data);
  }

  emitWithAck(name: string, data?: any, options?: AckOptions): Promise<any> {
    return this.#life.ask(name, data, options);
  }

  drain(): Promise<void> {
    return this.#life.drain();
  }
}
