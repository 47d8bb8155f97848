import { Client } from "etp-ws-client";

addEventListener("message", async ({ data: url }) => {
  try {
    const client = await new Client(url).connect();
    postMessage(await client.emitWithAck("echo", "it works"));
    await client.close();
  } catch (error) {
    postMessage(`${error.code}: ${error.message}`);
  }
});
