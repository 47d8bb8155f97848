//! What JavaScript calls. Numbers in and out; texts and further numbers through one block of memory at [`etp_block`].
//!
//! A client is a pointer that [`etp_create`] gave and [`etp_destroy`] takes: JavaScript keeps it in a private field, uses it no more
//! afterwards, and has one thread.
#![allow(unsafe_code, reason = "exported symbols, the block of memory and clients by pointer")]

use alloc::boxed::Box;
use core::cell::UnsafeCell;

use etp_ws::protocol::{Backoff, QueueId, Time, frame};
use lol_alloc::{AssumeSingleThreaded, FreeListAllocator};

use crate::life::{Life, Options, Push, Received};

// SAFETY: the module is made without threads: nothing else runs beside it on this memory.
#[global_allocator]
static ALLOCATOR: AssumeSingleThreaded<FreeListAllocator> =
    unsafe { AssumeSingleThreaded::new(FreeListAllocator::new()) };

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

/// How many bytes of UTF-8 JavaScript may leave: those of [`frame::MAX_HEAD`] UTF-16 units, which are enough of any frame.
const TEXT: usize = 3 * frame::MAX_HEAD;

#[repr(C)]
struct Block {
    /// What is answered beside a function's result.
    words: [u32; 4],
    text: [u8; TEXT],
}

struct Shared(UnsafeCell<Block>);

// SAFETY: there is one thread.
unsafe impl Sync for Shared {}

static BLOCK: Shared = Shared(UnsafeCell::new(Block {
    words: [0; 4],
    text: [0; TEXT],
}));

/// Where the block lies: four words, then the text.
#[unsafe(no_mangle)]
extern "C" fn etp_block() -> usize {
    BLOCK.0.get() as usize
}

fn text<'a>(len: usize) -> &'a [u8] {
    // SAFETY: nobody writes to the block while a function runs, but for `answer`, which writes no text.
    let text: &[u8; TEXT] = unsafe { &(*BLOCK.0.get()).text };
    &text[..len.min(TEXT)]
}

/// The text that JavaScript has left, which `TextEncoder` wrote.
fn name<'a>(len: usize) -> &'a str {
    text(len).utf8_chunks().next().map_or("", |chunk| chunk.valid())
}

fn answer(index: usize, value: u32) {
    // SAFETY: nobody holds a reference to the words.
    unsafe { (*BLOCK.0.get()).words[index] = value }
}

fn answer_wide(index: usize, value: u64) {
    answer(index, value as u32);
    answer(index + 1, (value >> 32) as u32);
}

fn life<'a>(client: usize) -> &'a mut Life {
    // SAFETY: `etp_create` gave it, and this module calls nobody who could use it meanwhile.
    unsafe { &mut *(client as *mut Life) }
}

fn time(now: f64) -> Time {
    Time::from_millis(now as u64)
}

