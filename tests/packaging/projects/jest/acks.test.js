const { Client, EtpError, Server } = require("etp-ws");

test("an event is acknowledged", async () => {
  const server = new Server({ codec: "json" });
  server.on("add", (_conn, [a, b]) => a + b);
  await server.listen({ port: 0 });
  const client = await new Client(server.url, { codec: "json" }).connect();
  await expect(client.emitWithAck("add", [1, 2])).resolves.toBe(3);
  await client.close();
  await server.shutdown();
  await expect(client.emitWithAck("add", [1, 2])).rejects.toThrow(EtpError);
});
