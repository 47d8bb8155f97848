// What a client is made with, looked at.

import { type Codec, codecOf } from "./codec.js";
import { failure, invalidOption, shown } from "./error.js";

export interface End {
  code: number;
  reason: string;
  clean: boolean;
  normal: boolean;
  willReconnect: boolean;
}

/** Numbers that are options, with their defaults. */
const NUMBERS = {
  ackTimeout: 10_000,
  dialTimeout: 10_000,
  closeTimeout: 5_000,
  queue: 0,
  maxMessageSize: 1 << 20,
  maxOutbox: 1 << 22,
  maxPendingAcks: 1 << 14,
};
const RECONNECT = { base: 500, cap: 30_000, resetAfter: 30_000 };
const PROBE = { interval: 25_000, timeout: 10_000 };

/** What else is one, and its kind. */
const OTHERS = {
  codec: "string or object",
  auth: "string or function",
  reconnect: "boolean or object",
  shouldReconnect: "function",
  probe: "string or object",
  WebSocket: "function",
};

/** A week. Longer times are slips, and timers hold no more than three and a half. */
const LONGEST = 604_800_000;

export type Options = typeof NUMBERS & {
  codec: Codec;
  auth?: string | null | (() => string | null | undefined | Promise<string | null | undefined>);
  reconnect?: typeof RECONNECT;
  shouldReconnect?: (end: End) => boolean;
  probe?: typeof PROBE & { event: string };
  WebSocket?: typeof WebSocket;
};

/** A number of milliseconds, a size or a count. */
export function checkNumber(value: any, what: string): number {
  if (typeof value === "number" && value >= 0 && value <= LONGEST) return value;
  throw invalidOption(what, value, `a number from 0 to ${LONGEST}`);
}

function checked(given: any, numbers: Record<string, number>, others: Record<string, string>): any {
  const known = { ...numbers, ...others };
  const found: any = { ...numbers };
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === undefined) continue;
    const kinds = others[name];
    if (!Object.hasOwn(known, name)) {
      throw failure("invalid_option", `there is no option ${shown(name)}, but ${Object.keys(known).join(", ")}`);
    }
    if (!kinds) checkNumber(value, name);
    else if (!kinds.includes(typeof value)) throw invalidOption(name, value, kinds);
    found[name] = value;
  }
  return found;
}

export function checkOptions(given: any): Options {
  const options = checked(given, NUMBERS, OTHERS);
  const { reconnect = true, probe } = options;
  options.codec = codecOf(options.codec);
  options.reconnect = reconnect && checked(reconnect, RECONNECT, {});
  if (probe)
    options.probe = checked(typeof probe === "string" ? { event: probe } : { event: null, ...probe }, PROBE, {
      event: "string",
    });
  return options;
}
