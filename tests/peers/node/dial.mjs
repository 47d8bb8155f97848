// The client of the peers' contract: commands as JSON lines on standard input, answers and events as JSON lines on
// standard output.

import { createInterface } from "node:readline";
import { Client, EtpError } from "etp-ws";

let unsaid = []; // what is to be said before `connect` has returned

function say(line) {
  if (unsaid) unsaid.push(line);
  else console.log(JSON.stringify(line));
}

function beginToSay(first) {
  const waiting = unsaid;
  unsaid = undefined;
  for (const line of [first, ...waiting]) say(line);
}

function makeClient(url) {
  const client = new Client(url, { codec: "bytes" });
  client.onDisconnect(({ code, reason, clean, normal, willReconnect }) => {
    say({ disconnected: { code, reason, clean, normal, will_reconnect: willReconnect } });
    if (!willReconnect) say({ state: "closed" });
  });
  client.onError((error) => {
    console.error(error.message);
    if (error.code === "rejected") {
      // By a re-dial: the client has given up.
      say({ error: error.code });
      say({ state: "closed" });
    }
  });
  client.on("question", (data) => data);
  client.onUnknownEvent((name, data) => say({ event: name, data_hex: data.toString("hex") }));
  return client;
}

async function obey(client, command) {
  const name = "name_hex" in command ? Buffer.from(command.name_hex, "hex").toString() : (command.name ?? "");
  const data = Buffer.from(command.data_hex ?? "", "hex");
  const done = { done: command.id };
  try {
    switch (command.do) {
      case "emit":
        client.emit(name, data);
        break;
      case "ack": {
        const reply = await client.emitWithAck(name, data, { timeout: command.timeout_ms });
        done.data_hex = reply.toString("hex");
        break;
      }
      case "ping":
        await client.ping();
        break;
      case "drain":
        await client.drain();
        break;
      case "close":
        await client.close();
        break;
      default:
        throw new Error(`unknown command ${JSON.stringify(command.do)}`);
    }
  } catch (error) {
    if (!(error instanceof EtpError)) throw error;
    done.error = error.code;
  }
  say(done);
}

async function main(url) {
  const client = makeClient(url);
  try {
    await client.connect();
  } catch (error) {
    if (!(error instanceof EtpError)) throw error;
    console.error(error.message);
    beginToSay({ error: error.code });
    process.exitCode = 1;
    return;
  }
  beginToSay({ state: "connected" });
  // From now on it comes back by itself.
  client.onConnect(() => say({ state: "connected" }));
  // A command begins while the next line is being waited for: emits keep their order.
  for await (const line of createInterface({ input: process.stdin })) obey(client, JSON.parse(line));
  await client.close();
}

process.stdout.on("error", () => {}); // nobody reads any more: there is nobody to tell

if (process.argv.length !== 3) {
  console.error("usage: dial.mjs URL");
  process.exit(2);
}
await main(process.argv[2]);
