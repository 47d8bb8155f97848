export { Client } from "./client.js";
export { EtpError } from "./error.js";
