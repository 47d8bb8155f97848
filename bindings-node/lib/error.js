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

module.exports = { EtpError, shown };
