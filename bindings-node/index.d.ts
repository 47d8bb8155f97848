/// <reference types="node" />
import type { IncomingMessage, Server as HttpServer } from "node:http";
import type { Server as HttpsServer } from "node:https";
import type { Duplex } from "node:stream";

// --- Events and their types ----------------------------------------------------------------------------------------

/**
 * Events by name: what each carries, or a function of what it carries to what its acknowledgment carries.
 *
 * ```ts
 * interface FromClients { hello: (data: { name: string }) => { hi: string }; typing: boolean }
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
 * How payloads become values: `"text"` (strings), `"json"`, `"bytes"` (`Buffer`), or a pair of functions of your own.
 *
 * An empty payload is `""` with `"text"`, an empty `Buffer` with `"bytes"`, and `undefined` with `"json"` and pairs.
 */
export type Codec =
  | "text"
  | "json"
  | "bytes"
  | readonly [encode: (value: any) => string | Uint8Array, decode: (payload: Buffer) => any];

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
  /** The codec can't encode or decode it. */
  | "invalid_payload"
  | "invalid_option"
  | "listen_failed"
  | "connect_failed"
  /** The server answered a dial with 401 or 403. */
  | "rejected"
  /** Only to `onError`: a received frame is no frame. */
  | "malformed_frame"
  /** Only to `onError`: an event that nobody handles. */
  | "no_handler"
  /** Only to `onError`: a handler threw or rejected; `cause` is what it threw. */
  | "handler_failed"
  /** Only to `onError`: a handshake was refused or broke off. */
  | "handshake_failed"
  /** An iterator over events fell behind its bound. */
  | "overflow"
  /** A use that can't be: connecting twice at once, for example. */
  | "invalid_state"
  /** A bug of this package: please report it. */
  | "internal_error"
  /** There is no prebuilt binary for this platform, or it can't be loaded; thrown by importing. */
  | "unsupported_platform";

export class EtpError extends Error {
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown });
  readonly name: "EtpError";
  readonly code: ErrorCode;
  /** With `connection_closed`: the close code, where it is known. */
  readonly closeCode?: number;
  /** With `connection_closed`: the close reason, where it is known. */
  readonly closeReason?: string;
  /** With `connect_failed`, `rejected` and `handshake_failed`: the HTTP status, where there was one. */
  readonly status?: number;
}

// --- Handshakes ------------------------------------------------------------------------------------------------------

/** The HTTP request that a connection began with. */
export interface Request {
  readonly method: string;
  /** Path and query as they were sent. A query may hold secrets: keep it out of logs. */
  readonly url: string;
  /** The path without the query. */
  readonly path: string;
  /** The query. */
  readonly query: URLSearchParams;
  /** Headers by lower-case name; several of one name are joined as `http.IncomingMessage` joins them. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** The token that the client authenticates with: `Authorization: Bearer`, or from a browser the subprotocol. */
  readonly token: string | undefined;
  /** Where the connection came from; undefined over a Unix socket or in memory. */
  readonly peer: { readonly address: string; readonly port: number } | undefined;
  /** The client's address: by `X-Forwarded-For` where the peer is one of `trustedProxies`, else the peer's. */
  readonly clientIp: string | undefined;
  /** The subprotocols that the client offers. */
  readonly protocols: readonly string[];
  /** In `onUpgrade`, of a connection that came through an `http.Server`: its request, for middleware of Express and the like. */
  readonly incoming: IncomingMessage | undefined;
}

export type HeadersInit = Readonly<Record<string, string | readonly string[]>> | Iterable<readonly [string, string]>;

/** What `onUpgrade` may return to let a connection in with more than data. */
export class Accept<Data = any> {
  constructor(options?: {
    /** Becomes `conn.data`. */
    data?: Data;
    /** Added to the answer: cookies, for example. */
    headers?: HeadersInit;
    /** A subprotocol that the client offered. */
    protocol?: string;
    /** Lets it in only to close it at once, with a code and reason that a browser's script can read. */
    close?: { code: number; reason?: string };
  });
  /** Only so that the types tell what it was made with. */
  private readonly accepted: Data;
}

/**
 * Returned or thrown in `onUpgrade`: turns a handshake away with an HTTP status.
 *
 * 401 and 403 tell our clients not to come back; 429 and 503 to come back later, after a header `Retry-After` in
 * seconds. A status below 400 or above 599 becomes 500.
 */
