// Bugs of the core, made on purpose: a panic in what JavaScript calls, and one on the core's own thread.

import assert from "node:assert/strict";
import { EtpError, Server } from "etp-ws";
import { connect } from "etp-ws/testing";
import { environment } from "../internals.mjs";

const server = new Server();
server.on("alive", () => "yes");
const client = await connect(server);
for (let time = 0; time < 20; time += 1) {
  assert.throws(
    () => environment.native.panicForTests(),
    (error) => {
      assert.ok(error instanceof EtpError);
      assert.equal(error.code, "internal_error");
      assert.match(error.message, /please report it: a panic for tests/);
      return true;
    },
  );
  environment.native.panicInCoreForTests();
  assert.equal(await client.emitWithAck("alive"), "yes");
}
await client.close();
await server.shutdown();
console.log("DONE");
