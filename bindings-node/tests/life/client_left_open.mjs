// A client whose program ends while it is connected, in each of the ways that a program can.

import { Client } from "etp-ws";

const [how, url] = process.argv.slice(2);
const exit = () => process.exit(3);
const client = new Client(url);

client.on("go", () => {
  if (how === "exit") exit();
  if (how === "unref") client.unref();
  if (how === "throw") {
    queueMicrotask(() => {
      throw new Error("elsewhere");
    });
  }
  if (how === "waits") client.emitWithAck("never").finally(exit);
});
client.on("exit", exit);
if (how === "onConnect") client.onConnect(exit);
if (how === "onDisconnect") client.onDisconnect(exit);
if (how === "onError") {
  client.onError(exit);
  client.on("go", () => Promise.reject(new Error("for onError")));
}
console.log("DIALS");
await client.connect();
