import { Client, load } from "etp-ws-client/separate";
import url from "etp-ws-client/etp-ws-client.wasm";
import { say } from "./say.js";

await load(url);
say(Client);
