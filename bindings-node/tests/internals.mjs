// What is inside the installed package, for tests that count what is left or break what users can't.

import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const require = createRequire(import.meta.url);
export const environment = require(join(dirname(require.resolve("etp-ws")), "lib/environment.js"));

const NAMES = ["sites", "conns", "tickets", "bridges", "questions", "queued", "calls", "kept", "sockets", "known"];

/** What there is, by name; only what is not 0. */
export function live() {
  return Object.fromEntries(environment.live().flatMap((count, at) => (count === 0 ? [] : [[NAMES[at], count]])));
}

/** Resolves when a condition holds; a hang is the limit's of the test. */
export async function until(holds) {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** The open descriptors of this process. */
export function descriptors() {
  return readdirSync("/proc/self/fd").length;
}

/** The names of this process's threads that the package began. */
export function threads() {
  return readdirSync("/proc/self/task").filter((task) => {
    try {
      return readFileSync(`/proc/self/task/${task}/comm`, "utf8").trim() === "etp-ws";
    } catch {
      return false; // it has ended meanwhile
    }
  }).length;
}
