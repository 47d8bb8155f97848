// Handshakes are judged alike whichever way a connection came in, and what an application hands over itself.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { Accept, Reject } from "etp-ws";
import { ATTACHED, DOORS, etp, get, head, knock, LIMIT, Raw, trust } from "./hosts.mjs";
import { peer } from "./peers.mjs";

/** The answer to a handshake, by each way in, without what only says when it was written. */
async function answers(t, options, request, prepare) {
  const all = [];
  for (const [door, open] of Object.entries(DOORS)) {
    const server = etp(t, options);
    const codes = [];
    server.onError((conn, error) => codes.push([error.code, error.status]));
    await prepare?.(server);
    const { url } = await open(t, server);
    const { status, headers, body } = await knock(`${url}/ws`, typeof request === "function" ? request(url) : request);
    const { date, ...others } = headers;
    all.push({ door, status, headers: others, body, codes });
    await server.shutdown();
  }
  return all;
}

/** All ways answer so; the headers are among theirs, and the same in all. */
function alike(all, status, body, headers = {}, code = status) {
  for (const { door, ...answer } of all) {
    assert.deepEqual({ ...answer, door }, { ...all[0], door });
    assert.equal(answer.status, status, door);
    if (body !== undefined) assert.equal(answer.body, body, door);
    for (const [name, value] of Object.entries(headers)) assert.deepEqual(answer.headers[name], value, door);
    assert.deepEqual(answer.codes, status === 101 ? [] : [["handshake_failed", code]], door);
  }
}

const from = (origin) => ({ headers: { Origin: origin } });
const rejecting = (f) => (server) => server.onUpgrade(f);
const WHO = { headers: { "www-authenticate": "Bearer", "set-cookie": ["a=1", "b=2"] } };