export class Reject extends Error {
  constructor(status: number, body?: string, options?: { headers?: HeadersInit });
  readonly status: number;
}

/** How a connection ended. */
export interface Disconnect {
  /** The close code (RFC 6455, 7.4): the peer's, or ours where we closed first; 1005 without a code, 1006 without a close frame. */
  readonly code: number;
  readonly reason: string;
  /** Whether the closing handshake finished. */
  readonly clean: boolean;
  /** Whether the code is 1000. */
  readonly normal: boolean;
}

/** What a server or client has done and holds. Counts run from its start; sizes are in bytes. */
export interface Stats {
  /** Connections that are open now. */
  readonly connections: number;
  /** Connections that there ever were. */
  readonly connects: number;
  readonly eventsIn: number;
  /** Messages queued for sending so far: events, replies and control frames. */
  readonly messagesOut: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Acknowledgments awaited now. */
  readonly acksPending: number;
  readonly acksTimedOut: number;
  /** Replies that nobody waited for. */
  readonly strayReplies: number;
  readonly malformedFrames: number;
  readonly handshakesFailed: number;
  /** Handlers that run now. */
  readonly handlersInFlight: number;
  /** Bytes in all outboxes now. */
  readonly bytesQueued: number;
  /** Ended connections by reason: what this side closed for (`ping timeout`, `slow consumer`, ...), else the close code. */
  readonly closes: Readonly<Record<string, number>>;
}

// --- Options ---------------------------------------------------------------------------------------------------------

/** Limits that servers and clients share. Durations are in milliseconds, sizes in bytes. */
export interface Limits {
  /** Largest message in either direction. Default 1 MiB. */
  maxMessageSize?: number;
  /** Handlers at once on a connection; then events wait. Default 256. */
  maxInflight?: number;
  /** Bytes that may wait to be sent on a connection. Default 4 MiB. */
  maxOutbox?: number;
  /** Acknowledgments awaited at once on a connection. Default 16384. */
  maxPendingAcks?: number;
  /** Until `emitWithAck` gives up, unless it says otherwise. Default 10 000. */
  ackTimeout?: number;
  /** Silence until a ping; null turns pings off. Default 25 000. */
  pingInterval?: number | null;
  /** Until the connection is closed when nothing answers. Default 10 000. */
  pingTimeout?: number;
  /** For a close, flush included. Default 5000. */
  closeTimeout?: number;
}

/** A PEM file's path, or PEM itself. */
export type Pem = string | Uint8Array;

export interface ServerOptions extends Limits {
  /** How payloads become values. Default `"text"`. */
  codec?: Codec;
  /**
   * Which web pages may connect: exact origins, `https://*.example.org`, `null`, or `"*"` alone. By default a page may
   * connect to the host and port that it came from. Requests without an Origin, from anything but a browser, may.
   */
  origins?: string | readonly string[];
  /** Under which names a page may reach our own listener on a loopback address. Default localhost, 127.0.0.1, [::1]. */
  hosts?: readonly string[];
  /** The path of our own listener. Default `/ws`. */
  path?: string;
  /** Certificate chain and key, for our own listener. */
  tls?: { cert: Pem; key: Pem };
  /** Addresses or networks whose `X-Forwarded-For` is believed. */
  trustedProxies?: readonly string[];
  /** Handlers at once on all connections. Default 65 536. */
  maxInflightTotal?: number;
  /** Connections at once. Default: no limit. */
  maxConnections?: number | null;
  /** For a handshake on our own listener, TLS included. Default 10 000. */
  handshakeTimeout?: number;
  /** For `onUpgrade`. Default 5000. */
  upgradeTimeout?: number;
  /** For a shutdown; handlers get four fifths of it. Default 10 000. */
  shutdownTimeout?: number;
}

export interface AckOptions {
  /** Milliseconds; by default the option `ackTimeout`. */
  timeout?: number;
  /** Gives the acknowledgment up: the promise rejects with the signal's reason, at once. The event has been sent, unless it was aborted before. */
  signal?: AbortSignal;
}

// --- Server ----------------------------------------------------------------------------------------------------------

