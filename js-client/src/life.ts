// A client's life: sockets, timers and promises around the engine, which decides.

import { isText, type Wire } from "./codec.js";
import { type Dialled, dial, refused } from "./dial.js";
import { bytes, decoder, encoder, look, MAX_HEAD, now, read, wasm, words, write } from "./engine.js";
import { type EtpError, failure, shown } from "./error.js";
import { checkNumber, type End, type Options } from "./options.js";
import { failed, type Routes } from "./routes.js";

export interface AckOptions {
  timeout?: number;
  signal?: AbortSignal;
}

export type Life = ReturnType<typeof live>;

type Timer = ReturnType<typeof setTimeout>;

const STATES = ["closed", "connecting", "connected", "reconnecting"] as const;

/** How a call ends without a reply, by the engine's number. */
const TIMED_OUT = 1;
const LOST = 2;

/** What a received frame is, by the engine's number. */
const MORE = 1;
const REPLY = 3;
const MALFORMED = 4;

/** What becomes of a lost connection, by the engine's number. */
const RETURN = 2;

/** Why nothing is sent, by the engine's number. */
const CLOSED = -1;
const FULL = -2;
const TOO_MANY_ACKS = -3;

/** The longest id with a separator before and after it. */
const ID = 23;

const OPEN = 1;

/** How often an outbox that has to empty is looked at, as no browser tells. */
const LOOK = 20;

/** What waits under a slot: a call for its reply, an event in the queue for its connection. */
interface Waiting {
  name: string;
  /** Of an event in the queue, until it is sent. */
  payload?: Wire | undefined;
  /** The engine's id, of the call or of its place in the queue. */
  low?: number;
  high?: number;
  queued?: boolean;
  answer?(value: any): void;
  refuse?(error: unknown): void;
  signal?: AbortSignal | undefined;
  abort?(): void;
}

/** One connection, from its dial on. */
interface Link {
  socket?: WebSocket;
  /** What waits for `onConnect` to end. */
  held?: (() => void)[] | undefined;
  /** When the last message came. */
  heard: number;
  /** The next look at its silence, or the end of its closing. */
  timer?: Timer;
  probing?: boolean;
  /** It is to end, whoever began that. */
  shut?: boolean;
  /** The close code that is meant by the one that a script may send. */
  means?: number | undefined;
  /** Its end has been told. */
  over?: boolean;
}

export function checkName(name: string) {
  if (!isText(name) || wasm.etp_check(write(name))) throw badName(name);
}

function badName(name: string): EtpError {
  return failure(
    "invalid_event",
    `${shown(name)} is no event's name: 1 to 256 bytes, no "||", no "|" at its end, not beginning with "__ack_" or "__etp"`,
  );
}

