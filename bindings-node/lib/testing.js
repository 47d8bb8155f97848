// A client of a server, in memory.
"use strict";

const { Client } = require("./client.js");

async function connect(server, options = {}) {
  const { path = "/ws", headers, setup, ...rest } = options;
  const { auth, ...client } = rest;
  const given = [...flat(headers)];
  const token = typeof auth === "function" ? await auth() : auth;
  if (token !== undefined) given.push(["authorization", `Bearer ${token}`]);
  const made = new Client("memory:", { ...client, reconnect: false });
  setup?.(made);
  return made.connectTo(server, path, given);
}

function flat(headers) {
  if (headers === undefined) return [];
  return typeof headers[Symbol.iterator] === "function" ? headers : Object.entries(headers);
}

module.exports = { connect };