describe("every way in answers alike", LIMIT, () => {
  const cases = [
    ["a handshake", {}, {}, undefined, 101, ""],
    ["a page of the same origin", {}, (url) => from(url.replace("ws", "http")), undefined, 101, ""],
    ["a page of another port", {}, from("http://127.0.0.1:1"), undefined, 403],
    ["a page of another site", {}, from("https://example.net"), undefined, 403],
    ["a page without an origin", {}, from("null"), undefined, 403],
    [
      "a page that `origins` names",
      { origins: "https://*.example.org" },
      from("https://a.example.org"),
      undefined,
      101,
    ],
    [
      "a page that `origins` does not name",
      { origins: ["https://example.org"] },
      from("http://example.org"),
      undefined,
      403,
    ],
    ["any page, where all may", { origins: "*" }, from("https://example.net"), undefined, 101],
    ["an old version", {}, { headers: { "Sec-WebSocket-Version": "8" } }, undefined, 426],
    ["no key", {}, { headers: { "Sec-WebSocket-Key": undefined } }, undefined, 400],
    ["a key that is none", {}, { headers: { "Sec-WebSocket-Key": "short" } }, undefined, 400],
    ["another method", {}, { method: "PUT" }, undefined, 405],
    ["onUpgrade that throws", {}, {}, rejecting(() => assert.fail("a secret")), 500, "Internal Server Error\n"],
    ["onUpgrade that does not end", { upgradeTimeout: 1 }, {}, rejecting(() => new Promise(() => {})), 503],
    ["a Reject", {}, {}, rejecting(() => new Reject(401, "log in", WHO)), 401, "log in\n", WHO.headers],
    ["a thrown Reject", {}, {}, rejecting(() => Promise.reject(new Reject(429))), 429],
    ["a Reject with no refusal's status", {}, {}, rejecting(() => new Reject(200, "fine")), 500],
    ["headers of an Accept", {}, {}, rejecting(() => new Accept(WHO)), 101, "", WHO.headers],
  ];
  for (const [title, options, request, prepare, status, body, headers] of cases) {
    test(`${title}: ${status}`, async (t) => {
      alike(await answers(t, options, request, prepare), status, body, headers);
    });
  }

  test("maxConnections counts all ways together, and a place is free again at once", async (t) => {
    const server = etp(t, { maxConnections: 2 });
    const urls = [];
    const refusals = [];
    for (const open of Object.values(DOORS)) urls.push(`${(await open(t, server)).url}/ws`);
    for (const url of urls) {
      const others = urls.filter((one) => one !== url);
      const peers = await Promise.all(others.map((one) => peer(one, trust(one))));
      const { status, headers, body } = await knock(url);
      const { date, ...rest } = headers;
      refusals.push({ status, headers: rest, body });
      await Promise.all(peers.map((one) => one.close()));
      while (server.stats().connections > 0) await new Promise(setImmediate);
    }
    assert.deepEqual([refusals[0].status, refusals[0].headers["retry-after"]], [503, "1"]);
    for (const refusal of refusals) assert.deepEqual(refusal, refusals[0]);
  });

  for (const door of Object.keys(DOORS)) {
    test(`a request is told as it was sent, at ${door}`, async (t) => {
      const server = etp(t);
      const { url } = await DOORS[door](t, server);
      let seen;
      let incoming;
      server.onUpgrade((request) => {
        seen = request;
        ({ incoming } = request);
      });
      const conn = new Promise((resolve) => server.onConnect(resolve));
      const raw = await Raw.to(url);
      t.after(() => raw.destroy());
      const more = ["X-Twice: a", "x-twice: b", "Cookie: a=1", "Cookie: b=2", "Sec-WebSocket-Protocol: chat, etp"];
      raw.write(head("/ws?room=a%20b&x=1&x=2", [...more, "Authorization: Bearer secret", "X-Latin: \u00e9"]));
      assert.equal((await raw.response()).status, 101);
      for (const request of [seen, (await conn).request]) {
        assert.equal(request.method, "GET");
        assert.equal(request.url, "/ws?room=a%20b&x=1&x=2");
        assert.equal(request.path, "/ws");
        assert.equal(request.query.get("room"), "a b");
        assert.deepEqual(request.query.getAll("x"), ["1", "2"]);
        const { host, cookie, "x-twice": twice } = request.headers;
        assert.deepEqual([host, cookie, twice], ["127.0.0.1", "a=1; b=2", "a, b"]);
        assert.deepEqual(request.protocols, ["chat", "etp"]);
        assert.equal(request.token, "secret");
        assert.deepEqual(request.peer, { address: "127.0.0.1", port: raw.tcp.localPort });
        assert.equal(request.clientIp, "127.0.0.1");
        assert.equal(request.incoming, undefined, "onUpgrade is over");
      }
      if (ATTACHED.includes(door)) assert.equal(incoming.url, "/ws?room=a%20b&x=1&x=2");
      else assert.equal(incoming, undefined);
    });

    test(`a page's token comes as a subprotocol and goes no further, at ${door}`, async (t) => {
      const server = etp(t);
      const { url } = await DOORS[door](t, server);
      const conn = new Promise((resolve) => server.onConnect(resolve));
      const token = `etp.auth.${Buffer.from("secret").toString("base64url")}`;
      const { headers } = await knock(`${url}/ws`, { headers: { "Sec-WebSocket-Protocol": `etp, ${token}` } });
      assert.equal(headers["sec-websocket-protocol"], "etp");
      assert.equal((await conn).request.token, "secret");
    });
  }
});

test("a listener on a Unix socket has connections without a peer's address", LIMIT, async (t) => {
  const server = etp(t);
  const path = join(mkdtempSync(join(tmpdir(), "etp-ws-")), "socket");
  t.after(() => rmSync(dirname(path), { recursive: true }));
  const httpServer = http.createServer();
  httpServer.listen(path);
  await once(httpServer, "listening");
  t.after(() => httpServer.close());
  server.attach(httpServer);
  const conn = new Promise((resolve) => server.onConnect(resolve));
  const one = await peer(`ws+unix:${path}:/ws?x=1`);
  const { request } = await conn;
  assert.deepEqual([request.url, request.peer, request.clientIp], ["/ws?x=1", undefined, undefined]);
  assert.equal(await one.ask("echo", "x"), "x");
});

