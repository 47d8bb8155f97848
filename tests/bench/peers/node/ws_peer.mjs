// The benchmark's server on ws, as its documentation shows one. With --cork a connection's replies of one turn of the
// event loop go out in one write, which ws leaves to its user.

import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { WebSocket, WebSocketServer } from "ws";

const { values: options } = parseArgs({
  options: { listen: { type: "string", default: "127.0.0.1:0" }, cork: { type: "boolean", default: false } },
});
const [host, port] = options.listen.split(":");
const rooms = new Map();
const never = new Int32Array(new SharedArrayBuffer(4));

const server = new WebSocketServer({ host, port: Number(port), perMessageDeflate: false });

server.on("connection", (ws, request) => {
  ws.on("error", console.error);
  ws.on("message", (data) => {
    if (options.cork) cork(request.socket);
    const message = data.toString();
    if (message.startsWith("echo||")) {
      ws.send(message);
    } else {
      dispatch(ws, ...message.split("||"));
    }
  });
  ws.on("close", () => {
    for (const members of rooms.values()) members.delete(ws);
  });
});

async function dispatch(ws, event, id, data) {
  switch (event) {
    case "slow":
      await sleep(Number(data));
      ws.send(`slow||${id}||done`);
      break;
    case "block":
      Atomics.wait(never, 0, 0, Number(data));
      ws.send(`block||${id}||done`);
      break;
    case "join":
      if (!rooms.has(data)) rooms.set(data, new Set());
      ws.send(`join||${id}||${rooms.get(data).add(ws).size}`);
      break;
    case "shout": {
      const [room, payload] = data.split("\n");
      const members = rooms.get(room);
      const delivery = `shout||0||${payload}`;
      for (const member of members) {
        if (member.readyState === WebSocket.OPEN) member.send(delivery);
      }
      ws.send(`shout||${id}||${members.size}`);
      break;
    }
  }
}

// Corks nest: ws has one around each frame, and this one is around them.
const corked = new Set();
function cork(socket) {
  if (corked.has(socket)) return;
  if (corked.size === 0) setImmediate(uncork);
  corked.add(socket);
  socket.cork();
}

function uncork() {
  for (const socket of corked) socket.uncork();
  corked.clear();
}

server.on("listening", () => {
  const { address, port } = server.address();
  console.log(`LISTENING ws://${address}:${port}/`);
});
process.on("SIGTERM", () => process.exit(0));
