//! The one task of a connection. It alone reads, writes, drives handlers, keeps the time and ends the connection.
//!
//! One wake does a bounded amount of work: a read's worth of events, each started inline; then everything that has gathered in
//! the outbox goes out together. Other threads append to the outbox and wake the link; while it is awake they need not.

mod end;
mod inbound;

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures_util::stream::FuturesUnordered;
use tokio::task::unconstrained;
use tokio::time::Sleep;

use self::inbound::Parked;
use crate::conn::{Awake, By, Conn, Phase, panicked};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::handler::{BoxFuture, ConnectTicket};
use crate::hub::Counters;
use crate::net::accept::Permit;
use crate::net::outbox::Writing;
use crate::net::transport::Transport;
use crate::net::watch::{Facts, Paused, Verdict, Watch, earliest};
use crate::protocol::Time;
use crate::websocket::Opcode;

/// Messages after which a wake ends, so that a busy peer does not starve the others.
const BUDGET: u32 = 64;
pub(crate) struct Link<T> {
    transport: T,
    state: State,
}

struct State {
    conn: Conn,
    stage: Stage,
    watch: Watch,
    now: Time,
    /// `on_connect` while it waits.
    connecting: Option<BoxFuture>,
    /// Handlers that wait.
    handlers: Option<Box<FuturesUnordered<Parked>>>,
    /// Events that wait for a handler to end, or for `on_connect`.
    waiting: VecDeque<(Event, u64)>,
    waiting_bytes: usize,
    writing: Writing,
    /// Bytes that have left and are not counted yet.
    left: usize,
    timer: Option<Pin<Box<Sleep>>>,
    armed: Option<Time>,
    /// The client has queued events to send.
    pumping: bool,
    /// How the peer closed or the transport ended.
    peer_end: Option<PeerEnd>,
    budget: u32,
    /// Why reading stands still, as the last look under the lock found.
    pause: Paused,
    /// There was nothing to end when this turn began; what has come since is seen before the link sleeps.
    calm: bool,
    /// Handlers started so far.
    started: u64,
    /// Bytes of those events of theirs that are large.
    started_bytes: u64,
    events_in: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// The place among `max_connections`.
    permit: Option<Permit>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// `on_connect` has not ended: events wait.
    Connecting,
    Open,
    /// Everything is over but the sockets' farewell.
    Finishing,
}

enum PeerEnd {
    /// A close frame: code and reason.
    Close(u16, String),
    /// No close frame.
    Lost,
}

impl<T: Transport> Link<T> {
    /// A link for a connection that is registered in its hub already.
    pub(crate) fn new(conn: Conn, transport: T, permit: Option<Permit>) -> Self {
        let hub = conn.hub();
        let now = hub.now();
        let watch = Watch::new(&hub.limits, now);
        hub.counters.connects.fetch_add(1, Ordering::Relaxed);
        Self {
            transport,
            state: State {
                conn,
                stage: Stage::New,
                watch,
                now,
                connecting: None,
                handlers: None,
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                writing: Writing::default(),
                left: 0,
                timer: None,
                armed: None,
                pumping: false,
                peer_end: None,
                budget: BUDGET,
                pause: Paused::No,
                calm: false,
                started: 0,
                started_bytes: 0,
                events_in: 0,
                bytes_in: 0,
                bytes_out: 0,
                permit,
            },
        }
    }
}

impl<T: Transport> Future for Link<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { transport, state } = &mut *self;
        state.now = state.conn.hub().now();
        if state.stage == Stage::Finishing {
            return state.farewell(transport, cx);
        }
        state.budget = BUDGET;
        loop {
            state.start(cx);
            let mut again = state.poll_handlers(cx);
            again |= state.start_waiting(cx);
            let (left, stood_still) = state.read(transport, cx, state.calm && !again);
            again |= left;
            state.write(transport, cx);
            // Reading that stood still has asked nobody to wake it when more can be read.
            again |= stood_still && state.paused() == Paused::No;
            if state.is_over() {
                state.finish();
                state.bound_farewell();
                return state.farewell(transport, cx);
            }
            if again && state.budget > 0 {
                continue;
            }
            if again {
                // Others are due. Work is left, so come again; a peer that always leaves some must not stop the clocks.
                cx.waker().wake_by_ref();
                state.sleep(transport, cx, true);
                return Poll::Pending;
            }
            if state.sleep(transport, cx, false) {
                return Poll::Pending;
            }
        }
    }
}