/** A connection of a server. It stays the same object for the whole life of the connection. */
export class Conn<Out = AnyEvents, Data = any> {
  private constructor();
  /** 32 hexadecimal digits, random. */
  readonly id: string;
  /** The HTTP request that it began with. */
  readonly request: Request;
  /** What `onUpgrade` returned; without that an object of your own to fill. */
  data: Data;
  /** Whether closing has not begun. */
  readonly isOpen: boolean;
  /** Aborted when closing begins, whoever began it: how a handler learns that its peer has left. */
  readonly signal: AbortSignal;
  /** Resolves when closing begins. */
  readonly closed: Promise<void>;
  /** Its rooms; in `onDisconnect` and later, those it was in last. */
  readonly rooms: string[];
  /**
   * Emits an event. When it returns the event is queued: it is sent in order, at most once.
   * @throws EtpError `connection_closed`, `outbox_full` (await `drain()`), `message_too_large`, `invalid_event`, `invalid_payload`
   */
  emit<K extends Name<Out>>(name: K, ...data: DataArgs<Out, K>): void;
  /**
   * Emits an event and resolves with its acknowledgment. Exactly one outcome comes.
   * @throws EtpError `ack_timeout`, `connection_closed`, `too_many_acks`, and what `emit` throws
   */
  emitWithAck<K extends Name<Out>>(name: K, ...data: DataArgsThen<Out, K, AckOptions>): Promise<Ack<Out, K>>;
  /** Sends a WebSocket ping; resolves with the round trip in milliseconds. */
  ping(): Promise<number>;
  /** Resolves when the outbox has room again: at once if it has. */
  drain(): Promise<void>;
  /** Joins a room. A connection that has ended joins nothing. */
  join(room: string): void;
  leave(room: string): void;
  /** A broadcast to the members of rooms, this connection included if it is one (socket.io's leaves it out). */
  to(...rooms: string[]): Broadcast<Out, Data>;
  /**
   * Begins to close: what was emitted before is sent, then the closing handshake; `closeTimeout` in all. Returns at once.
   * @throws EtpError `invalid_option` if the code can't be sent or the reason is longer than 123 bytes of UTF-8
   */
  close(code?: number, reason?: string): void;
}

/** A broadcast in the making: to whom. It reaches each connection once. */
export class Broadcast<Out = AnyEvents, Data = any> {
  private constructor();
  /** Leaves out connections (or their ids), and the members of rooms. A name that has the form of an id is one. */
  except(...whom: (Conn<any, any> | string)[]): Broadcast<Out, Data>;
  /**
   * Emits to every connection that is selected at this moment; returns how many it was queued for. Encoded once.
   * @throws EtpError `invalid_event`, `invalid_payload`, `message_too_large`; nothing is sent then
   */
  emit<K extends Name<Out>>(name: K, ...data: DataArgs<Out, K>): number;
  /** The connections that it would reach now. */
  readonly conns: Conn<Out, Data>[];
}

/** Takes a handler or callback away again. */
export type Off = () => void;

/** Goes on to the next middleware, and in the end to the handler; resolves with what that returned. */
export type Next = () => Promise<any>;

/** An event on its way through middleware; what is written into `data` reaches the handler. */
export interface MiddlewareEvent {
  readonly name: string;
  data: any;
}

/**
 * A server.
 *
 * @typeParam In - events that clients emit, by name
 * @typeParam Out - events that the server emits, by name
 * @typeParam Data - what `conn.data` is
 */
export class Server<In = AnyEvents, Out = AnyEvents, Data = any> {
  /** @throws EtpError `invalid_option` for a value that can't be */
  constructor(options?: ServerOptions);

