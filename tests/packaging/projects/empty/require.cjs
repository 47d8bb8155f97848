// What `require` gives works.

const { Client, Server } = require("etp-ws");
const { connect } = require("etp-ws/testing");

async function main() {
  const server = new Server();
  server.on("greet", (_conn, name) => `hello ${name}`);
  await server.listen();
  const client = await new Client(server.url).connect();
  const inMemory = await connect(server);
  console.log(await client.emitWithAck("greet", "ann"), await inMemory.emitWithAck("greet", "bob"));
  await Promise.all([client.close(), inMemory.close()]);
  await server.shutdown();
}

main();
