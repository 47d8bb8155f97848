//! What one environment's loop does with its queue: a call for a batch, and what JavaScript answers in batches of its own.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use etp_ws::handler::{AckId, Awaited, ConnectTicket, Detached, DisconnectTicket, Held, Reply, UpgradeTicket, is_text};
use etp_ws::{BoxError, Client, Conn, Error, ErrorKind, Server};
use napi::Env;
use napi::bindgen_prelude::{Function, JsValue, Object, Unknown};
use napi::threadsafe_function::UnknownReturnValue;
use napi_derive::napi;
use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::sync::oneshot;

use crate::bridge::Bridge;
use crate::dispatch::{GONE, Routes, WATCHED};
use crate::error::{Cause, ErrorParts, Errors, Failure, misuse};
use crate::kept::Kept;
use crate::queue::{Batch, Queue, SiteId};
use crate::runtime::Runtime;
use crate::text;
use crate::tickets::Tickets;
use crate::wake::{self, Closing, Wake};

/// How long servers and clients that are alive at the end of an environment may take for their farewell.
const FAREWELL: Duration = Duration::from_millis(100);

/// A server or client at work.
pub(crate) struct Site {
    pub(crate) routes: Arc<Routes>,
    /// Payloads become `Buffer`s, not strings.
    pub(crate) bytes: bool,
    pub(crate) what: What,
}

pub(crate) enum What {
    Server(Server),
    /// Empty until `connect` has ended, and after the end.
    Client(Arc<Mutex<Option<Client>>>),
}

/// A connection that JavaScript knows: its place in the slab is its slot.
pub(crate) struct Entry {
    pub(crate) conn: Conn,
    pub(crate) generation: u32,
    pub(crate) bytes: bool,
}

/// How an acknowledgment is given up.
pub(crate) enum GiveUp {
    Conn(Conn, AckId),
    Client(Awaited),
}

/// What becomes of what a turn has written so far.
mod then {
    /// It waits on: more is written now.
    pub(super) const WAIT: u32 = 0;
    /// It is sent, and what is written from now on waits for the turn's end.
    pub(super) const SEND: u32 = 1;
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) batch: Batch,
    /// What went wrong behind what JavaScript is working on.
    pub(crate) failed: Option<Failure>,
    pub(crate) sites: FxHashMap<SiteId, Site>,
    pub(crate) next_site: SiteId,
    /// Clients that have yet to connect.
    pub(crate) builders: FxHashMap<SiteId, etp_ws::ClientBuilder>,
    pub(crate) conns: Slab<Entry>,
    pub(crate) generation: u32,
    pub(crate) tickets: Tickets,
    /// Nothing in the place of one that a shutdown gave up; with whose they are.
    pub(crate) upgrades: Slab<Option<(SiteId, UpgradeTicket)>>,
    pub(crate) connects: Slab<ConnectTicket>,
    pub(crate) ends: Slab<DisconnectTicket>,
    pub(crate) questions: Slab<oneshot::Sender<Result<String, BoxError>>>,
    /// By the number of their promise.
    pub(crate) asked: FxHashMap<u32, GiveUp>,
    pub(crate) tasks: FxHashMap<u32, tokio::task::AbortHandle>,
    pub(crate) bridges: FxHashMap<u32, Bridge>,
    /// A batch is being handled: what is written waits for its end.
    delivering: bool,
    /// Something was written in this turn without waiting; the rest does.
    armed: bool,
    scratch: Vec<u8>,
    wide: Vec<u16>,
}

/// An environment at work.
struct Running {
    queue: Arc<Queue>,
    runtime: Runtime,
}

/// What all of an environment's servers and clients share. Its methods are called on the environment's thread alone.
#[napi]
pub struct Pump {
    pub(crate) errors: Errors,
    running: Arc<Mutex<Option<Running>>>,
    /// The environment's end is looked after.
    hooked: Cell<bool>,
    closing: Rc<Closing>,
    state: RefCell<State>,
}

fn running(of: &Mutex<Option<Running>>) -> std::sync::MutexGuard<'_, Option<Running>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends all that runs, briefly.
fn end(running: Running, time: Duration) {
    let queue = running.queue.clone();
    let ending = running.queue;
    running.runtime.wait(
        async move { ending.end_all(time).await },
        time + Duration::from_millis(500),
    );
    queue.close();
    running.runtime.end();
    // SAFETY: an environment's servers and clients are ended on its thread.
    #[expect(unsafe_code, reason = "the environment's own thread is known here alone")]
    unsafe {
        queue.let_go();
    }
}

