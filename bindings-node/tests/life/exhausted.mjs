// No descriptors are left when a server is to begin: `listen` says so, and nothing of the attempt stays behind.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { Client, Server } from "etp-ws";

const [where, limited] = isMainThread ? process.argv.slice(2) : [workerData, "limited"];
const me = fileURLToPath(import.meta.url);

async function attempt() {
  // Whatever a first use loads is loaded.
  new Server();
  const taken = [];
  try {
    for (;;) taken.push(openSync("/dev/null"));
  } catch (error) {
    assert.equal(error.code, "EMFILE");
  }
  for (let time = 0; time < 5; time += 1) {
    await assert.rejects(
      new Server().listen(),
      (error) => error.code === "invalid_state" || error.code === "listen_failed",
    );
  }
  for (const descriptor of taken) closeSync(descriptor);
}

async function serve() {
  const server = new Server();
  server.on("echo", (_conn, data) => data);
  await server.listen();
  const client = await new Client(server.url).connect();
  assert.equal(await client.emitWithAck("echo", "hi"), "hi");
  await client.close();
  await server.shutdown();
}

if (limited === undefined) {
  const shell = 'ulimit -n 200 && exec "$0" "$@"';
  const { status, signal, stderr } = spawnSync("sh", ["-c", shell, process.execPath, me, where, "limited"], {
    encoding: "utf8",
  });
  assert.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: "" });
  console.log("DONE");
} else if (where === "worker" && isMainThread) {
  for (let time = 0; time < 2; time += 1) {
    const worker = new Worker(me, { workerData: "worker" });
    const status = await new Promise((resolve, reject) => worker.on("exit", resolve).on("error", reject));
    assert.equal(status, 0);
  }
} else {
  await attempt();
  await serve();
}
