// How programs end, and what they survive: each in a process of its own, several times over. None may crash: every end
// is the one that is named here.

import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { WebSocketServer } from "ws";
import { Peer, peer } from "./peers.mjs";
import { Program, run } from "./programs.mjs";

/** Each program runs so often; all of them together run more than 200 times. */
const TIMES = 2;
const OFTEN = 4;
let runs = 0;

function again(title, times, body) {
  for (let time = 1; time <= times; time += 1) {
    test(`${title} (${time})`, async () => {
      runs += 1;
      await body();
    });
  }
}

/** Runs a body with a program, which is gone at its end. */
async function withProgram(name, args, body) {
  const program = new Program(name, args);
  try {
    await body(program);
  } finally {
    program.kill();
  }
}

const SHUTDOWN = [1000, "server shutdown"];
const CUT = [1006, ""];

describe("programs end as they want to", { concurrency: 6 }, () => {
  const ways = [
    ["by itself when the server is let go of", "unref", 0],
    ["by itself, and emits too late", "exit at exit", 0],
    ["by process.exit", "exit", 3],
    ["by process.exit in the turn of an emit", "flush", 3],
    ["by process.exit as a shutdown begins", "shutting down", 3],
    ["by process.exit while a shutdown goes on", "still shutting down", 3],
    ["by process.exit after a shutdown", "shut down", 3],
    ["by process.exit while handlers run that never end", "stuck", 3],
    ["by an exception elsewhere", "throw", 1],
    ["by a rejection elsewhere", "reject", 1],
    ["later, after an exception that it catches itself", "survives", 0],
  ];
  for (const [title, how, status] of ways) {
    again(`a program with connections ends ${title}, and its peers are told`, OFTEN, () =>
      withProgram("left_open", [how], async (program) => {
        const url = await program.line("READY");
        const peers = await Promise.all([peer(url), peer(url), peer(url)]);
        for (const one of peers) assert.equal(await one.ask("ready"), "yes");
        if (how === "stuck") for (const one of peers) one.send("stuck||1||");
        for (const one of peers) assert.equal(await one.ask("ready"), "yes");
        program.tell();
        for (const one of peers) assert.deepEqual(await one.ended, SHUTDOWN);
        if (how === "flush") {
          for (const one of peers) assert.equal(await one.next(), "last||0||words");
        }
        await program.end(status);
        const said = { survives: ["CAUGHT"], "exit at exit": ["REACHED 0"] }[how] ?? [];
        assert.deepEqual(program.said.slice(1), said);
      }),
    );
  }

  // What makes the second connection's end: the first is open meanwhile.
  const callbacks = [
    ["a handler", "handler", (one) => one.send("sync||1||")],
    ["an async handler", "handler", (one) => one.send("async||1||")],
    ["an async handler later", "handler", (one) => one.send("late||1||")],
    ["middleware", "middleware", (one) => one.send("ready||1||")],
    ["onUnknownEvent", "onUnknownEvent", (one) => one.send("what||1||")],
    ["onError", "onError", (one) => one.send("throws||1||")],
    ["onError later", "onError late", (one) => one.send("throws||1||")],
    ["onDisconnect", "onDisconnect", (one) => one.ws.close()],
    ["onUpgrade", "onUpgrade", () => {}],
    ["onConnect", "onConnect", () => {}],
    ["onConnect later", "onConnect late", () => {}],
    [
      "a listener of conn.signal",
      "handler",
      async (one) => {
        await one.ask("watch");
        one.ws.close();
      },
    ],
  ];
  for (const [title, how, cause] of callbacks) {
    again(`process.exit in ${title} ends the program, and its peers are told`, OFTEN, () =>
      withProgram("left_open", [how], async (program) => {
        const url = await program.line("READY");
        const first = await peer(url);
        const second = new Peer(url);
        second.opened.then(
          () => cause(second),
          () => {},
        );
        assert.deepEqual(await first.ended, SHUTDOWN);
        await program.end(3);
      }),
    );
  }
});

