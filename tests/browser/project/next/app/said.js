"use client";

import { Client } from "etp-ws-client";
import { useEffect, useState } from "react";

/** Says in the title what a server answers; what the server renders has the state of a client of its own. */
export function Said({ server }) {
  const [client] = useState(() => new Client(server));
  const [said, say] = useState("");
  useEffect(() => {
    client
      .connect()
      .then(() => client.emitWithAck("echo", "it works"))
      .then(say, (error) => say(`${error.code}: ${error.message}`));
    return () => void client.close();
  }, [client]);
  return (
    <>
      <title>{said}</title>
      <output>{client.state}</output>
    </>
  );
}
