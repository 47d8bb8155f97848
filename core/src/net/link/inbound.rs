//! What arrives on a connection: items from the transport, events to their handlers, handlers to their end.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use compact_str::CompactString;
use futures_util::StreamExt;

use super::{PeerEnd, Stage, State};
use crate::conn::{By, Phase, Shared, panicked};
use crate::error::{Error, ErrorKind};
use crate::event::Incoming;
use crate::handler::{BoxFuture, Ticket};
use crate::limits::MAX_WAITING;
use crate::net::transport::{Read, Transport};
use crate::net::watch::Paused;
use crate::net::wire;
use crate::payload::Payload;
use crate::protocol::{Received, frame};
use crate::websocket::{Data, Item, Opcode};

/// Events from this size on are counted by bytes as well as by number.
const LARGE: usize = 4 * 1024;

/// What a waiting event costs beyond its bytes.
const WAIT_OVERHEAD: usize = 64;

/// A handler that waits.
pub(super) struct Parked {
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

impl State {
    pub(super) fn poll_handlers(&mut self, cx: &mut Context<'_>) -> bool {
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

    /// Handlers in flight.
    pub(super) fn running(&self) -> usize {
        let ended = self.conn.inner().ended.load(Ordering::SeqCst);
        usize::try_from(self.started - ended).unwrap_or(usize::MAX)
    }

    /// Whether the handlers that run have as many bytes of large events as may be. Their replies may be as large, and all of them have to
    /// find room in the outbox of a peer that reads late: four times `max_outbox`, of which half of one may be full already.
    pub(super) fn is_full_of_large(&self) -> bool {
        let bytes = self.started_bytes - self.conn.inner().ended_bytes.load(Ordering::SeqCst);
        bytes >= self.conn.hub().limits.max_outbox as u64 * 2
    }

    /// Whether one more handler may start.
    pub(super) fn can_start(&self) -> bool {
        let running = self.running();
        let hub = self.conn.hub();
        self.stage == Stage::Open
            && running < hub.limits.max_inflight
            && (running == 0 || (hub.has_room() && !self.is_full_of_large()))
    }

    pub(super) fn start_waiting(&mut self, cx: &mut Context<'_>) -> bool {
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
    pub(super) fn paused(&self) -> Paused {
        self.paused_at(&self.conn.inner().lock())
    }

    /// As [`paused`](Self::paused), under the lock.
    pub(super) fn paused_at(&self, shared: &Shared) -> Paused {
        if self.waiting_bytes >= MAX_WAITING {
            return Paused::Handlers;
        }
        if shared.outbox.replies() > self.conn.hub().limits.max_outbox / 2 {
            return Paused::Replies;
        }
        Paused::No
    }

    /// Reads and handles what comes. Answers whether something may be left to do (more to read, a handler that waits and has to be asked
    /// what for), and whether reading stands still as the peer does not take its replies. `fresh`: no handler has begun or ended here
    /// since the turn looked whether reading may go on.
    pub(super) fn read<T: Transport>(
        &mut self,
        transport: &mut T,
        cx: &mut Context<'_>,
        mut fresh: bool,
    ) -> (bool, bool) {
        let mut inner_cx = Context::from_waker(cx.waker());
        let mut progress = false;
        while self.budget > 0 && self.peer_end.is_none() {
            if !std::mem::take(&mut fresh) {
                self.pause = self.paused();
            }
            if self.pause != Paused::No {
                return (progress, self.pause == Paused::Replies);
            }
            let read = transport.poll_read(cx, &mut |item| self.receive(item, &mut inner_cx));
            match read {
                // Whoever makes it readable wakes us.
                Poll::Pending => return (progress && self.handlers.is_some(), false),
                Poll::Ready(Read::Some(bytes)) => {
                    progress = true;
                    self.bytes_in += bytes as u64;
                    self.watch.read(self.now);
                }
                Poll::Ready(Read::Violation(violation)) => {
                    // Whatever follows can't be understood: no closing handshake is possible, only our close frame.
                    self.conn.begin_close(violation.code, violation.reason, By::Core);
                    self.peer_end = Some(PeerEnd::Lost);
                    return (true, false);
                }
                Poll::Ready(Read::End(error)) => {
                    if let Some(error) = error {
                        tracing::debug!(target: "etp_ws", conn = %self.conn.id(), "the connection was lost: {error}");
                    }
                    self.peer_end = Some(PeerEnd::Lost);
                    self.conn.lost();
                    return (true, false);
                }
            }
        }
        (progress, false)
    }

    /// Takes one item from the wire; false ends reading for good.
    pub(super) fn receive(&mut self, item: Item<'_>, cx: &mut Context<'_>) -> bool {
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

    pub(super) fn message(&mut self, frame: &[u8], shared_frame: Option<&Bytes>, text: bool, cx: &mut Context<'_>) {
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

    pub(super) fn event(&mut self, event: Incoming<'_>, ack_id: u64, cx: &mut Context<'_>) {
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
    pub(super) fn handle(&mut self, event: Incoming<'_>, ack_id: u64, cx: &mut Context<'_>) {
        self.started += 1;
        let bytes = match event.payload.len() {
            large if large >= LARGE => large,
            _ => 0,
        };
        self.started_bytes += bytes as u64;
        let conn = &self.conn;
        let ticket = Ticket::new(conn, event.name, ack_id, bytes);
        let started = catch_unwind(AssertUnwindSafe(|| {
            let mut future = conn.hub().handler.event(conn, event, ticket)?;
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

    pub(super) fn pong(&mut self, data: &[u8]) {
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
}
