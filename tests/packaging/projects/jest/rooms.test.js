const { Client, Server } = require("etp-ws");
const { connect } = require("etp-ws/testing");

let server;

beforeEach(async () => {
  server = new Server();
  server.on("join", (conn, room) => conn.join(room));
  await server.listen({ port: 0 });
});

afterEach(() => server.shutdown());

test("a room hears what is said to it", async () => {
  const client = new Client(server.url);
  const heard = new Promise((resolve) => client.on("said", resolve));
  await client.connect();
  await client.emitWithAck("join", "tea");
  expect(server.to("tea").emit("said", "hello")).toBe(1);
  await expect(heard).resolves.toBe("hello");
  await client.close();
});

test("without a port as well", async () => {
  const client = await connect(server);
  await client.emitWithAck("join", "tea");
  expect(server.members("tea")).toHaveLength(1);
  await client.close();
});
