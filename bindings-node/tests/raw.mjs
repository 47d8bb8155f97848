// WebSocket by hand over any stream: for what a well-behaved library would not do, and for many at once.

import { createHash, randomBytes } from "node:crypto";

/** The request of a handshake. */
export function handshake({ path = "/ws", headers = {} } = {}) {
  const usual = {
    Host: "127.0.0.1",
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
  };
  const lines = Object.entries({ ...usual, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`);
}

/** What a server answers to the key of `handshake`. */
export const ACCEPT = createHash("sha1")
  .update("dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
  .digest("base64");

/** A frame as a client sends it. */
export function frame(payload, opcode = 1) {
  const data = Buffer.from(payload);
  const length =
    data.length < 126
      ? [0x80 | data.length]
      : data.length < 65_536
        ? [0x80 | 126, data.length >> 8, data.length & 0xff]
        : [0x80 | 127, 0, 0, 0, 0, ...new Uint8Array(new Uint32Array([data.length]).buffer).reverse()];
  const mask = randomBytes(4);
  const masked = data.map((byte, at) => byte ^ mask[at & 3]);
  return Buffer.concat([Buffer.from([0x80 | opcode, ...length]), mask, masked]);
}

/** The close frame of 1000. */
export const CLOSE = frame(Buffer.from([0x03, 0xe8]), 8);

/** What a server sends: takes bytes, gives whole messages; control frames are `{ opcode, data }` too. */
export class Frames {
  #bytes = Buffer.alloc(0);
  #headed = false;
  head;

  push(bytes) {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    if (!this.#headed) {
      const end = this.#bytes.indexOf("\r\n\r\n");
      if (end < 0) return [];
      this.head = this.#bytes.subarray(0, end).toString();
      this.#bytes = this.#bytes.subarray(end + 4);
      this.#headed = true;
    }
    const found = [];
    for (;;) {
      const one = this.#one();
      if (one === undefined) return found;
      found.push(one);
    }
  }

  #one() {
    const bytes = this.#bytes;
    if (bytes.length < 2) return undefined;
    let [at, length] = [2, bytes[1] & 127];
    if (length === 126) [at, length] = [4, bytes.length < 4 ? Infinity : bytes.readUInt16BE(2)];
    else if (length === 127) [at, length] = [10, bytes.length < 10 ? Infinity : Number(bytes.readBigUInt64BE(2))];
    if (bytes.length < at + length) return undefined;
    this.#bytes = bytes.subarray(at + length);
    return { opcode: bytes[0] & 15, data: bytes.subarray(at, at + length) };
  }
}
