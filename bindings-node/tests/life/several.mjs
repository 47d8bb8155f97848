// Several servers and clients of one process, in turn and at once.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, Server } from "etp-ws";

const [how] = process.argv.slice(2);

function named(name) {
  const server = new Server();
  server.on("who", () => name);
  return server;
}

async function who(url) {
  const client = await new Client(url).connect();
  const name = await client.emitWithAck("who");
  await client.close();
  return name;
}

switch (how) {
  case "at once": {
    const servers = await Promise.all(["a", "b", "c", "d"].map((name) => named(name).listen()));
    assert.deepEqual(await Promise.all(servers.map(({ url }) => who(url))), ["a", "b", "c", "d"]);
    // One ends, the others live on.
    const [first, ...others] = servers;
    await first.shutdown();
    assert.equal(first.url, null);
    assert.deepEqual(await Promise.all(others.map(({ url }) => who(url))), ["b", "c", "d"]);
    await Promise.all(others.map((one) => one.shutdown()));
    break;
  }
  case "again": {
    const server = named("again");
    const rooms = [];
    server.onConnect((conn) => {
      conn.join("all");
      rooms.push(server.memberCount("all"));
    });
    for (let time = 1; time <= 3; time += 1) {
      await server.listen();
      assert.equal(await who(server.url), "again");
      assert.equal(server.stats().connects, 1);
      await server.shutdown();
      assert.equal(server.address(), null);
    }
    assert.deepEqual(rooms, [1, 1, 1]);
    break;
  }
  case "again while ending": {
    const server = named("again");
    await server.listen();
    const ending = server.shutdown();
    await assert.rejects(server.listen(), { code: "invalid_state" });
    await ending;
    await server.listen();
    assert.equal(await who(server.url), "again");
    await server.shutdown();
    break;
  }
  case "port taken": {
    const server = named("second");
    const first = await named("first").listen();
    const { port } = first.address();
    for (let time = 0; time < 3; time += 1) {
      await assert.rejects(server.listen({ port }), (error) => {
        assert.equal(error.code, "listen_failed");
        assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}`));
        return true;
      });
      assert.equal(server.address(), null);
    }
    await first.shutdown();
    await server.listen({ port });
    assert.equal(server.address().port, port);
    assert.equal(await who(server.url), "second");
    await server.shutdown();
    break;
  }
  case "two ports": {
    const server = await named("both").listen();
    const first = server.url;
    await server.listen();
    assert.notEqual(server.url, first);
    assert.deepEqual(await Promise.all([first, server.url].map(who)), ["both", "both"]);
    await server.shutdown();
    break;
  }
  case "unix": {
    const path = join(tmpdir(), `etp-ws-${process.pid}.sock`);
    const server = named("unix");
    for (let time = 0; time < 2; time += 1) {
      await server.listen({ path });
      assert.equal(server.address(), path);
      assert.equal(await who(`unix:${path}`), "unix");
      await server.shutdown();
      assert.ok(!existsSync(path));
    }
    break;
  }
  case "attached and own": {
    const server = named("either");
    const http = createServer((request, response) => response.end("page"));
    await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
    server.attach(http);
    await server.listen();
    const attached = `ws://127.0.0.1:${http.address().port}/ws`;
    assert.deepEqual(await Promise.all([attached, server.url].map(who)), ["either", "either"]);
    await server.shutdown();
    assert.equal(await (await fetch(attached.replace("ws:", "http:"))).text(), "page");
    server.attach(http);
    assert.equal(await who(attached), "either");
    await server.shutdown();
    http.closeAllConnections();
    http.close();
    break;
  }
  case "shutdown of nothing": {
    const server = named("idle");
    await server.shutdown();
    await server[Symbol.asyncDispose]();
    assert.equal(server.emit("nobody", "hears"), 0);
    assert.deepEqual([server.conns, server.rooms, server.memberCount("r"), server.address()], [[], [], 0, null]);
    await server.listen();
    await Promise.all([server.shutdown(), server.shutdown()]);
    break;
  }
  case "listen and shutdown": {
    const server = named("brief");
    // Met at once: what is rejected turns before the end of the shutdown would count as unhandled.
    const refused = assert.rejects(server.listen(), { code: "connection_closed" });
    await server.shutdown();
    await refused;
    assert.equal(server.address(), null);
    break;
  }
}
console.log("DONE");