/** What a client is from `connect` on. */
export function live(url: Dialled, options: Options, { iterators, report, call, dispatch }: Routes) {
  const { codec, ackTimeout, dialTimeout, closeTimeout, queue, maxMessageSize, maxOutbox, maxPendingAcks } = options;
  const { reconnect, shouldReconnect, probe } = options;
  /** The engine's client, and where it writes heads; 0 while this is closed. */
  let life = 0;
  let headAt = 0;
  let link: Link | undefined;
  /** The connection of the first dial, while `onConnect` runs on it. */
  let first: Link | undefined;
  const waiting = new Map<number, Waiting>();
  let lastSlot = 0;
  let timer: Timer | undefined;
  let timerAt = Infinity;
  /** The application has closed it. */
  let closing = false;
  /** `onDisconnect` runs. */
  let telling = false;
  /** Gives up what a dial, or the pause before it, waits for. */
  let interrupt: (error: unknown) => void;
  /** Ends the pause before a dial. */
  let hurry: (() => void) | undefined;
  let over: Promise<void> | undefined;
  let finished: () => void;
  /** How the last connection ended. */
  let last: End | undefined;

  // --- Life --------------------------------------------------------------------------------------------------------

  const state = () => STATES[life && wasm.etp_state(life)]!;

  async function connect(signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted) throw signal.reason;
    if (life) throw failure("invalid_state", "this client is not closed yet");
    const { base = 0, cap = 0, resetAfter = 0 } = reconnect ?? {};
    life = wasm.etp_create(queue, maxPendingAcks, reconnect ? 1 : 0, base, cap, resetAfter);
    headAt = wasm.etp_head(life);
    look();
    closing = false;
    last = undefined;
    over = new Promise((resolve) => {
      finished = resolve;
    });
    listen("addEventListener");
    const abort = () => interrupt(signal!.reason);
    signal?.addEventListener("abort", abort);
    try {
      first = await open();
      if (signal?.aborted) throw signal.reason;
      await greet(first);
    } catch (error) {
      closing = true;
      if (link) shut(link, 1000);
      else if (!telling) finish();
      await over;
      throw error;
    } finally {
      first = undefined;
      signal?.removeEventListener("abort", abort);
    }
  }

  async function close(code = 1000, reason = ""): Promise<void> {
    if ((code !== 1000 && !(code >= 3000 && code < 5000)) || write(reason) > 123) {
      throw failure("invalid_option", "a close has 1000 or 3000 to 4999, up to 123 bytes");
    }
    if (!life) return;
    closing = true;
    if (link) shut(link, code, reason);
    interrupt(gone());
    // Closing in `onDisconnect` does not wait for itself.
    if (!telling) await over;
  }

  /** Waits for something that `interrupt` can end. */
  function until<T>(outcome: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      interrupt = reject;
      outcome.then(resolve, reject);
    });
  }

  /** A connection, or why there is none. */
  async function open(): Promise<Link> {
    const opening: Link = { heard: now(), held: [] };
    const late = setTimeout(() => {
      interrupt(failure("connect_failed", `no connection within dialTimeout (${dialTimeout} ms)`));
    }, dialTimeout);
    const dialling = dial(url, options).then((make): unknown => {
      // Not if it was given up while the URL or the token was asked for.
      if (!opening.over) return opened(opening, make());
    });
    try {
      await until(dialling);
      return opening;
    } catch (error) {
      if (link === opening) return opening;
      opening.over = true;
      const { socket } = opening;
      if (socket) {
        silence(socket);
        socket.close();
      }
      throw error;
    } finally {
      clearTimeout(late);
    }
  }

  /** Resolves when the socket is open, and tells what happens on it from then on. */
  function opened(opening: Link, socket: WebSocket): Promise<void> {
    opening.socket = socket;
    return new Promise((resolve, reject) => {
      let cause: unknown;
      socket.onopen = () => {
        wasm.etp_opened(life, now());
        link = opening;
        resolve();
      };
      socket.onmessage = ({ data, timeStamp }) => receive(opening, data, timeStamp ?? now());
      // A browser tells nothing here, Node the cause.
      socket.onerror = (event) => {
        cause = (event as ErrorEvent).error ?? (event as ErrorEvent).message;
      };
      socket.onclose = ({ code, reason, wasClean }) => {
        if (link === opening) lost(opening, code, reason, wasClean);
        else reject(refused(socket, cause));
      };
    });
  }

  /** Runs `onConnect`, then sends what waits, then hands out what has come. */
  async function greet(to: Link): Promise<void> {
    const conn = {
      emit: (name: string, data?: any) => push(name, data, to),
      emitWithAck: (name: string, data?: any, how?: AckOptions) => ask(name, data, how, to),
      drain: () => drain(to),
      get isOpen() {
        return isOpen(to);
      },
    };
    let error: unknown;
    await until(call("onConnect", conn).catch((failed) => (error = failed)));
    if (error) {
      report(error);
      shut(to, 4011, "onConnect failed", 1011);
      throw failure("connect_failed", "onConnect failed", error);
    }
    while (isOpen(to)) {
      const head = wasm.etp_next(life, now());
      look();
      const [low, high, slot] = words();
      settle();
      if (!head) {
        arm();
        const { held } = to;
        to.held = undefined;
        for (const event of held!) event();
        watch(to);
        return;
      }
      const one = waiting.get(slot!)!;
      const { payload } = one;
      Object.assign(one, { low, high, queued: false, payload: undefined });
      if (!one.answer) take(slot!);
      if (fits(head, payload!)) {
        send(to, head, payload!);
      } else {
        cancel(slot!);
        one.refuse!(tooLarge(one.name));
      }
    }
    // Its end is told to whoever waits.
    await until(new Promise(() => {}));
  }

  /** Begins to close a connection, or only to wait for its end where it is closing already. */
  function shut(to: Link, code: number, reason = "", means?: number) {
    if (to.shut) return;
    to.shut = true;
    if (isOpen(to)) {
      to.socket!.close(code, reason);
      to.means = means;
    }
    wasm.etp_closing(life);
    clearTimeout(to.timer);
    to.timer = setTimeout(lost, closeTimeout, to, 1006, reason);
  }

  /** A connection has ended. */
  async function lost(from: Link, code: number, reason: string, clean = false): Promise<void> {
    if (from.over) return;
    from.over = true;
    silence(from.socket!);
    clearTimeout(from.timer);
    code = from.means ?? code;
    const usual = wasm.etp_lost(life, code, write(reason), closing ? 1 : 0, now());
    link = undefined;
    const end = { code, reason, clean, normal: code === 1000, willReconnect: usual === RETURN };
    last = end;
    settle();
    if (usual && shouldReconnect) {
      try {
        end.willReconnect = Boolean(shouldReconnect({ ...end }));
      } catch (error) {
        report(failed("shouldReconnect", error));
      }
    }
    if (end.willReconnect) wasm.etp_comes_back(life);
    else wasm.etp_end(life);
    settle();
    interrupt(failure("connect_failed", `closed while onConnect ran: ${code} ${reason}`));
    telling = true;
    await call("onDisconnect", end).catch(report);
    telling = false;
    if (end.willReconnect && !closing) comeBack();
    else finish();
  }

  /** Dials until there is a connection; what becomes of that one is told by its own end. */
  async function comeBack(): Promise<void> {
    let pause: Timer | undefined;
    try {
      await until(
        new Promise<void>((resolve) => {
          hurry = resolve;
          pause = setTimeout(resolve, wasm.etp_delay(life, Math.random()));
        }),
      );
      hurry = undefined;
      greet(await open()).catch(() => {});
    } catch (error) {
      if (closing) return finish();
      report(error);
      comeBack();
    } finally {
      clearTimeout(pause);
    }
  }

  /** The end: nothing of it is left. */
  function finish() {
    hurry = undefined;
    wasm.etp_end(life);
    settle();
    clearTimeout(timer);
    timerAt = Infinity;
    wasm.etp_destroy(life);
    life = 0;
    waiting.clear();
    listen("removeEventListener");
    for (const one of iterators) one.finish();
    finished();
  }

  // --- Liveness ----------------------------------------------------------------------------------------------------

  function listen(how: "addEventListener" | "removeEventListener") {
    globalThis[how]?.("online", woken);
    globalThis[how]?.("pageshow", woken);
    globalThis.document?.[how]?.("visibilitychange", woken);
  }

  /** The network or the page is back: what was to be tried later is tried now. */
  function woken({ type }: Event) {
    if (type === "visibilitychange" && document.hidden) return;
    hurry?.();
    if (link && !link.held) inquire(link);
  }

  /** Looks at the connection's silence again when it could have lasted long enough. */
  function watch(at: Link) {
    if (!probe || !isOpen(at)) return;
    clearTimeout(at.timer);
    const silence = at.heard + probe.interval - now();
    at.timer = setTimeout(silence > 0 ? watch : inquire, Math.max(silence, 0), at);
  }

  /** Asks whether anybody is there. */
  async function inquire(at: Link): Promise<void> {
    if (!probe || at.probing || !isOpen(at)) return;
    at.probing = true;
    const asked = now();
    try {
      await ask(probe.event, undefined, probe, at);
    } catch (error) {
      // Where it can't even be asked, the silence lasts as long.
      if ((error as EtpError).code !== "ack_timeout" && isOpen(at)) {
        await new Promise((resolve) => {
          at.timer = setTimeout(resolve, probe.timeout);
        });
      }
      if (isOpen(at) && at.heard < asked) {
        at.socket!.close(4000, "probe timeout");
        lost(at, 1006, "probe timeout");
      }
    }
    at.probing = false;
    watch(at);
  }

  // --- Calls -------------------------------------------------------------------------------------------------------

  function isOpen(to: Link): boolean {
    return !to.over && to.socket!.readyState === OPEN;
  }

  function ask(name: string, data: any, how: AckOptions | undefined, only = first): Promise<any> {
    return new Promise((answer, refuse) => {
      const { timeout = ackTimeout, signal } = how ?? {};
      push(name, data, only, { name, answer, refuse, signal }, checkNumber(timeout, "timeout"));
    });
  }

  /** Sends an event, or lets it wait. `only`: on this connection, ahead of what waits. */
  function push(name: string, data: any, only = first, calling?: Waiting, timeout = 0) {
    const payload = codec.encode(data);
    // Not before: what encodes may abort it.
    if (calling?.signal?.aborted) throw calling.signal.reason;
    if (!isText(name)) throw badName(name);
    const length = write(name);
    if (!fits(length + 5, payload)) throw tooLarge(name);
    if (!life || closing || (only && !isOpen(only))) throw gone();
    if (link && !isOpen(link)) shut(link, 1000);
    if (link && link.socket!.bufferedAmount + length + payload.length > maxOutbox) {
      throw failure("outbox_full", `more than maxOutbox (${maxOutbox}) would wait: await drain()`);
    }
    lastSlot = (lastSlot % 2e9) + 1;
    const slot = lastSlot;
    const ahead = only ? 1 : 0;
    const head = calling
      ? wasm.etp_ask(life, length, slot, timeout, ahead, now())
      : wasm.etp_emit(life, length, slot, ahead);
    look();
    if (head < 0)
      throw head === CLOSED ? gone() : head === FULL ? full() : head === TOO_MANY_ACKS ? tooMany() : badName(name);
    if (calling || !head) {
      const [low, high] = words();
      const one: Waiting = calling ?? { name };
      one.low = low!;
      one.high = high!;
      one.queued = !head;
      waiting.set(slot, one);
      const { signal } = one;
      if (signal) {
        one.abort = () => {
          cancel(slot);
          one.refuse!(signal.reason);
        };
        signal.addEventListener("abort", one.abort);
      }
      if (!head) one.payload = payload;
      else if (!fits(head, payload)) {
        cancel(slot);
        throw tooLarge(name);
      }
      arm();
    }
    if (head) send(link!, head, payload);
  }

  function send(to: Link, head: number, payload: Wire) {
    if (typeof payload === "string") {
      to.socket!.send(read(headAt, head) + payload);
      return;
    }
    const message = new Uint8Array(head + payload.length);
    message.set(bytes(headAt, head));
    message.set(payload, head);
    to.socket!.send(message);
  }

  async function drain(to = link): Promise<void> {
    while (to && isOpen(to)) {
      // Not all engines tell.
      if (!(to.socket!.bufferedAmount > maxOutbox / 2)) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK));
    }
    throw gone();
  }

  // --- What waits --------------------------------------------------------------------------------------------------

  /** Takes what waits out of its slot. */
  function take(slot: number): Waiting {
    const one = waiting.get(slot)!;
    waiting.delete(slot);
    one.signal?.removeEventListener("abort", one.abort!);
    return one;
  }

  /** The caller has given up. */
  function cancel(slot: number) {
    const { low, high, queued } = take(slot);
    wasm.etp_cancel(life, low!, high!, queued ? 1 : 0);
  }

  /** Tells the calls that have ended without a reply. */
  function settle() {
    for (let slot = wasm.etp_ended(life); slot; slot = wasm.etp_ended(life)) {
      look();
      const [how] = words();
      const why =
        how === TIMED_OUT ? failure("ack_timeout", "no reply by the deadline") : how === LOST ? gone() : tooMany();
      take(slot).refuse!(why);
    }
  }

  /** Sets the timer to the next deadline, where that is sooner. */
  function arm() {
    const at = wasm.etp_deadline(life);
    if (at >= timerAt) return;
    clearTimeout(timer);
    timerAt = at;
    timer = setTimeout(expire, Math.max(at - now(), 0));
  }

  function expire() {
    timerAt = Infinity;
    wasm.etp_expire(life, now());
    settle();
    arm();
  }

  // --- What comes --------------------------------------------------------------------------------------------------

  function receive(from: Link, data: string | ArrayBuffer, at: number) {
    // It is told to go, and some sockets go on.
    if (from.means) return;
    if (probe) from.heard = now();
    const frame = typeof data === "string" ? data : new Uint8Array(data);
    if (!fits(0, frame)) {
      shut(from, 4009, "message too large", 1009);
      return;
    }
    /** A part of it, by what the engine counts in. */
    const part = (from: number, to?: number): Wire => frame.slice(from, to);
    const text = frame === data ? 1 : 0;
    let kind = MORE;
    for (let size = frame.indexOf("||" as never) + ID; kind === MORE; size = MAX_HEAD) {
      kind = wasm.etp_receive(life, write(part(0, size)), frame.length <= size ? 1 : 0, text, at);
    }
    if (!kind) return;
    if (kind >= MALFORMED) look();
    const [low, high, nameEnd, payloadAt] = words();
    if (kind >= MALFORMED) {
      report(failure("malformed_frame", `a frame of length ${frame.length} was dropped: ${read(low!, high!)}`));
      if (kind > MALFORMED) shut(from, 4008, "malformed frames", 1008);
      return;
    }
    const payload = part(payloadAt!);
    if (kind === REPLY) {
      const { answer, refuse } = take(low!);
      try {
        answer!(codec.decode(payload));
      } catch (error) {
        refuse!(error);
      }
      return;
    }
    const head = part(0, nameEnd);
    const name = typeof head === "string" ? head : decoder.decode(head);
    const handle = () => {
      try {
        const wanted = low! + high! > 0;
        dispatch(name, codec.decode(payload), wanted ? (value) => reply(from, name, low!, high!, value) : undefined);
      } catch (error) {
        report(error);
      }
    };
    if (from.held) from.held.push(handle);
    else handle();
  }

  function reply(to: Link, name: string, low: number, high: number, value: any) {
    // Nobody waits for it any more.
    if (!isOpen(to)) return;
    try {
      const payload = codec.encode(value);
      const head = wasm.etp_reply(life, write(name), low, high, payload.length ? 0 : 1);
      if (!fits(head, payload)) throw tooLarge(name);
      send(to, head, payload);
    } catch (error) {
      report(error);
    }
  }

  // --- Errors ------------------------------------------------------------------------------------------------------

  /** Whether a message of this head is within the limit. */
  function fits(head: number, payload: Wire): boolean {
    const most = maxMessageSize - head;
    if (typeof payload !== "string") return payload.length <= most;
    return payload.length * 3 <= most || encoder.encode(payload).length <= most;
  }

  function tooLarge(name: string): EtpError {
    return failure("message_too_large", `${shown(name)} is larger than maxMessageSize (${maxMessageSize})`);
  }

  function full(): EtpError {
    return failure("outbox_full", `${queue} wait already (queue)`);
  }

  function tooMany(): EtpError {
    return failure("too_many_acks", `${maxPendingAcks} wait already (maxPendingAcks)`);
  }

  function gone(): EtpError {
    const error = failure(
      "connection_closed",
      last ? `the connection is closed: ${last.code} ${last.reason}` : "it is not connected",
    );
    error.closeCode = last?.code;
    error.closeReason = last?.reason;
    return error;
  }

  return { connect, close, state, push, ask, drain: () => drain() };
}

function silence(socket: WebSocket) {
  socket.onopen = socket.onmessage = socket.onclose = null;
  // An emitter of Node throws what nobody listens for.
  socket.onerror = () => {};
}
