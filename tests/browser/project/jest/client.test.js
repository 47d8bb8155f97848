const { readFileSync } = require("node:fs");
const WebSocket = require("ws");

const separate = require("etp-ws-client/separate");

beforeAll(() => separate.load(readFileSync(require.resolve("etp-ws-client/etp-ws-client.wasm"))));

describe.each(["etp-ws-client", "etp-ws-client/nowasm", "etp-ws-client/separate"])("%s", (name) => {
  const { Client, EtpError } = require(name);

  test("an event is acknowledged", async () => {
    const client = await new Client(process.env.ETP_URL, { WebSocket }).connect();
    await expect(client.emitWithAck("echo", "it works")).resolves.toBe("it works");
    await client.close();
    await expect(client.emitWithAck("echo")).rejects.toThrow(EtpError);
  });

  test("bytes are bytes in Jest's own realm", async () => {
    const client = await new Client(process.env.ETP_URL, { WebSocket, codec: "bytes" }).connect();
    await expect(client.emitWithAck("echo", Uint8Array.of(0, 255))).resolves.toEqual(Uint8Array.of(0, 255));
    await client.close();
  });
});
