// The vectors, as the client writes and reads them on the wire.

import { closeAll, equal, fails, handled, hex, ok, pair, soon, textOf, unhex } from "./expect.mjs";

/** A call's id counts from 1: as many calls as this are made to come to one. */
const WITHIN_REACH = 20n;

const nameOf = ({ name, name_hex }) => name ?? textOf(name_hex);

/** A message as the wire tells it. */
const message = ({ message, frame_hex }) => (message === "text" ? { text: textOf(frame_hex) } : { hex: frame_hex });

const sent = ({ wire }, { message, frame_hex }) =>
  message === "text" ? wire("text", textOf(frame_hex)) : wire("hex", frame_hex);

/** What rejects later is looked at, or not. */
function quiet(promise) {
  promise.catch(() => {});
  return promise;
}

async function afresh(env, use) {
  const made = await pair(env, { codec: "bytes", reconnect: false });
  try {
    return await use(made);
  } finally {
    await closeAll();
    await env.wire("end");
  }
}

export const cases = {
  async "events and calls are written as the vectors say"(env) {
    const beyond = [];
    for (const vector of env.vectors.written.filter(({ kind }) => kind === "event")) {
      const id = BigInt(vector.ack_id);
      if (id > WITHIN_REACH) {
        beyond.push(vector.ack_id);
        continue;
      }
      await afresh(env, async ({ client, next }) => {
        const payload = unhex(vector.payload_hex);
        for (let n = 1n; n < id; n++) {
          quiet(client.emitWithAck("earlier"));
          equal(await next(), { text: `earlier||${n}||` });
        }
        if (id) quiet(client.emitWithAck(nameOf(vector), payload));
        else client.emit(nameOf(vector), payload);
        equal(await next(), message(vector), vector.why);
      });
    }
    // Nobody makes so many calls on one connection: replies show these ids.
    equal(Array.from(new Set(beyond)), ["9007199254740992", "9007199254740993", "9223372036854775807"]);
  },

  async "replies are written as the vectors say"(env) {
    await afresh(env, async (made) => {
      for (const vector of env.vectors.written.filter(({ kind }) => kind === "reply")) {
        made.client.onUnknownEvent((name) => {
          equal(name, nameOf(vector));
          return unhex(vector.payload_hex);
        });
        await made.wire("text", `${nameOf(vector)}||${vector.ack_id}||`);
        equal(await made.next(), message(vector), vector.why);
      }
      equal(made.errors.length, 0);
    });
  },

  async "events are read as the vectors say"(env) {
    await afresh(env, async (made) => {
      const got = [];
      made.client.onUnknownEvent((name, data) => void got.push([name, hex(data)]));
      for (const vector of env.vectors.read.filter((one) => !one.reply_to && !one.reply_to_hex)) {
        await sent(made, vector);
        if (vector.ack_id !== "0") equal(await made.next(), { text: `__ack_${nameOf(vector)}||${vector.ack_id}` });
        await handled(made);
        equal(got.splice(0), [[nameOf(vector), vector.payload_hex]], vector.why);
      }
      equal(made.errors.length, 0);
    });
  },

  async "replies are read as the vectors say"(env) {
    let ended = 0;
    for (const vector of env.vectors.read.filter((one) => one.reply_to || one.reply_to_hex)) {
      await afresh(env, async (made) => {
        const { client, errors, next } = made;
        client.onUnknownEvent((name) => ok(false, `${name} is no event`));
        const name = vector.reply_to ?? textOf(vector.reply_to_hex);
        const id = Number(vector.ack_id);
        const calls = [];
        if (!name.startsWith("__") && id > 0 && id <= WITHIN_REACH) {
          for (let n = 1; n <= id; n++) {
            calls.push(quiet(client.emitWithAck(name)));
            await next();
          }
        }
        await sent(made, vector);
        await handled(made);
        if (calls.length > 0) {
          equal(hex(await soon(calls.at(-1), vector.why)), vector.payload_hex, vector.why);
          ended += 1;
        }
        equal(errors.length, 0, vector.why);
      });
    }
    ok(ended > 5, "replies of the vectors end calls");
  },

  async "frames are refused as the vectors say"(env) {
    // Which words say a defect is the client's own; one defect has the same everywhere, and no other has them.
    const words = new Map();
    const { refused } = env.vectors;
    const as = (one, kind) => ({ ...one, message: kind });
    const all = [
      ...refused.map((one) => as(one, "binary")),
      ...refused.filter((one) => textOf(one.frame_hex) !== undefined).map((one) => as(one, "text")),
    ];
    ok(all.length > refused.length, "some are text");
    // More on one connection would close it.
    for (let at = 0; at < all.length; at += 16) {
      await afresh(env, async (made) => {
        made.client.onUnknownEvent((name) => ok(false, `${name} was refused`));
        for (const vector of all.slice(at, at + 16)) {
          await sent(made, vector);
          await handled(made);
          equal(
            made.errors.map(({ code }) => code),
            ["malformed_frame"],
            vector.why,
          );
          const [{ message }] = made.errors.splice(0);
          if (vector.message === "binary") {
            ok(message.includes(` ${vector.frame_hex.length / 2} `), `${message}: its length`);
          }
          const why = message.split(": ").at(-1);
          equal(words.get(vector.defect) ?? why, why, vector.why);
          words.set(vector.defect, why);
        }
      });
    }
    equal(new Set(words.values()).size, new Set(refused.map(({ defect }) => defect)).size);
  },

  async "names are refused as the vectors say, and nothing is sent"(env) {
    await afresh(env, async (made) => {
      const { client } = made;
      for (const vector of env.vectors.names) {
        const name = nameOf(vector);
        ok(name !== undefined, "a name that a script can write");
        await fails(() => client.emit(name, unhex("78")), "invalid_event");
        await fails(() => client.emitWithAck(name), "invalid_event");
        await fails(() => client.on(name, () => {}), "invalid_event");
        await fails(() => client.once(name, () => {}), "invalid_event");
      }
      await handled(made);
    });
  },

  async "replies find their calls as the vectors say"(env) {
    for (const { why, pending, received } of env.vectors.replies) {
      await afresh(env, async (made) => {
        const { client, errors, wire, next } = made;
        const events = [];
        client.onUnknownEvent((name, data) => void events.push([name, hex(data)]));
        const calls = new Map();
        for (const call of pending) {
          calls.set(call.ack_id, quiet(client.emitWithAck(nameOf(call))));
          equal(await next(), { text: `${nameOf(call)}||${call.ack_id}||` });
        }
        for (const one of received) {
          await wire("hex", one.frame_hex);
          if (one.outcome === "event" && one.ack_id !== "0") {
            equal(await next(), { text: `__ack_${nameOf(one)}||${one.ack_id}` });
          }
          await handled(made);
          if (one.outcome === "reply") {
            equal(hex(await soon(calls.get(one.ack_id), why)), one.payload_hex, why);
            calls.delete(one.ack_id);
          }
          equal(events.splice(0), one.outcome === "event" ? [[nameOf(one), one.payload_hex]] : [], why);
          const codes = errors.splice(0).map(({ code }) => code);
          equal(codes, one.outcome === "malformed" ? ["malformed_frame"] : [], why);
        }
        for (const call of calls.values()) equal(await Promise.race([call, "waits"]), "waits", why);
        await client.close();
        for (const call of calls.values()) await fails(() => call, "connection_closed");
      });
    }
  },

  async "it comes back or not as the vectors say"(env) {
    // 1015 is never on the wire.
    const told = env.vectors.reconnect.disconnects.filter(({ code }) => code !== 1015);
    equal(told.length, env.vectors.reconnect.disconnects.length - 1);
    for (const { why, code, reason, own_close, reconnect } of told) {
      const { client, wire } = await pair(env, { reconnect: { base: 600_000, cap: 600_000 } });
      const ended = soon(new Promise((resolve) => client.onDisconnect(resolve)), why);
      if (own_close) {
        if (code === 1006) await wire("pause");
        client.close();
      }
      if (code === 1006) await wire("cut");
      else if (code === 1005) await wire("close");
      else await wire("close", code, reason);
      const end = await ended;
      equal(end.willReconnect, reconnect, why);
      equal(end.normal, end.code === 1000, why);
      if (!own_close) equal([end.code, end.reason, end.clean], [code, reason, code !== 1006], why);
      equal(client.state, reconnect ? "reconnecting" : "closed", why);
      await closeAll();
      await wire("end");
    }
  },
};

export const end = closeAll;
