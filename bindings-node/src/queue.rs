//! What waits for one environment's loop: filled by the core's thread, emptied by JavaScript a batch at a time.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use etp_ws::handler::{ConnectTicket, Detached, DisconnectTicket, Ticket, UpgradeTicket, Wakes};
use etp_ws::{BoxError, Client, Conn, Disconnect, Error, Incoming, Payload, Request, Server};

use napi::sys;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::wake::Wake;

/// Payloads up to this size are copied into the batch, larger ones keep a buffer of their own.
const SMALL: usize = 4096;
/// Memory of a batch that is kept for the next one.
const KEPT: usize = 256 * 1024;
/// How long what was written may wait for the turn that it was written in to end: a handler that blocks the loop must not keep the
/// replies of those before it.
const LINGER: Duration = Duration::from_millis(2);

/// A number for each server or client that is at work in an environment; never used twice.
pub(crate) type SiteId = u32;

/// A text that a client asks for anew at each dial.
#[derive(Clone, Copy)]
pub(crate) enum Question {
    Url,
    Auth,
}

/// One thing for JavaScript to do.
pub(crate) enum Item {
    /// Events that followed each other on one connection; the batch has what they are.
    Events(Run),
    Upgrade {
        site: SiteId,
        request: Request,
        ticket: UpgradeTicket,
    },
    Connect {
        site: SiteId,
        conn: Conn,
        ticket: ConnectTicket,
    },
    Disconnect {
        site: SiteId,
        conn: Conn,
        disconnect: Disconnect,
        ticket: DisconnectTicket,
    },
    /// Closing has begun, of a connection whose `closed` or `signal` somebody has looked at.
    Closing(Conn),
    Error {
        site: SiteId,
        conn: Option<Conn>,
        error: Error,
    },
    Ask {
        site: SiteId,
        what: Question,
        answer: oneshot::Sender<Result<String, BoxError>>,
    },
    /// The outcome of `emitWithAck`, and whether its payload is wanted as bytes.
    Acked {
        id: u32,
        bytes: bool,
        outcome: Result<Payload, Error>,
    },
    /// The outcome of anything else that is awaited.
    Settled { id: u32, outcome: Result<Value, Error> },
    /// Bytes for the socket of a bridged connection.
    Bridged { id: u32, bytes: Bytes },
    /// A bridged socket may be read on.
    Resume(u32),
    /// A bridged socket is to be ended.
    Ended(u32),
    /// A value that nobody will ask for any more.
    Forget(u32),
    /// A shutdown's time is nearly over.
    Abandon(SiteId),
    /// The server or client is over; nothing of it comes after this.
    Detach(SiteId),
}

/// An outcome on its way from the core's thread, not yet a JavaScript value.
pub(crate) enum Value {
    None,
    Bool(bool),
    Number(f64),
    /// A listener: URL, host and port.
    Bound(String, Option<(String, u16)>),
}

/// Events that followed each other on one connection.
pub(crate) struct Run {
    pub(crate) conn: Conn,
    pub(crate) site: SiteId,
    /// Events that are still in the batch.
    pub(crate) count: usize,
    /// Who owns the tickets of those that JavaScript has.
    pub(crate) owner: Option<usize>,
}

/// One event of a run.
pub(crate) struct Event {
    /// The handler's number; -1 if there is none of that name.
    pub(crate) handler: i32,
    /// Bytes of its payload, or [`APART`].
    len: u32,
    pub(crate) ticket: Detached,
}

/// Instead of a length: the payload has a buffer of its own.
const APART: u32 = u32::MAX;

/// Items in the order of their arrival, and what their events are: read in the order in which it was written, so that nothing has to say where
/// it lies.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) items: VecDeque<Item>,
    events: VecDeque<Event>,
    /// Names of events that have no handler.
    names: VecDeque<Box<str>>,
    /// Small payloads, and how many bytes of them were read.
    bytes: Vec<u8>,
    read: usize,
    apart: VecDeque<Bytes>,
    /// The large payload that was taken last.
    last: Bytes,
}

impl Batch {
    /// Puts an event behind what is there; a payload that is `apart` keeps its own buffer.
    #[inline]
    fn put(&mut self, site: SiteId, handler: i32, event: &Incoming<'_>, apart: Option<Bytes>, ticket: Ticket<'_>) {
        let len = match apart {
            Some(bytes) => {
                self.apart.push_back(bytes);
                APART
            }
            None => {
                self.bytes.extend_from_slice(event.payload());
                event.payload().len() as u32
            }
        };
        if handler < 0 {
            self.names.push_back(event.name().into());
        }
        let conn = ticket.conn();
        match self.items.back_mut() {
            Some(Item::Events(run)) if run.conn == *conn && run.site == site => run.count += 1,
            _ => self.items.push_back(Item::Events(Run {
                conn: conn.clone(),
                site,
                count: 1,
                owner: None,
            })),
        }
        let ticket = ticket.detach();
        self.events.push_back(Event { handler, len, ticket });
    }

