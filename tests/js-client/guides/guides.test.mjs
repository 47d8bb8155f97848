// The README's programs and the guides' run as printed, in Chromium; TypeScript checks what is in TypeScript.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const project = join(root, ".build/guides");
const installed = createRequire(join(project, "package.json"));
const { chromium } = createRequire(join(root, ".build/browser/package.json"))("playwright-core");
const { WebSocketServer } = createRequire(join(root, ".build/browser/package.json"))("ws");
const { build } = installed("esbuild");

const TIMEOUT = 30_000;
let browser;
/** A folder inside the project, so that its packages are found. */
let folder;

before(async () => {
  folder = mkdtempSync(join(project, "work-"));
  mkdirSync(join(folder, "node_modules"));
  symlinkSync(join(root, ".build/js-client/package"), join(folder, "node_modules/etp-ws-client"));
  symlinkSync(join(root, ".build/node-26/node_modules/etp-ws"), join(folder, "node_modules/etp-ws"));
  const executablePath = execFileSync("sh", ["-c", "command -v chromium"], { encoding: "utf8" }).trim();
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
});
after(async () => {
  await browser.close();
  rmSync(folder, { recursive: true });
});

/** The programs of a text: language, what stands beside it, and the program. */
function programs(file) {
  const text = readFileSync(join(root, file), "utf8");
  return [...text.matchAll(/^```(\S+)\n([\s\S]*?)^```$/gm)].map(([, language, program]) => ({ language, program }));
}

function place(...path) {
  const file = join(folder, ...path);
  mkdirSync(join(file, ".."), { recursive: true });
  return file;
}

async function open(t, url) {
  const page = await browser.newPage();
  t.after(() => page.close());
  page.setDefaultTimeout(TIMEOUT);
  const errors = [];
  const messages = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    messages.push([message.type(), message.text()]);
    if (["error", "warning"].includes(message.type())) errors.push(message.text());
  });
  page.on("dialog", (dialog) => dialog.accept());
  await page.goto(url);
  const logged = (type) => messages.filter(([found]) => found === type).map(([, text]) => text);
  /** Waits until it has said this. */
  async function says(text) {
    while (!messages.some(([, found]) => found === text)) await page.waitForEvent("console");
  }
  return { page, errors, logged, says };
}

/** The README's page, its server, and the command that starts it, as their names stand there. */
function printed() {
  const text = readFileSync(join(root, "js-client/README.md"), "utf8");
  for (const [, name, program] of text.matchAll(/^`([\w.]+)`.*:\n\n```\w+\n([\s\S]*?)^```$/gm)) {
    writeFileSync(place(name), program);
  }
  const [install, start] = programs("js-client/README.md").filter(({ language }) => language === "sh");
  assert.equal(install.program, "npm install etp-ws-client etp-ws\n");
  return start.program.trim();
}

