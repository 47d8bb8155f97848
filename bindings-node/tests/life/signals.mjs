// A server that is told to end by a signal.

import { Server } from "etp-ws";

const [signal, how] = process.argv.slice(2);
const server = new Server({ shutdownTimeout: 5000 });
let ended = 0;

server.on("ready", () => "yes");
server.on("sleep", async () => {
  console.log("IN");
  await new Promise((resolve) => process.once("told", resolve));
  return "slept";
});
server.on("stuck", (conn) => {
  console.log("IN");
  conn.signal.addEventListener("abort", () => console.log("ABORTED"));
  return new Promise(() => {});
});
server.onDisconnect(() => {
  ended += 1;
});

await server.listen();
if (how !== "unhandled") {
  process.once(signal, async () => {
    const over = server.shutdown(how === "stuck" ? { timeout: 1000 } : {});
    // A handler that runs may end: it gets its time.
    process.emit("told");
    if (how === "twice") await Promise.all([server.shutdown(), server.shutdown()]);
    await over;
    console.log("ENDED", ended);
  });
}
console.log("READY", server.url);
