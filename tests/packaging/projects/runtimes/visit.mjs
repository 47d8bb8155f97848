// Node's visit to a server at a URL: something that fails, something that does not, and goodbye.

import { Client } from "etp-ws";

const client = await new Client(process.argv[2]).connect();
client.emit("fail");
console.log(await client.emitWithAck("greet", "ann"));
await client.close();
