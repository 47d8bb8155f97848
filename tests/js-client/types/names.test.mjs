// The names that the types have, the package has, and its README has, and no others: members, options, keys of what callbacks are given, and
// the errors' codes.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import * as declared from "./project/everything.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const { Client, EtpError } = await import(join(root, ".build/js-client/package/index.js"));

const names = (object) => Reflect.ownKeys(object).sort((a, b) => (String(a) < String(b) ? -1 : 1));
const same = (found, types) => assert.deepEqual(names(found), names(types));
const table = (keys) => Object.fromEntries(keys.map((key) => [key, true]));

/** The names in the first column of the README's table whose head begins so. */
function documented(head) {
  const readme = readFileSync(join(root, "js-client/README.md"), "utf8");
  const [, rows] = readme.split(`\n| ${head} |`);
  assert.ok(rows, `no table of ${head}`);
  const [found] = rows.split("\n\n");
  const firsts = found.split("\n").map((row) => row.split("|")[1] ?? "");
  return table(firsts.flatMap((first) => [...first.matchAll(/`(\w+)`/g)].map(([, name]) => name)));
}

describe("options", () => {
  /** What the client says that it knows, told about one that it can't. */
  function known(options) {
    let message = "";
    assert.throws(
      () => new Client("/ws", options),
      (error) => {
        message = error.message;
        return error.code === "invalid_option";
      },
    );
    const [, list] = /^there is no option "unheard", but (.*)$/.exec(message) ?? [];
    assert.ok(list, message);
    return table(list.split(", "));
  }

  test("what the types have the client takes, and nothing else", () => {
    new Client("/ws", declared.options);
    same(known({ unheard: true }), declared.options);
    same(known({ reconnect: { unheard: true } }), declared.reconnect);
    same(known({ probe: { event: "alive", unheard: true } }), declared.probe);
  });

  test("the README has each", () => {
    same(documented("option"), declared.options);
  });
});

describe("codes of errors", () => {
  test("the sources use what the types have, and all of it", () => {
    const folder = join(root, "js-client/src");
    const used = {};
    for (const file of readdirSync(folder, { recursive: true })) {
      if (!file.endsWith(".ts")) continue;
      const text = readFileSync(join(folder, file), "utf8");
      for (const [, code] of text.matchAll(/(?<!function )\bfailure\(\s*([^,)]+),/g)) {
        assert.match(code, /^"\w+"$/, `${file}: the code of a failure is written where it is made`);
        used[code.slice(1, -1)] = true;
      }
      const made = [...text.matchAll(/new EtpError\(/g)].length;
      assert.equal(made, file === "error.ts" ? 1 : 0, `${file}: errors are made by failure()`);
    }
    same(used, declared.codes);
  });

  test("the README has each", () => {
    same(documented("`code`"), declared.codes);
  });
});

describe("members", () => {
  /** What a client has told, and what it has handed out, on its way through a connection. */
  const seen = { states: {} };
  let client;

  before(async () => {
    client = new Client("ws://127.0.0.1/", { WebSocket: Socket, reconnect: { base: 0 } });
    const state = () => {
      seen.states[client.state] = true;
    };
    client.onConnect((conn) => {
      seen.conn = conn;
    });
    const lost = new Promise((resolve) => client.onDisconnect(resolve));
    client.use((event, next) => {
      seen.middlewareEvent = { ...event };
      return next();
    });
    client.on("say", () => {});
    const events = client.events("say");

    state();
    const connecting = client.connect();
    state();
    await connecting;
    state();
    Socket.last.onmessage({ data: "say||0||hello" });
    seen.event = (await events.next()).value;
    const call = client.emitWithAck("say");
    Socket.last.onclose({ code: 4000, reason: "bye", wasClean: true });
    seen.error = await call.catch((error) => error);
    seen.disconnect = await lost;
    state();
    await client.close();
  });

  test("of a client", () => {
    const { constructor: _, ...members } = Object.getOwnPropertyDescriptors(Client.prototype);
    same(members, declared.client);
    assert.deepEqual(Object.keys(client), []);
  });

  test("of what onConnect, onDisconnect, middleware and iterators are given", () => {
    same(seen.conn, declared.conn);
    same(seen.disconnect, declared.disconnect);
    same(seen.middlewareEvent, declared.middlewareEvent);
    same(seen.event, declared.event);
  });

  test("of an error", () => {
    assert.ok(seen.error instanceof EtpError);
    const { stack: _, message: __, ...own } = Object.getOwnPropertyDescriptors(seen.error);
    same(own, declared.error);
    assert.deepEqual(names(EtpError.prototype), ["constructor", "name"]);
  });

  test("the states", () => {
    same(seen.states, declared.states);
  });
});

/** A WebSocket that opens by itself, and is told what else happens. */
class Socket {
  static last;
  readyState = 0;
  bufferedAmount = 0;

  constructor(url) {
    this.url = String(url);
    Socket.last = this;
    setImmediate(() => {
      this.readyState = 1;
      this.onopen?.();
    });
  }

  send() {}

  close(code = 1000, reason = "") {
    this.readyState = 3;
    setImmediate(() => this.onclose?.({ code, reason, wasClean: true }));
  }
}
