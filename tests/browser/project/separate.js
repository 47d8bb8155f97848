import { Client, load } from "etp-ws-client/separate";
import { say } from "./say.js";

await load(new URL("etp-ws-client/etp-ws-client.wasm", import.meta.url));
say(Client);
