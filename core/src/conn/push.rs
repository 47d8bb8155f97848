//! What the rest of the crate does to a connection, from any thread: append, end, count.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use crate::disconnect::Disconnect;
use crate::error::{Error, ErrorKind};
use crate::handler::{DisconnectTicket, Waiter};
use crate::net::outbox::{Encoded, Heading, Kind};
use crate::net::tcp::Direct;
use crate::net::wire;
use crate::payload::Payload;
use crate::protocol::{Time, frame};
use crate::websocket::{Opcode, close_payload, is_sendable_close_code};

use super::Conn;
use super::shared::{Awake, By, Close, Lost, Phase, PingWait, Shared};

/// Bytes that a thread other than the connection's own writes at most: copying more to the kernel takes longer than waking.
const MOST_DIRECT: usize = 16 * 1024;

impl Conn {
    pub(crate) fn report(&self, error: Error) {
        self.hub().report(Some(self), error);
    }

    /// Appends a message; the limits of its kind decide.
    pub(crate) fn push(&self, kind: Kind, heading: Heading<'_>, payload: &[u8], text: bool) -> Result<(), Error> {
        self.push_into(&mut self.0.lock(), kind, heading, payload, text)?;
        wire::sent(self, heading, payload);
        Ok(())
    }

    fn push_into(
        &self,
        shared: &mut Shared,
        kind: Kind,
        heading: Heading<'_>,
        payload: &[u8],
        text: bool,
    ) -> Result<(), Error> {
        let opening = heading.opening(payload.len());
        let len = opening.len() + payload.len();
        self.check_size(heading, len)?;
        shared.check_open()?;
        self.check_room(shared, kind, len)?;
        shared.outbox.push_message(kind, &opening, payload, text);
        shared.wake_to_write(self);
        Ok(())
    }

