import { Client } from "etp-ws-client/nowasm";
import { say } from "./say.js";

say(Client);
