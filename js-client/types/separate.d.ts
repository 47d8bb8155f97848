export * from "./index.js";

/**
 * Loads `etp-ws-client.wasm`, before the first client is made: from its URL, from what `fetch` gave, or from its bytes.
 * @throws EtpError `unsupported_platform`, whose `cause` is what `fetch` or the engine threw, or the status and URL of the answer
 */
export function load(source: string | URL | Response | Uint8Array | object | Promise<Response | object>): Promise<void>;
