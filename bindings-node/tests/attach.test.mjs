// A server on a port that the application has already: beside its routes and other upgrades, with its sessions.

import assert from "node:assert/strict";
import { on, once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { promisify } from "node:util";
import { Reject } from "etp-ws";
import express from "express";
import session from "express-session";
import fastify from "fastify";
import { createServer as createVite } from "vite";
import { WebSocket, WebSocketServer } from "ws";
import { ATTACHED, DOORS, etp, get, knock, LIMIT, listening, Raw, trust } from "./hosts.mjs";
import { peer } from "./peers.mjs";

function pages(text = "page") {
  return http.createServer((request, response) => response.end(text));
}

async function routeAnswers(url, body) {
  assert.deepEqual(await get(url).then(({ status, body }) => [status, body]), [200, body]);
}

describe("under frameworks", LIMIT, () => {
  test("Express: the session of a login is seen in onUpgrade, another is turned away, and routes live on", async (t) => {
    const app = express();
    const sessions = session({ secret: "of the test", resave: false, saveUninitialized: false });
    app.use(sessions);
    app.post("/login", (req, res) => {
      req.session.name = "ann";
      res.json({ welcome: "ann" });
    });
    app.get("/page", (req, res) => res.send(`for ${req.session.name}`));

    const server = etp(t);
    const readSession = promisify((incoming, done) => sessions(incoming, {}, done));
    server.onUpgrade(async ({ incoming, headers }) => {
      await readSession(incoming);
      if (incoming.session.name === undefined) throw new Reject(401, "log in");
      return { name: incoming.session.name, cookie: headers.cookie };
    });
    server.on("whoami", (conn) => `${conn.data.name} by ${conn.data.cookie}`);
    const httpServer = http.createServer(app);
    server.attach(httpServer);
    const at = await listening(t, httpServer);

    await routeAnswers(`http://${at}/page`, "for undefined");
    const login = await get(`http://${at}/login`, { method: "POST" });
    const [cookie] = login.headers["set-cookie"][0].split(";");
    const page = async () => (await get(`http://${at}/page`, { headers: { cookie } })).body;

    for (const wrong of [undefined, `${cookie}x`, "connect.sid=s%3Anone.of-ours"]) {
      const { status, body } = await knock(`ws://${at}/ws`, { headers: { cookie: wrong } });
      assert.deepEqual([status, body], [401, "log in\n"]);
    }
    const ann = await peer(`ws://${at}/ws`, { headers: { cookie } });
    assert.equal(await page(), "for ann");
    assert.equal(await ann.ask("whoami"), `ann by ${cookie}`);
    ann.ws.close(1000);
    assert.deepEqual(await ann.ended, [1000, ""]);
    assert.equal(await page(), "for ann");
  });

  test("Fastify: routes answer before, while and after a connection is open, and may emit to it", async (t) => {
    const app = fastify();
    const server = etp(t);
    app.get("/page", async () => "page");
    app.post("/news", async () => ({ reached: server.emit("news", "hello") }));
    server.attach(app.server);
    const url = await app.listen({ host: "127.0.0.1", port: 0 });
    t.after(() => app.close());

    await routeAnswers(`${url}/page`, "page");
    const ann = await peer(`${url.replace("http", "ws")}/ws`);
    await routeAnswers(`${url}/page`, "page");
    assert.equal((await get(`${url}/news`, { method: "POST" })).body, '{"reached":1}');
    assert.equal(await ann.next(), "news||0||hello");
    assert.equal(await ann.ask("echo", "x"), "x");
    await ann.close();
    await routeAnswers(`${url}/page`, "page");
  });

  test("Vite's dev server has its HMR on the same port", async (t) => {
    const server = etp(t);
    const httpServer = http.createServer((request, response) => vite.middlewares(request, response));
    const root = mkdtempSync(join(tmpdir(), "etp-ws-"));
    t.after(() => rmSync(root, { recursive: true }));
    const vite = await createVite({
      configFile: false,
      root,
      cacheDir: root,
      appType: "custom",
      logLevel: "silent",
      optimizeDeps: { noDiscovery: true },
      server: { middlewareMode: true, hmr: { server: httpServer }, watch: null },
    });
    t.after(() => vite.close());
    server.attach(httpServer);
    const at = await listening(t, httpServer);

    const hmr = new WebSocket(`ws://${at}/?token=${vite.config.webSocketToken}`, "vite-hmr");
    const told = on(hmr, "message");
    const next = async () => JSON.parse((await told.next()).value[0]);
    const ours = await peer(`ws://${at}/ws`);
    assert.deepEqual(await next(), { type: "connected" });
    assert.equal(await ours.ask("echo", "x"), "x");
    vite.ws.send({ type: "custom", event: "ping" });
    assert.equal((await next()).event, "ping");
    assert.match((await get(`http://${at}/@vite/client`)).body, /WebSocket/);
    hmr.close();
    await once(hmr, "close");
    assert.equal(await ours.ask("echo", "y"), "y");
  });
});

describe("beside other upgrades", LIMIT, () => {
  test("`ws` serves another path of the same port", async (t) => {
    for (const first of ["ours", "theirs"]) {
      const server = etp(t);
      const httpServer = pages();
      const theirs = new WebSocketServer({ noServer: true });
      theirs.on("connection", (ws) => ws.on("message", (text) => ws.send(`theirs: ${text}`)));
      t.after(() => theirs.close());
      if (first === "ours") server.attach(httpServer);
      httpServer.on("upgrade", (request, socket, head) => {
        if (request.url === "/theirs")
          theirs.handleUpgrade(request, socket, head, (ws) => theirs.emit("connection", ws));
      });
      if (first === "theirs") server.attach(httpServer);
      const at = await listening(t, httpServer);

      const [one, other] = await Promise.all([peer(`ws://${at}/ws`), peer(`ws://${at}/theirs`)]);
      other.send("hello");
      assert.equal(await other.next(), "theirs: hello");
      assert.equal(await one.ask("echo", "hello"), "hello");
      await routeAnswers(`http://${at}/`, "page");
      await one.close();
      other.send("again");
      assert.equal(await other.next(), "theirs: again");
      await other.close();
    }
  });

  test("a path that nobody handles is a 404, and the port lives on", async (t) => {
    for (const door of ATTACHED) {
      const server = etp(t);
      const { url } = await DOORS[door](t, server);
      for (const path of ["/", "/other", "/ws/", "/WS", "/wsx", "/other?/ws"]) {
        const { status, body } = await knock(url + path);
        assert.deepEqual([path, status, body], [path, 404, "Not Found\n"]);
      }
      const one = await peer(`${url}/ws?a=/other`, trust(url));
      assert.equal(await one.ask("echo", "x"), "x");
      await one.close();
    }
  });

  test("a path that is not ours stays with whoever else handles upgrades", async (t) => {
    const server = etp(t);
    const httpServer = pages();
    server.attach(httpServer);
    httpServer.on("upgrade", (request, socket) => {
      if (request.url !== "/ws") socket.end("HTTP/1.1 418 Theirs\r\nContent-Length: 5\r\n\r\ntheirs".slice(0, -1));
    });
    const at = await listening(t, httpServer);
    const { status, body } = await knock(`ws://${at}/other`);
    assert.deepEqual([status, body], [418, "their"]);
    const one = await peer(`ws://${at}/ws`);
    assert.equal(await one.ask("echo", "x"), "x");
  });

  test("two servers share a port by their paths, and each shuts down alone", async (t) => {
    const httpServer = pages();
    const servers = ["/one", "/two"].map((path) => {
      const server = etp(t, { path });
      server.on("who", (conn) => `${path} of ${conn.request.path}`);
      return server.attach(httpServer);
    });
    servers[0].attach(httpServer, { path: "/also one" });
    const at = await listening(t, httpServer);
    const first = await peer(`ws://${at}/one`);
    const second = await peer(`ws://${at}/two`);
    assert.equal(await first.ask("who"), "/one of /one");
    assert.equal(await second.ask("who"), "/two of /two");
    assert.deepEqual([servers[0].conns.length, servers[1].conns.length], [1, 1]);
    await servers[0].shutdown();
    assert.deepEqual(await first.ended, [1000, "server shutdown"]);
    assert.equal((await knock(`ws://${at}/one`)).status, 404);
    assert.equal(await second.ask("who"), "/two of /two");
    assert.equal(await (await peer(`ws://${at}/two`)).ask("who"), "/two of /two");
  });

  test("one server serves several ports, whose connections share its rooms", async (t) => {
    const server = etp(t);
    server.onConnect((conn) => conn.join("all"));
    const urls = [];
    for (const door of Object.values(DOORS)) urls.push((await door(t, server)).url);
    const peers = await Promise.all(urls.map((url) => peer(`${url}/ws`, trust(url))));
    for (const one of peers) assert.equal(await one.ask("echo", "x"), "x");
    assert.equal(server.to("all").emit("news", "hello"), 3);
    for (const one of peers) assert.equal(await one.next(), "news||0||hello");
    await server.shutdown();
    for (const one of peers) assert.deepEqual(await one.ended, [1000, "server shutdown"]);
    for (const url of urls.slice(1)) await routeAnswers(`${url}/`, "page");
  });
});

describe("the end of either", LIMIT, () => {
  for (const door of ATTACHED) {
    test(`shutdown() leaves ${door} alone: its routes live on, and it may be attached to again`, async (t) => {
      const server = etp(t);
      const { url, httpServer } = await DOORS[door](t, server);
      const one = await peer(`${url}/ws`, trust(url));
      assert.equal(await one.ask("echo", "x"), "x");
      await server.shutdown();
      assert.deepEqual(await one.ended, [1000, "server shutdown"]);
      await routeAnswers(`${url}/`, "page");
      // Upgrades are the application's again: this one has a page for everything.
      assert.equal((await knock(`${url}/ws`)).status, 200);
      assert.equal(httpServer.listenerCount("upgrade"), 0);
      assert.equal(httpServer.listening, true);
      server.attach(httpServer);
      const other = await peer(`${url}/ws`, trust(url));
      assert.equal(await other.ask("echo", "y"), "y");
      assert.equal(httpServer.listenerCount("upgrade"), 1);
    });
  }

  test("close() of an http.Server leaves connections that were handed over alone, and does not wait for them", async (t) => {
    const server = etp(t);
    const httpServer = pages();
    server.attach(httpServer);
    const at = await listening(t, httpServer);
    const one = await peer(`ws://${at}/ws`);
    await new Promise((resolve) => httpServer.close(resolve));
    await assert.rejects(get(`http://${at}/`), { code: "ECONNREFUSED" });
    assert.equal(await one.ask("echo", "x"), "x");
    await server.shutdown();
    assert.deepEqual(await one.ended, [1000, "server shutdown"]);
  });

  test("close() of an https.Server waits for connections until the server's shutdown", async (t) => {
    const server = etp(t);
    const { url, httpServer } = await DOORS["an https.Server"](t, server);
    const one = await peer(`${url}/ws`, trust(url));
    let over = false;
    const closed = new Promise((resolve) => httpServer.close(resolve)).then(() => {
      over = true;
    });
    await assert.rejects(get(`${url}/`), { code: "ECONNREFUSED" });
    assert.equal(await one.ask("echo", "x"), "x");
    assert.equal(over, false);
    await server.shutdown();
    assert.deepEqual(await one.ended, [1000, "server shutdown"]);
    await closed;
  });
});

test("a connection that served requests before is upgraded", LIMIT, async (t) => {
  for (const door of ATTACHED) {
    const { url } = await DOORS[door](t, etp(t));
    const raw = await Raw.to(url);
    t.after(() => raw.destroy());
    for (let time = 0; time < 3; time += 1) {
      raw.write("GET /page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
      assert.deepEqual(await raw.response(), { status: 200, body: "page" });
    }
    await raw.upgrade();
    assert.equal(await raw.ask("echo", "x"), "__ack_echo||1||x");
  }
});