describe("programs end with a client connected", { concurrency: 6 }, () => {
  const ways = [
    ["by itself when the client is let go of", "unref", 0],
    ["by process.exit", "exit", 3],
    ["by process.exit while an acknowledgment is awaited", "waits", 3],
    ["by an exception elsewhere", "throw", 1],
    ["by process.exit in onConnect", "onConnect", 3],
    ["by process.exit in onDisconnect", "onDisconnect", 3],
    ["by process.exit in onError", "onError", 3],
  ];
  for (const [title, how, status] of ways) {
    again(`a client's program ends ${title}, and its server is told`, TIMES, async () => {
      const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
      try {
        await once(server, "listening");
        const connected = once(server, "connection");
        await withProgram("client_left_open", [how, `ws://127.0.0.1:${server.address().port}`], async (program) => {
          await program.line("DIALS");
          const [ws] = await connected;
          const ended = once(ws, "close");
          if (how === "waits") ws.on("message", () => ws.send("exit||0||"));
          ws.send("go||1||");
          if (how === "onDisconnect") ws.close(1000, "server shutdown");
          const [code, reason] = await ended;
          // One that has not connected yet has nothing to say.
          const expected = { onConnect: CUT, onDisconnect: SHUTDOWN }[how] ?? [1000, ""];
          assert.deepEqual([code, reason.toString()], expected);
          await program.end(status);
        });
      } finally {
        server.close();
      }
    });
  }
});

describe("signals", { concurrency: 6 }, () => {
  for (const signal of ["SIGINT", "SIGTERM"]) {
    again(`${signal} with a handler ends a server gracefully, and then the process by itself`, OFTEN, () =>
      withProgram("signals", [signal], async (program) => {
        const url = await program.line("READY");
        const peers = await Promise.all([peer(url), peer(url)]);
        program.signal(signal);
        for (const one of peers) assert.deepEqual(await one.ended, SHUTDOWN);
        await program.end();
        assert.deepEqual(program.said.at(-1), "ENDED 2");
      }),
    );

    again(`${signal} lets a handler that runs end, and its reply goes out`, OFTEN, () =>
      withProgram("signals", [signal, "twice"], async (program) => {
        const one = await peer(await program.line("READY"));
        const slept = one.ask("sleep");
        await program.line("IN");
        program.signal(signal);
        assert.equal(await slept, "slept");
        assert.deepEqual(await one.ended, SHUTDOWN);
        await program.end();
      }),
    );

    again(`${signal} ends a server whose handler never ends, and aborts conn.signal`, TIMES, () =>
      withProgram("signals", [signal, "stuck"], async (program) => {
        const one = await peer(await program.line("READY"));
        one.send("stuck||1||");
        await program.line("IN");
        program.signal(signal);
        assert.deepEqual(await one.ended, SHUTDOWN);
        await program.end();
        assert.ok(program.said.includes("ABORTED"));
      }),
    );

    again(`${signal} without a handler ends the process as ever`, OFTEN, () =>
      withProgram("signals", [signal, "unhandled"], async (program) => {
        const url = await program.line("READY");
        const peers = await Promise.all([peer(url), peer(url)]);
        program.signal(signal);
        for (const one of peers) assert.deepEqual(await one.ended, CUT);
        await program.end(signal);
      }),
    );
  }
});

