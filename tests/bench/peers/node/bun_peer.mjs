// The benchmark's server on Bun's own WebSockets, which are uWebSockets, as its documentation shows one: rooms are its
// topics.

import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const { values: options } = parseArgs({ options: { listen: { type: "string", default: "127.0.0.1:0" } } });
const [hostname, port] = options.listen.split(":");
const never = new Int32Array(new SharedArrayBuffer(4));

const server = Bun.serve({
  hostname,
  port: Number(port),
  fetch(request, server) {
    if (server.upgrade(request)) return;
    return new Response("Upgrade failed", { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    message(ws, message) {
      if (message.startsWith("echo||")) {
        ws.send(message);
      } else {
        return dispatch(ws, ...message.split("||"));
      }
    },
  },
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
      ws.subscribe(data);
      ws.send(`join||${id}||${server.subscriberCount(data)}`);
      break;
    case "shout": {
      const [room, payload] = data.split("\n");
      server.publish(room, `shout||0||${payload}`);
      ws.send(`shout||${id}||${server.subscriberCount(room)}`);
      break;
    }
  }
}

console.log(`LISTENING ws://${server.hostname}:${server.port}/`);
process.on("SIGTERM", () => process.exit(0));
