// Where cases run: in this Node and in a page of Chromium, with WebAssembly and without.

import { once, getEventListeners, setMaxListeners } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { chromium, launched } from "../peers/browser/chromium.mjs";
import { packageFolder, tools } from "./harness.mjs";

const here = import.meta.dirname;
const FILES = ["index.js", "nowasm.js"];

// Collected where a case asks for it, not where the engine sees fit.
setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc");

/** All hosts. `run(module, name, told)` calls what the module exports in `cases` under that name, with the client. */
export function hosts() {
  return [...FILES.map((file) => new Node(file)), ...FILES.map((file) => new Page(file))];
}

/** Those for so many messages that looking at each would take longer than the message; not the one that leaks.test.mjs is about. */
export function hostsOfMany() {
  return [new Node("nowasm.js"), ...FILES.map((file) => new BarePage(file))];
}

class Node {
  constructor(file) {
    this.file = file;
    this.dials = 50;
    this.name = `${file} in Node ${process.versions.node.split(".")[0]}`;
  }

  async open(functions) {
    this.functions = functions;
    this.client = await import(pathToFileURL(join(packageFolder, this.file)));
  }

  async run(module, name, told) {
    const { cases, end } = await import(pathToFileURL(join(here, module)));
    const env = {
      ...this.client,
      ...this.functions,
      ...told,
      options: globalThis.WebSocket ? {} : { WebSocket: tools("ws") },
      gc,
      used: () => process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers,
      manyListen: (signal) => setMaxListeners(0, signal),
    };
    try {
      return await cases[name](env);
    } finally {
      await end?.();
    }
  }

  /** Of `globalThis.signal`. */
  listeners() {
    return getEventListeners(globalThis.signal, "abort").length;
  }

  close() {}
}

class Page {
  constructor(file) {
    this.file = file;
    // Where more dial at once, Chromium makes them wait for seconds.
    this.dials = 3;
    this.name = `${file} in Chromium`;
  }

  async open(functions) {
    await this.launch();
    this.functions = Object.keys(functions);
    this.page = await this.browser.newPage();
    for (const [name, f] of Object.entries(functions)) await this.page.exposeFunction(name, f);
    await this.page.goto(this.url);
  }

  async launch() {
    this.site = createServer(({ url }, response) => {
      const path = [packageFolder, here]
        .map((folder) => join(folder, url))
        .find((path) => url !== "/" && existsSync(path));
      response.writeHead(path || url === "/" ? 200 : 404, { "content-type": path ? "text/javascript" : "text/html" });
      response.end(path ? readFileSync(path) : "<!doctype html><title>cases</title>");
    });
    this.site.listen(0, "127.0.0.1");
    await once(this.site, "listening");
    const args = [...launched.args, "--js-flags=--expose-gc", "--enable-precise-memory-info"];
    this.browser = await chromium.launch({ ...launched, args });
    this.url = `http://127.0.0.1:${this.site.address().port}/`;
  }

  async run(module, name, told) {
    const { value, error } = await this.evaluate({
      file: `/${this.file}`,
      module: `/${module}`,
      name,
      told,
      functions: this.functions,
    });
    if (error) throw new Error(error);
    return value;
  }

  evaluate(what) {
    return this.page.evaluate(inPage, what);
  }

  async close() {
    await this.browser?.close();
    this.site?.close();
  }
}

/** Runs a case in the page; what it throws is told as text. */
async function inPage({ file, module, name, told, functions }) {
  const client = await import(file);
  const { cases, end } = await import(module);
  const env = {
    ...client,
    ...told,
    options: {},
    gc: globalThis.gc,
    used: () => performance.memory.usedJSHeapSize,
    manyListen: () => {},
  };
  for (const f of functions) env[f] = globalThis[f];
  try {
    return { value: await cases[name](env) };
  } catch (error) {
    return { error: error.stack ?? String(error) };
  } finally {
    await end?.();
  }
}

/** A page that Playwright lets be: it has each message of a WebSocket told, which takes longer than the message. */
class BarePage extends Page {
  #sent = 0;
  #waiting = new Map();

  async open() {
    await this.launch();
    this.functions = [];
    this.devtools = await this.browser.newBrowserCDPSession();
    this.devtools.on("Target.receivedMessageFromTarget", ({ message }) => {
      const { id, result, error } = JSON.parse(message);
      const { resolve, reject } = this.#waiting.get(id) ?? {};
      this.#waiting.delete(id);
      if (error) reject?.(new Error(error.message));
      else resolve?.(result);
    });
    const { targetId } = await this.devtools.send("Target.createTarget", { url: this.url });
    const { sessionId } = await this.devtools.send("Target.attachToTarget", { targetId, flatten: false });
    this.sessionId = sessionId;
    const expression = `location.href === ${JSON.stringify(this.url)} && document.readyState === "complete"`;
    for (;;) {
      const { result } = await this.#command("Runtime.evaluate", { expression });
      if (result.value) break;
    }
  }

  /** A command to the page itself. */
  #command(method, params) {
    const id = ++this.#sent;
    const outcome = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    const message = JSON.stringify({ id, method, params });
    this.devtools.send("Target.sendMessageToTarget", { sessionId: this.sessionId, message });
    return outcome;
  }

  async evaluate(what) {
    const expression = `(${inPage})(${JSON.stringify(what)})`;
    const { result, exceptionDetails } = await this.#command("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Of `globalThis.signal`, as the developer tools see them. */
  async listeners() {
    const { result } = await this.#command("Runtime.evaluate", { expression: "globalThis.signal" });
    const found = await this.#command("DOMDebugger.getEventListeners", { objectId: result.objectId });
    return found.listeners.filter(({ type }) => type === "abort").length;
  }
}
