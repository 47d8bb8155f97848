// The examples run as their heads say.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client } from "etp-ws";

/** An example that runs until the end of the test: what it says, line by line, and how it ends. */
class Example {
  constructor(t, name, { args = [], addr = "127.0.0.1:0" } = {}) {
    const file = fileURLToPath(new URL(`../examples/${name}`, import.meta.url));
    this.process = spawn(process.execPath, [file, ...args], {
      env: { ...process.env, ADDR: addr },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.ended = once(this.process, "exit");
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
    t.after(async () => {
      this.process.kill("SIGKILL");
      await this.ended;
    });
  }

  async says() {
    return (await this.lines.next()).value;
  }

  /** Where it listens, as it says itself. */
  async addr() {
    const line = await this.says();
    return /http:\/\/(127\.0\.0\.1:\d+)/.exec(line)[1];
  }

  /** Ctrl-C. */
  async interrupt() {
    this.process.kill("SIGINT");
    assert.deepEqual(await this.ended, [0, null]);
  }
}

async function connected(t, addr, options) {
  const client = new Client(`ws://${addr}/ws`, options);
  t.after(() => client.close());
  return client.connect();
}

test("the chat serves its page and the page's WebSocket", async (t) => {
  const chat = new Example(t, "chat.mjs");
  const addr = await chat.addr();
  const page = await fetch(`http://${addr}/`);
  assert.equal(page.headers.get("content-type"), "text/html; charset=utf-8");
  assert.match(await page.text(), /\/ws/);
  assert.equal((await fetch(`http://${addr}/other`)).status, 404);

  const ann = await connected(t, addr);
  const bob = await connected(t, addr);
  const heard = bob.events();
  const hears = async (name) => {
    const { value } = await heard.next();
    assert.equal(value.name, name);
    return JSON.parse(value.data);
  };
  const entered = await ann.emitWithAck("enter", JSON.stringify({ name: "ann", room: "tea" }));
  assert.deepEqual(JSON.parse(entered), { room: "tea", members: ["ann"] });
  await bob.emitWithAck("enter", JSON.stringify({ name: "bob", room: "tea" }));
  assert.deepEqual((await hears("members")).sort(), ["ann", "bob"]);
  await ann.emitWithAck("say", "hello");
  assert.deepEqual(await hears("said"), { name: "ann", text: "hello" });
  await ann.close();
  assert.deepEqual(await hears("members"), ["bob"]);
  await chat.interrupt();
});

test("the Express example knows who has logged in, and its route reaches them", async (t) => {
  const app = new Example(t, "express.mjs");
  const addr = await app.addr();
  await assert.rejects(connected(t, addr), { code: "rejected", status: 401 });

  const ann = new Example(t, "express.mjs", { args: ["ann"], addr });
  assert.equal(await ann.says(), "I am ann");

  const post = (path, headers) => fetch(`http://${addr}${path}`, { method: "POST", headers });
  assert.equal((await post("/news?text=hello")).status, 401);
  const login = await post("/login?name=bob");
  assert.deepEqual(await login.json(), { welcome: "bob" });
  const [cookie] = login.headers.get("set-cookie").split(";");
  assert.deepEqual(await (await post("/news?text=hello", { cookie })).json(), { reached: 1 });
  assert.equal(await ann.says(), "bob: hello");
  await app.interrupt();
});

test("the Fastify example lets in who has a token, and its route reaches the room", async (t) => {
  const app = new Example(t, "fastify.mjs");
  const addr = await app.addr();
  await assert.rejects(connected(t, addr, { auth: "wrong" }), { code: "rejected", status: 401 });

  const ann = new Example(t, "fastify.mjs", { args: ["ann-secret"], addr });
  assert.equal(await ann.says(), "I am ann");

  const news = `http://${addr}/rooms/lobby/news?text=hello`;
  const post = (authorization) => fetch(news, { method: "POST", headers: { authorization } });
  assert.equal((await post("Bearer wrong")).status, 401);
  assert.deepEqual(await (await post("Bearer bob-secret")).json(), { reached: 1 });
  assert.equal(await ann.says(), "bob: hello");
  await app.interrupt();
});
