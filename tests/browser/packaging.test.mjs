// The package in a project: as each bundler builds it, unbundled, in Workers, under a Content-Security-Policy, in Next, Jest and
// Node; and what is in it.

import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { chromium, launched } from "../peers/browser/chromium.mjs";
import { Peer, root } from "./harness.mjs";

const project = join(root, ".build/client-project");
const tools = createRequire(join(project, "package.json"));
/** The package as npm has installed it from its tarball. */
const installed = join(project, "node_modules/etp-ws-client");
const ENTRIES = ["index", "nowasm", "separate"];
const HANGS_AFTER = 120_000;
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

const peer = new Peer("rust");
let browser;
let site;
/** Headers of every answer. */
let headers = {};

before(async () => {
  await peer.start();
  browser = await chromium.launch(launched);
  site = createServer(({ url }, response) => {
    const path = decodeURIComponent(new URL(url, "http://localhost").pathname);
    const html = /^\/(.*)\.page$/.exec(path);
    try {
      const body = html
        ? `<!doctype html><title></title><script type="module" src="/${html[1]}"></script>`
        : readFileSync(join(project, path));
      response
        .writeHead(200, { ...headers, "content-type": TYPES[html ? ".html" : extname(path)] ?? "text/plain" })
        .end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
});
after(async () => {
  await browser.close();
  site.close();
  await peer.stop();
});

/** What a page with this script says, served with these headers. */
async function said(script, extra = {}) {
  headers = extra;
  return title(`http://127.0.0.1:${site.address().port}/${script}.page`);
}

/** What a page says in its title, unless something goes wrong in it before. */
async function title(url) {
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    const failure = new Promise((_, reject) => {
      const fail = (what) => reject(new Error(`${url}: ${what}`));
      page.on("pageerror", fail);
      page.on("crash", () => fail("the page crashed"));
      page.on("requestfailed", (request) => fail(`${request.url()}: ${request.failure().errorText}`));
      page.on("response", (response) => response.ok() || fail(`${response.url()}: ${response.status()}`));
      page.on("console", (message) => {
        const { url: at } = message.location();
        // That a page has no icon nobody but the browser asked.
        if (message.type() === "error" && !at.endsWith("/favicon.ico")) fail(`${message.text()} (${at})`);
      });
    });
    const shown = async () => {
      await page.goto(`${url}?server=${encodeURIComponent(peer.url)}`);
      return (await page.waitForFunction(() => document.title)).jsonValue();
    };
    return await Promise.race([shown(), failure]);
  } finally {
    await context.close();
  }
}

function output(name) {
  const folder = join(project, "out", name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  return folder;
}

describe("bundled for production", () => {
  for (const entry of ["app.js", "nowasm.js", "separate-vite.js", "in-worker.js"]) {
    test(`by Vite: ${entry}`, async () => {
      const { build } = await import(tools.resolve("vite").replace(/index\.cjs$/, "dist/node/index.js"));
      const folder = output(`vite-${entry}`);
      await build({
        root: project,
        logLevel: "error",
        base: `/out/vite-${entry}/`,
        worker: { format: "es" },
        build: {
          outDir: folder,
          rollupOptions: { input: join(project, entry), output: { entryFileNames: "main.js" } },
        },
      });
      assert.equal(await said(`out/vite-${entry}/main.js`), "it works");
    });
  }

  for (const entry of ["app.js", "nowasm.js", "separate.js", "in-worker.js"]) {
    test(`by webpack: ${entry}`, async () => {
      const webpack = tools("webpack");
      const folder = output(`webpack-${entry}`);
      const stats = await new Promise((resolve, reject) => {
        const options = {
          mode: "production",
          context: project,
          entry: `./${entry}`,
          output: { path: folder, filename: "main.js", publicPath: `/out/webpack-${entry}/` },
        };
        webpack(options, (error, stats) => (error ? reject(error) : resolve(stats)));
      });
      assert.ok(!stats.hasErrors(), stats.toString());
      assert.equal(await said(`out/webpack-${entry}/main.js`), "it works");
    });
  }

  for (const entry of ["app.js", "nowasm.js", "separate-esbuild.js", "worker.js"]) {
    test(`by esbuild: ${entry}`, async () => {
      const folder = output(`esbuild-${entry}`);
      await tools("esbuild").build({
        entryPoints: [join(project, entry)],
        bundle: true,
        minify: true,
        format: "esm",
        loader: { ".wasm": "file" },
        outdir: folder,
        publicPath: `/out/esbuild-${entry}/`,
      });
      // It leaves a Worker's URL as it is: its script is an entry of its own.
      const page = entry === "worker.js" ? "in-worker.js" : entry;
      if (page !== entry) cpSync(join(project, page), join(folder, page));
      assert.equal(await said(`out/esbuild-${entry}/${page}`), "it works");
    });
  }

  test("by Next: rendered by the server, then at work in the browser", async (t) => {
    const cwd = join(project, "next");
    const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1" };
    const next = [tools.resolve("next/dist/bin/next")];
    rmSync(join(cwd, ".next"), { recursive: true, force: true });
    const built = spawnSync(process.execPath, [...next, "build"], { cwd, env, encoding: "utf8", timeout: HANGS_AFTER });
    assert.equal(built.status, 0, built.stdout + built.stderr);

    const started = [...next, "start", "--hostname", "127.0.0.1", "--port", "0"];
    const server = spawn(process.execPath, started, { cwd, env, stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(server, "exit");
    t.after(async () => {
      server.kill("SIGKILL");
      await ended;
    });
    const url = await new Promise((resolve, reject) => {
      const said = [];
      const lines = createInterface({ input: server.stdout });
      lines.on("line", (line) => {
        said.push(line);
        const [address] = /http:\/\/127\.0\.0\.1:\d+/.exec(line) ?? [];
        if (address) resolve(`${address}/`);
      });
      lines.on("close", () => reject(new Error(said.join("\n"))));
    });

    const html = await (await fetch(`${url}?server=${encodeURIComponent(peer.url)}`)).text();
    assert.match(html, /<output>closed<\/output>/);
    assert.equal(await title(url), "it works");
  });
});

describe("without a bundler", () => {
  for (const [file, first] of [
    ["index", ""],
    ["nowasm", ""],
    ["separate", 'await client.load("/node_modules/etp-ws-client/etp-ws-client.wasm");'],
  ]) {
    test(`the module ${file}.js`, async () => {
      const script = `import * as client from "/node_modules/etp-ws-client/${file}.js";
        import { say } from "/say.js";
        ${first}
        say(client.Client);`;
      writeFileSync(join(output(`plain-${file}`), "main.js"), script);
      assert.equal(await said(`out/plain-${file}/main.js`), "it works");
    });
  }

  for (const file of ["index", "nowasm"]) {
    test(`the module ${file}.js in a module Worker`, async () => {
      const folder = output(`plain-worker-${file}`);
      cpSync(join(project, "in-worker.js"), join(folder, "in-worker.js"));
      const worker = readFileSync(join(project, "worker.js"), "utf8");
      const plain = worker.replace('"etp-ws-client"', `"/node_modules/etp-ws-client/${file}.js"`);
      writeFileSync(join(folder, "worker.js"), plain);
      assert.equal(await said(`out/plain-worker-${file}/in-worker.js`), "it works");
    });
  }

  const policy = (script) => ({
    "content-security-policy": `default-src 'none'; script-src 'self' ${script}; connect-src 'self' ws://127.0.0.1:*`,
  });

  for (const file of ["index", "separate"]) {
    test(`under a policy that allows WebAssembly: ${file}.js`, async () => {
      assert.equal(await said(`out/plain-${file}/main.js`, policy("'wasm-unsafe-eval'")), "it works");
    });
  }

  test("a policy that forbids WebAssembly is told, with what to do; the build without it works there", async () => {
    assert.match(
      await said("out/plain-index/main.js", policy("")),
      /^unsupported_platform: .*'wasm-unsafe-eval'.*etp-ws-client\/nowasm/,
    );
    assert.equal(await said("out/plain-nowasm/main.js", policy("")), "it works");
  });

  /** Names of what a page touches that imports every entry, and does this with each. */
  async function touched(use) {
    const script = `import { touched } from "/touched.js";
      const names = await touched((file) => import("/" + file + ".js"), ${use});
      document.title = "touched:" + names;`;
    writeFileSync(join(output("touched"), "main.js"), script);
    return (await said("out/touched/main.js")).replace("touched:", "").split(",");
  }

  test("importing touches nothing", async () => {
    assert.deepEqual(await touched("() => {}"), [""]);
  });

  test("a client touches what importing does not", async () => {
    const names = await touched(`async ({ Client, load }) => {
      await load?.("/node_modules/etp-ws-client/etp-ws-client.wasm");
      await (await new Client(${JSON.stringify(peer.url)}).connect()).close();
    }`);
    for (const name of ["Instance", "Module", "WebSocket", "addEventListener", "compile", "fetch", "setTimeout"]) {
      assert.ok(names.includes(name), `${name} is not among ${names}`);
    }
  });
});

describe("in Node", () => {
  const run = (version, flags, text) =>
    execFileSync(join(root, `.build/node/${version}/bin/node`), [...flags, "-e", text], {
      cwd: project,
      encoding: "utf8",
      timeout: HANGS_AFTER,
    }).trim();
  const echo = `new Client(${JSON.stringify("URL")}, options).connect().then(async (client) => {
    console.log(await client.emitWithAck("echo", "it works"));
    await client.close();
  });`;

  for (const name of ["etp-ws-client", "etp-ws-client/nowasm"]) {
    for (const version of ["20", "26"]) {
      const options = version === "20" ? '{ WebSocket: require("ws") }' : "{}";
      test(`${name} in Node ${version}, by require and by import`, () => {
        const text = echo.replace("URL", peer.url);
        assert.equal(
          run(version, [], `const { Client } = require("${name}"); const options = ${options}; ${text}`),
          "it works",
        );
        const imported = `import { createRequire } from "node:module"; import { Client } from "${name}"; const require = createRequire(import.meta.url); const options = ${options};`;
        assert.equal(run(version, ["--input-type=module"], `${imported} ${text}`), "it works");
      });
    }
  }

  /** Names of what a program touches that gets every entry in this way, and does this with each; and what is open then, by kind. */
  const touched = (version, get, use) => {
    const text = `import { readFileSync } from "node:fs";
      import { createRequire } from "node:module";
      import { touched } from "./touched.js";
      const require = createRequire(import.meta.url);
      globalThis.WebSocket ??= require("ws");
      const open = () => [...process.getActiveResourcesInfo(), ...process.eventNames()];
      const before = open();
      let during = [];
      const names = await touched(${get}, ${use});
      const opened = [...during, ...open()].filter((one) => !before.includes(one));
      console.log(JSON.stringify({ names, opened }));`;
    return JSON.parse(run(version, ["--input-type=module"], text));
  };

  for (const version of ["20", "26"]) {
    for (const [way, get] of [
      ["import", '(file) => import(file + ".js")'],
      ["require", '(file) => require(file + ".cjs")'],
      // Which an await at its top would refuse.
      ["require of the modules", '(file) => require(file + ".js")'],
    ]) {
      test(`${way} touches nothing and leaves nothing open, which a client does, in Node ${version}`, () => {
        assert.deepEqual(touched(version, get, "() => {}"), { names: [], opened: [] });
        const { names, opened } = touched(
          version,
          get,
          `async ({ Client, load }) => {
            await load?.(readFileSync("node_modules/etp-ws-client/etp-ws-client.wasm"));
            const client = await new Client(${JSON.stringify(peer.url)}).connect();
            during = open();
            await client.close();
          }`,
        );
        for (const name of ["Instance", "Module", "Timeout", "WebSocket", "compile", "setTimeout"]) {
          assert.ok(names.includes(name), `${name} is not among ${names}`);
        }
        assert.ok(opened.includes("TCPSocketWrap"), `${opened}`);
      });
    }

    test(`required by a test of Jest in Node ${version}`, () => {
      const jest = spawnSync(
        join(root, `.build/node/${version}/bin/node`),
        [join(project, "node_modules/jest/bin/jest.js"), "--ci", "--runInBand", "--detectOpenHandles"],
        {
          cwd: join(project, "jest"),
          env: { ...process.env, ETP_URL: peer.url, FORCE_COLOR: "0" },
          encoding: "utf8",
          timeout: HANGS_AFTER,
        },
      );
      assert.match(jest.stderr, /^Tests: +6 passed, 6 total$/m);
      assert.doesNotMatch(jest.stderr, /did not exit|open handle/);
      assert.equal(jest.status, 0);
    });
  }

  test("without a WebSocket it says what to pass", () => {
    const text = `new (require("etp-ws-client").Client)("ws://127.0.0.1:1/").connect().catch((error) => console.log(error.code, error.message))`;
    assert.match(run("20", [], text), /^unsupported_platform .*the option WebSocket/);
  });

  test("without WebAssembly it names the other build", () => {
    const text = `delete globalThis.WebAssembly; const { Client } = require("etp-ws-client");
      try { new Client("ws://127.0.0.1:1/") } catch (error) { console.log(error.code, error.message) }
      new (require("etp-ws-client/nowasm").Client)("ws://127.0.0.1:1/"); console.log("made");`;
    assert.match(run("26", [], text), /^unsupported_platform .*etp-ws-client\/nowasm.*\nmade$/);
  });
});

describe("what is in it", () => {
  const read = (name, encoding) => readFileSync(join(installed, name), encoding);
  const compressed = (name) => gzipSync(read(name), { level: 9 }).length;

  test("its files, and no others", () => {
    const code = ENTRIES.flatMap((name) =>
      [".js", ".js.map", ".cjs", ".cjs.map", ".d.ts", ".d.cts"].map((end) => name + end),
    );
    const expected = [...code, "LICENSE", "README.md", "etp-ws-client.wasm", "package.json"];
    assert.deepEqual(readdirSync(installed).sort(), expected.sort());
  });

  test("it is small", () => {
    const sizes = {
      whole: compressed("etp-ws-client.wasm") + compressed("separate.js"),
      oneFile: compressed("index.js"),
    };
    console.log(sizes);
    assert.ok(sizes.whole <= 12 * 1024, `${sizes.whole}`);
    assert.ok(sizes.oneFile <= 12.5 * 1024, `${sizes.oneFile}`);
  });

  test("the one file has the WebAssembly that is beside it", async () => {
    const { Module } = WebAssembly;
    for (const { Client } of [await import(pathToFileURL(join(installed, "index.js"))), tools("etp-ws-client")]) {
      let compiled;
      WebAssembly.Module = new Proxy(Module, {
        construct(_, [bytes]) {
          compiled = Buffer.from(bytes);
          return new Module(bytes);
        },
      });
      try {
        new Client(peer.url);
      } finally {
        WebAssembly.Module = Module;
      }
      assert.deepEqual(compiled, read("etp-ws-client.wasm"));
    }
  });

  test("it says nothing of the machine that built it", () => {
    const { CARGO_HOME, RUSTUP_HOME } = process.env;
    // Somebody without a home has the root of the file system.
    const folders = [root.slice(0, -1), homedir(), CARGO_HOME, RUSTUP_HOME].filter((one) => one && one !== "/");
    const check = (content, name) => {
      for (const folder of folders) assert.ok(!content.includes(folder), `${folder} is in ${name}`);
    };
    for (const name of readdirSync(installed)) check(read(name), name);
    for (const name of ENTRIES.flatMap((entry) => [`${entry}.js.map`, `${entry}.cjs.map`])) {
      const { sources, sourcesContent } = JSON.parse(read(name));
      for (const source of sources) assert.match(source, /^(src\/|built:)/, name);
      assert.equal(sourcesContent.length, sources.length, name);
      for (const content of sourcesContent) check(content, name);
    }
    // What the memory holds is in base64 there.
    for (const name of ["nowasm.js", "nowasm.cjs"]) {
      const texts = read(name, "utf8").matchAll(/"([A-Za-z0-9+/]{16,}={0,2})"/g);
      const held = Array.from(texts, ([, text]) => Buffer.from(text, "base64").toString("latin1")).join("\n");
      assert.ok(held.includes("server shutdown"), name);
      check(held, name);
    }
  });
});
