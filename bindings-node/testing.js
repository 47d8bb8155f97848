// What `require("etp-ws/testing")` gives.
"use strict";

module.exports = require("./lib/testing.js");