describe("handleUpgrade", LIMIT, () => {
  /** A server at work at no path: upgrades go to the application. */
  async function applied(t, door, upgrade) {
    const server = etp(t);
    const { url, httpServer } = await DOORS[door](t, etp(t, { path: "/another" }));
    const done = new Promise((resolve, reject) => {
      httpServer.on("upgrade", (...args) => upgrade(server, ...args).then(resolve, reject));
    });
    return { server, url, done };
  }

  for (const door of ATTACHED) {
    test(`takes any path of ${door}, and resolves that it was let in`, async (t) => {
      const { url, done } = await applied(t, door, (server, ...args) => server.handleUpgrade(...args));
      const one = await peer(`${url}/any/path`, trust(url));
      assert.equal(await done, true);
      assert.equal(await one.ask("echo", "x"), "x");
    });

    test(`resolves that it was not, when onUpgrade rejects, at ${door}`, async (t) => {
      const { server, url, done } = await applied(t, door, (server, ...args) => server.handleUpgrade(...args));
      server.onUpgrade(() => new Reject(401, "no"));
      assert.equal((await knock(`${url}/any`)).status, 401);
      assert.equal(await done, false);
    });

    test(`resolves that it was not, for a socket of ${door} that has died`, async (t) => {
      const { server, url, done } = await applied(t, door, async (server, request, socket, first) => {
        socket.destroy();
        await once(socket, "close");
        return server.handleUpgrade(request, socket, first);
      });
      const raw = await Raw.to(url);
      t.after(() => raw.destroy());
      raw.write(head("/any"));
      assert.equal(await done, false);
      await raw.ended;
      assert.equal(server.stats().connections, 0);
    });

    test(`twice with one socket of ${door} lets it in once`, async (t) => {
      const { server, url, done } = await applied(t, door, (server, ...args) =>
        Promise.all([server.handleUpgrade(...args), server.handleUpgrade(...args)]),
      );
      const raw = await Raw.to(url);
      t.after(() => raw.destroy());
      await raw.upgrade("/any");
      assert.deepEqual(await done, [true, false]);
      assert.equal(await raw.ask("echo", "x"), "__ack_echo||1||x");
      assert.equal(await raw.ask("echo", "y"), "__ack_echo||1||y");
      assert.equal(server.conns.length, 1);
    });

    test(`answers 503 while and after a shutdown, at ${door}, until the server begins anew`, async (t) => {
      const taken = [];
      const { server, url } = await applied(t, door, async (server, ...args) => {
        taken.push(await server.handleUpgrade(...args));
      });
      await server.listen();
      const over = server.shutdown();
      assert.equal((await knock(`${url}/any`)).status, 503);
      await over;
      assert.equal((await knock(`${url}/any`)).status, 503);
      assert.equal(server.url, null);
      await server.listen();
      const one = await peer(`${url}/any`, trust(url));
      assert.equal(await one.ask("echo", "x"), "x");
      assert.deepEqual(taken, [false, false, true]);
    });

    test(`a stranger's request never rejects what nobody awaits at ${door}`, async (t) => {
      const { server, url, done } = await applied(t, door, (server, ...args) => server.handleUpgrade(...args));
      const codes = [];
      server.onError((conn, error) => codes.push(error.code));
      const raw = await Raw.to(url);
      t.after(() => raw.destroy());
      raw.write(head('/ws?<>`"{}|\\^'));
      assert.equal((await raw.response()).status, 400);
      assert.equal(await done, false);
      assert.deepEqual(codes, ["handshake_failed"]);
    });

    test(`a request that is none for the core is a 400 at ${door}, and costs nobody else anything`, async (t) => {
      const server = etp(t);
      const codes = [];
      server.onError((conn, error) => codes.push(error.code));
      const { url } = await DOORS[door](t, server);
      const one = await peer(`${url}/ws`, trust(url));
      const raw = await Raw.to(url);
      t.after(() => raw.destroy());
      raw.write(head('/ws?<>`"{}|\\^'));
      assert.equal((await raw.response()).status, 400);
      await raw.ended;
      assert.equal(await one.ask("echo", "x"), "x");
      assert.deepEqual(codes, ["handshake_failed"]);
      assert.equal((await get(`${url}/`)).body, "page");
    });
  }
});
