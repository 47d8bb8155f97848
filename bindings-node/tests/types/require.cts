// CommonJS with its own syntax.

import etp = require("etp-ws");
import testing = require("etp-ws/testing");

const server: etp.Server = new etp.Server({ codec: "bytes" });
export const client: Promise<etp.Client> = testing.connect(server);
// @ts-expect-error: there is no default
etp.default;