    /// Appends replies while `next` has some for this connection. Those that could not be sent are told with their errors: a report is
    /// nothing to do under the lock.
    pub(crate) fn push_replies<'a>(
        &self,
        mut next: impl FnMut() -> Option<(&'a str, u64, &'a [u8], bool)>,
    ) -> Vec<Error> {
        let mut errors = Vec::new();
        let mut shared = self.0.lock();
        while let Some((name, ack_id, payload, text)) = next() {
            let heading = Heading::Reply { name, ack_id };
            if let Err(error) = self.push_into(&mut shared, Kind::Reply, heading, payload, text) {
                errors.push(error);
            }
        }
        errors
    }

    /// Sends a message back as it came, under the limits of a reply.
    #[cfg(feature = "echo-for-conformance")]
    pub(crate) fn push_echo(&self, message: &[u8], text: bool) {
        let mut shared = self.0.lock();
        if shared.phase != Phase::Open {
            return;
        }
        if shared.outbox.queued() + message.len() > self.hub().limits.max_outbox.saturating_mul(4) {
            shared.overrun = true;
        } else {
            shared.outbox.push_bare(Kind::Reply, message, text);
        }
        shared.wake();
    }

    pub(crate) fn push_event(&self, name: &str, payload: &[u8], text: bool) -> Result<(), Error> {
        check_name(name)?;
        self.push(Kind::Emit, Heading::Event { name, ack_id: 0 }, payload, text)
    }

    pub(crate) fn push_acked(
        &self,
        name: &str,
        payload: &[u8],
        text: bool,
        timeout: Duration,
        waiter: Waiter<Payload>,
    ) -> Result<u64, Error> {
        let deadline = self.hub().now().after(timeout);
        self.push_acked_until(name, payload, text, deadline, waiter)
            .map_err(|(error, _)| error)
    }

    pub(crate) fn push_acked_until(
        &self,
        name: &str,
        payload: &[u8],
        text: bool,
        deadline: Time,
        waiter: Waiter<Payload>,
    ) -> Result<u64, (Error, Waiter<Payload>)> {
        let heading = |ack_id| Heading::Event { name, ack_id };
        if let Err(error) = check_name(name) {
            return Err((error, waiter));
        }
        let mut shared = self.0.lock();
        let checked = match shared.phase {
            Phase::Open => {
                let next = heading(shared.session.next_ack_id());
                let len = next.frame_len(payload.len());
                self.check_size(next, len)
                    .and_then(|()| self.check_room(&mut shared, Kind::Emit, len))
            }
            _ => Err(shared.closed_error()),
        };
        if let Err(error) = checked {
            return Err((error, waiter));
        }
        match shared.session.register(name, deadline, waiter) {
            Ok(ack_id) => {
                let opening = heading(ack_id).opening(payload.len());
                shared.outbox.push_message(Kind::Emit, &opening, payload, text);
                shared.wake();
                drop(shared);
                wire::sent(self, heading(ack_id), payload);
                Ok(ack_id)
            }
            Err(waiter) => {
                let error = Error::new(
                    ErrorKind::TooManyAcks,
                    format!(
                        "{} acknowledgments are awaited already (max_pending_acks)",
                        self.hub().limits.max_pending_acks
                    ),
                );
                Err((error, waiter))
            }
        }
    }

    pub(crate) fn forget_ack(&self, ack_id: u64) {
        let waiter = self.0.lock().session.cancel(ack_id);
        drop(waiter);
    }

    pub(crate) fn push_ping(&self, waiter: Waiter<Duration>) {
        let deadline = self.hub().now().after(self.hub().limits.ping_timeout);
        let mut shared = self.0.lock();
        if shared.phase != Phase::Open {
            let error = shared.closed_error();
            drop(shared);
            return waiter.done(Err(error));
        }
        let id = shared.next_ping;
        shared.next_ping += 1;
        shared.outbox.push_control(Opcode::Ping, &id.to_be_bytes());
        shared.pings.push_back(PingWait {
            id,
            sent: Instant::now(),
            deadline,
            waiter,
        });
        shared.wake();
    }

    pub(crate) fn push_drain(&self, waiter: Waiter<()>) {
        let mut shared = self.0.lock();
        if let Err(error) = shared.check_open() {
            drop(shared);
            return waiter.done(Err(error));
        }
        if shared.outbox.queued() <= self.hub().limits.max_outbox / 2 {
            drop(shared);
            return waiter.done(Ok(()));
        }
        shared.drains.push(waiter);
    }

    /// Appends a room's message; false if the connection can't take it.
    pub(crate) fn push_encoded(&self, encoded: &Encoded) -> bool {
        let mut shared = self.0.lock();
        if !matches!(shared.phase, Phase::Open | Phase::Draining) || shared.overrun {
            return false;
        }
        if shared.outbox.queued() + encoded.len() > self.hub().limits.max_outbox.saturating_mul(4) {
            shared.overrun = true;
            shared.wake();
            return false;
        }
        shared.outbox.push_encoded(encoded);
        shared.wake_to_write(self);
        true
    }

    /// From now on other threads may write to the connection's stream while its link sleeps.
    pub(crate) fn set_direct(&self, direct: Direct) {
        self.0.lock().direct = Some(direct);
    }

    /// Writes what lies in the outbox, if the link sleeps and was to be woken for nothing else. Answers the waker of a link that has to
    /// be woken. The lock is held meanwhile, for one system call that does not wait.
    pub(super) fn write_now(&self) -> Option<Waker> {
        let mut shared = self.0.lock();
        let awake = shared.awake;
        // It was woken by something else meanwhile, and has seen to this.
        if awake == Awake::No {
            return None;
        }
        if awake == Awake::ToWrite && self.write_directly(&mut shared) {
            shared.awake = Awake::No;
            return None;
        }
        shared.waker.clone()
    }

    /// Whether everything in the outbox has been written.
    fn write_directly(&self, shared: &mut Shared) -> bool {
        let Some(direct) = &shared.direct else { return false };
        let nothing_else = shared.phase == Phase::Open
            && !shared.overrun
            && shared.drains.is_empty()
            && shared.outbox.queued() <= MOST_DIRECT;
        if !nothing_else {
            return false;
        }
        // What went wrong the link finds out as well, whose matter it is.
        let Ok(wrote) = shared.outbox.write_whole(|bytes| direct.try_write(bytes)) else {
            return false;
        };
        let counters = &self.hub().counters;
        counters.bytes_out.fetch_add(wrote as u64, Ordering::Relaxed);
        if shared.outbox.queued() > 0 {
            return false;
        }
        let messages = shared.outbox.take_messages();
        counters.messages_out.fetch_add(messages, Ordering::Relaxed);
        shared.outbox.trim();
        true
    }

    /// Whether a frame of this length may be sent.
    fn check_size(&self, heading: Heading<'_>, len: usize) -> Result<(), Error> {
        let most = self.hub().limits.max_message_size;
        if len <= most {
            return Ok(());
        }
        Err(too_large(heading, len, most))
    }

    /// Whether a frame of this length has room.
    fn check_room(&self, shared: &mut Shared, kind: Kind, len: usize) -> Result<(), Error> {
        let most = self.hub().limits.max_outbox;
        let queued = shared.outbox.queued();
        match kind {
            Kind::Emit if queued > 0 && queued + len > most => Err(Error::new(
                ErrorKind::OutboxFull,
                format!("{queued} bytes are queued already (max_outbox is {most}); await drain()"),
            )),
            Kind::Reply | Kind::Room if queued + len > most.saturating_mul(4) => {
                shared.overrun = true;
                shared.wake();
                Err(shared.closed_error())
            }
            _ => Ok(()),
        }
    }

    fn leave_open(&self, shared: &mut Shared, phase: Phase) {
        shared.phase = phase;
        self.0.open.store(false, Ordering::SeqCst);
    }

    /// Begins the closing handshake, unless it has begun.
    pub(crate) fn begin_close(&self, code: u16, reason: &str, by: By) {
        let mut shared = self.0.lock();
        if !matches!(shared.phase, Phase::Open | Phase::Draining) {
            return;
        }
        let payload = if code == 1005 {
            Vec::new()
        } else {
            close_payload(code, reason)
        };
        shared.outbox.push_control(Opcode::Close, &payload);
        self.leave_open(&mut shared, Phase::Closing);
        shared.close = Some(Close {
            code,
            reason: reason.to_owned(),
            by,
        });
        let lost = shared.lose();
        shared.wake();
        drop(shared);
        self.closing_began();
        lost.tell();
    }

    /// The peer has gone without a close frame: what is pending ends at once.
    pub(crate) fn lost(&self) {
        let mut shared = self.0.lock();
        if !matches!(shared.phase, Phase::Open | Phase::Draining) {
            return;
        }
        self.leave_open(&mut shared, Phase::Closing);
        let lost = shared.lose();
        drop(shared);
        self.closing_began();
        lost.tell();
    }

    /// The server shuts down: what is pending ends, received events are dropped from now on.
    pub(crate) fn begin_drain(&self) {
        let mut shared = self.0.lock();
        if shared.phase != Phase::Open {
            return;
        }
        self.leave_open(&mut shared, Phase::Draining);
        let lost = shared.lose();
        shared.wake();
        drop(shared);
        self.closing_began();
        lost.tell();
    }

    pub(crate) fn drop_handlers(&self) {
        let mut shared = self.0.lock();
        shared.drop_handlers = true;
        shared.wake();
    }

    pub(crate) fn cut(&self) {
        let mut shared = self.0.lock();
        shared.cut = true;
        shared.wake();
    }

    /// Tells everybody that closing has begun; more than once does nothing.
    pub(crate) fn closing_began(&self) {
        if self.0.told_closing.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(token) = self.0.closed.get() {
            token.cancel();
        }
        let call = std::panic::AssertUnwindSafe(|| self.hub().handler.closing(self));
        if let Err(panic) = std::panic::catch_unwind(call) {
            self.report(panicked("closing", &*panic));
        }
    }

    /// So many tickets were completed, failed or dropped.
    pub(crate) fn handlers_ended(&self, count: usize) {
        let inner = self.inner();
        inner.ended.fetch_add(count as u64, Ordering::SeqCst);
        // A link that drains waits for the last handler to end, though no event waits for it.
        let draining = !inner.open.load(Ordering::SeqCst);
        if draining || (inner.starved.load(Ordering::SeqCst) && inner.starved.swap(false, Ordering::SeqCst)) {
            inner.lock().wake();
        }
        self.hub().handlers_ended(count);
    }

    pub(crate) fn connect_done(&self, ok: bool) {
        let mut shared = self.0.lock();
        shared.connect_ended = true;
        shared.connected = Some(ok);
        shared.wake();
        let ended = shared.ended.clone();
        drop(shared);
        if let Some(disconnect) = ended {
            self.call_disconnect(disconnect);
        }
    }

    /// The link has ended. Answers those to tell, and whether `on_disconnect` is due now rather than when `on_connect` ends.
    pub(crate) fn end(&self, disconnect: &Disconnect) -> (Lost, bool) {
        let mut shared = self.0.lock();
        self.leave_open(&mut shared, Phase::Ended);
        shared.direct = None;
        shared.ended = Some(disconnect.clone());
        let connect_ended = shared.connect_ended;
        (shared.lose(), connect_ended)
    }

    pub(crate) fn keep_rooms(&self, rooms: Vec<Arc<str>>) {
        // A connection ends once.
        let _ = self.0.last_rooms.set(rooms);
    }

    pub(crate) fn call_disconnect(&self, disconnect: Disconnect) {
        let hub = self.hub();
        let call = std::panic::AssertUnwindSafe(|| {
            let ticket = DisconnectTicket(hub.tasks.token());
            hub.handler.disconnect(self, disconnect, ticket)
        });
        match std::panic::catch_unwind(call) {
            Ok(None) => {}
            Ok(Some(future)) => {
                let conn = self.clone();
                hub.spawn(async move {
                    if let Err(panic) = std::panic::AssertUnwindSafe(future).catch_unwind().await {
                        conn.report(panicked("on_disconnect", &*panic));
                    }
                });
            }
            Err(panic) => self.report(panicked("on_disconnect", &*panic)),
        }
    }

    /// Bytes that a direct emit may still add to the outbox.
    pub(crate) fn room(&self) -> usize {
        let queued = self.0.lock().outbox.queued();
        if queued == 0 {
            return usize::MAX;
        }
        self.hub().limits.max_outbox.saturating_sub(queued)
    }

    /// Acknowledgments pending and bytes queued.
    pub(crate) fn load(&self) -> (usize, usize) {
        let shared = self.0.lock();
        (shared.session.pending(), shared.outbox.queued())
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    frame::check_name(name).map_err(|defect| {
        // A name may be as long as a message: quote its beginning only.
        let shown: String = name.chars().take(64).collect();
        Error::new(ErrorKind::InvalidEvent, format!("{shown:?}: {defect}"))
    })
}

pub(crate) fn check_close(code: u16, reason: &str) -> Result<(), Error> {
    if !is_sendable_close_code(code) {
        return Err(Error::option(format!(
            "close code {code} can't be sent; use 1000, or 3000 to 4999 for codes of your own"
        )));
    }
    if reason.len() > 123 {
        return Err(Error::option(format!(
            "the close reason is {} bytes long; it can be 123",
            reason.len()
        )));
    }
    Ok(())
}

pub(crate) fn too_large(heading: Heading<'_>, len: usize, most: usize) -> Error {
    let (what, name) = match heading {
        Heading::Event { name, .. } => ("event", name),
        Heading::Reply { name, .. } => ("the reply to event", name),
    };
    Error::new(
        ErrorKind::MessageTooLarge,
        format!("{what} {name:?} is {len} bytes long, max_message_size is {most}"),
    )
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    match panic.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => "a value that is not text".to_owned(),
    }
}

pub(crate) fn panicked(what: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    Error::new(
        ErrorKind::HandlerFailed,
        format!("{what} panicked: {}", panic_message(panic)),
    )
}
