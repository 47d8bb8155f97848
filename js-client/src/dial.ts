// How a socket is opened, and what can be said where that fails.

import { encoder } from "./engine.js";
import { failure, shown } from "./error.js";
import type { Options } from "./options.js";

export type Dialled = string | URL | (() => string | URL | Promise<string | URL>);

const HIDDEN =
  "a browser does not say why (no server, its certificate, a refused handshake, this page's Content-Security-Policy)";

export function refused(socket: WebSocket, cause: unknown) {
  // Without what may be secret.
  const shownUrl = socket.url.replace(/\/\/.*@|[?#].*/g, "");
  return failure("connect_failed", `dialling ${shownUrl} failed: ${cause ? shown(cause) : HIDDEN}`, cause);
}

/** What an option is, or its function gives. */
async function asked<T>(option: T | (() => T | Promise<T>), name: string): Promise<T> {
  try {
    // What is called here may close the client, which has to wait for it by then.
    await 0;
    return await (typeof option === "function" ? (option as () => T)() : option);
  } catch (error) {
    throw failure("connect_failed", `the function ${name} failed: ${shown(error)}`, error);
  }
}

/** What makes a socket that begins to open, when the URL and the token are there. */
export async function dial(url: Dialled, { auth, WebSocket = globalThis.WebSocket }: Options) {
  if (!WebSocket) throw failure("unsupported_platform", "there is no WebSocket here: pass one as the option WebSocket");
  const given = await asked(url, "url");
  const token = await asked(auth, "auth");
  const protocols: string[] = [];
  // A script can set no header: the token travels as a subprotocol, beside the one that the server selects.
  if (token != null) {
    const base64 = btoa(String.fromCharCode(...encoder.encode(token as string)));
    protocols.push("etp", `etp.auth.${base64.replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "")}`);
  }
  return () => {
    try {
      // Not all engines have a `URL` that resolves, nor a WebSocket that takes one.
      const target = /^wss?:/.test(given as string)
        ? String(given)
        : new URL(given as string, globalThis.location?.href).href.replace("http", "ws");
      const socket = new WebSocket(target, protocols);
      socket.binaryType = "arraybuffer";
      return socket;
    } catch (error) {
      throw failure("connect_failed", `no WebSocket can be made: ${shown(error)}`, error);
    }
  };
}
