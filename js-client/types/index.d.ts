// `Symbol.asyncDispose`, whatever `lib` a project names.
/// <reference lib="esnext.disposable" />

// --- Events and their types ----------------------------------------------------------------------------------------

/**
 * Events by name: what each carries, or a function of what it carries to what its acknowledgment carries.
 *
 * ```ts
 * interface ToServer { hello: (data: { name: string }) => { hi: string }; typing: boolean }
 * ```
 */
export type Events = Record<string, any>;

/** Any event, with any payload. */
export type AnyEvents = Record<string, any>;

/** What an event carries. */
export type Payload<E, K extends keyof E> = E[K] extends (...args: infer A extends any[]) => unknown
  ? A extends []
    ? undefined
    : A[0]
  : E[K];

/** What an event's acknowledgment carries. */
export type Ack<E, K extends keyof E> = E[K] extends (...args: never[]) => infer R ? Awaited<R> : any;

type Name<E> = Extract<keyof E, string>;

/** The argument of an event that carries something, which may be left out where it may be undefined. */
type DataArgs<E, K extends keyof E> = undefined extends Payload<E, K> ? [data?: Payload<E, K>] : [data: Payload<E, K>];
type DataArgsThen<E, K extends keyof E, Rest> =
  undefined extends Payload<E, K> ? [data?: Payload<E, K>, rest?: Rest] : [data: Payload<E, K>, rest?: Rest];

/** What a handler returns is the acknowledgment; nothing is an empty one. */
type Reply<E, K extends keyof E> = Ack<E, K> | void | Promise<Ack<E, K> | void>;

/**
 * How payloads become values: `"text"` (strings), `"json"`, `"bytes"` (`Uint8Array`), or a pair of functions of your own.
 *
 * An empty payload is `""` with `"text"`, no bytes with `"bytes"`, and `undefined` with `"json"` and pairs.
 */
export type Codec =
  | "text"
  | "json"
  | "bytes"
  | readonly [encode: (value: any) => string | Uint8Array, decode: (payload: Uint8Array) => any];

// --- Errors ----------------------------------------------------------------------------------------------------------

/** The same codes in every language. */
export type ErrorCode =
  /** The connection is closed, or closed while the call waited. */
  | "connection_closed"
  /** No reply arrived by the deadline. */
  | "ack_timeout"
  /** `maxOutbox` would be passed, or the queue for the time away is full: nothing is queued, the connection lives. */
  | "outbox_full"
  /** As many acknowledgments are awaited as `maxPendingAcks` allows. */
  | "too_many_acks"
  | "message_too_large"
  /** A name outside the grammar, or reserved. */
  | "invalid_event"
  /** The codec can't encode or decode it; a lone surrogate, which has no UTF-8. */
  | "invalid_payload"
  | "invalid_option"
  /** A dial did not lead to a connection. A browser does not tell a script why. */
  | "connect_failed"
  /** Only to `onError`: a received frame is no frame. */
  | "malformed_frame"
  /** Only to `onError`: an event that nobody handles. */
  | "no_handler"
  /** Only to `onError`: a handler threw or rejected; `cause` is what it threw. */
  | "handler_failed"
  /** An iterator over events fell behind its bound. */
  | "overflow"
  /** A use that can't be: connecting twice at once, for example. */
  | "invalid_state"
  /** No WebAssembly, or no WebSocket; the message names the way out. */
  | "unsupported_platform";

export class EtpError extends Error {
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown });
  readonly name: "EtpError";
  readonly code: ErrorCode;
  /** With `connection_closed`: the close code, where it is known. */
  readonly closeCode?: number;
  /** With `connection_closed`: the close reason, where it is known. */
  readonly closeReason?: string;
}

// --- Options ---------------------------------------------------------------------------------------------------------

/** How a connection ended. */
export interface Disconnect {
  /** The close code (RFC 6455, 7.4); 1005 without one, 1006 without a close frame. Where this side closed for a limit, what it meant. */
  readonly code: number;
  readonly reason: string;
  /** Whether the closing handshake finished. */
  readonly clean: boolean;
  /** Whether the code is 1000. */
  readonly normal: boolean;
  /** Whether the client dials again by itself. */
  readonly willReconnect: boolean;
}

