//! The one task of a connection. It alone reads, writes, drives handlers, keeps the time and ends the connection.
//!
//! One wake does a bounded amount of work: a read's worth of events, each started inline; then everything that has gathered in
//! the outbox goes out together. Other threads append to the outbox and wake the link; while it is awake they need not.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use compact_str::CompactString;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Sleep;

use crate::conn::{By, Conn, Phase, panicked};
use crate::disconnect::Disconnect;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Incoming};
use crate::handler::{BoxFuture, ConnectTicket, Reply};
use crate::limits::MAX_WAITING;
use crate::net::accept::Permit;
use crate::net::outbox::Writing;
use crate::net::transport::{Read, Transport};
use crate::net::watch::{Facts, Paused, Verdict, Watch, earliest};
use crate::net::wire;
use crate::payload::Payload;
use crate::protocol::{Received, Time, frame};
use crate::websocket::{Data, Item, Opcode};

/// Messages after which a wake ends, so that a busy peer does not starve the others.
const BUDGET: u32 = 64;
/// What a waiting event costs beyond its bytes.
const WAIT_OVERHEAD: usize = 64;

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
    /// Handlers started so far.
    started: u64,
    events_in: u64,
    bytes_in: u64,
    bytes_out: u64,
    messages_out: u64,
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

/// A handler that waits.
struct Parked {
    future: BoxFuture,
    name: CompactString,
}

impl Future for Parked {
    type Output = Option<Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        let this = &mut *self;
        match catch_unwind(AssertUnwindSafe(|| this.future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(None),
            Err(panic) => Poll::Ready(Some(handler_panicked(&this.name, &*panic))),
        }
    }
}

fn handler_panicked(name: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    panicked(&format!("the handler of event {name:?}"), panic)
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
                started: 0,
                events_in: 0,
                bytes_in: 0,
                bytes_out: 0,
                messages_out: 0,
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
        state.wake_up(cx);
        state.budget = BUDGET;
        loop {
            state.start(cx);
            let mut again = state.poll_handlers(cx);
            again |= state.start_waiting(cx);
            again |= state.read(transport, cx);
            state.write(transport, cx);
            if state.is_over() {
                state.finish();
                state.bound_farewell();
                return state.farewell(transport, cx);
            }
            if again && state.budget > 0 {
                continue;
            }
            if again {
                // Others are due. Work is left, so come again.
                cx.waker().wake_by_ref();
                state.count();
                return Poll::Pending;
            }
            if state.sleep(transport, cx) {
                return Poll::Pending;
            }
        }
    }
}

