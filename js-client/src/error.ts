// The one class of errors: what went wrong as a code, the same in every language.

export class EtpError extends Error {
  readonly code: string;
  declare closeCode?: number;
  declare closeReason?: string;

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }

  // On the prototype, as other errors have it.
  override get name() {
    return "EtpError";
  }
}

/** A value in one line, for errors' texts. */
export function shown(value: unknown): string {
  try {
    return typeof value === "string" ? JSON.stringify(value) : String(value);
  } catch {
    return typeof value;
  }
}

export function failure(code: string, message: string, cause?: unknown): EtpError {
  return new EtpError(code, message, cause === undefined ? cause : { cause });
}

export function invalidOption(what: string, value: unknown, allowed: string): EtpError {
  return failure("invalid_option", `${what} is ${shown(value)}; it is to be ${allowed}`);
}

export function checkFunction(f: unknown, what: string): void {
  if (typeof f !== "function") throw new TypeError(`${what} is to be a function, not ${shown(f)}`);
}
