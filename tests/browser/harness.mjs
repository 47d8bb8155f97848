// Servers for the cases: the test peers, and one that does what it is told.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const packageFolder = join(root, ".build/js-client/package");
export const tools = createRequire(join(root, ".build/browser/package.json"));
const { WebSocketServer } = tools("ws");

/** A test peer on a port that it keeps when it is started again. */
export class Peer {
  constructor(lang) {
    this.lang = lang;
  }

  async start() {
    this.port ??= await freePort();
    const env = { ...process.env, ETP_PEERS_BUILT: "1" };
    const args = [this.lang, "--listen", `127.0.0.1:${this.port}`];
    this.process = spawn(join(root, "tests/peers/run"), args, { env, stdio: ["ignore", "pipe", "inherit"] });
    const [line] = await once(createInterface({ input: this.process.stdout }), "line");
    this.url = line.replace("LISTENING ", "");
  }

  async stop() {
    const ended = once(this.process, "exit");
    this.process.kill("SIGTERM");
    await ended;
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Replies to `send` with what the client answers to the frame that it is told to send; closes as it is told. */
export async function oddServer() {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: () => "etp" });
  await once(server, "listening");
  server.on("connection", (socket, request) => {
    let asked;
    socket.on("message", (data) => {
      const text = data.toString();
      if (text.startsWith("__ack_")) {
        socket.send(`__ack_${asked.name}||${asked.id}||${text}`);
        return;
      }
      const [, name, id, payload] = /^(.*?)\|\|(\d+)\|\|(.*)$/s.exec(text);
      asked = { name, id };
      if (name === "send" && payload) socket.send(payload);
      else if (name === "send-binary") socket.send(Buffer.from(payload));
      else if (name === "close") socket.close(Number(payload.split(" ")[0]), payload.slice(payload.indexOf(" ") + 1));
      else if (name === "protocols") {
        socket.send(`__ack_protocols||${id}||${request.headers["sec-websocket-protocol"]?.replaceAll(" ", "")}`);
      }
    });
  });
  return { url: `ws://127.0.0.1:${server.address().port}/`, end: () => server.close() };
}

/** What a case may ask of its surroundings. */
export function controls(peer, odd) {
  return async (what) => {
    if (what === "odd") return odd.url;
    await peer[what]();
    return peer.url;
  };
}
