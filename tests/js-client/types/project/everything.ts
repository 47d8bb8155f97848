// Everything that the types name, each with a value: TypeScript sees that nothing is missing and nothing too much, and names.test.mjs looks
// whether the package has it.

import type {
  Client,
  ClientConn,
  ClientOptions,
  Disconnect,
  ErrorCode,
  EtpError,
  Event,
  MiddlewareEvent,
  Probe,
  Reconnect,
  State,
} from "etp-ws-client";

export const reconnect: Required<Reconnect> = { base: 1, cap: 2, resetAfter: 3 };
export const probe: Required<Probe> = { event: "alive", interval: 1, timeout: 2 };
export const options: Required<ClientOptions> = {
  codec: "json",
  auth: "token",
  reconnect,
  shouldReconnect: () => false,
  queue: 1,
  ackTimeout: 2,
  dialTimeout: 3,
  closeTimeout: 4,
  maxMessageSize: 5,
  maxOutbox: 6,
  maxPendingAcks: 7,
  probe,
  WebSocket: class {},
};
export const codes: Record<ErrorCode, true> = {
  connection_closed: true,
  ack_timeout: true,
  outbox_full: true,
  too_many_acks: true,
  message_too_large: true,
  invalid_event: true,
  invalid_payload: true,
  invalid_option: true,
  connect_failed: true,
  malformed_frame: true,
  no_handler: true,
  handler_failed: true,
  overflow: true,
  invalid_state: true,
  unsupported_platform: true,
};
export const client: Record<keyof Client, true> = {
  connect: true,
  state: true,
  on: true,
  once: true,
  off: true,
  onConnect: true,
  onDisconnect: true,
  onError: true,
  onUnknownEvent: true,
  use: true,
  events: true,
  emit: true,
  emitWithAck: true,
  drain: true,
  close: true,
  [Symbol.asyncDispose]: true,
};
export const conn: Record<keyof ClientConn, true> = { emit: true, emitWithAck: true, drain: true, isOpen: true };
export const disconnect: Record<keyof Disconnect, true> = {
  code: true,
  reason: true,
  clean: true,
  normal: true,
  willReconnect: true,
};
export const event: Record<keyof Event, true> = { name: true, data: true };
export const middlewareEvent: Record<keyof MiddlewareEvent, true> = { name: true, data: true };
export const error: Record<Exclude<keyof EtpError, keyof Error>, true> = {
  code: true,
  closeCode: true,
  closeReason: true,
};
export const states: Record<State, true> = { connecting: true, connected: true, reconnecting: true, closed: true };