test("the README's page and its server run as printed, in two windows, and survive a restart of the server", async (t) => {
  const [command, ...args] = printed().split(" ");
  assert.equal(command, "node");
  let stop;
  t.after(() => stop());
  async function start(port) {
    const node = join(root, ".build/node/26/bin/node");
    const env = { ...process.env, PORT: port };
    const application = spawn(node, args, { cwd: folder, env, stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(application, "exit");
    stop = async () => {
      application.kill("SIGKILL");
      await ended;
    };
    const [url] = await Promise.race([once(createInterface({ input: application.stdout }), "line"), ended]);
    return url;
  }

  const url = await start(0);
  const [ann, bob] = [await open(t, url), await open(t, url)];
  const shown = ({ page }, text) => page.getByText(text, { exact: true }).first().waitFor();
  await shown(ann, "in the lobby: 1");
  await shown(bob, "in the lobby: 2");
  await bob.page.getByLabel("Message").fill("hello");
  await bob.page.getByRole("button", { name: "Say" }).click();
  await shown(ann, "somebody said: hello");
  await shown(bob, "somebody said: hello");
  await shown(bob, "heard by 2");
  assert.deepEqual([...ann.errors, ...bob.errors], []);

  await bob.page.close();
  await stop();
  await shown(ann, "lost (1006), coming back");
  await start(new URL(url).port);
  await ann.page.getByText("in the lobby: 1", { exact: true }).nth(1).waitFor();
});

/** Opens a page that runs a program of the README, on a server that answers frames so. */
async function run(t, number, serve, refuses = false) {
  const typed = programs("js-client/README.md").filter(({ language }) => language === "ts");
  const entry = place("programs", `${number}.ts`);
  writeFileSync(entry, typed[number].program);
  const served = await host(t, await bundled(entry, "esm"), serve);
  served.did.refuses = refuses;
  return { ...served, ...(await open(t, served.url)) };
}

test("the README's program of events and acknowledgments", async (t) => {
  let call;
  const { live, logged, page, says } = await run(t, 0, (socket, name, id) => {
    if (name === "say") {
      call = id;
      for (const frame of ['said||0||{"who":"ann","text":"hello"}', "news||0||5", 'confirm||1||"sure?"'])
        socket.send(frame);
    }
    if (name === "__ack_confirm") {
      socket.send(`__ack_say||${call}||2`);
      socket.send('said||0||{"who":"ann","text":"bye"}');
    }
  });
  await says("ann: bye");
  await live(0);
  // What it logged before has come when it answers.
  await page.evaluate("0");
  assert.deepEqual(logged("log"), ["ann: hello", "unknown: news 5", "heard by 2", "ann: bye"]);
  assert.match(logged("debug").join(), /^said [\d.]+ ms,news [\d.]+ ms,confirm [\d.]+ ms,said [\d.]+ ms$/);
  assert.deepEqual(logged("error"), []);
});

test("the README's program that connects to a server that is not there yet, and stays away when it is told to", async (t) => {
  const received = [];
  const serve = (socket, name, id, payload) => {
    received.push(name + payload);
    if (id !== "0") socket.send(`__ack_${name}||${id}||`);
    if (name === "say") socket.close(4001, "log in first");
  };
  const { did, live, logged, says, until } = await run(t, 1, serve, true);
  await until(() => did.refused > 1);
  did.refuses = false;
  await says("4001 log in first gone");
  assert.deepEqual(received, ['join"lobby"', 'say"hello"']);
  assert.deepEqual(did.offered, ["etp", `etp.auth.${Buffer.from("a token").toString("base64url")}`]);
  assert.ok(logged("log").filter((text) => text.startsWith("not yet: EtpError: dialling ")).length >= 2);
  await live(0);
});

/** Acknowledges what wants it, and tells what was said. */
function echo(socket, name, id, payload) {
  if (id !== "0") socket.send(`__ack_${name}||${id}||`);
  if (name === "say") socket.send(`said||0||${payload}`);
}

/** A server of ETP's frames that counts its connections, and a page with a bundle. */
async function host(t, bundle, serve = echo) {
  const http = createServer((request, response) => {
    if (request.url === "/app.js") response.setHeader("Content-Type", "text/javascript").end(bundle);
    else if (request.url === "/") {
      const script = '<div id="app"></div><script type="module" src="/app.js"></script>';
      response.setHeader("Content-Type", "text/html").end(`<!doctype html><link rel="icon" href="data:,">${script}`);
    } else if (request.url === "/token") response.end("a token");
    else response.writeHead(404).end();
  });
  /** What it has done; while it refuses it lets nobody in. */
  const did = { refuses: false, refused: 0, joined: 0 };
  const verifyClient = () => {
    if (did.refuses) did.refused += 1;
    sockets.emit("change");
    return !did.refuses;
  };
  const handleProtocols = (offered) => {
    did.offered = [...offered];
    return "etp";
  };
  const sockets = new WebSocketServer({ server: http, path: "/ws", verifyClient, handleProtocols });
  /** Waits until it has done so much. */
  async function until(reached) {
    const signal = AbortSignal.timeout(TIMEOUT);
    while (!reached()) await once(sockets, "change", { signal });
  }
  sockets.on("connection", (socket) => {
    sockets.emit("change");
    socket.on("message", (data) => {
      const [, name, id, payload] = /^(.*?)\|\|(\d+)\|\|(.*)$/s.exec(data.toString());
      if (name === "join") did.joined += 1;
      serve(socket, name, id, payload);
    });
    socket.on("close", () => sockets.emit("change"));
  });
  /** Ends all connections. */
  const drop = () => {
    for (const socket of sockets.clients) socket.terminate();
  };
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  t.after(async () => {
    drop();
    sockets.close();
    http.closeAllConnections();
    http.close();
    await once(http, "close");
  });
  const live = (count) => until(() => sockets.clients.size === count);
  return { did, drop, live, until, url: `http://127.0.0.1:${http.address().port}/` };
}

async function bundled(entry, format = "iife") {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format,
    target: "es2022",
    jsx: "automatic",
    define: {
      "process.env.NODE_ENV": '"development"',
      __VUE_OPTIONS_API__: "false",
      __VUE_PROD_DEVTOOLS__: "false",
      __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
    },
    logLevel: "silent",
  });
  return outputFiles[0].text;
}

/** Writes a guide's two programs, and what has `mount()` and `unmount()` as globals. */
function write(guide, files) {
  const [hook] = programs(`docs/${guide}.md`);
  for (const [name, text] of Object.entries({ "use-client.ts": hook.program, ...files }))
    writeFileSync(place(guide, name), text);
  return place(guide, Object.keys(files).at(-1));
}

const shows = (page, state) => page.getByRole("status").getByText(state, { exact: true }).waitFor();

/** One connection brings it, to one handler. */
async function saysHello(page) {
  await page.getByRole("button", { name: "Say hello" }).click();
  await page.getByRole("listitem").getByText("hello", { exact: true }).waitFor();
  assert.equal(await page.getByRole("listitem").count(), 1);
}

