// The README's page runs as printed, and the guides' programs within small applications, in Chromium; TypeScript checks what is
// in TypeScript.

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
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) errors.push(message.text());
  });
  await page.goto(url);
  return { page, errors };
}

test("the README's page runs as printed, with its server's lines in an application", async (t) => {
  const [page, server] = programs("js-client/README.md");
  assert.deepEqual([page.language, server.language], ["html", "js"]);
  writeFileSync(place("index.html"), page.program);
  writeFileSync(place("server.mjs"), APPLICATION + server.program);

  const node = join(root, ".build/node/26/bin/node");
  const application = spawn(node, ["server.mjs"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(application, "exit");
  t.after(async () => {
    application.kill("SIGKILL");
    await ended;
  });
  const [url] = await Promise.race([once(createInterface({ input: application.stdout }), "line"), ended]);

  const { page: shown, errors } = await open(t, url);
  await shown.getByText("hello, you", { exact: true }).waitFor();
  assert.deepEqual(errors, []);
});

/** What stands around the README's lines: it serves the page and the installed package. */
const APPLICATION = `import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const httpServer = createServer((request, response) => {
  if (request.url === "/favicon.ico") return response.writeHead(204).end();
  const [file, type] = request.url === "/" ? ["index.html", "text/html"] : [request.url.slice(1), "text/javascript"];
  response.setHeader("Content-Type", type).end(readFileSync(file));
});
httpServer.listen(0, "127.0.0.1", () => console.log("http://127.0.0.1:" + httpServer.address().port));
`;

/** A server of ETP's frames that counts its connections, and a page with a bundle. */
async function host(t, bundle) {
  const http = createServer((request, response) => {
    if (request.url === "/app.js") response.setHeader("Content-Type", "text/javascript").end(bundle);
    else if (request.url === "/") {
      const html = '<!doctype html><link rel="icon" href="data:,"><div id="app"></div><script src="/app.js"></script>';
      response.setHeader("Content-Type", "text/html").end(html);
    } else response.writeHead(404).end();
  });
  const sockets = new WebSocketServer({ server: http, path: "/ws" });
  /** Waits until so many connections live. */
  async function live(count) {
    const signal = AbortSignal.timeout(TIMEOUT);
    while (sockets.clients.size !== count) await once(sockets, "change", { signal });
  }
  sockets.on("connection", (socket) => {
    sockets.emit("change");
    socket.on("message", (data) => {
      const [, name, id, payload] = /^(.*?)\|\|(\d+)\|\|(.*)$/s.exec(data.toString());
      if (id !== "0") socket.send(`__ack_${name}||${id}||`);
      if (name === "say") socket.send(`said||0||${payload}`);
    });
    socket.on("close", () => sockets.emit("change"));
  });
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  t.after(async () => {
    for (const socket of sockets.clients) socket.terminate();
    sockets.close();
    http.closeAllConnections();
    http.close();
    await once(http, "close");
  });
  return { live, url: `http://127.0.0.1:${http.address().port}/` };
}

async function bundled(entry) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: "iife",
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

/** Writes a guide's one program, and those that use it; the last has `mount()` and `unmount()` as globals. */
function write(guide, files) {
  const [{ program }] = programs(`docs/${guide}.md`);
  for (const [name, text] of Object.entries({ "use-client.ts": program, ...files }))
    writeFileSync(place(guide, name), text);
  return place(guide, Object.keys(files).at(-1));
}

async function livesOnce(t, bundle) {
  const { live, url } = await host(t, bundle);
  const { page, errors } = await open(t, url);
  await page.evaluate("mount()");
  await page.getByRole("status").getByText("connected", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Say hello" }).click();
  // One connection brings it, to one handler.
  await page.getByRole("listitem").getByText("hello", { exact: true }).waitFor();
  assert.equal(await page.getByRole("listitem").count(), 1);
  await live(1);
  await page.evaluate("unmount()");
  await live(0);

  // One that goes while it connects leaves nothing behind.
  await page.evaluate("mount(); unmount(); mount(); unmount(); mount()");
  await page.getByRole("status").getByText("connected", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Say hello" }).click();
  await page.getByRole("listitem").getByText("hello", { exact: true }).waitFor();
  await live(1);
  await page.evaluate("unmount()");
  await live(0);
  // What was closed while it connected is no error.
  const told = errors.filter((text) => !text.includes("WebSocket is closed before the connection is established"));
  assert.deepEqual(told, []);
}

test("React: under StrictMode one connection after mounting, none after unmounting", async (t) => {
  const entry = write("react", {
    "main.tsx": `import { StrictMode, useState } from "react";
import { createRoot, type Root } from "react-dom/client";
import { useClient } from "./use-client.js";

function Chat() {
  const [lines, setLines] = useState<string[]>([]);
  const { client, state } = useClient("/ws", (client) => {
    client.on("said", (line: string) => setLines((before) => [...before, line]));
  });
  return (
    <main>
      <p role="status">{state}</p>
      <ul>{lines.map((line, number) => <li key={number}>{line}</li>)}</ul>
      <button onClick={() => client?.emit("say", "hello")}>Say hello</button>
    </main>
  );
}

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
  await livesOnce(t, await bundled(entry));
});

test("Vue: one connection after mounting, none after unmounting", async (t) => {
  const entry = write("vue", {
    "main.ts": `import { type App, createApp, defineComponent, h, ref } from "vue";
import { useClient } from "./use-client.js";

const Chat = defineComponent(() => {
  const lines = ref<string[]>([]);
  const { client, state } = useClient("/ws", (client) => {
    client.on("said", (line: string) => void lines.value.push(line));
  });
  return () => h("main", [
    h("p", { role: "status" }, state.value),
    h("ul", lines.value.map((line) => h("li", line))),
    h("button", { onClick: () => client.emit("say", "hello") }, "Say hello"),
  ]);
});

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
  await livesOnce(t, await bundled(entry));
});

test("TypeScript accepts the README's programs and the guides'", () => {
  const types = place("types", "tsconfig.json");
  let count = 0;
  for (const { language, program } of programs("js-client/README.md")) {
    if (language !== "ts") continue;
    count += 1;
    writeFileSync(place("types", `readme-${count}.ts`), `${program}\nexport {};\n`);
  }
  assert.ok(count > 0);
  for (const guide of ["react", "vue"]) {
    const found = programs(`docs/${guide}.md`);
    assert.equal(found.length, 1);
    writeFileSync(place("types", `${guide}.ts`), found[0].program);
  }
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
