// Options and what else is refused before anything happens; bugs of the core, and answers that come too late.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Accept, Broadcast, Client, Conn, EtpError, Reject, Server } from "etp-ws";
import { connect } from "etp-ws/testing";
import { environment, live, until } from "./internals.mjs";
import { run } from "./programs.mjs";

const SIZES = ["maxMessageSize", "maxInflight", "maxOutbox", "maxPendingAcks"];
const TIMES = ["ackTimeout", "pingInterval", "pingTimeout", "closeTimeout"];
const SERVER_SIZES = [...SIZES, "maxInflightTotal", "maxConnections"];
const SERVER_TIMES = [...TIMES, "handshakeTimeout", "upgradeTimeout", "shutdownTimeout"];
const made = {
  server: (options) => new Server(options),
  client: (options) => new Client("ws://127.0.0.1:1/ws", options),
};
const wrong = { sizes: ["1", {}, true, -1, 1.5, NaN, Infinity, 10n], times: ["1", {}, true, -1, NaN, Infinity, 10n] };

function refused(make, options, pattern) {
  assert.throws(
    () => make(options),
    (error) => {
      assert.ok(error instanceof EtpError, String(error));
      assert.equal(error.code, "invalid_option");
      assert.match(error.message, pattern);
      return true;
    },
  );
}

for (const [what, sizes, times] of [
  ["server", SERVER_SIZES, SERVER_TIMES],
  ["client", [...SIZES, "queue"], [...TIMES, "dialTimeout"]],
]) {
  test(`a ${what}'s numbers are checked, and the error names the option`, () => {
    for (const name of sizes) for (const value of wrong.sizes) refused(made[what], { [name]: value }, new RegExp(name));
    for (const name of times) for (const value of wrong.times) refused(made[what], { [name]: value }, new RegExp(name));
  });

  test(`a name that is no option of a ${what} is an error, which tells the one that was meant`, () => {
    refused(made[what], { nonsense: 1 }, /"nonsense" is no option/);
    refused(made[what], { maxmessagesize: 1 }, /did you mean "maxMessageSize"/);
    refused(made[what], { ping_interval: 1 }, /did you mean "pingInterval"/);
    for (const options of [null, 1, "text", f]) refused(made[what], options, /options are an object/);
  });
}

function f() {}

test("what the core refuses has the option's name as JavaScript writes it", async () => {
  refused(made.server, { ackTimeout: 2 ** 53 }, /^ackTimeout is /);
  refused(made.server, { maxInflight: 0 }, /^maxInflight /);
  const error = await made
    .client({ maxInflight: 0 })
    .connect()
    .catch((error) => error);
  assert.equal(error.code, "invalid_option");
  assert.match(error.message, /^maxInflight /);
});

test("options that are no numbers are checked as well", () => {
  for (const codec of ["xml", 1, null, {}, [f], [f, 1], f]) refused(made.server, { codec }, /codec/);
  for (const origins of [1, ["a", 1], "not an origin", "http://*"]) refused(made.server, { origins }, /origin/i);
  for (const path of [1, {}, "ws", ""]) refused(made.server, { path }, /path/);
  for (const hosts of [1, "localhost", [1]]) refused(made.server, { hosts }, /hosts/);
  for (const trustedProxies of [1, ["nobody"]]) refused(made.server, { trustedProxies }, /prox/i);
  for (const tls of [1, {}, { cert: "a" }, { cert: 1, key: 2 }]) refused(made.server, { tls }, /tls/);
  for (const auth of [1, null, {}]) refused(made.client, { auth }, /auth/);
  for (const reconnect of [1, "yes", { base: -1 }]) refused(made.client, { reconnect }, /reconnect|base/);
  for (const url of [1, null, undefined, {}]) assert.throws(() => new Client(url), { code: "invalid_option" });
  assert.throws(() => made.client({ shouldReconnect: 1 }), TypeError);
  for (const headers of [1, "name: value"]) assert.throws(() => made.client({ headers }), TypeError);
});

