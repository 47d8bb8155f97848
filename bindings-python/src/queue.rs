//! What waits for one event loop: filled by the core's thread, emptied by the loop a batch at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use etp_ws::handler::{ConnectTicket, DisconnectTicket, Reply, UpgradeTicket, Wakes};
use etp_ws::{BoxError, Client, Conn, Disconnect, Error, Incoming, Payload, Request, Server};
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::routes::{Callback, Routes};
use crate::waiting::Value;
use crate::wake::Wake;

/// Payloads up to this size are copied into the batch, larger ones keep a buffer of their own.
const SMALL: usize = 4096;
/// Memory of a batch that is kept for the next one.
const KEPT: usize = 256 * 1024;
/// How long a reply may wait for the step that it was made in to end: a handler that blocks the loop must not keep the replies of
/// those before it.
const LINGER: Duration = Duration::from_millis(2);

/// A number for each server or client that is at work on an event loop; never used twice.
pub(crate) type SiteId = u64;

/// One thing for Python to do.
pub(crate) enum Item {
    Event {
        site: SiteId,
        reply: Reply,
        payload: Chunk,
    },
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
    Error {
        site: SiteId,
        conn: Option<Conn>,
        error: Error,
    },
    /// A text that a client asks for anew at each dial.
    Ask {
        site: SiteId,
        what: Callback,
        answer: oneshot::Sender<Result<String, BoxError>>,
    },
    /// The outcome of `emit_with_ack`.
    Acked {
        future: Py<PyAny>,
        routes: Py<Routes>,
        outcome: Result<Payload, Error>,
    },
    /// The outcome of anything else that is awaited.
    Settled {
        future: Py<PyAny>,
        outcome: Result<Value, Error>,
    },
    /// A shutdown's time is nearly over: handlers are cancelled.
    Abandon(SiteId),
    /// The server or client is over; nothing of it comes after this.
    Detach(SiteId),
}

/// Where a payload lies.
pub(crate) enum Chunk {
    /// In the batch's own bytes.
    Here(usize, usize),
    Apart(Bytes),
}

/// Items in the order of their arrival, and the small payloads of its events.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) items: VecDeque<Item>,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Default)]
struct State {
    batch: Batch,
    /// The loop has been woken, or is about to be, and has not looked yet.
    signalled: bool,
    closed: bool,
}

/// How to end what is at work on a loop when the loop itself has ended.
pub(crate) enum End {
    Server(Server),
    /// Shut when the application's handle goes; this is not one.
    Client(std::sync::Weak<Mutex<Option<Client>>>),
}

/// The queue of one event loop.
pub(crate) struct Queue {
    state: Mutex<State>,
    pub(crate) wake: Wake,
    /// Connections that this loop's thread has written to in its current step.
    pub(crate) wakes: Wakes,
    pub(crate) runtime: Handle,
    signals: Arc<Signals>,
    ends: Mutex<Vec<(SiteId, End)>>,
    /// Runners that have a task and have not begun.
    pub(crate) pending: AtomicUsize,
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
            pending: AtomicUsize::new(0),
        });
        // Woken by the first item, this task runs when the connections that are due before it have had their turn: one system call
        // for all of their events.
        let (weak, filled) = (Arc::downgrade(&queue), signals.clone());
        runtime.spawn(async move {
            loop {
                filled.filled.notified().await;
                let Some(queue) = weak.upgrade() else { return };
                if queue.is_closed() {
                    return;
                }
                queue.wake.signal();
                filled.linger.notify_one();
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

    fn filled(&self, mut state: MutexGuard<'_, State>) {
        if !state.signalled {
            state.signalled = true;
            drop(state);
            self.signals.filled.notify_one();
        }
    }

    /// Appends an item. One that comes when the loop has ended is dropped, and its ticket with it.
    pub(crate) fn push(&self, item: Item) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            drop(item);
            return;
        }
        state.batch.items.push_back(item);
        self.filled(state);
    }

    pub(crate) fn push_event(&self, site: SiteId, event: &Incoming<'_>, reply: Reply) {
        let bytes = event.payload();
        let apart = (bytes.len() > SMALL).then(|| event.payload_bytes());
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let payload = match apart {
            Some(bytes) => Chunk::Apart(bytes),
            None => {
                let at = state.batch.bytes.len();
                state.batch.bytes.extend_from_slice(bytes);
                Chunk::Here(at, bytes.len())
            }
        };
        state.batch.items.push_back(Item::Event { site, reply, payload });
        self.filled(state);
    }

    /// Exchanges an emptied batch for what has gathered; the next item wakes the loop again.
    pub(crate) fn swap(&self, batch: &mut Batch) {
        batch.bytes.clear();
        batch.bytes.shrink_to(KEPT);
        if batch.items.capacity() * size_of::<Item>() > KEPT {
            batch.items.shrink_to(KEPT / size_of::<Item>());
        }
        let mut state = self.lock();
        state.signalled = false;
        std::mem::swap(&mut state.batch, batch);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().batch.items.len()
    }

    /// Wakes the loop for the logs' sake; false if it has ended.
    pub(crate) fn wake_for_logs(&self) -> bool {
        let state = self.lock();
        if state.closed {
            return false;
        }
        self.filled(state);
        true
    }

    /// A runner's task was dropped before it began: somebody else must take its place.
    pub(crate) fn runner_lost(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.wake.signal();
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

    /// The loop has ended: nothing reaches Python any more, and its servers and clients end by themselves.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        let batch = std::mem::take(&mut state.batch);
        drop(state);
        drop(batch);
        self.signals.filled.notify_one();
        self.signals.linger.notify_one();
        let ends = std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        self.runtime.spawn(end_all(ends, Duration::from_secs(1)));
    }

    /// Ends servers and clients.
    pub(crate) async fn end_all(&self, time: Duration) {
        let ends = std::mem::take(&mut *self.ends.lock().unwrap_or_else(PoisonError::into_inner));
        end_all(ends, time).await;
    }
}

async fn end_all(ends: Vec<(SiteId, End)>, time: Duration) {
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
