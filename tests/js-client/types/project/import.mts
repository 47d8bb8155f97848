// A module, whatever its package says.

import * as etp from "etp-ws-client";
import * as nowasm from "etp-ws-client/nowasm";
import * as separate from "etp-ws-client/separate";

export const clients: etp.Client[] = [etp, nowasm, separate].map(({ Client }) => new Client("/ws"));
export const loaded: Promise<void> = separate.load(import.meta.url);
// @ts-expect-error: there is no default
etp.default;
// @ts-expect-error: there is no default
separate.default;
// @ts-expect-error: its sources are not there
import("etp-ws-client/src/client.js");
