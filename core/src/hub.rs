//! What all connections of one server or client share.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conn::{Conn, Inner, Wakes};
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::handler::Handler;
use crate::limits::{LONGEST, Limits};
use crate::net::outbox::Encoded;
use crate::protocol::Time;
use crate::rooms::{Rooms, Selection};
use crate::stats::Stats;

pub(crate) struct Hub {
    pub(crate) limits: Limits,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) rooms: Rooms,
    pub(crate) counters: Counters,
    /// Handlers in flight on all connections.
    pub(crate) inflight: AtomicUsize,
    /// From now on handlers are dropped instead of awaited.
    pub(crate) dropping: CancellationToken,
    /// No connection is let in any more.
    pub(crate) stopping: CancellationToken,
    /// As `stopping`, to be read without its lock.
    stopped: AtomicBool,
    /// The shutdown has ended.
    pub(crate) down: CancellationToken,
    /// Callbacks and handlers that have a task of their own.
    pub(crate) tasks: TaskTracker,
    /// The last connection has gone.
    pub(crate) emptied: Notify,
    blocked: Mutex<VecDeque<Weak<Inner>>>,
    any_blocked: AtomicBool,
    runtime: OnceLock<Handle>,
    epoch: Instant,
    owner: OnceLock<Weak<dyn Owner>>,
}

/// What a client adds to the life of its connections.
pub(crate) trait Owner: Send + Sync {
    /// `on_connect` has ended, or the outbox has room again: send what was queued. Answers whether more is to come.
    fn opened(&self, conn: &Conn) -> bool;
    /// Whether it dials again after such an end.
    fn will_reconnect(&self, disconnect: &Disconnect) -> bool;
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connects: AtomicU64,
    pub(crate) events_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) acks_timed_out: AtomicU64,
    pub(crate) stray_replies: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) closes: Mutex<BTreeMap<String, u64>>,
}

impl Hub {
    pub(crate) fn new(limits: Limits, handler: Arc<dyn Handler>, runtime: Option<Handle>) -> Self {
        let cell = OnceLock::new();
        if let Some(runtime) = runtime {
            // A new cell is empty.
            let _ = cell.set(runtime);
        }
        Self {
            limits,
            handler,
            rooms: Rooms::default(),
            counters: Counters::default(),
            inflight: AtomicUsize::new(0),
            dropping: CancellationToken::new(),
            stopping: CancellationToken::new(),
            stopped: AtomicBool::new(false),
            down: CancellationToken::new(),
            tasks: TaskTracker::new(),
            emptied: Notify::new(),
            blocked: Mutex::default(),
            any_blocked: AtomicBool::new(false),
            runtime: cell,
            epoch: Instant::now(),
            owner: OnceLock::new(),
        }
    }

    pub(crate) fn set_owner(&self, owner: Weak<dyn Owner>) {
        // Set once, by the client that made this hub.
        let _ = self.owner.set(owner);
    }

