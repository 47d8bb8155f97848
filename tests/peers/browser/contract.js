// The client of the peers' contract on etp-ws-client, wherever it runs: in Node and in a page. Commands and answers are objects.

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (digits) => Number.parseInt(digits, 16));

/** Connects; resolves to a function that takes a command, or to undefined if it can't. */
export async function begin({ Client, EtpError }, url, options, say, note) {
  let unsaid = []; // what is to be said before `connect` has returned
  const tell = (line) => (unsaid ? unsaid.push(line) : say(line));
  const beginToSay = (first) => {
    const waiting = unsaid;
    unsaid = undefined;
    for (const line of [first, ...waiting]) say(line);
  };
  const client = new Client(url, { codec: "bytes", ...options });
  client.onDisconnect(({ code, reason, clean, normal, willReconnect }) => {
    tell({ disconnected: { code, reason, clean, normal, will_reconnect: willReconnect } });
    if (!willReconnect) tell({ state: "closed" });
  });
  client.onError((error) => note(error.message));
  client.on("question", (data) => data);
  client.onUnknownEvent((name, data) => tell({ event: name, data_hex: hex(data) }));
  try {
    await client.connect();
  } catch (error) {
    if (!(error instanceof EtpError)) throw error;
    note(error.message);
    beginToSay({ error: error.code });
    return undefined;
  }
  beginToSay({ state: "connected" });
  client.onConnect(() => tell({ state: "connected" }));

  return async (command) => {
    const done = { done: command.id };
    try {
      const name = "name_hex" in command ? new TextDecoder().decode(unhex(command.name_hex)) : (command.name ?? "");
      const data = unhex(command.data_hex ?? "");
      if (command.do === "emit") client.emit(name, data);
      else if (command.do === "ack")
        done.data_hex = hex(await client.emitWithAck(name, data, { timeout: command.timeout_ms }));
      else if (command.do === "drain") await client.drain();
      else if (command.do === "close") await client.close();
      // A script sees no pings.
      else if (command.do === "ping") done.error = "unsupported";
      else throw new Error(`unknown command ${JSON.stringify(command.do)}`);
    } catch (error) {
      if (!(error instanceof EtpError)) throw error;
      done.error = error.code;
    }
    if (command.id !== undefined) say(done);
  };
}