test("names that can't be are refused wherever one is given", async (t) => {
  const server = new Server();
  t.after(() => server.shutdown());
  const client = await connect(server);
  const [conn] = server.conns;
  const names = ["", "a||b", "a|", "__ack_a", "__etp", "\ud800", "x".repeat(257), 1, {}, Symbol("a"), Buffer.from("a")];
  for (const name of names) {
    const refusals = [
      () => server.on(name, f),
      () => client.on(name, f),
      () => client.once(name, f),
      () => server.emit(name),
      () => server.to("room").emit(name),
      () => conn.emit(name),
      () => client.emit(name),
      () => new Server().emit(name),
    ];
    for (const refusal of refusals) assert.throws(refusal, { code: "invalid_event" }, String(name));
    await assert.rejects(conn.emitWithAck(name), { code: "invalid_event" });
    await assert.rejects(client.emitWithAck(name), { code: "invalid_event" });
  }
});

test("what only the package makes can't be made", () => {
  for (const args of [[], [{}], [{}, [], []]]) {
    assert.throws(() => new Conn(...args), TypeError);
    assert.throws(() => new Broadcast(...args), TypeError);
  }
  for (const status of [NaN, "403", -1, 1.5]) assert.throws(() => new Reject(status), { code: "invalid_option" });
});

test("an answer of onUpgrade that can't be sent is a 500, and told", async (t) => {
  const server = new Server();
  t.after(() => server.shutdown());
  const answers = [
    new Accept({ headers: { "bad name": "x" } }),
    new Accept({ headers: { name: "line\nbreak" } }),
    new Accept({ headers: 1 }),
    new Accept({ protocol: 1, data: {} }),
    new Accept({ close: { code: 70_000 }, data: {} }),
    new Accept({ close: { code: 1006 }, data: {} }),
    new Accept({ close: { code: 4000, reason: "x".repeat(200) } }),
    new Reject(403, 1),
    new Reject(403, "no", { headers: { name: "\u{1f600}" } }),
  ];
  for (const answer of answers) {
    let told;
    const error = new Promise((resolve) => server.onError((conn, error) => resolve(error)));
    server.onUpgrade(() => answer);
    await connect(server).catch((failure) => {
      told = failure;
    });
    assert.deepEqual([told.code, told.status], ["handshake_failed", 500]);
    assert.equal((await error).code, "handshake_failed");
  }
  server.onUpgrade(f);
  await (await connect(server)).close();
  await until(() => live().kept === undefined);
});

test("a panic in the addon is an EtpError, and one in the core ends nothing", async () => {
  const { said, error } = await run("panics", [], { quiet: false, env: { RUST_BACKTRACE: "0" } });
  assert.deepEqual(said, ["DONE"]);
  assert.equal(error.match(/panicked/g).length, 40);
});

function gate() {
  const one = {};
  one.promise = new Promise((resolve) => {
    one.resolve = resolve;
  });
  return one;
}

test("an answer that comes after the end is not taken for another's", async () => {
  await until(() => live().sites === undefined);
  const [late, early] = [gate(), gate()];
  const first = new Server({ upgradeTimeout: 10 });
  first.onUpgrade(() => late.promise);
  first.onError(f);
  const timedOut = connect(first).catch(({ code }) => code);
  await until(() => live().tickets === 1);
  await first.shutdown();
  assert.equal(await timedOut, "handshake_failed");
  // The core has ended, and begins anew: the next handshake has the number of the one before.
  await until(() => environment.live().every((count) => count === 0));
  const second = new Server();
  second.onUpgrade(() => early.promise);
  const waiting = connect(second);
  await until(() => live().tickets === 1);
  late.resolve({ of: "first" });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(second.stats().connections, 0);
  early.resolve({ of: "second" });
  const client = await waiting;
  assert.deepEqual(
    second.conns.map(({ data }) => data),
    [{ of: "second" }],
  );
  await client.close();
  await second.shutdown();
});