/** How a client comes back: after a random time of at most `base`, doubled with every attempt, up to `cap`. Milliseconds. */
export interface Reconnect {
  /** Default 500. */
  base?: number;
  /** Default 30 000. */
  cap?: number;
  /** A connection that lived this long begins anew at `base`. Default 30 000. */
  resetAfter?: number;
}

/** An acknowledged event that asks whether the server is there. The server needs a handler for it, which may return nothing. */
export interface Probe {
  event: string;
  /** Milliseconds of silence until it is sent. Default 25 000. */
  interval?: number;
  /** Milliseconds until the connection counts as dead, if nothing at all arrives. Default 10 000. */
  timeout?: number;
}

/** Durations are in milliseconds, sizes in bytes. */
export interface ClientOptions {
  /** How payloads become values. Default `"text"`. */
  codec?: Codec;
  /**
   * A token, or a function that is asked for it at each dial. It travels as a subprotocol, since a script can set no header;
   * the server has to select `etp`, as those of this project do.
   */
  auth?: string | null | (() => string | null | undefined | Promise<string | null | undefined>);
  /** Whether and how to come back. Default: yes. */
  reconnect?: boolean | Reconnect;
  /**
   * Decides after which ends to come back, instead of the usual rule: all but its own close, 1008, and 1000 with a reason other than
   * `server shutdown`. In its argument `willReconnect` is what that rule says. The first connection is not asked about until `connect` has resolved.
   */
  shouldReconnect?: (disconnect: Disconnect) => boolean;
  /** Events that may wait while away. Default 0: `emit` throws `connection_closed` then. */
  queue?: number;
  /** Until `emitWithAck` gives up, unless it says otherwise. Default 10 000. */
  ackTimeout?: number;
  /** For one dial, the functions for the URL and the token included. Default 10 000. */
  dialTimeout?: number;
  /** For a close. Default 5000. */
  closeTimeout?: number;
  /** Largest message in either direction. Default 1 MiB. */
  maxMessageSize?: number;
  /** Bytes that may wait to be sent. Default 4 MiB. */
  maxOutbox?: number;
  /** Acknowledgments awaited at once. Default 16384. */
  maxPendingAcks?: number;
  /**
   * Asks after silence whether the server is there, and at once when the page or the network comes back. Without it a dead
   * connection shows only by an acknowledgment's deadline, as a script sees no pings. Default: none.
   */
  probe?: string | Probe;
  /** The WebSocket to use where there is none, or another is wanted: in Node 20 that of the package `ws`. */
  WebSocket?: new (
    url: string,
    protocols: string[],
  ) => any;
}

export interface AckOptions {
  /** Milliseconds; by default the option `ackTimeout`. */
  timeout?: number;
  /** Gives the acknowledgment up: the promise rejects with the signal's reason, at once. The event has been sent, unless it waited or was aborted before. */
  signal?: AbortSignal;
}

// --- Client ----------------------------------------------------------------------------------------------------------

/** Takes a handler or callback away again. */
export type Off = () => void;

/** Goes on to the next middleware, and in the end to the handler; resolves with what that returned. */
export type Next = () => Promise<any>;

/** An event on its way through middleware; what is written into `data` reaches the handler. */
export interface MiddlewareEvent {
  readonly name: string;
  data: any;
}

/** A received event, from an iterator over events. */
export interface Event<Name extends string = string, Data = any> {
  readonly name: Name;
  readonly data: Data;
}

/** The connection of the moment, in `onConnect`: what is emitted on it goes before all that waits. */
export interface ClientConn<Out = AnyEvents> {
  emit<K extends Name<Out>>(name: K, ...data: DataArgs<Out, K>): void;
  emitWithAck<K extends Name<Out>>(name: K, ...data: DataArgsThen<Out, K, AckOptions>): Promise<Ack<Out, K>>;
  drain(): Promise<void>;
  /** Whether closing has not begun. */
  readonly isOpen: boolean;
}

