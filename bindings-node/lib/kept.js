// Values that travel through the core as numbers: what handlers threw, what `onUpgrade` returned.
"use strict";

const { EtpError } = require("./error.js");

const kept = new Map();
let last = 0;

/** Keeps a value; the core says when it is not wanted any more. */
function keep(value) {
  do last = (last + 1) >>> 0;
  while (last === 0 || kept.has(last));
  kept.set(last, value);
  return last;
}

/** Takes a value out. */
function take(key) {
  const value = kept.get(key);
  kept.delete(key);
  return value;
}

/** What comes in a batch has no caller, whose stack would say something. */
let inBatch = false;

function delivering(now) {
  inBatch = now;
}

/** The core begins with the name of the option, as Rust writes it. */
function camel(message) {
  return message.replace(/^[a-z]+(?:_[a-z]+)+/, (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()));
}

/** Called by the core for each error that reaches JavaScript. */
function makeError(code, message, closeCode, closeReason, status, cause) {
  const { stackTraceLimit } = Error;
  // By `Reflect`, as it may be frozen.
  if (inBatch) Reflect.set(Error, "stackTraceLimit", 0);
  if (code === "invalid_option") message = camel(message);
  const error = new EtpError(code, message, cause < 0 ? undefined : { cause: kept.get(cause) });
  if (inBatch) Reflect.set(Error, "stackTraceLimit", stackTraceLimit);
  if (closeCode !== undefined && closeCode !== null) error.closeCode = closeCode;
  if (closeReason !== undefined && closeReason !== null) error.closeReason = closeReason;
  if (status !== undefined && status !== null) error.status = status;
  return error;
}

module.exports = {
  keep,
  take,
  forget: (key) => kept.delete(key),
  look: (key) => kept.get(key),
  makeError,
  delivering,
  kept,
};