fn wide(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Makes a client that has begun to dial. Times are in milliseconds.
#[unsafe(no_mangle)]
extern "C" fn etp_create(
    queue: u32,
    max_pending_acks: u32,
    reconnect: bool,
    base: u32,
    cap: u32,
    reset_after: u32,
) -> usize {
    let options = Options {
        queue: queue as usize,
        max_pending_acks: max_pending_acks as usize,
        reconnect,
        backoff: Backoff::from_millis(base.into(), cap.into(), reset_after.into()),
    };
    Box::into_raw(Box::new(Life::new(options))) as usize
}

#[unsafe(no_mangle)]
extern "C" fn etp_destroy(client: usize) {
    // SAFETY: it came from `etp_create`, and is used no more.
    drop(unsafe { Box::from_raw(client as *mut Life) });
}

#[unsafe(no_mangle)]
extern "C" fn etp_state(client: usize) -> u32 {
    life(client).state() as u32
}

#[unsafe(no_mangle)]
extern "C" fn etp_opened(client: usize, now: f64) {
    life(client).opened(time(now));
}

#[unsafe(no_mangle)]
extern "C" fn etp_closing(client: usize) {
    life(client).closing();
}

/// `reason` is text of that many bytes. 0: it never comes back. 1, 2: not, or yes, by the usual rule.
#[unsafe(no_mangle)]
extern "C" fn etp_lost(client: usize, code: u32, reason: usize, own: bool, now: f64) -> u32 {
    life(client).lost(code as u16, name(reason), own, time(now)) as u32
}

#[unsafe(no_mangle)]
extern "C" fn etp_comes_back(client: usize) {
    life(client).comes_back();
}

#[unsafe(no_mangle)]
extern "C" fn etp_end(client: usize) {
    life(client).end();
}

/// `random` is of 0 to 1.
#[unsafe(no_mangle)]
extern "C" fn etp_delay(client: usize, random: f64) -> f64 {
    const WHOLE: f64 = (1_u64 << 53) as f64;
    life(client).delay((random * WHOLE) as u64) as f64
}

/// The length of a head, written to where [`etp_head`] says; or what came of it instead.
fn pushed(client: usize, push: Push) -> i32 {
    match push {
        Push::Send => head_len(client),
        Push::Queued(id) => {
            answer_wide(0, id.get());
            0
        }
        Push::Closed => -1,
        Push::Full => -2,
        Push::TooManyAcks => -3,
        Push::Name(_) => -4,
    }
}

fn head_len(client: usize) -> i32 {
    // At most `MAX_HEAD`.
    life(client).head.len() as i32
}

#[unsafe(no_mangle)]
extern "C" fn etp_head(client: usize) -> usize {
    life(client).head.as_ptr() as usize
}

#[unsafe(no_mangle)]
extern "C" fn etp_emit(client: usize, len: usize, slot: u32, first: bool) -> i32 {
    pushed(client, life(client).emit(name(len), slot, first))
}

/// The id of the call, or of its place in the queue, is in the first two words.
#[unsafe(no_mangle)]
extern "C" fn etp_ask(client: usize, len: usize, slot: u32, timeout: u32, first: bool, now: f64) -> i32 {
    let life = life(client);
    let push = life.ask(name(len), slot, timeout, first, time(now));
    if push == Push::Send {
        answer_wide(0, life.last_ack_id());
    }
    pushed(client, push)
}

/// The id of a call is in the first two words, 0 of a plain event; its slot in the third. 0: all are sent.
#[unsafe(no_mangle)]
extern "C" fn etp_next(client: usize, now: f64) -> i32 {
    match life(client).next(time(now)) {
        None => 0,
        Some((slot, id)) => {
            answer_wide(0, id.unwrap_or(0));
            answer(2, slot);
            head_len(client)
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn etp_cancel(client: usize, low: u32, high: u32, queued: bool) {
    let id = wide(low, high);
    if queued {
        life(client).cancel_queued(QueueId::from_number(id));
    } else {
        life(client).cancel(id);
    }
}

#[unsafe(no_mangle)]
extern "C" fn etp_reply(client: usize, len: usize, low: u32, high: u32, empty: bool) -> i32 {
    life(client).reply(name(len), wide(low, high), empty);
    head_len(client)
}

/// 0: nothing. 1: more is needed. 2: an event; its id in the first two words, where its name ends in the third, where its payload
/// begins in the fourth. 3: a reply; its slot in the first, where the payload begins in the fourth. 4, 5 (too many): malformed;
/// where the text about
/// the defect lies in the first, its length in the second.
#[unsafe(no_mangle)]
extern "C" fn etp_receive(client: usize, len: usize, complete: bool, is_text: bool, now: f64) -> u32 {
    match life(client).receive(text(len), complete, is_text, time(now)) {
        Received::Nothing => 0,
        Received::More => 1,
        Received::Event { name, payload, ack_id } => {
            answer_wide(0, ack_id);
            answer(2, name as u32);
            answer(3, payload as u32);
            2
        }
        Received::Reply { slot, payload } => {
            answer(0, slot);
            answer(3, payload as u32);
            3
        }
        Received::Malformed(defect, too_many) => {
            let text = defect.message();
            answer(0, text.as_ptr() as u32);
            answer(1, text.len() as u32);
            4 + u32::from(too_many)
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn etp_expire(client: usize, now: f64) {
    life(client).expire(time(now));
}

/// Infinite while nothing waits.
#[unsafe(no_mangle)]
extern "C" fn etp_deadline(client: usize) -> f64 {
    life(client)
        .deadline()
        .map_or(f64::INFINITY, |at| at.as_millis() as f64)
}

/// A call that has ended without a reply, or 0; how it ended is in the first word.
#[unsafe(no_mangle)]
extern "C" fn etp_ended(client: usize) -> u32 {
    let Some((slot, how)) = life(client).next_ended() else {
        return 0;
    };
    answer(0, how as u32);
    slot
}

/// Whether that is no name of an event.
#[unsafe(no_mangle)]
extern "C" fn etp_check(len: usize) -> bool {
    frame::check_name(name(len)).is_err()
}
