// Payloads as values: `text`, `json`, `bytes`, or a pair of functions of the application's.

import { decoder, encoder } from "./engine.js";
import { EtpError, failure, invalidOption, shown } from "./error.js";

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

/** Text and bytes as they are sent: in a text message where they can be. */
function toWire(value: any): Wire {
  if (isText(value)) return value;
  let bytes: Uint8Array;
  if (ArrayBuffer.isView(value)) bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  else if (value instanceof ArrayBuffer) bytes = new Uint8Array(value);
  else throw invalid(`a payload is to be text without lone surrogates, or bytes, not ${shown(value)}`);
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
    throw invalid(`a payload can't be encoded or decoded: ${shown(error)}`, error);
  }
}

const named: Record<string, Codec> = {
  text: {
    encode(value) {
      if (value == null) return "";
      if (isText(value)) return value;
      throw invalid(`codec "text" takes text without lone surrogates, or nothing, not ${shown(value)}`);
    },
    decode: toText,
  },
  json: {
    encode(value) {
      const text = value === undefined ? "" : tried(() => JSON.stringify(value));
      if (text === undefined) throw invalid(`codec "json" can't encode ${typeof value}`);
      return text;
    },
    decode(payload) {
      const text = toText(payload);
      return text === "" ? undefined : tried(() => JSON.parse(text));
    },
  },
  bytes: {
    encode(value) {
      if (typeof value === "string") throw invalid('codec "bytes" takes bytes or nothing, not a string');
      return value == null ? "" : toWire(value);
    },
    decode: toBytes,
  },
};

/** The codec of an option. */
export function codecOf(option: any = "text"): Codec {
  if (Array.isArray(option) && option.length === 2 && option.every((f) => typeof f === "function")) {
    const [encode, decode] = option;
    return {
      encode: (value) => (value === undefined ? "" : toWire(tried(() => encode(value)))),
      decode: (payload) => (payload.length ? tried(() => decode(toBytes(payload))) : undefined),
    };
  }
  if (Object.hasOwn(named, option)) return named[option]!;
  throw invalidOption("codec", option, '"text", "json", "bytes" or [encode, decode]');
}