    /// Bytes of the next event's payload.
    pub(crate) fn next_len(&self) -> usize {
        match self.events.front() {
            Some(event) if event.len == APART => self.apart.front().map_or(0, Bytes::len),
            Some(event) => event.len as usize,
            None => 0,
        }
    }

    /// Takes the next event; its payload is what [`payload`](Self::payload) says, until the next one is taken.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The payload of an event that was taken.
    pub(crate) fn payload(&mut self, event: &Event) -> &[u8] {
        if event.len == APART {
            self.last = self.apart.pop_front().unwrap_or_default();
            return &self.last;
        }
        let at = self.read;
        self.read += event.len as usize;
        self.bytes.get(at..self.read).unwrap_or_default()
    }

    /// The name of an event that was taken, if it has no handler.
    pub(crate) fn name(&mut self, event: &Event) -> Option<Box<str>> {
        if event.handler < 0 {
            self.names.pop_front()
        } else {
            None
        }
    }

    /// Lets go of the large payload that was taken last.
    pub(crate) fn forget_last(&mut self) {
        self.last = Bytes::new();
    }

    /// Puts what has gathered later, of which nothing was taken, behind what is there.
    fn append(&mut self, later: &mut Self) {
        if self.items.is_empty() {
            std::mem::swap(self, later);
            return;
        }
        self.items.append(&mut later.items);
        self.events.append(&mut later.events);
        self.names.append(&mut later.names);
        self.apart.append(&mut later.apart);
        self.bytes.extend_from_slice(&later.bytes);
        later.clear();
    }

    /// Makes an emptied batch ready for the next items.
    fn clear(&mut self) {
        debug_assert!(self.items.is_empty() && self.events.is_empty());
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.read = 0;
        self.last = Bytes::new();
        shrink(&mut self.items);
        shrink(&mut self.events);
        shrink(&mut self.names);
        shrink(&mut self.apart);
    }
}

/// Gives back what a burst has left.
fn shrink<T>(column: &mut VecDeque<T>) {
    if column.capacity() * size_of::<T>() > KEPT {
        column.shrink_to(KEPT / size_of::<T>());
    }
}

impl Drop for Batch {
    /// Tickets that JavaScript has not taken: nobody will.
    fn drop(&mut self) {
        for item in &self.items {
            if let Item::Events(run) = item {
                for event in self.events.drain(..run.count.min(self.events.len())) {
                    event.ticket.let_go(&run.conn);
                }
            }
        }
    }
}

thread_local! {
    /// What the core's thread has for its queue and has not handed over yet; nothing on other threads.
    /// Taken out while something is put in.
    static GATHERED: Cell<Option<Box<Batch>>> = const { Cell::new(None) };
}

/// On the core's thread, before it works: what it has for JavaScript gathers without a lock.
pub(crate) fn gather_here() {
    GATHERED.set(Some(Box::default()));
}

/// The batch of this thread, if it is the core's; at the thread's end there is nothing of this any more.
fn gathered() -> Option<Box<Batch>> {
    GATHERED.try_with(Cell::take).ok().flatten()
}

/// Before the core's thread ends: drops what nobody will take any more.
pub(crate) fn gather_no_more() {
    // Tickets that are dropped report it, which goes the other way then.
    drop(GATHERED.take());
}

#[derive(Default)]
struct State {
    batch: Batch,
    /// JavaScript has been called, or is about to be, and has not looked yet.
    signalled: bool,
    closed: bool,
}

/// How to end what is at work when the environment has ended.
pub(crate) enum End {
    Server(Server),
    /// Shut when the application's handle goes; this is not one.
    Client(Weak<Mutex<Option<Client>>>),
}

/// The queue of one environment.
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Wake,
    /// Connections that JavaScript has written to in its current turn.
    pub(crate) wakes: Wakes,
    pub(crate) runtime: Handle,
    signals: Arc<Signals>,
    ends: Mutex<Vec<(SiteId, End)>>,
}

#[derive(Default)]
struct Signals {
    filled: Notify,
    linger: Notify,
}

