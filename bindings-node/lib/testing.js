// A client of a server, in memory.
"use strict";

const { Client } = require("./client.js");
const key = require("./keys.js");
const { EtpError, checkText } = require("./error.js");
const { flatHeaders } = require("./request.js");

async function connect(server, options = {}) {
  if (options === null || typeof options !== "object") {
    throw new EtpError("invalid_option", "the options of connect are an object");
  }
  const { path = "/ws", headers, setup, ...rest } = options;
  const { auth, ...client } = rest;
  checkText(path, "path");
  const given = flatHeaders(headers);
  const token = typeof auth === "function" ? await auth() : auth;
  if (token !== undefined) given.push("authorization", `Bearer ${token}`);
  const made = new Client("memory:", { ...client, reconnect: false });
  setup?.(made);
  return made[key.connectTo](server, path, given);
}

module.exports = { connect };