    pub(crate) fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.owner.get().and_then(Weak::upgrade)
    }

    /// The runtime that was given, or the one this is first called in; all tasks are spawned on it.
    pub(crate) fn runtime(&self) -> Result<&Handle, Error> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        match Handle::try_current() {
            Ok(current) => Ok(self.runtime.get_or_init(|| current)),
            Err(_) => Err(Error::option(
                "no tokio runtime: call this inside one, or give the builder a handle with runtime(handle)",
            )),
        }
    }

    /// Polls a future inside the runtime, wherever it is awaited: sockets and timers belong to the one that they are made in.
    pub(crate) async fn within<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        let runtime = self.runtime()?;
        let mut future = std::pin::pin!(future);
        let inside = std::future::poll_fn(|cx| {
            let _on = runtime.enter();
            future.as_mut().poll(cx)
        });
        Ok(inside.await)
    }

    /// Gives a callback or handler a task of its own, which a shutdown waits for.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        // Where there is a connection or a dial, there is a runtime.
        if let Ok(runtime) = self.runtime() {
            self.tasks.spawn_on(future, runtime);
        }
    }

    /// Waits until no connection is left.
    pub(crate) async fn wait_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.rooms.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Waits until no handler runs any more, those of connections that have gone included.
    async fn wait_idle(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.inflight.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Lets a new connection begin its life: registered, and drained at once if the end has come meanwhile.
    pub(crate) fn register(&self, conn: &Conn) {
        self.rooms.add(conn.clone());
        if self.stopping.is_cancelled() {
            conn.begin_drain();
        }
    }

    /// Ends every connection: handlers get four fifths of the time, then are dropped; at its end connections are cut.
    pub(crate) async fn shutdown(&self, timeout: Duration) {
        // Without a runtime there never was a connection to end.
        if self.within(self.end_all(timeout)).await.is_err() {
            self.stop();
        }
        self.down.cancel();
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.stopping.cancel();
    }

    async fn end_all(&self, timeout: Duration) {
        let timeout = timeout.min(LONGEST);
        let deadline = Instant::now() + timeout;
        self.stop();
        for conn in self.rooms.conns() {
            conn.begin_drain();
        }
        let gracefully = tokio::time::timeout_at(deadline - timeout / 5, async {
            self.wait_empty().await;
            self.wait_idle().await;
            self.tasks.close();
            self.tasks.wait().await;
        });
        if gracefully.await.is_ok() {
            return;
        }
        self.dropping.cancel();
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| self.handler.abandon())) {
            self.report(None, crate::conn::panicked("abandon", &*panic));
        }
        for conn in self.rooms.conns() {
            conn.drop_handlers();
        }
        let all = tokio::time::timeout_at(deadline, async {
            self.wait_empty().await;
            self.tasks.close();
            self.tasks.wait().await;
        });
        if all.await.is_ok() {
            return;
        }
        for conn in self.rooms.conns() {
            conn.cut();
        }
        // Their tasks need one turn each; a runtime that can't give it is no reason to hang.
        let _ = tokio::time::timeout(Duration::from_millis(100), self.wait_empty()).await;
    }

    pub(crate) fn now(&self) -> Time {
        let elapsed = Instant::now().saturating_duration_since(self.epoch);
        Time::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn instant(&self, at: Time) -> Instant {
        self.epoch + Duration::from_millis(at.as_millis())
    }

    /// Reports what has no caller to be told.
    pub(crate) fn report(&self, conn: Option<&Conn>, error: Error) {
        fn panicked(panic: &(dyn std::any::Any + Send)) {
            tracing::error!(target: "etp_ws", "on_error panicked: {}", crate::conn::panic_message(panic));
        }
        let call = AssertUnwindSafe(|| self.handler.error(conn, error));
        match std::panic::catch_unwind(call) {
            Ok(None) => {}
            Ok(Some(future)) => self.spawn(async move {
                if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                    panicked(&*panic);
                }
            }),
            Err(panic) => panicked(&*panic),
        }
    }

    /// Whether one more handler may run beside those of other connections.
    pub(crate) fn has_room(&self) -> bool {
        self.inflight.load(Ordering::SeqCst) < self.limits.max_inflight_total
    }

    /// This connection waits until a handler of another one ends.
    pub(crate) fn block(&self, conn: &Conn) {
        if conn.inner().blocked.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.push_back(conn.downgrade());
        self.any_blocked.store(true, Ordering::SeqCst);
    }

    /// So many handlers have ended.
    pub(crate) fn handlers_ended(&self, count: usize) {
        if self.inflight.fetch_sub(count, Ordering::SeqCst) == count && self.stopped.load(Ordering::SeqCst) {
            self.emptied.notify_waiters();
        }
        for _ in 0..count {
            if !self.any_blocked.load(Ordering::SeqCst) {
                return;
            }
            self.unblock_one();
        }
    }

    fn unblock_one(&self) {
        // A connection's last handle must not be dropped under the lock: it holds the application's data.
        let mut skipped = Vec::new();
        let next = {
            let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
            let next = loop {
                let Some(front) = blocked.pop_front() else { break None };
                let Some(inner) = front.upgrade() else { continue };
                inner.blocked.store(false, Ordering::SeqCst);
                // One that has nothing to start any more, or has ended, must not keep the place from the next.
                if inner.starved.load(Ordering::SeqCst) {
                    break Some(inner);
                }
                skipped.push(inner);
            };
            self.any_blocked.store(!blocked.is_empty(), Ordering::SeqCst);
            next
        };
        drop(skipped);
        if let Some(inner) = next {
            inner.unblock();
        }
    }

    /// Appends an encoded message to every selected outbox; answers how many took it.
    pub(crate) fn broadcast(&self, selection: &Selection, encoded: &Encoded) -> usize {
        let mut reached = 0;
        // Outside the runtime each wake-up would be a system call: one for all, then.
        let foreign = Handle::try_current().is_err() && !Wakes::are_held();
        let wakes = foreign.then(Wakes::default);
        let held = wakes.as_ref().map(Wakes::hold_briefly);
        self.rooms.each(selection, |conn| {
            if conn.push_encoded(encoded) {
                reached += 1;
            }
        });
        drop(held);
        if let (Some(wakes), Ok(runtime)) = (wakes, self.runtime()) {
            wakes.release_on(runtime);
        }
        reached
    }

    pub(crate) fn count_close(&self, reason: String) {
        let mut closes = self.counters.closes.lock().unwrap_or_else(PoisonError::into_inner);
        *closes.entry(reason).or_default() += 1;
    }

    pub(crate) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let mut stats = Stats {
            connections: 0,
            connects: read(&counters.connects),
            events_in: read(&counters.events_in),
            messages_out: read(&counters.messages_out),
            bytes_in: read(&counters.bytes_in),
            bytes_out: read(&counters.bytes_out),
            acks_pending: 0,
            acks_timed_out: read(&counters.acks_timed_out),
            stray_replies: read(&counters.stray_replies),
            handshakes_failed: read(&counters.handshakes_failed),
            malformed_frames: read(&counters.malformed),
            handlers_in_flight: self.inflight.load(Ordering::Relaxed),
            bytes_queued: 0,
            closes: counters.closes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        self.rooms.each(&Selection::default(), |conn| {
            let (pending, queued) = conn.load();
            stats.connections += 1;
            stats.acks_pending += pending;
            stats.bytes_queued += queued;
        });
        stats
    }
}