impl Queue {
    pub(crate) fn new(wake: Wake, runtime: Handle) -> Arc<Self> {
        let signals = Arc::<Signals>::default();
        let queue = Arc::new(Self {
            state: Mutex::default(),
            wake,
            wakes: Wakes::default(),
            runtime: runtime.clone(),
            signals: signals.clone(),
            ends: Mutex::default(),
        });
        // Woken by the first item, this task runs when the connections that are due before it have had their turn: one call for all of
        // their events.
        let (weak, filled) = (Arc::downgrade(&queue), signals.clone());
        runtime.spawn(async move {
            loop {
                filled.filled.notified().await;
                let Some(queue) = weak.upgrade() else { return };
                if queue.hand_over() {
                    queue.wake.call();
                    filled.linger.notify_one();
                } else if queue.is_closed() {
                    return;
                }
            }
        });
        let wakes = queue.wakes.clone();
        let weak = Arc::downgrade(&queue);
        runtime.spawn(async move {
            loop {
                signals.linger.notified().await;
                tokio::time::sleep(LINGER).await;
                wakes.release();
                if weak.upgrade().is_none_or(|queue| queue.is_closed()) {
                    return;
                }
            }
        });
        queue
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what the core's thread has gathered JavaScript's; answers whether it has to be called.
    fn hand_over(&self) -> bool {
        let mut gathered = gathered();
        let mut state = self.lock();
        if state.closed {
            drop(state);
            drop(gathered);
            return false;
        }
        if let Some(gathered) = &mut gathered {
            state.batch.append(gathered);
        }
        let call = !state.signalled && !state.batch.items.is_empty();
        state.signalled |= call;
        drop(state);
        // The buffers come back.
        if let Some(gathered) = gathered {
            GATHERED.set(Some(gathered));
        }
        call
    }

    /// Puts something where it gathers: on the core's thread without a lock, elsewhere behind what is JavaScript's already.
    #[inline]
    fn append(&self, put: impl FnOnce(&mut Batch)) {
        match gathered() {
            Some(batch) => self.gather(batch, put),
            None => self.append_locked(put),
        }
    }

    #[inline]
    fn gather(&self, mut batch: Box<Batch>, put: impl FnOnce(&mut Batch)) {
        let first = batch.items.is_empty();
        put(&mut batch);
        GATHERED.set(Some(batch));
        if first {
            self.signals.filled.notify_one();
        }
    }

    fn append_locked(&self, put: impl FnOnce(&mut Batch)) {
        let mut state = self.lock();
        if !state.closed {
            put(&mut state.batch);
            drop(state);
            self.signals.filled.notify_one();
        }
    }

    /// Appends an item. One that comes when the environment has ended is dropped, and its ticket with it.
    pub(crate) fn push(&self, item: Item) {
        self.append(|batch| batch.items.push_back(item));
    }

    pub(crate) fn push_event(&self, site: SiteId, handler: i32, event: &Incoming<'_>, ticket: Ticket<'_>) {
        let apart = (event.payload().len() > SMALL).then(|| event.payload_bytes());
        // As `append`, but that the ticket is not moved into a closure.
        let Some(mut batch) = gathered() else {
            return self.append_locked(|batch| batch.put(site, handler, event, apart, ticket));
        };
        let first = batch.items.is_empty();
        batch.put(site, handler, event, apart, ticket);
        GATHERED.set(Some(batch));
        if first {
            self.signals.filled.notify_one();
        }
    }

    /// Exchanges an emptied batch for what has gathered; the next item calls JavaScript again.
    pub(crate) fn swap(&self, batch: &mut Batch) {
        batch.clear();
        let mut state = self.lock();
        state.signalled = false;
        std::mem::swap(&mut state.batch, batch);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().batch.items.len()
    }

    /// What is written from now on may wait for the end of the turn, but not longer than [`LINGER`].
    pub(crate) fn arm(&self) {
        self.signals.linger.notify_one();
    }

    pub(crate) fn add_end(&self, site: SiteId, end: End) {
        self.ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((site, end));
    }

    pub(crate) fn remove_end(&self, site: SiteId) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let at = ends.iter().position(|(id, _)| *id == site);
        let end = at.map(|at| ends.swap_remove(at));
        drop(ends);
        drop(end);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Nothing reaches JavaScript any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let batch = std::mem::take(&mut state.batch);
        drop(state);
        drop(batch);
        self.signals.filled.notify_one();
        self.signals.linger.notify_one();
    }

    /// Ends servers and clients.
    pub(crate) async fn end_all(&self, time: Duration) {
        let ends = std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        let mut tasks = Vec::new();
        for (_, end) in ends {
            tasks.push(tokio::spawn(async move {
                match end {
                    End::Server(server) => server.shutdown_within(time).await,
                    End::Client(client) => {
                        let client = client.upgrade().and_then(|client| {
                            let client = client.lock().unwrap_or_else(PoisonError::into_inner);
                            client.clone()
                        });
                        if let Some(client) = client {
                            let _ = tokio::time::timeout(time, client.close()).await;
                        }
                    }
                }
            }));
        }
        for task in tasks {
            // A panic in one must not keep the others.
            let _ = task.await;
        }
    }

    /// Whether the process stays alive for what may come: a matter of the environment's own thread.
    ///
    /// # Safety
    /// Called on the thread of this environment.
    #[expect(unsafe_code, reason = "the environment's own thread is known to the caller")]
    pub(crate) unsafe fn hold(&self, env: sys::napi_env, hold: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.wake.hold(env, hold) };
    }

    /// JavaScript is called no more.
    ///
    /// # Safety
    /// Called on the thread of this environment.
    #[expect(unsafe_code, reason = "the environment's own thread is known to the caller")]
    pub(crate) unsafe fn let_go(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.wake.close() };
    }
}