  /**
   * Handles an event; what it returns, or resolves to, is the acknowledgment. An exception or rejection sends no reply
   * and goes to `onError`. A second `on` of the same name replaces the first.
   * @throws EtpError `invalid_event`
   */
  on<K extends Name<In>>(name: K, handler: (conn: Conn<Out, Data>, data: Payload<In, K>) => Reply<In, K>): Off;
  /** Takes the handler of an event away. */
  off(name: Name<In>): void;
  /**
   * Called with every handshake, before a connection exists: authentication belongs here. What it returns becomes
   * `conn.data`; or it returns an `Accept`, or returns or throws a `Reject`; `false` is a 403, `true` lets it in without
   * data. Anything else that it throws is a 500.
   */
  onUpgrade(
    f: (
      request: Request,
    ) => Data | Accept<Data> | Reject | boolean | void | Promise<Data | Accept<Data> | Reject | boolean | void>,
  ): Off;
  /** Called with each new connection. Its events wait until this has ended; if it fails the connection is closed with 1011. */
  onConnect(f: (conn: Conn<Out, Data>) => unknown): Off;
  /** Called once with each connection that has ended. */
  onDisconnect(f: (conn: Conn<Out, Data>, disconnect: Disconnect) => unknown): Off;
  /** Called with what has no caller to be told. Without it errors are logged with `console.error`. */
  onError(f: (conn: Conn<Out, Data> | undefined, error: EtpError) => unknown): Off;
  /** Handles events that have no handler. What it returns is the acknowledgment. */
  onUnknownEvent(f: (conn: Conn<Out, Data>, name: string, data: any) => unknown): Off;
  /** Wraps every event: `async (conn, event, next) => { const reply = await next(); return reply; }`. The first added is the outermost. It awaits `next()` or returns it: else a handler's failure may be told to nobody. */
  use(middleware: (conn: Conn<Out, Data>, event: MiddlewareEvent, next: Next) => any): this;

  /**
   * Listens on an address of its own: TCP, TLS with the option `tls`, or a Unix socket's `path`. By default 127.0.0.1
   * and any free port. The process stays alive until `shutdown()` or `unref()`.
   * @throws EtpError `listen_failed`, `invalid_option`
   */
  listen(options?: { port?: number; host?: string } | { path: string }): Promise<this>;
  /** Where it listens: host and port, or the path of a Unix socket; null while it does not. */
  address(): { address: string; port: number; family: "IPv4" | "IPv6" } | string | null;
  /** The URL of its own listener; null while it has none. */
  readonly url: string | null;
  /**
   * Serves WebSocket upgrades on the port of an `http.Server` or `https.Server`: Express, Fastify, Next. Requests for
   * other paths stay with whoever else handles upgrades; if nobody does they get a 404. Limits and origin rules are the same.
   */
  attach(server: HttpServer | HttpsServer, options?: { path?: string }): this;
  /**
   * Takes over one upgrade request of an `http.Server`, whatever its path. Resolves whether it was let in; what a
   * stranger sent wrong goes to `onError`, and after a shutdown it is answered 503.
   */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Uint8Array): Promise<boolean>;

  /** Emits to every connection; returns how many it was queued for. */
  emit<K extends Name<Out>>(name: K, ...data: DataArgs<Out, K>): number;
  /** A broadcast to the members of one or more rooms. */
  to(...rooms: string[]): Broadcast<Out, Data>;
  /** A broadcast to everybody but these. */
  except(...whom: (Conn<any, any> | string)[]): Broadcast<Out, Data>;
  /** All connections. */
  readonly conns: Conn<Out, Data>[];
  /** The connection of this id, if it is open. */
  conn(id: string): Conn<Out, Data> | undefined;
  /** The names of all rooms that have members. */
  readonly rooms: string[];
  members(room: string): Conn<Out, Data>[];
  memberCount(room: string): number;
  /** Makes all members leave a room. */
  clearRoom(room: string): void;
  stats(): Stats;

  /** The process stays alive while this listens: the default. */
  ref(): this;
  /** The process may end while this listens. */
  unref(): this;
  /**
   * Ends the server: accepting stops, handlers get four fifths of the time, what is queued is sent, and every
   * connection is closed with 1000 `server shutdown`, or cut at the end of the time. An `http.Server` that it was
   * attached to is left alone. It may listen again afterwards.
   */
  shutdown(options?: { timeout?: number }): Promise<void>;
  /** `shutdown()`. */
  [Symbol.asyncDispose](): Promise<void>;
}

// --- Client ----------------------------------------------------------------------------------------------------------

/** The connection of the moment, in a client's `onConnect`: what is emitted on it goes before all that waits. */
export type ClientConn<Out = AnyEvents> = Pick<Conn<Out>, "id" | "emit" | "emitWithAck" | "ping" | "drain" | "isOpen">;

