// What `import` gives: the same objects as `require`, so that both in one program are one package.
import etp from "./index.js";

export const { Server, Client, Conn, Broadcast, Accept, Reject, EtpError } = etp;
