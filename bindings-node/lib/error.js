// The one class of errors: what went wrong as a code, the same in every language.
"use strict";

class EtpError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.code = code;
  }
}
Object.defineProperty(EtpError.prototype, "name", { value: "EtpError", configurable: true, writable: true });

/** An exception in one line, for logs and other errors' texts. */
function shown(error) {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return "something that can't be shown";
  }
}

/** Names of rooms, ids, reasons. */
function checkText(value, what) {
  if (typeof value !== "string") {
    throw new TypeError(`${what} is to be a string, not ${value === null ? "null" : typeof value}`);
  }
}

/** Whether it can be sent is the core's to say. */
function checkCloseCode(code) {
  if (!Number.isInteger(code) || code < 0 || code > 65_535) {
    throw new EtpError("invalid_option", `${shown(code)} is no close code`);
  }
}

/** An object, and not the number or string that another library would take. */
function checkOptions(options, what) {
  if (options === null || typeof options !== "object") {
    throw new TypeError(`the options of ${what} are an object, not ${options === null ? "null" : typeof options}`);
  }
}

function checkTimeout(timeout) {
  if (timeout !== undefined && typeof timeout !== "number") {
    throw new EtpError("invalid_option", `timeout is ${shown(timeout)}; it is a number of milliseconds`);
  }
}

module.exports = { EtpError, checkOptions, checkCloseCode, checkText, checkTimeout, shown };
