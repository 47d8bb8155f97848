// Express with sessions: who has logged in over HTTP is known to ETP at `/ws`, and a route emits to all who are there.
//
//     npm install etp-ws express express-session
//     node express.mjs
//
// In a second terminal a client, which logs in and waits for news; in a third whoever has some:
//
//     node express.mjs ann
//     curl -c jar -X POST "http://127.0.0.1:8080/login?name=bob"
//     curl -b jar -X POST "http://127.0.0.1:8080/news?text=hello"

import { randomUUID } from "node:crypto";
import { promisify } from "node:util";
import { Client, Reject, Server } from "etp-ws";
import express from "express";
import session from "express-session";

const addr = process.env.ADDR ?? "127.0.0.1:8080";

function serve() {
  const app = express();
  const server = new Server({ codec: "json" });
  // Kept in memory, as long as the process lives: yours have a store, and a secret that stays.
  const sessions = session({ secret: randomUUID(), resave: false, saveUninitialized: false });

  // HTTP

  app.use(sessions);

  app.post("/login", (req, res) => {
    req.session.name = String(req.query.name);
    res.json({ welcome: req.session.name });
  });

  app.post("/news", (req, res) => {
    if (!req.session.name) return res.sendStatus(401);
    const news = { from: req.session.name, text: String(req.query.text) };
    res.json({ reached: server.emit("news", news) });
  });

  // ETP

  // The same middleware reads the session of a handshake, which has no response to set a cookie on.
  const readSession = promisify((incoming, done) => sessions(incoming, {}, done));

  server.onUpgrade(async ({ incoming }) => {
    await readSession(incoming);
    if (!incoming.session.name) throw new Reject(401);
    return { name: incoming.session.name }; // from now on this is `conn.data`
  });

  server.on("whoami", (conn) => conn.data.name);

  // One port for both

  const [host, port] = addr.split(":");
  const httpServer = app.listen(Number(port), host, () => {
    console.log(`Listening on http://${host}:${httpServer.address().port}`);
  });
  server.attach(httpServer);

  process.once("SIGINT", () => {
    httpServer.close();
    server.shutdown();
  });
}

async function wait(name) {
  const login = await fetch(`http://${addr}/login?name=${encodeURIComponent(name)}`, { method: "POST" });
  const [cookie] = login.headers.get("set-cookie").split(";");
  const client = new Client(`ws://${addr}/ws`, { codec: "json", headers: { Cookie: cookie } });
  client.on("news", ({ from, text }) => console.log(`${from}: ${text}`));
  await client.connect();
  console.log("I am", await client.emitWithAck("whoami"));
}

const [name] = process.argv.slice(2);
if (name) await wait(name);
else serve();
