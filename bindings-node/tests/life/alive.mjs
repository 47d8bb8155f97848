// What keeps a process alive, and what lets it end: nobody calls `process.exit` here.

import { Client, Server } from "etp-ws";

const [how] = process.argv.slice(2);
process.on("beforeExit", () => console.log("EMPTY"));

const server = new Server();
const soon = () => new Promise((resolve) => setImmediate(resolve));
server.on("ready", () => "yes");
server.on("unref", () => void server.unref());
server.on("unref and ref", async () => {
  server.unref();
  await soon();
  server.ref();
  return "held";
});
server.on("ref twice", () => {
  server.ref().ref();
  server.unref();
});
server.on("shutdown", () => {
  server.shutdown().then(() => console.log("OVER"));
});
server.on("close", (conn) => conn.close());

/** What is at work besides standard input and output. */
function resources() {
  return process.getActiveResourcesInfo().filter((one) => !/Pipe|TTY|FileReq|FSReq/.test(one));
}

async function withClient(end) {
  await server.listen();
  server.unref();
  const client = new Client(server.url, { reconnect: how !== "client without reconnect" });
  client.on("ready", () => "yes");
  client.onDisconnect(({ willReconnect }) => console.log("GONE", willReconnect));
  client.onError(() => {}); // nobody listens any more
  await client.connect();
  await end(client);
}

switch (how) {
  case "server":
    await server.listen();
    console.log("READY", server.url);
    break;
  case "never listens":
    break;
  case "unref before":
    server.unref();
    await server.listen();
    console.log("READY");
    break;
  case "client unref before": {
    await server.listen();
    const client = new Client(server.url).unref();
    await client.connect();
    server.unref();
    console.log("READY");
    break;
  }
  case "shutdown unref":
    await server.listen();
    server.unref();
    await server.shutdown();
    console.log("OVER");
    break;
  case "shutdown at once":
    await server.listen();
    await server.shutdown();
    await soon();
    await soon();
    console.log("LEFT", JSON.stringify(resources()));
    break;
  case "listen fails": {
    await server.listen();
    const { port } = server.address();
    const other = new Server();
    await other.listen({ port }).catch((error) => console.log("FAILED", error.code));
    await server.shutdown();
    break;
  }
  case "client":
    await withClient(async (client) => {
      const told = new Promise((resolve) => process.once("SIGTERM", resolve));
      console.log("READY", await client.emitWithAck("ready"));
      await told;
      await client.close();
      console.log("CLOSED", client.state);
    });
    break;
  case "client unref":
    await withClient((client) => client.unref());
    break;
  case "client close":
    await withClient((client) => client.close());
    break;
  case "client without reconnect":
    await withClient((client) => client.emit("close"));
    break;
  case "client fails":
    await new Client("ws://127.0.0.1:1/ws").connect().catch((error) => console.log("FAILED", error.code));
    break;
  case "client given up": {
    await server.listen();
    server.onUpgrade(() => new Promise(() => {}));
    server.onError((_, { code }) => console.log("SERVER", code));
    const client = new Client(server.url);
    const stop = new AbortController();
    const connecting = client.connect({ signal: stop.signal });
    await soon();
    stop.abort(new Error("enough"));
    await connecting.catch((error) => console.log("FAILED", error.message));
    await server.shutdown({ timeout: 50 });
    break;
  }
  case "client shutdown":
    // Its server is gone for good: it tries on, and that keeps the process alive until it is told.
    await withClient(async (client) => {
      await server.shutdown();
      const told = new Promise((resolve) => process.once("SIGTERM", resolve));
      console.log("READY", client.state);
      await told;
      await client.close();
    });
    break;
}
