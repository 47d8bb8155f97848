// Packs what is published: `node pack.mjs FOLDER [PLATFORM...]` puts the tarball of etp-ws and those of its platforms'
// packages into FOLDER. By default the platforms are those whose binary lies beside package.json; a release names all of
// them (`--all`). One whose binary is missing, or is not that platform's, is an error: nothing is ever published empty.

import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const home = dirname(dirname(fileURLToPath(import.meta.url)));
const platforms = JSON.parse(readFileSync(join(home, "npm/platforms.json"), "utf8"));
const main = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));

const [folder, ...wanted] = process.argv.slice(2);
if (folder === undefined) fail("usage: pack.mjs FOLDER [PLATFORM... | --all]");

const everywhere = Object.keys(platforms);
const named = wanted.includes("--all") ? everywhere : wanted;
const chosen = named.length > 0 ? named : everywhere.filter((platform) => existsSync(binaryOf(platform)));
for (const platform of chosen) check(platform);

mkdirSync(folder, { recursive: true });
for (const platform of chosen) {
  pack(platformPackage(platform), (stage) => copyFileSync(binaryOf(platform), join(stage, "etp-ws.node")));
}
pack(mainPackage(), (stage) => {
  for (const part of ["index.js", "index.mjs", "index.d.ts", "index.d.mts", "lib", "README.md"]) copy(part, stage);
  for (const part of ["testing.js", "testing.mjs", "testing.d.ts", "testing.d.mts"]) copy(part, stage);
});

/** The package that people install. The platforms' packages have its version, and npm takes the one that fits. */
function mainPackage() {
  const { private: _, ...manifest } = main;
  const packages = everywhere.map((platform) => [`${main.name}-${platform}`, main.version]);
  return { ...manifest, optionalDependencies: Object.fromEntries(packages) };
}

/** The package that holds one platform's binary. */
function platformPackage(platform) {
  const row = platforms[platform];
  return {
    name: `${main.name}-${platform}`,
    version: main.version,
    description: `The binary of ${main.name} for ${platform}.`,
    ...pick(main, ["license", "author", "homepage", "repository", "bugs", "engines"]),
    os: [row.os],
    cpu: [row.cpu],
    ...(row.libc && { libc: [row.libc] }),
    main: "etp-ws.node",
    files: ["etp-ws.node"],
    // Yarn's Plug'n'Play keeps packages in archives, from which no binary can be loaded.
    preferUnplugged: true,
  };
}

function binaryOf(platform) {
  return join(home, `${main.name}.${platform}.node`);
}

/** A platform's binary is there, and made for its processor and C library. */
function check(platform) {
  if (platforms[platform] === undefined)
    fail(`there is no platform "${platform}"; there are: ${everywhere.join(", ")}`);
  const path = binaryOf(platform);
  if (!existsSync(path)) fail(`${platform} has no binary at ${path}: build it first`);
  const binary = readFileSync(path);
  const { os, cpu, libc } = platforms[platform];
  // ELF: its magic number, then the machine as 16 bits at 18. Mach-O, 64 bits: the processor as 32 bits at 4.
  const [magic, at, machine] = {
    "linux-x64": ["7f454c46", 18, "3e00"],
    "linux-arm64": ["7f454c46", 18, "b700"],
    "darwin-x64": ["cffaedfe", 4, "07000001"],
    "darwin-arm64": ["cffaedfe", 4, "0c000001"],
  }[`${os}-${cpu}`];
  const is = (expected, from) => binary.toString("hex", from, from + expected.length / 2) === expected;
  // What is linked with glibc names the versions of its symbols.
  const glibc = binary.includes("GLIBC_2.") ? "glibc" : "musl";
  if (!is(magic, 0) || !is(machine, at) || (libc !== undefined && libc !== glibc)) {
    fail(`${path} is no library for ${platform}: build it anew`);
  }
}

function fail(why) {
  console.error(`${why}. Nothing was packed.`);
  process.exit(1);
}

/** Puts a package together in a folder of its own and packs it. */
function pack(manifest, fill) {
  const stage = mkdtempSync(join(tmpdir(), "etp-ws-pack-"));
  try {
    writeFileSync(join(stage, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
    copyFileSync(join(home, "../LICENSE"), join(stage, "LICENSE"));
    fill(stage);
    execFileSync("npm", ["pack", "--silent", "--pack-destination", resolve(folder)], { cwd: stage, stdio: "inherit" });
  } finally {
    rmSync(stage, { recursive: true });
  }
}

function copy(part, stage) {
  cpSync(join(home, part), join(stage, part), { recursive: true });
}

function pick(object, names) {
  return Object.fromEntries(names.map((name) => [name, object[name]]));
}
