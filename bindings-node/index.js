// What `require("etp-ws")` gives.
"use strict";

module.exports = require("./lib/index.js");
