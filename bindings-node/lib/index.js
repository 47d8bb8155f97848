// What the package exports.
"use strict";

const { Client } = require("./client.js");
const { Broadcast, Conn } = require("./conn.js");
const { EtpError } = require("./error.js");
const { Accept, Reject } = require("./request.js");
const { Server } = require("./server.js");

module.exports = { Accept, Broadcast, Client, Conn, EtpError, Reject, Server };
