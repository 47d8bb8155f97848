// The package in a project: as each bundler builds it, unbundled, in Workers, under a Content-Security-Policy, in Node; and what is in it.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { chromium, launched } from "../peers/browser/chromium.mjs";
import { packageFolder, Peer, root } from "./harness.mjs";

const project = join(root, ".build/client-project");
const tools = createRequire(join(project, "package.json"));
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

/** What a page with this script says. */
async function said(script, extra = {}) {
  headers = extra;
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(`http://127.0.0.1:${site.address().port}/${script}.page?server=${encodeURIComponent(peer.url)}`);
  await page.waitForFunction(() => document.title !== "");
  const title = await page.title();
  await context.close();
  return title;
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

  for (const entry of ["app.js", "nowasm.js", "worker.js"]) {
    test(`by esbuild: ${entry}`, async () => {
      const folder = output("esbuild");
      await tools("esbuild").build({
        entryPoints: [join(project, entry)],
        bundle: true,
        minify: true,
        format: "esm",
        outdir: folder,
      });
      if (entry === "worker.js") cpSync(join(project, "in-worker.js"), join(folder, "in-worker.js"));
      assert.equal(await said(entry === "worker.js" ? "out/esbuild/in-worker.js" : `out/esbuild/${entry}`), "it works");
    });
  }
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

  const policy = (script) => ({
    "content-security-policy": `default-src 'none'; script-src 'self' ${script}; connect-src ws://127.0.0.1:*`,
  });

  test("under a policy that allows WebAssembly", async () => {
    assert.equal(await said("out/plain-index/main.js", policy("'wasm-unsafe-eval'")), "it works");
  });

  test("a policy that forbids WebAssembly is told, with what to do; the build without it works there", async () => {
    assert.match(
      await said("out/plain-index/main.js", policy("")),
      /^unsupported_platform: .*'wasm-unsafe-eval'.*etp-ws-client\/nowasm/,
    );
    assert.equal(await said("out/plain-nowasm/main.js", policy("")), "it works");
  });

  test("importing does nothing", async () => {
    // What drives the browser has listeners of its own in the page.
    const script = `const seen = [];
      const note = (name) => void (new Error().stack.includes("etp-ws-client") && seen.push(name));
      for (const name of ["setTimeout", "setInterval", "fetch", "addEventListener"]) {
        const real = globalThis[name];
        globalThis[name] = (...args) => (note(name), real.apply(globalThis, args));
      }
      for (const name of ["Module", "Instance", "instantiate", "compile"]) {
        const real = WebAssembly[name];
        WebAssembly[name] = function (...args) { note(name); return new.target ? new real(...args) : real(...args); };
      }
      for (const file of ["index", "nowasm", "separate"]) await import("/node_modules/etp-ws-client/" + file + ".js");
      document.title = "seen:" + seen;`;
    writeFileSync(join(output("idle"), "main.js"), script);
    assert.equal(await said("out/idle/main.js"), "seen:");
  });
});

describe("in Node", () => {
  const run = (version, flags, text) =>
    execFileSync(join(root, `.build/node/${version}/bin/node`), [...flags, "-e", text], {
      cwd: project,
      encoding: "utf8",
    }).trim();
  const echo = `new Client(${JSON.stringify("URL")}, options).connect().then(async (client) => {
    console.log(await client.emitWithAck("echo", "it works"));
    await client.close();
  });`;

  for (const name of ["etp-ws-client", "etp-ws-client/nowasm"]) {
    for (const version of ["20", "26"]) {
      const options =
        version === "20"
          ? `{ WebSocket: require(${JSON.stringify(join(root, ".build/browser/node_modules/ws"))}) }`
          : "{}";
      test(`${name} in Node ${version}, by require and by import`, () => {
        const text = echo.replace("URL", peer.url);
        assert.equal(
          run(version, [], `const { Client } = require("${name}"); const options = ${options}; ${text}`),
          "it works",
        );
        const imported = `import { createRequire } from "node:module"; import { Client } from "${name}"; const require = createRequire("/"); const options = ${options};`;
        assert.equal(run(version, ["--input-type=module"], `${imported} ${text}`), "it works");
      });
    }
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
  const read = (name) => readFileSync(join(packageFolder, name));
  const compressed = (name) => gzipSync(read(name), { level: 9 }).length;

  test("its files, and no others", () => {
    const code = ["index", "nowasm", "separate"].flatMap((name) =>
      [".js", ".js.map", ".cjs", ".cjs.map", ".d.ts", ".d.cts"].map((end) => name + end),
    );
    const expected = [...code, "LICENSE", "README.md", "etp-ws-client.wasm", "package.json"];
    assert.deepEqual(readdirSync(packageFolder).sort(), expected.sort());
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

  test("it says nothing of the machine that built it", () => {
    for (const name of readdirSync(packageFolder)) assert.ok(!read(name).includes(root.replace(/\/$/, "")), name);
    const { sources } = JSON.parse(read("index.js.map"));
    for (const source of sources) assert.match(source, /^(src\/|built:)/);
  });
});
