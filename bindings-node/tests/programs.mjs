// Programs of `life/`, each run in a process of its own: what they say, and how they end.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** How long a program may take before it hangs; a busy machine is no failure. */
const LIMIT = 90_000;

export class Program {
  /** What it has said, line by line. */
  said = [];
  #error = "";
  #process;
  #lines;
  #hangs = false;
  #closed;

  constructor(name, args = [], { flags = [], env = {} } = {}) {
    const file = fileURLToPath(new URL(`life/${name}.mjs`, import.meta.url));
    this.#process = spawn(process.execPath, [...flags, file, ...args], {
      env: { ...process.env, ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#process.stdin.on("error", () => {}); // it may be gone
    this.#process.stderr.setEncoding("utf8").on("data", (text) => {
      this.#error += text;
    });
    this.#closed = once(this.#process, "close");
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
    setTimeout(() => {
      this.#hangs = true;
      this.kill();
    }, LIMIT).unref();
  }

  /** The rest of the next line that begins so. */
  async line(beginning) {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done) throw new Error(`it never said "${beginning}":\n${await this.#report()}`);
      this.said.push(value);
      if (value.startsWith(beginning)) return value.slice(beginning.length).trim();
    }
  }

  tell(line = "") {
    this.#process.stdin.write(`${line}\n`);
  }

  /** The end of what it is told. */
  close() {
    this.#process.stdin.end();
  }

  signal(name) {
    this.#process.kill(name);
  }

  kill() {
    this.#process.kill("SIGKILL");
  }

  /** Waits for its end, which has to be this one: a status, or a signal's name. Answers what it said to its standard error. */
  async end(expected = 0, { quiet = expected === 0 } = {}) {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done) break;
      this.said.push(value);
    }
    const [status, signal] = await this.#closed;
    assert.equal(this.#hangs ? "it hangs" : (signal ?? status), expected, await this.#report());
    if (quiet) assert.equal(this.#error, "");
    return this.#error;
  }

  async #report() {
    const [status, signal] = await this.#closed;
    return [`ended with ${signal ?? status}`, ...this.said, "--- standard error", this.#error].join("\n");
  }
}

/** Runs a program to its end; answers its lines and what it said to its standard error. */
export async function run(name, args = [], { end = 0, quiet, ...options } = {}) {
  const program = new Program(name, args, options);
  const error = await program.end(end, quiet === undefined ? {} : { quiet });
  return { said: program.said, error };
}
