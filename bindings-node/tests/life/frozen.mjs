// An application that has frozen what everybody shares, and a peer whose events share batches with frames that break the rules.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { Server } from "etp-ws";
import { frame, handshake } from "../raw.mjs";

const ROUNDS = 10;
const EVENTS = 10;

Object.freeze(Error);
const server = await new Server({ maxInflight: ROUNDS * EVENTS }).listen();
let handled = 0;
const told = [];
server.on("work", () => {
  handled += 1;
});
server.onError((_, error) => told.push(error.code));

const socket = net.connect(Number(new URL(server.url).port), "127.0.0.1").resume();
socket.write(handshake());
await once(socket, "data");
for (let round = 1; round <= ROUNDS; round += 1) {
  const events = Array.from({ length: EVENTS }, (_, at) => frame(`work||${at + 1}||`));
  socket.write(Buffer.concat([...events, frame("no head"), frame("work||0||")]));
  while (handled < round * (EVENTS + 1) || told.length < round) await new Promise((resolve) => setTimeout(resolve, 1));
}
assert.deepEqual(new Set(told), new Set(["malformed_frame"]));
socket.destroy();
while (server.conns.length > 0) await new Promise((resolve) => setTimeout(resolve, 1));
assert.equal(server.stats().handlersInFlight, 0);
await server.shutdown();
console.log("DONE");