export type State = "connecting" | "connected" | "reconnecting" | "closed";

/**
 * A client. It comes back by itself after a lost connection, unless told not to.
 *
 * @typeParam In - events that the server emits, by name
 * @typeParam Out - events that the client emits, by name
 */
export class Client<In = AnyEvents, Out = AnyEvents> {
  /**
   * @param url - `wss://host/path`, a path relative to the page, or a function that is asked for it at each dial
   * @throws EtpError `invalid_option`, `unsupported_platform`
   */
  constructor(url: string | URL | (() => string | URL | Promise<string | URL>), options?: ClientOptions);

  /**
   * Connects: one attempt, which is the application's to repeat. When it resolves, `onConnect` has ended, and from then on the client comes
   * back by itself. A client that was closed may connect anew.
   * @throws EtpError `connect_failed`, `invalid_state`, `unsupported_platform`; or the signal's reason
   */
  connect(options?: { signal?: AbortSignal }): Promise<this>;
  readonly state: State;

  /**
   * Handles an event; what it returns, or resolves to, is the acknowledgment. An exception or rejection sends no reply
   * and goes to `onError`. A second `on` of the same name replaces the first.
   * @throws EtpError `invalid_event`
   */
  on<K extends Name<In>>(name: K, handler: (data: Payload<In, K>) => Reply<In, K>): Off;
  /** As `on`, for one event. */
  once<K extends Name<In>>(name: K, handler: (data: Payload<In, K>) => Reply<In, K>): Off;
  off(name: Name<In>): void;
  /**
   * Called at each new connection: log in and join rooms here, on its `conn`. Events wait until it has ended, those that the client itself
   * emits too; if it fails the connection is closed.
   */
  onConnect(f: (conn: ClientConn<Out>) => unknown): Off;
  /** Called once for each connection that has ended. */
  onDisconnect(f: (disconnect: Disconnect) => unknown): Off;
  /** Called with what has no caller to be told. Without it errors are logged with `console.error`. */
  onError(f: (error: EtpError) => unknown): Off;
  /** Handles events that have no handler. What it returns is the acknowledgment. */
  onUnknownEvent(f: (name: string, data: any) => unknown): Off;
  /** Wraps every event: `async (event, next) => next()`. The first added is the outermost. It awaits `next()` or returns it: else a handler's failure may be told to nobody. */
  use(middleware: (event: MiddlewareEvent, next: Next) => any): this;
  /**
   * Copies of the events of this name, or of all. It never replies, and ends when the client is closed. One that falls
   * behind by more than `buffer` events (default 1024) throws `overflow`.
   */
  events<K extends Name<In>>(name: K, options?: { buffer?: number }): AsyncIterableIterator<Event<K, Payload<In, K>>>;
  events(options?: { buffer?: number }): AsyncIterableIterator<Event>;

  /**
   * Emits an event: when it returns the event is queued, to be sent in order, at most once.
   * @throws EtpError `connection_closed` (while away, unless there is room in the `queue`), `outbox_full` (await `drain()`),
   * `message_too_large`, `invalid_event`, `invalid_payload`
   */
  emit<K extends Name<Out>>(name: K, ...data: DataArgs<Out, K>): void;
  /**
   * Emits an event and resolves with its acknowledgment. Exactly one outcome comes.
   * @throws EtpError `ack_timeout`, `connection_closed`, `too_many_acks`, and what `emit` throws
   */
  emitWithAck<K extends Name<Out>>(name: K, ...data: DataArgsThen<Out, K, AckOptions>): Promise<Ack<Out, K>>;
  /**
   * Resolves when no more than half of `maxOutbox` waits to be sent.
   * @throws EtpError `connection_closed`
   */
  drain(): Promise<void>;
  /**
   * Closes; resolves at the end: what was emitted before is sent, and `onDisconnect` has ended (while that runs already, it is not
   * waited for). A script may send 1000 and 3000 to 4999.
   * @throws EtpError `invalid_option`
   */
  close(code?: number, reason?: string): Promise<void>;
  /** `close()`. */
  [Symbol.asyncDispose](): Promise<void>;
}
