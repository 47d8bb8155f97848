// Which platform this process runs on, by the names that the binaries' packages have: `linux-x64-gnu`.
"use strict";

const fs = require("node:fs");

/** The platform of this process: operating system, processor, and on Linux the C library. */
function platform() {
  const name = `${process.platform}-${process.arch}`;
  return process.platform === "linux" ? `${name}-${libc()}` : name;
}

/**
 * The C library that this process was linked with: `gnu` or `musl`. The loader that its executable asks for says it, as
 * it does for the binary to load; a machine may have both libraries. glibc, the usual one, where neither can be read.
 */
function libc() {
  const loader = interpreter(process.execPath);
  if (loader !== undefined) return loader.includes("/ld-musl-") ? "musl" : "gnu";
  const shared = report()?.sharedObjects ?? [];
  return shared.some((path) => path.includes("ld-musl-") || path.includes("libc.musl-")) ? "musl" : "gnu";
}

/** The version of glibc that runs here, for people; undefined where there is none, or nobody says. */
function glibcVersion() {
  return report()?.header?.glibcVersionRuntime;
}

/** The loader that an ELF executable of 64 bits names in its segment PT_INTERP; undefined where it has none. */
function interpreter(path) {
  try {
    const file = fs.openSync(path, "r");
    try {
      const at = (position, length) => {
        const bytes = Buffer.alloc(length);
        fs.readSync(file, bytes, 0, length, position);
        return bytes;
      };
      const head = at(0, 64);
      if (head.toString("latin1", 0, 4) !== "\x7fELF" || head[4] !== 2) return undefined;
      const start = Number(head.readBigUInt64LE(32));
      const [size, count] = [head.readUInt16LE(54), head.readUInt16LE(56)];
      for (let index = 0; index < count; index += 1) {
        const segment = at(start + index * size, 56);
        if (segment.readUInt32LE(0) === 3) {
          return at(Number(segment.readBigUInt64LE(8)), Number(segment.readBigUInt64LE(32))).toString("latin1");
        }
      }
    } finally {
      fs.closeSync(file);
    }
  } catch {
    // The executable can't be read; a sandbox forbids it, for example.
  }
  return undefined;
}

/** Node's report of itself, where the runtime has one. */
function report() {
  const reporter = process.report;
  if (typeof reporter?.getReport !== "function") return undefined;
  // It would look up the names of all peers of open connections.
  const before = reporter.excludeNetwork;
  reporter.excludeNetwork = true;
  try {
    const told = reporter.getReport();
    return typeof told === "string" ? JSON.parse(told) : told;
  } catch {
    return undefined;
  } finally {
    reporter.excludeNetwork = before;
  }
}

module.exports = { platform, glibcVersion };
