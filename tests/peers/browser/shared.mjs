// One Chromium for many dials: prints a port, and lives until its input ends. `dial.mjs` with that port as ETP_BROWSER is a client of it.
//
// A connection is a dial. Its lines: first `{"file": ..., "url": ...}`, then the commands of the contract; back come an answer
// behind "o", a note behind "e", and at last the status behind "x".

import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { pages } from "./pages.mjs";

const shared = await pages();

const server = createServer({ allowHalfOpen: true }, async (socket) => {
  socket.on("error", () => {}); // who dialled is gone
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.done) return socket.end();
  const { file, url } = JSON.parse(first.value);
  const say = (line) => socket.write(`o${JSON.stringify(line)}\n`);
  const note = (text) => socket.write(`e${JSON.stringify(text)}\n`);
  const { obey, end } = await shared.dial(file, url, say, note);
  const order = (command) => obey(command).catch((error) => note(String(error)));
  try {
    if (obey) {
      for await (const line of lines) order(JSON.parse(line));
      await order({ do: "close" });
    }
    socket.end(`x${obey ? 0 : 1}\n`);
  } catch {
    // Who dialled was ended: its page goes on to the next.
    socket.destroy();
  }
  await end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));

for await (const _ of process.stdin);
server.close();
await shared.close();
process.exit();
