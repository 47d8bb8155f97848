// A server that stays until SIGTERM: it says where it listens, who leaves and how, and what failed.

import { Server } from "etp-ws";

const server = new Server();
server.on("greet", (_conn, name) => `hello ${name}`);
server.on("fail", () => {
  throw new Error("on purpose");
});
server.onError((_conn, { code, cause }) => console.log("error:", code, cause.message));
server.onDisconnect((_conn, { code }) => console.log("left:", code));
await server.listen();
console.log(server.url);

process.on("SIGTERM", () => server.shutdown());
