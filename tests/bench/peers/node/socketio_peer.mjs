// The benchmark's server on socket.io, as its documentation shows one, on WebSocket alone, without polling.

import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Server } from "socket.io";

const { values: options } = parseArgs({ options: { listen: { type: "string", default: "127.0.0.1:0" } } });
const [host, port] = options.listen.split(":");
const never = new Int32Array(new SharedArrayBuffer(4));

const httpServer = createServer();
const io = new Server(httpServer, { transports: ["websocket"], perMessageDeflate: false, cors: { origin: "*" } });
const members = (room) => String(io.of("/").adapter.rooms.get(room)?.size ?? 0);

io.on("connection", (socket) => {
  socket.on("echo", (data, callback) => callback(data));
  socket.on("slow", async (milliseconds, callback) => {
    await sleep(Number(milliseconds));
    callback("done");
  });
  socket.on("block", (milliseconds, callback) => {
    Atomics.wait(never, 0, 0, Number(milliseconds));
    callback("done");
  });
  socket.on("join", (room, callback) => {
    socket.join(room);
    callback(members(room));
  });
  socket.on("shout", (data, callback) => {
    const [room, payload] = data.split("\n");
    io.to(room).emit("shout", payload);
    callback(members(room));
  });
});

httpServer.listen(Number(port), host, () => {
  const { address, port } = httpServer.address();
  console.log(`LISTENING ws://${address}:${port}/socket.io/?EIO=4&transport=websocket`);
});
process.on("SIGTERM", () => process.exit(0));
