// Servers and clients in worker threads, which end in each of the ways that a thread can.

import { once } from "node:events";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { Client, Server } from "etp-ws";

const self = new URL(import.meta.url);
const soon = () => new Promise((resolve) => setImmediate(resolve));

// --- In a worker -----------------------------------------------------------------------------------------------------

async function work(how) {
  const server = new Server();
  server.on("ready", () => "yes");
  server.on("exit", () => process.exit(5));
  server.on("throw", async () => {
    await soon();
    queueMicrotask(() => {
      throw new Error("elsewhere");
    });
  });
  server.on("block", () => {
    parentPort.postMessage("BLOCKED");
    for (;;);
  });
  await server.listen();
  const client = await new Client(server.url, { reconnect: false }).connect();
  if (how === "closes") {
    await client.emitWithAck("ready");
    await client.close();
    await server.shutdown();
    parentPort.postMessage("CLOSED");
    return;
  }
  if (how === "unref") {
    client.unref();
    server.unref();
  }
  if (how === "flood") {
    const flood = async () => {
      for (;;) await client.emitWithAck("ready");
    };
    for (let one = 0; one < 16; one += 1) flood().catch(() => {});
  }
  if (how === "shuts down") {
    server.on("wait", () => new Promise(() => {}));
    client.emit("wait");
    parentPort.once("message", () => server.shutdown());
  }
  parentPort.postMessage(server.url);
}

// --- In the main thread ----------------------------------------------------------------------------------------------

function begin(how) {
  const worker = new Worker(self, { workerData: how });
  worker.on("error", (error) => console.log("ERROR", error.message));
  worker.ended = new Promise((resolve) => worker.on("exit", resolve));
  return worker;
}

async function message(worker) {
  return (await once(worker, "message"))[0];
}

async function main(how, count) {
  const workers = Array.from({ length: Number(count) }, () => begin(how));
  const urls = await Promise.all(workers.map(message));
  const own = new Server();
  own.on("ready", () => "yes");
  await own.listen();
  console.log("READY", JSON.stringify([own.url, ...urls]));
  if (how === "closes" || how === "unref") {
    console.log("ENDED", JSON.stringify(await Promise.all(workers.map(({ ended }) => ended))));
    await own.shutdown();
    return;
  }
  await once(process.stdin, "data");
  process.stdin.destroy();
  if (how === "exits" || how === "throws") {
    const clients = await Promise.all(urls.map((url) => new Client(url, { reconnect: false }).connect()));
    for (const client of clients) client.emit(how === "exits" ? "exit" : "throw");
  } else if (how === "main exits") {
    process.exit(7);
  } else {
    if (how === "blocks") {
      const clients = await Promise.all(urls.map((url) => new Client(url, { reconnect: false }).connect()));
      const blocked = workers.map(message);
      for (const client of clients) client.emit("block");
      await Promise.all(blocked);
    }
    if (how === "shuts down") for (const worker of workers) worker.postMessage("now");
    for (const worker of workers) worker.terminate();
  }
  console.log("ENDED", JSON.stringify(await Promise.all(workers.map(({ ended }) => ended))));
  // What the workers had is gone; this thread's server is not.
  const client = await new Client(own.url).connect();
  console.log("STILL", await client.emitWithAck("ready"));
  await client.close();
  await own.shutdown();
}

if (isMainThread) main(...process.argv.slice(2));
else work(workerData);