impl State {
    /// Notes that the link is awake: nobody needs to wake it until it sleeps again.
    fn wake_up(&mut self, cx: &Context<'_>) {
        let mut shared = self.conn.inner().lock();
        shared.awake = true;
        match &shared.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => shared.waker = Some(cx.waker().clone()),
        }
    }

    /// Runs `on_connect` and looks at what others have asked for.
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
            counters.acks_timed_out.fetch_add(timed_out.len() as u64, Ordering::Relaxed);
        }
        for waiter in timed_out {
            waiter.done(Err(Error::new(ErrorKind::AckTimeout, "no reply by the deadline")));
        }
        for ping in late_pings {
            ping.waiter.done(Err(Error::new(ErrorKind::AckTimeout, "no pong by the deadline")));
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

    fn poll_handlers(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(handlers) = &mut self.handlers else {
            return false;
        };
        let mut progress = false;
        while self.budget > 0 {
            match handlers.poll_next_unpin(cx) {
                Poll::Ready(Some(error)) => {
                    progress = true;
                    self.budget -= 1;
                    if let Some(error) = error {
                        self.conn.report(error);
                    }
                }
                Poll::Ready(None) => {
                    self.handlers = None;
                    return progress;
                }
                Poll::Pending => return progress,
            }
        }
        true
    }

    /// Whether one more handler may start.
    fn can_start(&self) -> bool {
        let inner = self.conn.inner();
        let running = inner.inflight.load(Ordering::SeqCst);
        let hub = self.conn.hub();
        self.stage == Stage::Open && running < hub.limits.max_inflight && (running == 0 || hub.has_room())
    }

    fn start_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.budget > 0 && !self.waiting.is_empty() && self.can_start() {
            if let Some((event, ack_id)) = self.waiting.pop_front() {
                self.waiting_bytes -= event.weight() + WAIT_OVERHEAD;
                self.budget -= 1;
                progress = true;
                self.handle(event.as_incoming(), ack_id, cx);
            }
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 0 {
            self.waiting = VecDeque::new();
        }
        progress
    }

    /// Why reading stands still, if it does.
    fn paused(&self) -> Paused {
        if self.waiting_bytes >= MAX_WAITING {
            return Paused::Handlers;
        }
        let most = self.conn.hub().limits.max_outbox / 2;
        if self.conn.inner().lock().outbox.replies() > most {
            return Paused::Replies;
        }
        Paused::No
    }

    fn read<T: Transport>(&mut self, transport: &mut T, cx: &mut Context<'_>) -> bool {
        let waker = cx.waker().clone();
        let mut inner_cx = Context::from_waker(&waker);
        let mut progress = false;
        while self.budget > 0 && self.peer_end.is_none() && self.paused() == Paused::No {
            let read = transport.poll_read(cx, &mut |item| self.receive(item, &mut inner_cx));
            match read {
                Poll::Pending => return progress,
                Poll::Ready(Read::Some(bytes)) => {
                    progress = true;
                    self.bytes_in += bytes as u64;
                    self.watch.read(self.now);
                }
                Poll::Ready(Read::Violation(violation)) => {
                    // Whatever follows can't be understood: no closing handshake is possible, only our close frame.
                    self.conn.begin_close(violation.code, violation.reason, By::Core);
                    self.peer_end = Some(PeerEnd::Lost);
                    return true;
                }
                Poll::Ready(Read::End(error)) => {
                    if let Some(error) = error {
                        tracing::debug!(target: "etp_ws", conn = %self.conn.id(), "the connection was lost: {error}");
                    }
                    self.peer_end = Some(PeerEnd::Lost);
                    self.conn.lost();
                    return true;
                }
            }
        }
        progress
    }

    /// Takes one item from the wire; false ends reading for good.
    fn receive(&mut self, item: Item<'_>, cx: &mut Context<'_>) -> bool {
        match item {
            Item::Message { binary, data, .. } => {
                self.budget = self.budget.saturating_sub(1);
                self.watch.message();
                match data {
                    Data::Borrowed(bytes) => self.message(bytes, None, !binary, cx),
                    Data::Owned(bytes) => {
                        let bytes = Bytes::from(bytes);
                        self.message(&bytes, Some(&bytes), !binary, cx);
                    }
                }
            }
            Item::Ping(data) => {
                self.budget = self.budget.saturating_sub(1);
                if self.watch.pinged(self.now) {
                    self.conn.begin_close(1008, "ping flood", By::Core);
                }
                let mut shared = self.conn.inner().lock();
                if matches!(shared.phase, Phase::Open | Phase::Draining) {
                    shared.outbox.push_control(Opcode::Pong, &data);
                }
            }
            Item::Pong(data) => self.pong(&data),
            Item::Close(frame) => {
                let (code, reason) = match frame {
                    Some(frame) => (frame.code, frame.reason.into_owned()),
                    None => (1005, String::new()),
                };
                // Echoes the code (RFC 6455, 5.5.1), unless our own close frame is under way.
                self.conn.begin_close(code, &reason, By::Peer);
                self.peer_end = Some(PeerEnd::Close(code, reason));
                return false;
            }
        }
        true
    }

    fn message(&mut self, frame: &[u8], shared_frame: Option<&Bytes>, text: bool, cx: &mut Context<'_>) {
        #[cfg(feature = "echo-for-conformance")]
        if self.conn.hub().limits.echo {
            return self.conn.push_echo(frame, text);
        }
        wire::received(&self.conn, frame);
        // An event needs nothing of the session, and so no lock.
        if let Ok(Some(head)) = frame::parse(frame, true)
            && head.reply_to().is_none()
        {
            let incoming = Incoming {
                name: head.name,
                payload: &frame[head.payload.unwrap_or(frame.len())..],
                shared: shared_frame,
                text,
                wants_reply: head.ack_id != 0,
            };
            return self.event(incoming, head.ack_id, cx);
        }
        let mut shared = self.conn.inner().lock();
        let open = shared.phase == Phase::Open;
        let received = shared.session.receive(frame, true, (), self.now);
        drop(shared);
        match received {
            Received::Reply { waiter, offset, .. } => {
                let bytes = match shared_frame {
                    Some(bytes) => bytes.slice(offset..),
                    None => Bytes::copy_from_slice(&frame[offset..]),
                };
                waiter.done(Ok(Payload { bytes, text }));
            }
            Received::Stray => {
                let counters = &self.conn.hub().counters;
                counters.stray_replies.fetch_add(1, Ordering::Relaxed);
            }
            // Events went another way above, and the whole frame was there.
            Received::Extension | Received::Event { .. } | Received::More(()) => {}
            Received::Malformed { defect, too_many } => {
                let counters = &self.conn.hub().counters;
                counters.malformed.fetch_add(1, Ordering::Relaxed);
                if open {
                    self.conn.report(Error::new(
                        ErrorKind::MalformedFrame,
                        format!("a frame of {} bytes was dropped: {defect}", frame.len()),
                    ));
                }
                if too_many {
                    self.conn.begin_close(1008, "malformed frames", By::Core);
                }
            }
        }
    }

    fn event(&mut self, event: Incoming<'_>, ack_id: u64, cx: &mut Context<'_>) {
        if !self.conn.inner().open.load(Ordering::Relaxed) {
            return;
        }
        self.events_in += 1;
        if self.waiting.is_empty() && self.can_start() {
            self.handle(event, ack_id, cx);
        } else {
            let event = event.to_event();
            self.waiting_bytes += event.weight() + WAIT_OVERHEAD;
            self.waiting.push_back((event, ack_id));
        }
    }

    /// Starts a handler: polled once here and parked only if it waits.
    fn handle(&mut self, event: Incoming<'_>, ack_id: u64, cx: &mut Context<'_>) {
        self.started += 1;
        let conn = &self.conn;
        let reply = Reply::new(conn.clone(), event.name, ack_id);
        let started = catch_unwind(AssertUnwindSafe(|| {
            let mut future = conn.hub().handler.event(conn, event, reply)?;
            match future.as_mut().poll(cx) {
                Poll::Ready(()) => None,
                Poll::Pending => Some(future),
            }
        }));
        match started {
            Ok(None) => {}
            Ok(Some(future)) => {
                let handlers = self.handlers.get_or_insert_default();
                handlers.push(Parked {
                    future,
                    name: CompactString::new(event.name),
                });
            }
            Err(panic) => conn.report(handler_panicked(event.name, &*panic)),
        }
    }

    fn pong(&mut self, data: &[u8]) {
        let Ok(id) = data.try_into().map(u64::from_be_bytes) else {
            return;
        };
        let mut answered = Vec::new();
        let mut shared = self.conn.inner().lock();
        if !shared.pings.iter().any(|ping| ping.id == id) {
            return;
        }
        // A pong may answer the most recent of several pings (RFC 6455, 5.5.3).
        while shared.pings.front().is_some_and(|ping| ping.id <= id) {
            answered.extend(shared.pings.pop_front());
        }
        drop(shared);
        for ping in answered {
            let trip = ping.sent.elapsed();
            ping.waiter.done(Ok(trip));
        }
    }

    /// Writes what has gathered, until nothing is left or the transport takes no more.
    fn write<T: Transport>(&mut self, transport: &mut T, cx: &mut Context<'_>) {
        loop {
            if self.writing.is_empty() && !self.take_frames() {
                break;
            }
            match transport.poll_write(cx, &mut self.writing) {
                Poll::Ready(Ok(bytes)) => self.left += bytes,
                Poll::Ready(Err(error)) => return self.write_failed(&error),
                Poll::Pending => {
                    self.count_left();
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

    /// Moves what the outbox holds to the link; false if it is empty.
    fn take_frames(&mut self) -> bool {
        self.count_left();
        let mut shared = self.conn.inner().lock();
        let some = shared.outbox.has_frames();
        if some {
            shared.outbox.take(&mut self.writing);
        }
        some
    }

    fn count_left(&mut self) {
        if self.left == 0 {
            return;
        }
        self.bytes_out += self.left as u64;
        let half = self.conn.hub().limits.max_outbox / 2;
        let mut shared = self.conn.inner().lock();
        shared.outbox.left(std::mem::take(&mut self.left));
        let drained = if shared.outbox.queued() <= half {
            std::mem::take(&mut shared.drains)
        } else {
            Vec::new()
        };
        drop(shared);
        for waiter in drained {
            waiter.done(Ok(()));
        }
        self.pump();
    }

    /// Whether the connection has ended: both directions are done with, or nothing can be.
    fn is_over(&self) -> bool {
        let shared = self.conn.inner().lock();
        if shared.cut {
            return true;
        }
        let sent = shared.outbox.queued() == 0;
        let phase = shared.phase;
        if phase == Phase::Draining {
            let idle = self.stage == Stage::Open
                && self.waiting.is_empty()
                && self.conn.inner().inflight.load(Ordering::SeqCst) == 0;
            if idle || shared.drop_handlers {
                drop(shared);
                self.conn.begin_close(1000, "server shutdown", By::User);
                return false;
            }
        }
        match &self.peer_end {
            // Events that arrived before the end are still handled.
            Some(_) if phase == Phase::Closing => sent && self.waiting.is_empty(),
            Some(_) => self.waiting.is_empty(),
            None => false,
        }
    }

    /// Goes to sleep, unless something turned up. Answers whether it sleeps.
    fn sleep<T: Transport>(&mut self, transport: &mut T, cx: &mut Context<'_>) -> bool {
        self.count();
        let paused = self.paused();
        let inner = self.conn.inner();
        let mut shared = inner.lock();
        // Blocked writes leave frames in the outbox behind those being written; the transport wakes us.
        let unseen = (shared.outbox.has_frames() && self.writing.is_empty())
            || shared.connected.is_some()
            || shared.cut
            || (shared.overrun && shared.phase != Phase::Closing)
            || (shared.drop_handlers && self.handlers.is_some());
        if unseen {
            return false;
        }
        let facts = Facts {
            queued: shared.outbox.queued(),
            written: shared.outbox.written(),
            paused,
            handlers_ended: self.started - inner.inflight.load(Ordering::SeqCst) as u64,
            mid_message: transport.mid_message(),
            message_bytes: transport.message_bytes(),
        };
        if shared.phase == Phase::Closing {
            self.watch.closing(self.now.after(self.conn.hub().limits.close_timeout));
        }
        // Nothing but keepalive can be due, and the timer rings before that.
        let quiet = facts.are_quiet() && self.watch.is_quiet() && self.armed.is_some_and(|armed| armed > self.now);
        let verdict = if quiet { Verdict::Wait(None) } else { self.watch.check(facts, self.now) };
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
        if let Some(at) = shared.session.deadline() {
            earliest(&mut next, at);
        }
        if let Some(ping) = shared.pings.front() {
            earliest(&mut next, ping.deadline);
        }
        if !self.waiting.is_empty() {
            inner.starved.store(true, Ordering::SeqCst);
        }
        shared.awake = false;
        if self.writing.is_empty() {
            shared.outbox.trim();
        }
        drop(shared);
        self.writing.trim();
        if !self.waiting.is_empty() {
            // A handler may have ended between the look and the flag.
            if self.can_start() {
                self.conn.inner().lock().awake = true;
                return false;
            }
            let running = self.conn.inner().inflight.load(Ordering::SeqCst);
            if running < self.conn.hub().limits.max_inflight && self.stage == Stage::Open {
                self.conn.hub().block(&self.conn);
                if self.can_start() {
                    self.conn.inner().lock().awake = true;
                    return false;
                }
            }
        }
        let asleep = self.arm(next, cx);
        if !asleep {
            self.conn.inner().lock().awake = true;
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
            if let Some(timer) = &mut self.timer
                && timer.as_mut().poll(cx).is_ready()
            {
                self.armed = None;
                self.now = self.conn.hub().now();
                return false;
            }
        }
        true
    }

    /// Adds to the hub's counters, once a wake.
    fn count(&mut self) {
        let counters = &self.conn.hub().counters;
        let messages = self.conn.inner().lock().outbox.messages();
        let pairs = [
            (&counters.events_in, std::mem::take(&mut self.events_in)),
            (&counters.bytes_in, std::mem::take(&mut self.bytes_in)),
            (&counters.bytes_out, std::mem::take(&mut self.bytes_out)),
            (&counters.messages_out, messages - self.messages_out),
        ];
        self.messages_out = messages;
        for (counter, value) in pairs {
            if value != 0 {
                counter.fetch_add(value, Ordering::Relaxed);
            }
        }
    }

    /// Ends the connection: rooms, waiters, callbacks; handlers that still run go on in a task of their own.
    fn finish(&mut self) {
        self.count_left();
        self.count();
        let disconnect = self.disconnect();
        let conn = self.conn.clone();
        let hub = conn.hub().clone();
        let (lost, connect_ended) = conn.end(&disconnect);
        conn.closing_began();
        let rooms = hub.rooms.remove(conn.id_bits());
        conn.keep_rooms(rooms);
        lost.tell();
        if !self.waiting.is_empty() {
            let dropped = self.waiting.len();
            conn.report(Error::closed(Some((disconnect.code, &disconnect.reason))).with_source(format!(
                "{dropped} events were waiting for a handler and are dropped"
            )));
            self.waiting.clear();
        }
        if connect_ended {
            conn.call_disconnect(disconnect);
        }
        self.leave_handlers();
        self.permit = None;
        self.timer = None;
        self.armed = None;
        self.writing = Writing::default();
        self.stage = Stage::Finishing;
        if hub.rooms.len() == 0 {
            hub.emptied.notify_waiters();
        }
    }

    fn bound_farewell(&mut self) {
        let hub = self.conn.hub();
        let until = self.now.after(hub.limits.close_timeout.min(Duration::from_secs(2)));
        self.timer = Some(Box::pin(tokio::time::sleep_until(hub.instant(until))));
    }

    /// How it ended, from both sides' close frames or their absence.
    fn disconnect(&mut self) -> Disconnect {
        let close = self.conn.inner().lock().close.clone();
        let mut disconnect = match (self.peer_end.take(), &close) {
            (Some(PeerEnd::Close(code, reason)), Some(ours)) if ours.by == By::Peer => {
                Disconnect::new(code, reason, true)
            }
            (Some(PeerEnd::Close(..)), Some(ours)) => Disconnect::new(ours.code, ours.reason.clone(), true),
            (Some(PeerEnd::Close(code, reason)), None) => Disconnect::new(code, reason, false),
            (_, Some(ours)) => Disconnect::new(ours.code, ours.reason.clone(), false),
            (_, None) => Disconnect::new(1006, "", false),
        };
        let hub = self.conn.hub();
        let own = close.as_ref().is_some_and(|close| close.by == By::User);
        disconnect.will_reconnect =
            !own && hub.owner().is_some_and(|owner| owner.will_reconnect(&disconnect));
        hub.count_close(match close {
            Some(ours) if ours.by == By::Core => ours.reason,
            _ => disconnect.code.to_string(),
        });
        disconnect
    }

    fn leave_handlers(&mut self) {
        let connecting = self.connecting.take();
        let handlers = self.handlers.take();
        if connecting.is_none() && handlers.is_none() {
            return;
        }
        let conn = self.conn.clone();
        let dropping = conn.hub().dropping.clone();
        let rest = async move {
            let all = async {
                if let Some(future) = connecting {
                    future.await;
                }
                let mut handlers = handlers.map(|handlers| *handlers).unwrap_or_default();
                while let Some(error) = handlers.next().await {
                    if let Some(error) = error {
                        conn.report(error);
                    }
                }
            };
            tokio::select! {
                () = dropping.cancelled() => {}
                () = all => {}
            }
        };
        self.conn.hub().spawn(rest);
    }

    /// Waits for the transport to say goodbye, for a short time.
    fn farewell<T: Transport>(&mut self, transport: &mut T, cx: &mut Context<'_>) -> Poll<()> {
        if transport.poll_finish(cx).is_ready() {
            return Poll::Ready(());
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A runtime that goes away drops its tasks: those who wait still get their outcome, and rooms are left.
        if self.stage != Stage::Finishing {
            self.finish();
        }
    }
}
