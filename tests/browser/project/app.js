import { Client } from "etp-ws-client";
import { say } from "./say.js";

say(Client);
