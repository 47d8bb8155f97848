// Payloads as values: `text`, `json`, `bytes`, or a pair of functions of the application's.
"use strict";

const { types } = require("node:util");
const { EtpError } = require("./error.js");

const CANT_ENCODE = "the codec can't encode the value";
const CANT_DECODE = "the codec can't decode the payload";

function invalid(message, cause) {
  return new EtpError("invalid_payload", message, cause === undefined ? undefined : { cause });
}

function kind(value) {
  if (value === null) return "null";
  if (typeof value !== "object") return typeof value;
  try {
    return String(value.constructor?.name ?? "object");
  } catch {
    return "object";
  }
}

/** A view of what holds bytes, or undefined. */
function view(value) {
  if (types.isUint8Array(value)) return value;
  try {
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return types.isAnyArrayBuffer(value) ? new Uint8Array(value) : undefined;
  } catch (error) {
    // Its bytes are another thread's by now.
    throw invalid(CANT_ENCODE, error);
  }
}

// `encode` gives a string, bytes, or undefined for an empty payload; `decode` is null where the payload is the value.
const text = {
  bytes: false,
  encode(value) {
    if (typeof value === "string") return value;
    if (value === undefined || value === null) return undefined;
    throw invalid(`the codec "text" takes a string or nothing, not ${kind(value)}`);
  },
  decode: null,
};

const bytes = {
  bytes: true,
  encode(value) {
    if (value === undefined || value === null) return undefined;
    const found = view(value);
    if (found === undefined) throw invalid(`the codec "bytes" takes a Uint8Array or nothing, not ${kind(value)}`);
    return found;
  },
  decode: null,
};

const json = {
  bytes: false,
  encode(value) {
    if (value === undefined) return undefined;
    let encoded;
    try {
      encoded = JSON.stringify(value);
    } catch (error) {
      throw invalid(CANT_ENCODE, error);
    }
    if (encoded === undefined) throw invalid(`the codec "json" can't encode ${kind(value)}`);
    return encoded;
  },
  decode(payload) {
    if (payload === "") return undefined;
    try {
      return JSON.parse(payload);
    } catch (error) {
      throw invalid(CANT_DECODE, error);
    }
  },
};

function pair(encode, decode) {
  return {
    bytes: true,
    encode(value) {
      if (value === undefined) return undefined;
      let encoded;
      try {
        encoded = encode(value);
      } catch (error) {
        throw invalid(CANT_ENCODE, error);
      }
      if (typeof encoded === "string") return encoded;
      const found = view(encoded);
      if (found === undefined) {
        throw invalid(`the codec's first function gives a string or a Uint8Array, not ${kind(encoded)}`);
      }
      return found;
    },
    decode(payload) {
      if (payload.length === 0) return undefined;
      try {
        return decode(payload);
      } catch (error) {
        throw invalid(CANT_DECODE, error);
      }
    },
  };
}

const named = { text, json, bytes };

/** The codec of an option. */
function codecOf(option = "text") {
  if (typeof option === "string" && Object.hasOwn(named, option)) return named[option];
  if (Array.isArray(option) && option.length === 2 && option.every((f) => typeof f === "function")) {
    return pair(option[0], option[1]);
  }
  const given = typeof option === "string" ? JSON.stringify(option) : kind(option);
  throw new EtpError(
    "invalid_option",
    `codec is ${given}; it is "text", "json", "bytes" or a pair of functions [encode, decode]`,
  );
}

module.exports = { codecOf };