#[napi]
impl Pump {
    /// `makeError(code, message, closeCode, closeReason, status, cause)` makes an `EtpError`.
    #[napi(constructor)]
    pub fn new(make_error: Function<'_, ErrorParts, Object<'static>>) -> napi::Result<Self> {
        Ok(Self {
            errors: Errors(make_error.create_ref()?),
            running: Arc::default(),
            hooked: Cell::new(false),
            closing: Rc::default(),
            state: RefCell::default(),
        })
    }

    /// Begins the core's thread; `wake` is called when something waits, in Node through its event loop.
    #[napi]
    pub fn begin(&self, env: Env, wake: Function<'_, (), UnknownReturnValue>, node: bool) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let mut slot = running(&self.running);
            if slot.is_some() {
                return Ok(());
            }
            self.look_after_the_end(&env, node)?;
            let runtime = Runtime::begin()?;
            // Last: what has been opened in the loop has to be closed.
            let wake = match Wake::new(&env, wake, node.then_some(&self.closing)) {
                Ok(wake) => wake,
                Err(error) => {
                    runtime.end();
                    return Err(error.into());
                }
            };
            let queue = Queue::new(wake, runtime.handle().clone());
            *slot = Some(Running { queue, runtime });
            Ok(())
        })
    }

    /// Ends the core's thread, when nothing is at work any more.
    #[napi]
    pub fn end(&self, env: Env) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let left = running(&self.running).take();
            if let Some(left) = left {
                end(left, Duration::ZERO);
            }
            let mut state = self.state();
            let left = State {
                next_site: state.next_site,
                generation: state.generation,
                ..State::default()
            };
            let left = std::mem::replace(&mut *state, left);
            drop(state);
            // Tickets may report their loss: outside the borrow.
            drop(left);
            Ok(())
        })
    }

    /// The process is about to exit, which ends no environment but a worker's: peers are told, briefly. What JavaScript has yet to end it
    /// never will.
    #[napi]
    pub fn farewell(&self, env: Env) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let left = running(&self.running).take();
            let mut state = self.state();
            let waiting = (std::mem::take(&mut state.batch), std::mem::take(&mut state.tickets));
            drop(state);
            drop(waiting);
            if let Some(left) = left {
                end(left, FAREWELL);
            }
            Ok(())
        })
    }

    /// Whether the process stays alive.
    #[napi]
    pub fn hold(&self, env: Env, hold: bool) -> napi::Result<()> {
        self.errors.guard(&env, || {
            if let Some(running) = &*running(&self.running) {
                // SAFETY: methods are called on the environment's thread.
                #[expect(unsafe_code, reason = "the environment's own thread is known here alone")]
                unsafe {
                    running.queue.hold(env.raw(), hold);
                }
            }
            Ok(())
        })
    }

    /// What is there: sites, connections, tickets and bridges, questions, items in the queue. For tests.
    #[napi]
    pub fn live(&self) -> Vec<u32> {
        let state = self.state();
        let tickets = state.tickets.len() + state.upgrades.len() + state.connects.len() + state.ends.len();
        let queued = self.queue().map_or(0, |queue| queue.len());
        [
            state.sites.len(),
            state.conns.len(),
            tickets,
            state.bridges.len(),
            state.questions.len() + state.asked.len() + state.tasks.len(),
            queued,
        ]
        .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
        .to_vec()
    }

    /// Completes handlers. `ints` has two numbers for each: its ticket, and how many UTF-16 units of `text` are its reply, or -1 less how
    /// many of `bytes`. `then` says what becomes of what this turn has written: 0, it waits on, as more is written now; 1, it is sent, and what
    /// is written from now on waits for the turn's end; 2, it is sent, and the turn is over.
    #[napi]
    pub fn flush(
        &self,
        env: Env,
        text: Unknown<'_>,
        ints: &[i32],
        count: u32,
        bytes: &[u8],
        then: u32,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let Some(queue) = self.queue() else { return Ok(()) };
            {
                let _held = queue.wakes.hold_briefly();
                let ints = ints.get(..count as usize * 2).unwrap_or_default();
                if !ints.is_empty() {
                    self.complete(&env, &text, ints, bytes)?;
                }
            }
            if then == then::WAIT {
                return Ok(());
            }
            let mut state = self.state();
            match then {
                then::SEND => queue.arm(),
                _ => state.delivering = false,
            }
            state.armed = false;
            drop(state);
            queue.wakes.release_on(&queue.runtime);
            Ok(())
        })
    }

    /// Completes a handler with bytes, however many.
    #[napi]
    pub fn reply_bytes(&self, env: Env, ticket: u32, bytes: &[u8]) -> napi::Result<()> {
        self.errors.guard(&env, || {
            if let Some(reply) = self.take_reply(ticket) {
                let _held = self.writing();
                reply.send_payload(bytes, is_text(bytes));
            }
            Ok(())
        })
    }

    /// Ends a handler without a reply: what it threw is kept under `cause`, and reads as `shown`.
    #[napi]
    pub fn fail(&self, env: Env, ticket: u32, cause: u32, shown: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let cause = self.cause(cause, shown);
            if let Some(reply) = self.take_reply(ticket) {
                reply.fail(cause);
            }
            Ok(())
        })
    }

    /// Ends a handler without a reply: the codec could not decode its payload, or encode what it returned.
    #[napi]
    pub fn fail_payload(
        &self,
        env: Env,
        ticket: u32,
        message: String,
        cause: Option<u32>,
        shown: String,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let cause = cause.map(|cause| self.cause(cause, shown));
            let mut error = Error::new(ErrorKind::InvalidPayload, message);
            if let Some(cause) = cause {
                error = error.with_source(cause);
            }
            if let Some(reply) = self.take_reply(ticket) {
                reply.fail(error);
            }
            Ok(())
        })
    }

    /// Ends a handler without a reply: nobody handles such events.
    #[napi]
    pub fn no_handler(&self, env: Env, ticket: u32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            if let Some(reply) = self.take_reply(ticket) {
                reply.no_handler();
            }
            Ok(())
        })
    }

    /// Ends `onConnect`: well, or with what it threw.
    #[napi]
    pub fn connected(&self, env: Env, ticket: u32, cause: Option<u32>, shown: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let cause = cause.map(|cause| self.cause(cause, shown));
            let ticket = self.state().connects.try_remove(ticket as usize);
            let _held = self.writing();
            match (ticket, cause) {
                (Some(ticket), None) => ticket.complete(),
                (Some(ticket), Some(cause)) => ticket.fail(cause),
                (None, _) => {}
            }
            Ok(())
        })
    }

    /// Ends `onDisconnect`: the connection's slot is free.
    #[napi]
    pub fn disconnected(&self, env: Env, ticket: u32, slot: i32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let mut state = self.state();
            let entry = usize::try_from(slot).ok().and_then(|slot| state.conns.try_remove(slot));
            let ticket = state.ends.try_remove(ticket as usize);
            drop(state);
            if let Some(entry) = entry {
                entry.conn.set_slot(GONE);
            }
            drop(ticket);
            Ok(())
        })
    }

    /// Answers what a client has asked for.
    #[napi]
    pub fn answer(
        &self,
        env: Env,
        question: u32,
        text: Option<String>,
        cause: Option<u32>,
        shown: String,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let cause = cause.map(|cause| self.cause(cause, shown.clone()));
            let asked = self.state().questions.try_remove(question as usize);
            if let Some(asked) = asked {
                let answer = match (text, cause) {
                    (Some(text), _) => Ok(text),
                    (None, Some(cause)) => Err(BoxError::from(cause)),
                    (None, None) => Err(BoxError::from(shown)),
                };
                // The dial may have been given up.
                let _ = asked.send(answer);
            }
            Ok(())
        })
    }

    /// The caller does not wait any more.
    #[napi]
    pub fn give_up(&self, env: Env, id: u32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let mut state = self.state();
            let asked = state.asked.remove(&id);
            let task = state.tasks.remove(&id);
            drop(state);
            match asked {
                Some(GiveUp::Conn(conn, ack)) => conn.cancel_ack(ack),
                Some(GiveUp::Client(awaited)) => drop(awaited),
                None => {}
            }
            if let Some(task) = task {
                task.abort();
            }
            Ok(())
        })
    }

    /// Panics inside the guard: shows what becomes of a bug of ours.
    #[napi]
    pub fn panic_for_tests(&self, env: Env) -> napi::Result<()> {
        self.errors.guard(&env, || panic!("a panic for tests"))
    }

    /// Panics in a task of the core's: shows that the thread outlives it.
    #[napi]
    pub fn panic_in_core_for_tests(&self, env: Env) -> napi::Result<()> {
        self.errors.guard(&env, || {
            self.require()?.runtime.spawn(async { panic!("a panic for tests") });
            Ok(())
        })
    }
}

