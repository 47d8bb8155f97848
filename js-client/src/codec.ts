// Payloads as values: `text`, `json`, `bytes`, or a pair of functions of the application's.

import { decoder, encoder } from "./engine.js";
import { type EtpError, failure, invalidOption } from "./error.js";

/** What a message carries: text where it is UTF-8. */
export type Wire = string | Uint8Array;

export interface Codec {
  /** "" is an empty payload. */
  encode(value: any): Wire;
  decode(payload: Wire): any;
}

function invalid(message: string, cause?: unknown): EtpError {
  return failure("invalid_payload", message, cause);
}

/** Refuses lone surrogates, which have no UTF-8. An engine that can't tell sends U+FFFD for them, as `TextEncoder` does. */
export function isText(value: unknown): value is string {
  return typeof value === "string" && (value.isWellFormed?.() ?? true);
}

function toText(payload: Wire): string {
  return typeof payload === "string" ? payload : tried(() => decoder.decode(payload));
}

function toBytes(payload: Wire): Uint8Array {
  return typeof payload === "string" ? encoder.encode(payload) : payload;
}

const TEXT = "a string without lone surrogates";
const BYTES = "bytes";

/** A value as it is sent: bytes in a text message too, where they can be. */
function toWire(value: any, kinds: string): Wire {
  if (kinds !== BYTES && isText(value)) return value;
  const view = value instanceof ArrayBuffer ? new Uint8Array(value) : value;
  if (kinds === TEXT || !ArrayBuffer.isView(view)) throw invalid(`a payload is to be ${kinds}, not ${typeof value}`);
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  try {
    return decoder.decode(bytes);
  } catch {
    return bytes;
  }
}

function tried<T>(f: () => T): T {
  try {
    return f();
  } catch (error) {
    // Its text may quote the payload.
    throw invalid("the codec failed", error);
  }
}

const named: Record<string, Codec> = {
  text: {
    encode: (value) => (value == null ? "" : toWire(value, TEXT)),
    decode: toText,
  },
  json: {
    encode: (value) => (value === undefined ? "" : toWire(tried(() => JSON.stringify(value)) ?? value, "JSON")),
    decode(payload) {
      const text = toText(payload);
      return text ? tried(() => JSON.parse(text)) : undefined;
    },
  },
  bytes: {
    encode: (value) => (value == null ? "" : toWire(value, BYTES)),
    decode: toBytes,
  },
};

/** The codec of an option. */
export function codecOf(option: any = "text"): Codec {
  if (Array.isArray(option) && option.length === 2 && option.every((f) => typeof f === "function")) {
    const [encode, decode] = option;
    return {
      encode: (value) =>
        value === undefined
          ? ""
          : toWire(
              tried(() => encode(value)),
              `${TEXT}, or ${BYTES}`,
            ),
      decode: (payload) => (payload.length ? tried(() => decode(toBytes(payload))) : undefined),
    };
  }
  if (Object.hasOwn(named, option)) return named[option]!;
  throw invalidOption("codec", option, '"text", "json", "bytes" or [encode, decode]');
}