/** How a connection of a client ended. */
export interface ClientDisconnect extends Disconnect {
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

export interface ClientOptions extends Limits {
  /** How payloads become values. Default `"text"`. */
  codec?: Codec;
  /** A token, or a function that is asked for it at each dial; sent as `Authorization: Bearer`. */
  auth?: string | (() => string | Promise<string>);
  /** Further headers of each handshake. */
  headers?: HeadersInit;
  /** Certificates to trust instead of the system's. */
  ca?: Pem;
  /** Certificate chain and key to show. */
  tls?: { cert: Pem; key: Pem };
  /** Whether and how to come back. Default: yes. */
  reconnect?: boolean | Reconnect;
  /** Decides after which ends to come back, instead of the usual rule: all but its own close, 1008, and 1000 with a reason other than `server shutdown`. */
  shouldReconnect?: (disconnect: ClientDisconnect) => boolean;
  /** Events that may wait while away. Default 0: `emit` throws `connection_closed` then. */
  queue?: number;
  /** For one dial: name, TCP, TLS and handshake together. Default 10 000. */
  dialTimeout?: number;
}

export type State = "connecting" | "connected" | "reconnecting" | "closed";

/** A received event, from an iterator over events. */
export interface Event<Name extends string = string, Data = any> {
  readonly name: Name;
  readonly data: Data;
}

/**
 * A client. It comes back by itself after a lost connection, unless told not to.
 *
 * @typeParam In - events that the server emits, by name
 * @typeParam Out - events that the client emits, by name
 */
export class Client<In = AnyEvents, Out = AnyEvents> {
  /**
   * @param url - `ws://host:port/path`, `wss://...`, `unix:` and a path, or a function that is asked for it at each dial
   * @throws EtpError `invalid_option`
   */
  constructor(url: string | URL | (() => string | Promise<string>), options?: ClientOptions);

  /**
   * Connects: one attempt, which says why it failed. When it resolves, `onConnect` has ended. A client that was closed
   * may connect anew. The process stays alive until `close()` or `unref()`.
   * @throws EtpError `connect_failed`, `rejected`, `invalid_option`, `invalid_state`; or the signal's reason
   */
  connect(options?: { signal?: AbortSignal }): Promise<this>;
  readonly state: State;

  /** Handles an event; what it returns, or resolves to, is the acknowledgment. A second `on` of the same name replaces the first. */
  on<K extends Name<In>>(name: K, handler: (data: Payload<In, K>) => Reply<In, K>): Off;
  /** As `on`, for one event. */
  once<K extends Name<In>>(name: K, handler: (data: Payload<In, K>) => Reply<In, K>): Off;
  off(name: Name<In>): void;
  /** Called at each new connection: log in and join rooms here. Events wait until it has ended; if it fails the connection is closed with 1011. */
  onConnect(f: (conn: ClientConn<Out>) => unknown): Off;
  onDisconnect(f: (disconnect: ClientDisconnect) => unknown): Off;
  /** Called with what has no caller to be told. Without it errors are logged with `console.error`. */
  onError(f: (error: EtpError) => unknown): Off;
  /** Handles events that have no handler. What it returns is the acknowledgment. */
  onUnknownEvent(f: (name: string, data: any) => unknown): Off;
  /** Wraps every event: `async (event, next) => next()`. The first added is the outermost. It awaits `next()` or returns it. */
  use(middleware: (event: MiddlewareEvent, next: Next) => any): this;
  /**
   * Copies of the events of this name, or of all. It never replies, and ends when the client is closed. One that falls
   * behind by more than `buffer` events (default 1024) throws `overflow`.
   */
  events<K extends Name<In>>(name: K, options?: { buffer?: number }): AsyncIterableIterator<Event<K, Payload<In, K>>>;
  events(options?: { buffer?: number }): AsyncIterableIterator<Event>;

  /** Emits an event. While away it throws `connection_closed`, unless there is room in the `queue`. */
  emit<K extends Name<Out>>(name: K, ...data: DataArgs<Out, K>): void;
  /** Emits an event and resolves with its acknowledgment. Exactly one outcome comes. */
  emitWithAck<K extends Name<Out>>(name: K, ...data: DataArgsThen<Out, K, AckOptions>): Promise<Ack<Out, K>>;
  /** Sends a WebSocket ping; resolves with the round trip in milliseconds. */
  ping(): Promise<number>;
  /** Resolves when the outbox has room again. */
  drain(): Promise<void>;
  /** Closes; resolves at the end: what was emitted before is sent, and `onDisconnect` has ended. */
  close(code?: number, reason?: string): Promise<void>;
  stats(): Stats;
  ref(): this;
  unref(): this;
  /** `close()`. */
  [Symbol.asyncDispose](): Promise<void>;
}
