// Why the binary can't be loaded, and what to do: the errors of importing the package where it does not run.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

const { EtpError } = require("./error.js");
const { glibcVersion } = require("./platform.js");

/** The platform is none that binaries are built for. */
function noBinary(platform, platforms) {
  const why = `there is no binary for it; there are some for ${platforms.join(", ")}`;
  const windows = "Windows is not supported yet. Run the program in WSL (`wsl --install`) or in a Linux container.";
  const others = "Run the program in a container of one of these platforms, or ask for yours in an issue.";
  return error(platform, why, platform.startsWith("win32-") ? windows : others);
}

/** Node is too old for the binary. */
function oldNode(platform, needed) {
  const why = `${runtime()} has Node-API ${process.versions.napi}, and the binary needs ${needed}`;
  return error(platform, why, "Install Node 20.19, or 22.12 or newer.");
}

/** The platform's package was not found. */
function notInstalled(platform, platforms, cause) {
  const wanted = `etp-ws-${platform}`;
  const why = `package ${wanted} is not installed`;
  const other = platforms.find((name) => name !== platform && isInstalled(`etp-ws-${name}`));
  if (other !== undefined) {
    return error(
      platform,
      `${why}, but etp-ws-${other} is: node_modules comes from another platform`,
      "Install where the program runs: rm -rf node_modules && npm ci",
      cause,
    );
  }
  const lock = lockWithout(wanted);
  if (lock !== undefined) {
    return error(
      platform,
      `${why}: ${lock} does not name it, as npm wrote that file beside the node_modules of another platform`,
      `Have npm complete it: npm install etp-ws@${version()}`,
      cause,
    );
  }
  return error(
    platform,
    `${why}: it is an optional dependency, and those were left out (\`--omit=optional\`, \`--no-optional\`, or a setting)`,
    "Install with them: npm install --include=optional",
    cause,
  );
}

/** The binary was found, and the system refuses it. */
function refused(platform, cause) {
  const told = String(cause?.message ?? cause);
  for (const [pattern, reason] of REFUSALS) {
    const match = pattern.exec(told);
    if (match !== null) {
      const [why, cure] = reason(match);
      return error(platform, why, cure, cause);
    }
  }
  const why = `package etp-ws-${platform} can't be loaded: ${told.split("\n")[0]}`;
  return error(platform, why, "Install it anew: rm -rf node_modules && npm ci", cause);
}

/** The binary is of another version than the package. */
function otherVersion(platform, found) {
  const why = `package etp-ws-${platform} is ${found}, and etp-ws is ${version()}`;
  return error(platform, why, `Install both anew: npm install etp-ws@${version()}`);
}

const ANEW = "Install where the program runs: rm -rf node_modules && npm ci";

/** What loaders say, by what it means: the C library's on Linux, dyld's on macOS. */
const REFUSALS = [
  [
    /version [`'"]?GLIBC_([\d.]+)/,
    ([, needed]) => [
      `its binary needs glibc ${needed} or newer, and this system has ${glibcVersion() ?? "an older one"}`,
      "Run the program on a newer system or image: any Linux distribution since 2014.",
    ],
  ],
  [
    /(ld-linux|ld-musl|libc\.)[^\s/]*: (cannot open|invalid ELF|No such file)|Error (loading shared library|relocating)/,
    () => ["its binary is for the other C library of Linux (glibc, musl)", ANEW],
  ],
  [
    /wrong ELF class|invalid ELF header|[Ee]xec format error|incompatible architecture|cannot open shared object file/,
    () => [`its binary is for another processor than ${process.arch}, or no library`, ANEW],
  ],
  [
    /addons? is disabled|[Rr]equires ffi access/,
    () => [
      "this process may not load binaries",
      "Allow it: node --allow-addons beside --permission (and no --no-addons), or deno run --allow-ffi",
    ],
  ],
  [
    /failed to map segment|not permitted|[Pp]ermission denied/,
    () => [
      "its file may not be executed",
      "Install on a file system without `noexec`, and readable for this user; look at SELinux or AppArmor too.",
    ],
  ],
  [
    /file too short|truncated|code ?signature/i,
    () => ["its file is damaged", "Install it anew: rm -rf node_modules && npm cache clean --force && npm ci"],
  ],
];

function error(platform, why, cure, cause) {
  const message = `etp-ws can't run on ${platform} (${runtime()}): ${why}. ${cure}`;
  return new EtpError("unsupported_platform", message, cause === undefined ? undefined : { cause });
}

function runtime() {
  const { bun, deno } = process.versions;
  if (bun !== undefined) return `Bun ${bun}`;
  return deno === undefined ? `Node ${process.versions.node}` : `Deno ${deno}`;
}

function version() {
  return require("../package.json").version;
}

function isInstalled(name) {
  try {
    require.resolve(name);
    return true;
  } catch {
    return false;
  }
}

/** The npm lock file of the project that this is installed in, if it does not name a package. */
function lockWithout(name) {
  const modules = __dirname.indexOf(`${path.sep}node_modules${path.sep}`);
  if (modules === -1) return undefined;
  for (const file of ["package-lock.json", "npm-shrinkwrap.json"]) {
    try {
      const lock = fs.readFileSync(path.join(__dirname.slice(0, modules), file), "utf8");
      return lock.includes(`node_modules/${name}"`) ? undefined : file;
    } catch {
      // There is none of this name.
    }
  }
  return undefined;
}

module.exports = { unsupported: { noBinary, oldNode, notInstalled, otherVersion, refused } };