impl Pump {
    /// An environment ends with all that is at work in it: a worker that is terminated. (A process that exits runs no hooks: `farewell`.)
    fn look_after_the_end(&self, env: &Env, node: bool) -> napi::Result<()> {
        if self.hooked.get() {
            return Ok(());
        }
        let weak: Weak<_> = Arc::downgrade(&self.running);
        let last = move || {
            let left = weak.upgrade().and_then(|slot| running(&slot).take());
            if let Some(left) = left {
                end(left, FAREWELL);
            }
        };
        if node {
            wake::at_end(env, &self.closing, last)?;
        } else {
            env.add_env_cleanup_hook(last, |last| last())?;
        }
        self.hooked.set(true);
        Ok(())
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(crate) fn queue(&self) -> Option<Arc<Queue>> {
        running(&self.running).as_ref().map(|running| running.queue.clone())
    }

    pub(crate) fn require(&self) -> Result<Arc<Queue>, Failure> {
        self.queue().ok_or_else(|| misuse("nothing is at work here"))
    }

    pub(crate) fn delivering(&self) {
        self.state().delivering = true;
    }

    fn take_reply(&self, ticket: u32) -> Option<Reply> {
        self.state().tickets.take(ticket)
    }

    pub(crate) fn cause(&self, key: u32, shown: String) -> Cause {
        let kept = match self.queue() {
            Some(queue) => Kept::new(key, &queue),
            None => Kept::lost(key),
        };
        Cause::new(kept, shown)
    }

    /// Around whatever writes to connections. Inside a batch all of it waits for the end; outside the first of a turn goes out at once, and
    /// the rest together.
    pub(crate) fn writing(&self) -> Option<Writes> {
        let queue = self.queue()?;
        let mut state = self.state();
        let held = Some(queue.wakes.hold_briefly());
        if state.delivering || state.armed {
            return Some(Writes { held, now: None });
        }
        state.armed = true;
        queue.arm();
        Some(Writes { held, now: Some(queue) })
    }

    /// Sends replies. What of them is no ASCII is read once more, as the lengths count UTF-16 units.
    fn complete(&self, env: &Env, text: &Unknown<'_>, ints: &[i32], bytes: &[u8]) -> Result<(), Failure> {
        let (mut scratch, mut wide) = {
            let mut state = self.state();
            (std::mem::take(&mut state.scratch), std::mem::take(&mut state.wide))
        };
        let units: usize = ints
            .chunks_exact(2)
            .filter_map(|pair| usize::try_from(pair[1]).ok())
            .sum();
        // SAFETY: it is the string that this method is called with.
        #[expect(unsafe_code, reason = "the Node API as it is: this is on the path of each event")]
        let ascii = unsafe {
            text::read(env.raw(), text.raw(), &mut scratch)?;
            let ascii = scratch.len() == units;
            if !ascii {
                text::read_wide(env.raw(), text.raw(), &mut wide)?;
            }
            ascii
        };
        let mut outcomes = Outcomes {
            pairs: ints.as_chunks().0,
            text: &scratch,
            bytes,
        };
        let mut one = String::new();
        let mut wide_at = &wide[..];
        while let Some((number, len)) = outcomes.peek() {
            let owner = if ascii || len < 0 {
                self.state().tickets.owner_of(number)
            } else {
                None
            };
            let found = owner.and_then(|owner| Some((owner, self.state().tickets.owner(owner)?)));
            if let Some((owner, (conn, routes))) = found {
                // Tickets of one owner that follow each other.
                let names = routes.names();
                let mut count = 0;
                Detached::complete(&conn, || {
                    let (number, len) = outcomes.peek()?;
                    if len >= 0 && !ascii {
                        return None;
                    }
                    let (handler, ticket) = self.state().tickets.take_of(owner, number)?;
                    count += 1;
                    let (payload, text) = outcomes.next(len);
                    let name = usize::try_from(handler).ok().and_then(|at| names.get(at));
                    Some((name.map_or("", |name| &**name), ticket, payload, text))
                });
                let last = self.state().tickets.ended(owner, count);
                drop(last);
                continue;
            }
            let reply = self.take_reply(number);
            if len < 0 || ascii {
                let (payload, text) = outcomes.next(len);
                if let Some(reply) = reply {
                    reply.send_payload(payload, text);
                }
                continue;
            }
            outcomes.skip();
            let units;
            (units, wide_at) = wide_at.split_at(usize::try_from(len).unwrap_or(0).min(wide_at.len()));
            one.clear();
            let broken = char::decode_utf16(units.iter().copied()).try_for_each(|unit| {
                one.push(unit?);
                Ok::<_, std::char::DecodeUtf16Error>(())
            });
            match (reply, broken) {
                (Some(reply), Ok(())) => reply.send_payload(one.as_bytes(), true),
                (Some(reply), Err(_)) => reply.fail(surrogate()),
                (None, _) => {}
            }
        }
        scratch.shrink_to(256 * 1024);
        wide.shrink_to(128 * 1024);
        let mut state = self.state();
        state.scratch = scratch;
        state.wide = wide;
        Ok(())
    }

    /// The slot of a connection, and whether it is new.
    pub(crate) fn meet(&self, conn: &Conn, bytes: bool) -> (i32, Option<u32>) {
        if conn.slot() & GONE != 0 {
            return (-1, None);
        }
        if let Some(slot) = slot_of(conn) {
            return (i32::try_from(slot).unwrap_or(-1), None);
        }
        let mut state = self.state();
        state.generation = state.generation.wrapping_add(1);
        let generation = state.generation;
        let slot = state.conns.insert(Entry {
            conn: conn.clone(),
            generation,
            bytes,
        });
        drop(state);
        conn.set_slot(slot as u64 + 1);
        (i32::try_from(slot).unwrap_or(i32::MAX), Some(generation))
    }

    /// Lets go of handlers that a shutdown does not wait for any more.
    pub(crate) fn abandon_all(&self, site: SiteId) {
        let last = self.state().tickets.give_up(site);
        drop(last);
    }

    /// The connection in a slot, if it is still the one of this generation.
    pub(crate) fn conn(&self, slot: i32, generation: u32) -> Option<(Conn, bool)> {
        let state = self.state();
        let entry = state.conns.get(usize::try_from(slot).ok()?)?;
        (entry.generation == generation).then(|| (entry.conn.clone(), entry.bytes))
    }
}

/// What JavaScript says of tickets, one after the other: two numbers each, and what lies next in the text or in the bytes.
struct Outcomes<'a> {
    pairs: &'a [[i32; 2]],
    text: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Outcomes<'a> {
    /// The next ticket, and how long its payload is: of text, or -1 less that of bytes.
    fn peek(&self) -> Option<(u32, i32)> {
        let [number, len] = self.pairs.first()?;
        Some((number.cast_unsigned(), *len))
    }

