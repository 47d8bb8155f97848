import type { AnyEvents, Client, ClientOptions, HeadersInit, Server } from "./index.js";

/**
 * A client of a server, in memory: without a port, and with the same session, limits and callbacks as over a socket. `onUpgrade` sees the
 * path and headers that are given here.
 * @throws EtpError `handshake_failed` if the server refuses
 */
export function connect<In = AnyEvents, Out = AnyEvents>(
  server: Server<any, any, any>,
  options?: Omit<ClientOptions, "ca" | "tls" | "reconnect"> & {
    path?: string;
    headers?: HeadersInit;
    /** Called with the client before it connects: set handlers here that must not miss the first event. */
    setup?: (client: Client<In, Out>) => void;
  },
): Promise<Client<In, Out>>;
