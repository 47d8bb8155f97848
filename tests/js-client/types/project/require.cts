// CommonJS with its own syntax.

import etp = require("etp-ws-client");
import nowasm = require("etp-ws-client/nowasm");
import separate = require("etp-ws-client/separate");

export const clients: etp.Client[] = [etp, nowasm, separate].map(({ Client }) => new Client("/ws"));
export const loaded: Promise<void> = separate.load(__filename);
// @ts-expect-error: there is no default
etp.default;
// @ts-expect-error: there is no default
separate.default;
declare const __filename: string;