    /// Takes the payload that [`peek`](Self::peek) told of, where text is ASCII; answers also whether it is text.
    fn next(&mut self, len: i32) -> (&'a [u8], bool) {
        self.skip();
        if let Ok(len) = usize::try_from(len) {
            let (payload, rest) = self.text.split_at(len.min(self.text.len()));
            self.text = rest;
            return (payload, true);
        }
        let len = usize::try_from(-1 - i64::from(len)).unwrap_or(0);
        let (payload, rest) = self.bytes.split_at(len.min(self.bytes.len()));
        self.bytes = rest;
        (payload, is_text(payload))
    }

    fn skip(&mut self) {
        self.pairs = self.pairs.split_first().map_or(&[], |(_, rest)| rest);
    }
}

/// While it lives, what is written gathers.
pub(crate) struct Writes {
    held: Option<Held>,
    /// It goes out at the end of this.
    now: Option<Arc<Queue>>,
}

impl Drop for Writes {
    fn drop(&mut self) {
        drop(self.held.take());
        if let Some(queue) = &self.now {
            queue.wakes.release_on(&queue.runtime);
        }
    }
}

/// The slot of a connection that JavaScript knows.
pub(crate) fn slot_of(conn: &Conn) -> Option<usize> {
    let known = conn.slot() & !WATCHED;
    if known & GONE != 0 {
        return None;
    }
    usize::try_from(known).ok()?.checked_sub(1)
}

/// Half of a surrogate pair has no form in UTF-8.
pub(crate) fn surrogate() -> Error {
    Error::new(
        ErrorKind::InvalidPayload,
        "the text can't be encoded as UTF-8 (a lone surrogate)",
    )
}

/// Bytes that outlive the call.
pub(crate) fn owned(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
