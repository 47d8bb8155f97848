// Builds the binary of a platform: `node build.mjs [PLATFORM]` puts it beside package.json, as etp-ws.PLATFORM.node. By
// default for this machine. For Linux zig links it, for any processor and either C library; for macOS it takes a Mac.

import { execFileSync } from "node:child_process";
import { copyFileSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const home = dirname(dirname(fileURLToPath(import.meta.url)));
const root = dirname(home);
const platforms = JSON.parse(readFileSync(join(home, "npm/platforms.json"), "utf8"));
const here = createRequire(import.meta.url)("../lib/platform.js").platform();

const name = process.argv[2] ?? here;
const platform = platforms[name];
if (platform === undefined) {
  throw new Error(`there is no platform "${name}"; there are: ${Object.keys(platforms).join(", ")}`);
}

const flags = [process.env.RUSTFLAGS ?? ""];
// A library that a process with musl loads can't hold a C library of its own.
if (platform.libc === "musl") flags.push("-C target-feature=-crt-static");
const [command, ...subcommand] = platform.os === "linux" ? ["cargo-zigbuild", "rustc"] : ["cargo", "rustc"];
const what = ["--release", "--locked", "--package", "etp-ws-node", "--target", platform.target];
// Only the library is stripped: with a profile of its own every dependency would be built once more.
execFileSync(command, [...subcommand, ...what, "--", "-C", "strip=symbols"], {
  cwd: root,
  stdio: "inherit",
  env: { ...process.env, RUSTFLAGS: flags.join(" ").trim() },
});

// The version of glibc behind the target's name is zig's affair.
const [target] = platform.target.split(".");
const built = platform.os === "linux" ? "libetp_ws_node.so" : "libetp_ws_node.dylib";
const binary = join(home, `etp-ws.${name}.node`);
// A process that has loaded the old one keeps it.
rmSync(binary, { force: true });
copyFileSync(resolve(root, process.env.CARGO_TARGET_DIR ?? "target", target, "release", built), binary);
