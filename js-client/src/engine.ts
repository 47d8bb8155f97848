// The module that decides: what it exports, and the block of memory that texts and numbers cross in.

import { instantiate } from "etp-ws-client-module";

/** What `bindings-wasm/src/exports.rs` exports, where each is explained. */
export interface Exports {
  memory: WebAssembly.Memory;
  etp_block(): number;
  etp_create(queue: number, acks: number, reconnect: number, base: number, cap: number, resetAfter: number): number;
  etp_destroy(life: number): void;
  etp_state(life: number): number;
  etp_opened(life: number, now: number): void;
  etp_closing(life: number): void;
  etp_lost(life: number, code: number, reason: number, own: number, now: number): number;
  etp_comes_back(life: number): void;
  etp_end(life: number): void;
  etp_delay(life: number, random: number): number;
  etp_head(life: number): number;
  etp_emit(life: number, name: number, slot: number, first: number): number;
  etp_ask(life: number, name: number, slot: number, timeout: number, first: number, now: number): number;
  etp_next(life: number, now: number): number;
  etp_cancel(life: number, low: number, high: number, queued: number): void;
  etp_reply(life: number, name: number, low: number, high: number, empty: number): number;
  etp_receive(life: number, head: number, complete: number, isText: number, now: number): number;
  etp_expire(life: number, now: number): void;
  etp_deadline(life: number): number;
  etp_ended(life: number): number;
  etp_check(name: number): number;
}

/** How many bytes of the block are text: UTF-8 of the longest head, whatever its letters. */
const TEXT = 855;
const WORDS = 16;

/** The longest head in bytes, and so in UTF-16 units. */
export const MAX_HEAD = 285;

export let wasm: Exports;
export let encoder: TextEncoder;
export let decoder: TextDecoder;
let memory: Uint8Array;
let text: Uint8Array;
let numbers: Uint32Array;

/** Makes the module, once: with the first client, for importing does nothing. */
export function start() {
  if (wasm) return;
  encoder = new TextEncoder();
  decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  wasm = instantiate();
  look();
}

/** Memory that has grown is another buffer: to be called after whatever may have allocated, as asking each time costs much. */
export function look() {
  const { buffer } = wasm.memory;
  if (memory?.buffer === buffer) return;
  const block = wasm.etp_block();
  memory = new Uint8Array(buffer);
  numbers = new Uint32Array(buffer, block, WORDS / 4);
  text = new Uint8Array(buffer, block + WORDS, TEXT);
}

/** Leaves text, or the first bytes of a message, for the next call; answers its length in bytes. */
export function write(head: string | Uint8Array): number {
  const { length } = head;
  if (typeof head !== "string") text.set(head);
  // Short and nearly always ASCII: a loop costs less than a call into the browser.
  else if (length > MAX_HEAD) return encoder.encodeInto(head, text).written;
  else
    for (let at = 0; at < length; at++) {
      const unit = head.charCodeAt(at);
      if (unit > 127) return encoder.encodeInto(head, text).written;
      text[at] = unit;
    }
  return length;
}

/** Text that the module has written. */
export function read(at: number, length: number): string {
  let text = "";
  for (let end = at + length; at < end; at++) {
    if (memory[at]! > 127) return text + decoder.decode(memory.subarray(at, end));
    text += String.fromCharCode(memory[at]!);
  }
  return text;
}

/** What the last call answered beside its result. */
export function words(): Uint32Array {
  return numbers;
}

/** What the module has written. */
export function bytes(at: number, length: number): Uint8Array {
  return memory.subarray(at, at + length);
}

/** Milliseconds of a clock that never goes back. */
export function now(): number {
  return performance.now();
}
