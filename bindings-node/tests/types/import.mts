// A module, whatever its package says.

import * as etp from "etp-ws";
import { connect } from "etp-ws/testing";

const server: etp.Server = new etp.Server({ codec: "bytes" });
export const client: Promise<etp.Client> = connect(server);
// @ts-expect-error: there is no default
etp.default;