describe("what keeps a process alive", { concurrency: 6 }, () => {
  again("an open server does, until it is let go of", OFTEN, () =>
    withProgram("alive", ["server"], async (program) => {
      const one = await peer(await program.line("READY"));
      assert.equal(await one.ask("ready"), "yes");
      assert.equal(await one.ask("unref and ref"), "held");
      for (let time = 0; time < 10; time += 1) assert.equal(await one.ask("ready"), "yes");
      assert.ok(!program.said.includes("EMPTY"));
      one.send("ref twice||0||");
      assert.deepEqual(await one.ended, SHUTDOWN);
      await program.end();
      assert.deepEqual(program.said.slice(1), ["EMPTY"]);
    }),
  );

  again("nothing does after a shutdown", OFTEN, () =>
    withProgram("alive", ["server"], async (program) => {
      const one = await peer(await program.line("READY"));
      one.send("shutdown||0||");
      assert.deepEqual(await one.ended, SHUTDOWN);
      await program.end();
      assert.deepEqual(program.said.slice(1), ["OVER", "EMPTY"]);
    }),
  );

  const alone = [
    ["a server that never listens does not", "never listens", ["EMPTY"]],
    ["nothing is at work after a shutdown", "shutdown at once", ["LEFT []", "EMPTY"]],
    ["a server that was let go of before it listened does not", "unref before", ["READY", "EMPTY"]],
    ["a client that was let go of before it connected does not", "client unref before", ["READY", "EMPTY"]],
    ["a server that was let go of does until its shutdown is over", "shutdown unref", ["OVER", "EMPTY"]],
    ["a server that can't listen does not", "listen fails", ["FAILED listen_failed", "EMPTY"]],
    ["a client that was closed does not", "client close", ["GONE false", "EMPTY"]],
    ["a client that was let go of does not", "client unref", ["EMPTY"]],
    ["a client that has lost its connection for good does not", "client without reconnect", ["GONE false", "EMPTY"]],
    ["a client that can't connect does not", "client fails", ["FAILED connect_failed", "EMPTY"]],
    ["a dial that was given up does not", "client given up", ["FAILED enough", "EMPTY"]],
  ];
  for (const [title, how, said] of alone) {
    again(title, TIMES, async () => {
      // What the server tells of a dial that broke off comes when it comes.
      const told = (await run("alive", [how])).said.filter((line) => line !== "SERVER handshake_failed");
      assert.deepEqual(told, said);
    });
  }

  again("an open client does, until it is closed", TIMES, () =>
    withProgram("alive", ["client"], async (program) => {
      assert.equal(await program.line("READY"), "yes");
      program.signal("SIGTERM");
      await program.end();
      assert.deepEqual(program.said.slice(1), ["GONE false", "CLOSED closed", "EMPTY"]);
    }),
  );

  again("a client that is on its way back does, until it is closed", TIMES, () =>
    withProgram("alive", ["client shutdown"], async (program) => {
      assert.equal(await program.line("READY"), "reconnecting");
      program.signal("SIGTERM");
      await program.end();
      assert.deepEqual(program.said, ["GONE true", "READY reconnecting", "EMPTY"]);
    }),
  );
});

describe("worker threads", { concurrency: 3 }, () => {
  const ways = [
    ["that close what they opened end by themselves", "closes", 1, 0],
    ["that let go of what they opened end by themselves", "unref", 1, 0],
    ["are terminated with connections open", "terminated", 1, 1],
    ["are terminated while events flow", "flood", 1, 1],
    ["are terminated while they shut down", "shuts down", 1, 1],
    ["are terminated while a handler blocks", "blocks", 1, 1],
    ["exit in a handler", "exits", 1, 5],
    ["end by an exception", "throws", 1, 1],
  ];
  for (const [title, how, fewest, code] of ways) {
    for (const [count, times] of [
      [fewest, TIMES],
      [6, TIMES],
    ]) {
      again(`${count} worker${count > 1 ? "s" : ""} ${title}`, times, () =>
        withProgram("workers", [how, String(count)], async (program) => {
          const urls = JSON.parse(await program.line("READY"));
          const ends = how === "closes" || how === "unref";
          const peers = ends ? [] : await Promise.all(urls.slice(1).map((url) => peer(url)));
          program.tell();
          for (const one of peers) assert.deepEqual(await one.ended, SHUTDOWN);
          assert.deepEqual(JSON.parse(await program.line("ENDED")), new Array(count).fill(code));
          if (!ends) assert.equal(await program.line("STILL"), "yes");
          await program.end();
          assert.equal(program.said.filter((line) => line === "ERROR elsewhere").length, how === "throws" ? count : 0);
        }),
      );
    }
  }

  again("the main thread exits while workers have servers", OFTEN, () =>
    withProgram("workers", ["main exits", "4"], async (program) => {
      const peers = await Promise.all(JSON.parse(await program.line("READY")).map((url) => peer(url)));
      program.tell();
      for (const one of peers) assert.deepEqual(await one.ended, SHUTDOWN);
      await program.end(7);
    }),
  );
});

describe("several in one process", { concurrency: 6 }, () => {
  const ways = ["at once", "again", "again while ending", "port taken", "two ports", "unix", "attached and own"];
  for (const how of [...ways, "shutdown of nothing", "listen and shutdown"]) {
    again(`servers of one process: ${how}`, TIMES, async () => {
      assert.deepEqual((await run("several", [how])).said, ["DONE"]);
    });
  }
});

for (const where of ["main", "worker"]) {
  again(`no descriptors are left for a server: ${where}`, TIMES, async () => {
    assert.deepEqual((await run("exhausted", [where])).said, ["DONE"]);
  });
}

test("there were at least 200 runs", () => assert.ok(runs >= 200, `${runs} runs`));