impl State {
    /// Runs `on_connect`, notes that the link is awake, so that nobody needs to wake it until it sleeps again, and looks at what others
    /// have asked for.
    fn start(&mut self, cx: &mut Context<'_>) {
        if self.stage == Stage::New && !self.conn.is_open() {
            // Let in only to be told a close code, or the server is shutting down: its handlers never hear of it.
            self.stage = Stage::Open;
        }
        if self.stage == Stage::New {
            self.stage = Stage::Connecting;
            let conn = self.conn.clone();
            let ticket = ConnectTicket::new(conn.clone());
            let handler = conn.hub().handler.clone();
            match catch_unwind(AssertUnwindSafe(|| handler.connect(&conn, ticket))) {
                Ok(future) => self.connecting = future,
                Err(panic) => conn.report(panicked("on_connect", &*panic)),
            }
        }
        if let Some(future) = &mut self.connecting {
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(())) => self.connecting = None,
                Err(panic) => {
                    self.connecting = None;
                    self.conn.report(panicked("on_connect", &*panic));
                }
            }
        }
        let mut timed_out = Vec::new();
        let mut late_pings = Vec::new();
        let mut shared = self.conn.inner().lock();
        shared.awake = Awake::Yes;
        match &shared.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => shared.waker = Some(cx.waker().clone()),
        }
        let connected = shared.connected.take();
        let overrun = shared.overrun;
        if shared.session.deadline().is_some_and(|at| at <= self.now) {
            shared.session.expire(self.now, |waiter| timed_out.push(waiter));
        }
        while shared.pings.front().is_some_and(|ping| ping.deadline <= self.now) {
            late_pings.extend(shared.pings.pop_front());
        }
        let drop_handlers = shared.drop_handlers;
        let closing = shared.phase == Phase::Closing;
        self.calm = shared.phase == Phase::Open && !shared.cut && !drop_handlers;
        self.pause = self.paused_at(&shared);
        let own_close = shared.close.as_ref().is_some_and(|close| close.by != By::Peer);
        drop(shared);

        if closing {
            let until = self.now.after(self.conn.hub().limits.close_timeout);
            self.watch.closing(until);
            if own_close {
                self.waiting.clear();
                self.waiting_bytes = 0;
            }
        }
        if drop_handlers {
            self.connecting = None;
            self.handlers = None;
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
        if !timed_out.is_empty() {
            let counters = &self.conn.hub().counters;
            counters
                .acks_timed_out
                .fetch_add(timed_out.len() as u64, Ordering::Relaxed);
        }
        for waiter in timed_out {
            waiter.done(Err(Error::new(ErrorKind::AckTimeout, "no reply by the deadline")));
        }
        for ping in late_pings {
            ping.waiter
                .done(Err(Error::new(ErrorKind::AckTimeout, "no pong by the deadline")));
        }
        if overrun {
            self.conn.begin_close(1013, "slow consumer", By::Core);
        }
        match connected {
            Some(true) if self.stage == Stage::Connecting => {
                self.stage = Stage::Open;
                self.pumping = true;
            }
            Some(false) => self.conn.begin_close(1011, "on_connect failed", By::Core),
            _ => {}
        }
        self.pump();
    }

    /// Lets the client send what it queued while away.
    fn pump(&mut self) {
        if self.pumping {
            let owner = self.conn.hub().owner();
            self.pumping = owner.is_some_and(|owner| owner.opened(&self.conn));
        }
    }

    /// Writes what has gathered, until nothing is left or the transport takes no more.
    fn write<T: Transport>(&mut self, transport: &mut T, cx: &mut Context<'_>) {
        loop {
            if self.writing.is_empty() && !self.exchange() {
                break;
            }
            match transport.poll_write(cx, &mut self.writing) {
                Poll::Ready(Ok(bytes)) => self.left += bytes,
                Poll::Ready(Err(error)) => return self.write_failed(&error),
                Poll::Pending => {
                    self.exchange();
                    return;
                }
            }
        }
        if let Poll::Ready(Err(error)) = transport.poll_flush(cx) {
            self.write_failed(&error);
        }
    }

    fn write_failed(&mut self, error: &std::io::Error) {
        // A close frame that has been read tells more than a reset that follows it.
        if self.peer_end.is_none() {
            tracing::debug!(target: "etp_ws", conn = %self.conn.id(), "the connection was lost: {error}");
            self.peer_end = Some(PeerEnd::Lost);
        }
        self.writing = Writing::default();
        self.conn.lost();
        self.conn.cut();
    }

    /// Tells the outbox what has left, and moves what it holds to the link unless something is being written; false if nothing was moved.
    fn exchange(&mut self) -> bool {
        let half = self.conn.hub().limits.max_outbox / 2;
        let left = std::mem::take(&mut self.left);
        self.bytes_out += left as u64;
        let mut shared = self.conn.inner().lock();
        let mut drained = Vec::new();
        if left > 0 {
            shared.outbox.left(left);
            if shared.outbox.queued() <= half {
                drained = std::mem::take(&mut shared.drains);
            }
        }
        let some = self.writing.is_empty() && shared.outbox.has_frames();
        if some {
            shared.outbox.take(&mut self.writing);
        }
        drop(shared);
        for waiter in drained {
            waiter.done(Ok(()));
        }
        if left > 0 {
            self.pump();
        }
        some
    }

    /// Looks at the clocks, then goes to sleep unless it is `busy` or something turned up. Answers whether it sleeps.
    fn sleep<T: Transport>(&mut self, transport: &mut T, cx: &mut Context<'_>, busy: bool) -> bool {
        let inner = self.conn.inner();
        let mut shared = inner.lock();
        let messages = shared.outbox.take_messages();
        let paused = self.paused_at(&shared);
        // Blocked writes leave frames in the outbox behind those being written; the transport wakes us.
        let unseen = (shared.outbox.has_frames() && self.writing.is_empty())
            || shared.connected.is_some()
            || shared.cut
            || (self.calm && shared.phase != Phase::Open)
            || (shared.overrun && shared.phase != Phase::Closing)
            || (shared.drop_handlers && (self.handlers.is_some() || self.connecting.is_some()))
            || self.is_drained(&shared);
        count(
            &self.conn.hub().counters,
            [&mut self.events_in, &mut self.bytes_in, &mut self.bytes_out],
            messages,
        );
        if unseen && !busy {
            return false;
        }
        let facts = Facts {
            queued: shared.outbox.queued(),
            written: shared.outbox.written(),
            paused,
            handlers_ended: inner.ended.load(Ordering::SeqCst),
            mid_message: transport.mid_message(),
            message_bytes: transport.message_bytes(),
        };
        if shared.phase == Phase::Closing {
            self.watch.closing(self.now.after(self.conn.hub().limits.close_timeout));
        }
        // Nothing but keepalive can be due, and the timer rings before that.
        let quiet = facts.are_quiet() && self.watch.is_quiet() && self.armed.is_some_and(|armed| armed > self.now);
        let verdict = if quiet {
            Verdict::Wait(None)
        } else {
            self.watch.check(facts, self.now)
        };
        let mut next = match verdict {
            Verdict::Wait(next) => next,
            Verdict::Ping => {
                let id = u64::MAX.to_be_bytes();
                shared.outbox.push_control(Opcode::Ping, &id);
                self.watch.ping_queued(shared.outbox.appended());
                return false;
            }
            Verdict::Close(code, reason) => {
                drop(shared);
                self.conn.begin_close(code, reason, By::Core);
                if code == 1011 {
                    // A dead peer answers no handshake.
                    self.peer_end = Some(PeerEnd::Lost);
                }
                return false;
            }
            Verdict::Cut => {
                shared.cut = true;
                return false;
            }
        };
        if busy {
            return false;
        }
        if let Some(at) = shared.session.deadline() {
            earliest(&mut next, at);
        }
        if let Some(ping) = shared.pings.front() {
            earliest(&mut next, ping.deadline);
        }
        let starved = !self.waiting.is_empty();
        if starved || inner.starved.load(Ordering::Relaxed) {
            inner.starved.store(starved, Ordering::SeqCst);
        }
        shared.awake = Awake::No;
        if self.writing.is_empty() {
            shared.outbox.trim();
        }
        drop(shared);
        self.writing.trim();
        if !self.waiting.is_empty() {
            // A handler may have ended between the look and the flag.
            if self.can_start() {
                self.conn.inner().lock().awake = Awake::Yes;
                return false;
            }
            let own_limit = self.running() >= self.conn.hub().limits.max_inflight || self.is_full_of_large();
            if !own_limit && self.stage == Stage::Open {
                self.conn.hub().block(&self.conn);
                if self.can_start() {
                    self.conn.inner().lock().awake = Awake::Yes;
                    return false;
                }
            }
        }
        let asleep = self.arm(next, cx);
        if !asleep {
            self.conn.inner().lock().awake = Awake::Yes;
        }
        asleep
    }

    /// Sets the timer, if it has to ring earlier than it is set to. False if the instant has come already.
    fn arm(&mut self, at: Option<Time>, cx: &mut Context<'_>) -> bool {
        let Some(at) = at else { return true };
        if self.armed.is_none_or(|armed| at < armed || armed <= self.now) {
            let instant = self.conn.hub().instant(at);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(instant),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(instant))),
            }
            self.armed = Some(at);
            // Where the task has used up its share of this turn, tokio's timer would answer before it has noted whom to wake.
            if let Some(timer) = &mut self.timer
                && pin!(unconstrained(timer.as_mut())).poll(cx).is_ready()
            {
                self.armed = None;
                self.now = self.conn.hub().now();
                return false;
            }
        }
        true
    }

    /// Adds the rest to the hub's counters.
    fn count_rest(&mut self) {
        let messages = self.conn.inner().lock().outbox.take_messages();
        count(
            &self.conn.hub().counters,
            [&mut self.events_in, &mut self.bytes_in, &mut self.bytes_out],
            messages,
        );
    }
}

/// Moves events in, bytes in and bytes out, and messages out, to a hub's counters: once a wake.
fn count(counters: &Counters, [events_in, bytes_in, bytes_out]: [&mut u64; 3], messages_out: u64) {
    let pairs = [
        (&counters.events_in, std::mem::take(events_in)),
        (&counters.bytes_in, std::mem::take(bytes_in)),
        (&counters.bytes_out, std::mem::take(bytes_out)),
        (&counters.messages_out, messages_out),
    ];
    for (counter, value) in pairs {
        if value != 0 {
            counter.fetch_add(value, Ordering::Relaxed);
        }
    }
}