async function livesOnce(t, bundle) {
  const { did, live, url } = await host(t, bundle);
  const { page, errors } = await open(t, url);
  await page.evaluate("mount()");
  await shows(page, "connected");
  assert.equal(did.joined, 1);
  await saysHello(page);
  await live(1);
  await page.evaluate("unmount()");
  await live(0);

  // One that goes while it connects leaves nothing behind.
  await page.evaluate("mount(); unmount(); mount(); unmount(); mount()");
  await shows(page, "connected");
  await saysHello(page);
  await live(1);
  await page.evaluate("unmount()");
  await live(0);
  // What was closed while it connected is no error.
  const told = errors.filter((text) => !text.includes("WebSocket is closed before the connection is established"));
  assert.deepEqual(told, []);
}

/** A server that is down when the page comes, and again later. */
async function survives(t, bundle) {
  const { did, drop, live, until, url } = await host(t, bundle);
  const { page, errors } = await open(t, url);
  did.refuses = true;
  await page.evaluate("mount()");
  await until(() => did.refused > 2);
  await shows(page, "connecting");
  did.refuses = false;
  await shows(page, "connected");
  assert.equal(did.joined, 1);
  await saysHello(page);
  await live(1);
  // That it failed is no secret.
  assert.ok(
    errors.some((text) => text.includes("EtpError: dialling")),
    errors.join("\n"),
  );

  did.refuses = true;
  drop();
  await shows(page, "reconnecting");
  did.refuses = false;
  await shows(page, "connected");
  assert.equal(did.joined, 2);
  await live(1);
  await page.evaluate("unmount()");
  await live(0);

  // One that goes before its next attempt makes none.
  await page.clock.install();
  did.refuses = true;
  did.refused = 0;
  await page.evaluate("mount()");
  await until(() => did.refused > 2);
  await page.evaluate("unmount()");
  did.refuses = false;
  await page.clock.runFor(60_000);
  await page.evaluate("mount()");
  await shows(page, "connected");
  await live(1);
}

/** The component of a guide's second program, bundled with what mounts it. */
function react() {
  const [, chat] = programs("docs/react.md");
  const entry = write("react", {
    "chat.tsx": chat.program,
    "main.tsx": `import { StrictMode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { Chat } from "./chat.js";

let root: Root;
Object.assign(globalThis, {
  mount() {
    root = createRoot(document.querySelector("#app")!);
    root.render(<StrictMode><Chat /></StrictMode>);
  },
  unmount: () => root.unmount(),
});
`,
  });
  return bundled(entry);
}

function vue() {
  const [, chat] = programs("docs/vue.md");
  const entry = write("vue", {
    "chat.ts": component(chat.program),
    "main.ts": `import { type App, createApp } from "vue";
import Chat from "./chat.js";

let app: App;
Object.assign(globalThis, {
  mount() {
    app = createApp(Chat);
    app.mount("#app");
  },
  unmount: () => app.unmount(),
});
`,
  });
  return bundled(entry);
}

/** A single-file component as the module that Vue's compiler makes of it. */
function component(text) {
  const { compileScript, parse } = installed("vue/compiler-sfc");
  const { descriptor, errors } = parse(text);
  assert.deepEqual(errors, []);
  return compileScript(descriptor, { id: "chat", inlineTemplate: true }).content;
}

for (const [guide, bundle] of Object.entries({ "React, under StrictMode": react, Vue: vue })) {
  test(`${guide}: one connection after mounting, none after unmounting`, async (t) => livesOnce(t, await bundle()));
  test(`${guide}: a server that is down when the page comes, and later`, async (t) => survives(t, await bundle()));
}

test("TypeScript accepts the README's programs and the guides'", () => {
  const types = place("types", "tsconfig.json");
  let count = 0;
  for (const { language, program } of programs("js-client/README.md")) {
    if (language !== "ts") continue;
    count += 1;
    writeFileSync(place("types", `readme-${count}.ts`), `${program}\nexport {};\n`);
  }
  assert.ok(count > 0);
  const [hook, chat] = programs("docs/react.md");
  writeFileSync(place("types/react", "use-client.ts"), hook.program);
  writeFileSync(place("types/react", "chat.tsx"), chat.program);
  const [composable, single] = programs("docs/vue.md");
  writeFileSync(place("types/vue", "use-client.ts"), composable.program);
  writeFileSync(place("types/vue", "chat.ts"), component(single.program));
  const compilerOptions = {
    strict: true,
    noEmit: true,
    module: "preserve",
    moduleResolution: "bundler",
    target: "es2022",
    lib: ["es2022", "esnext.disposable", "dom", "dom.iterable"],
    jsx: "react-jsx",
    types: [],
  };
  writeFileSync(types, JSON.stringify({ compilerOptions, include: ["."] }));
  const tsc = join(project, "node_modules/.bin/tsc");
  try {
    execFileSync(tsc, ["--project", types], { encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    assert.fail(error.stdout);
  }
});
