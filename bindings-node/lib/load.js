// Finds and loads the binary of this platform. Importing the package fails here if there is none, with an error that
// says which package is missing, why, and what to do (`unsupported.js`).
"use strict";

const { platform } = require("./platform.js");
const { unsupported } = require("./unsupported.js");

// Written out, so that what traces files (Next's standalone output, for example) finds the package that is installed.
const packages = {
  "linux-x64-gnu": () => require("etp-ws-linux-x64-gnu"),
  "linux-arm64-gnu": () => require("etp-ws-linux-arm64-gnu"),
  "linux-x64-musl": () => require("etp-ws-linux-x64-musl"),
  "linux-arm64-musl": () => require("etp-ws-linux-arm64-musl"),
  "darwin-x64": () => require("etp-ws-darwin-x64"),
  "darwin-arm64": () => require("etp-ws-darwin-arm64"),
};

// From Node 16 on. An older Node could load the binary and then miss functions.
const NODE_API = 8;

module.exports = checked(platform());

/** The binary, if it is this package's own. */
function checked(name) {
  const native = load(name, Object.keys(packages));
  const found = native.version();
  if (found !== require("../package.json").version) throw unsupported.otherVersion(name, found);
  return native;
}

function load(name, names) {
  if (packages[name] === undefined) throw unsupported.noBinary(name, names);
  if (Number(process.versions.napi ?? NODE_API) < NODE_API) throw unsupported.oldNode(name, NODE_API);
  try {
    return packages[name]();
  } catch (error) {
    if (!isMissing(error, `etp-ws-${name}`)) throw unsupported.refused(name, error);
    // A checkout of the repository has its build beside package.json; a published package never does.
    const local = `etp-ws.${name}.node`;
    try {
      return require(`../${local}`);
    } catch (failure) {
      throw isMissing(failure, local)
        ? unsupported.notInstalled(name, names, error)
        : unsupported.refused(name, failure);
    }
  }
}

function isMissing(error, what) {
  return error?.code === "MODULE_NOT_FOUND" && error.message.includes(what);
}
