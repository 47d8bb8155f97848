//! The tickets: who has one owes an outcome.

use std::sync::atomic::Ordering;

use compact_str::CompactString;
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::conn::Conn;
use crate::error::{BoxError, Error, ErrorKind};
use crate::net::outbox::{Heading, Kind};
use crate::payload::{IntoPayload, Payload};
use crate::upgrade::{Accept, Reject};

/// The ticket of a handshake.
#[derive(Debug)]
pub struct UpgradeTicket(pub(crate) oneshot::Sender<Result<Accept, Reject>>);

impl UpgradeTicket {
    /// Lets the connection in.
    pub fn accept(self, accept: Accept) {
        // The peer may have gone, or the time for the answer may be over.
        let _ = self.0.send(Ok(accept));
    }

    /// Turns it away.
    pub fn reject(self, reject: Reject) {
        let _ = self.0.send(Err(reject));
    }

    /// Turns it away with 500; the error goes to `on_error`, not to the peer.
    pub fn fail(self, error: impl Into<BoxError>) {
        self.reject(Reject::because(error));
    }
}

/// The ticket of `on_connect`.
#[derive(Debug)]
pub struct ConnectTicket {
    conn: Option<Conn>,
}

impl ConnectTicket {
    pub(crate) fn new(conn: Conn) -> Self {
        Self { conn: Some(conn) }
    }

    /// Events may be handled now.
    pub fn complete(mut self) {
        if let Some(conn) = self.conn.take() {
            conn.connect_done(true);
        }
    }

    /// The connection is closed with 1011, the error reported.
    pub fn fail(mut self, error: impl Into<BoxError>) {
        if let Some(conn) = self.conn.take() {
            conn.report(Error::new(ErrorKind::HandlerFailed, "on_connect failed").with_source(error));
            conn.connect_done(false);
        }
    }
}

impl Drop for ConnectTicket {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            if !std::thread::panicking() && conn.is_open() {
                conn.report(Error::new(
                    ErrorKind::HandlerFailed,
                    "on_connect ended without an outcome",
                ));
            }
            conn.connect_done(false);
        }
    }
}

/// The ticket of `on_disconnect`: a shutdown waits until it is dropped.
#[derive(Debug)]
pub struct DisconnectTicket(#[expect(dead_code, reason = "it is there to be dropped")] pub(crate) TaskTrackerToken);

/// The ticket of an event while its connection's link waits for it: a handler that ends at once completes it here; one that takes
/// longer, or is another thread's, makes a [`Reply`] of it.
///
/// Dropping it sends no reply and reports `handler_failed`, unless the connection is ending.
#[derive(Debug)]
pub struct Ticket<'a> {
    conn: &'a Conn,
    name: &'a str,
    ack_id: u64,
    /// Bytes of the event, if it is large.
    bytes: usize,
    /// There is nothing to report when it is dropped.
    done: bool,
}

impl<'a> Ticket<'a> {
    /// A handler that is in flight from now on; the connection has counted it already.
    #[inline]
    pub(crate) fn new(conn: &'a Conn, name: &'a str, ack_id: u64, bytes: usize) -> Self {
        conn.hub().inflight.fetch_add(1, Ordering::SeqCst);
        Self {
            conn,
            name,
            ack_id,
            bytes,
            done: false,
        }
    }

    /// Whether the peer waits for an acknowledgment. Where it does not, completing the ticket sends nothing.
    pub fn wants_reply(&self) -> bool {
        self.ack_id != 0
    }

    /// The ticket to keep.
    #[inline]
    pub fn into_reply(self) -> Reply {
        let (conn, name) = (self.conn, self.name);
        self.detach().into_reply(conn, name)
    }

    /// The ticket without its connection and its name, for a dispatcher that keeps those beside many of them.
    #[inline]
    pub fn detach(self) -> Detached {
        let detached = Detached {
            ack_id: self.ack_id,
            bytes: self.bytes,
        };
        // It is still in flight.
        std::mem::forget(self);
        detached
    }

    /// The connection that the event came on.
    pub fn conn(&self) -> &'a Conn {
        self.conn
    }

    /// The event's name.
    pub fn event_name(&self) -> &'a str {
        self.name
    }

    /// As [`Reply::send`].
    pub fn send(self, payload: impl IntoPayload) {
        match payload.into_payload() {
            Ok(payload) => self.send_payload(&payload.bytes, payload.text),
            Err(error) => self.fail(error),
        }
    }

    /// As [`Reply::send_payload`].
    #[inline]
    pub fn send_payload(mut self, payload: &[u8], text: bool) {
        self.done = true;
        answer(self.conn, self.name, self.ack_id, payload, text);
    }

    /// As [`Reply::fail`].
    pub fn fail(self, error: impl Into<BoxError>) {
        self.into_reply().fail(error);
    }

    /// As [`Reply::no_handler`].
    pub fn no_handler(self) {
        self.into_reply().no_handler();
    }

    /// As [`Reply::finish`].
    pub fn finish(self, outcome: Result<Payload, BoxError>) {
        match outcome {
            Ok(payload) => self.send_payload(&payload.bytes, payload.text),
            Err(error) => self.fail(error),
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        dropped(self.conn, self.name, self.done, self.bytes);
    }
}

/// What a [`Ticket`] is beside its connection and its event's name: sixteen bytes that are moved in registers, for a dispatcher that has the
/// rest of many of them in one place.
///
/// Its handler is in flight until it is given back, with the connection it came from, to one of its functions; dropping it gives nothing back.
#[derive(Debug)]
#[must_use = "its handler is in flight until it is given back"]
pub struct Detached {
    ack_id: u64,
    bytes: usize,
}

impl Detached {
    /// Whether the peer waits for an acknowledgment.
    pub fn wants_reply(&self) -> bool {
        self.ack_id != 0
    }

    /// The whole ticket of an event of this name.
    pub fn into_reply(self, conn: &Conn, name: &str) -> Reply {
        Reply {
            conn: conn.clone(),
            name: CompactString::new(name),
            ack_id: self.ack_id,
            bytes: self.bytes,
            done: false,
        }
    }

    /// Ends its handler without a reply and without a report: nobody is there who would hear of either.
    pub fn let_go(self, conn: &Conn) {
        ended(conn, 1, self.bytes);
    }

    /// Ends many handlers of one connection under one lock: those that `next` tells, in this order, each as [`Reply::send_payload`] would, with
    /// the name of its event, its ticket, the payload of its acknowledgment and whether that is text. `next` must not touch the connection.
    pub fn complete<'a>(conn: &Conn, mut next: impl FnMut() -> Option<(&'a str, Self, &'a [u8], bool)>) {
        if conn.hub().limits.wire_log {
            while let Some((name, ticket, payload, text)) = next() {
                ticket.into_reply(conn, name).send_payload(payload, text);
            }
            return;
        }
        let (mut count, mut bytes) = (0, 0);
        let errors = conn.push_replies(|| {
            loop {
                let (name, ticket, payload, text) = next()?;
                count += 1;
                bytes += ticket.bytes;
                if ticket.wants_reply() {
                    return Some((name, ticket.ack_id, payload, text));
                }
            }
        });
        for error in errors {
            report(conn, error);
        }
        ended(conn, count, bytes);
    }
}

/// Sends a reply, where one is wanted.
fn answer(conn: &Conn, name: &str, ack_id: u64, payload: &[u8], text: bool) {
    if ack_id == 0 {
        return;
    }
    let heading = Heading::Reply { name, ack_id };
    if let Err(error) = conn.push(Kind::Reply, heading, payload, text) {
        report(conn, error);
    }
}

/// A reply to a connection that has ended is nobody's loss.
fn report(conn: &Conn, error: Error) {
    if error.kind() != ErrorKind::ConnectionClosed {
        conn.report(error);
    }
}

/// A ticket is dropped.
fn dropped(conn: &Conn, name: &str, done: bool, bytes: usize) {
    // While a panic unwinds, whoever catches it reports it.
    if !done && !std::thread::panicking() && conn.is_open() {
        conn.report(Error::new(
            ErrorKind::HandlerFailed,
            format!("the handler of event {name:?} ended without an outcome"),
        ));
    }
    ended(conn, 1, bytes);
}

/// So many handlers have ended, and those of their events that were large had so many bytes.
fn ended(conn: &Conn, count: usize, bytes: usize) {
    if bytes > 0 {
        // First: that a handler has ended may let another one start.
        conn.inner().ended_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }
    conn.handlers_ended(count);
}

/// The ticket of an event: one handler in flight until it is completed, failed or dropped, on any thread.
///
/// Dropping it sends no reply and reports `handler_failed`, unless the connection is ending.
#[derive(Debug)]
pub struct Reply {
    conn: Conn,
    name: CompactString,
    ack_id: u64,
    /// There is nothing to report when it is dropped.
    done: bool,
    /// Bytes of its event, if it is large.
    bytes: usize,
}

impl Reply {
    /// The connection that the event came on.
    pub fn conn(&self) -> &Conn {
        &self.conn
    }

    /// The event's name.
    pub fn event_name(&self) -> &str {
        &self.name
    }

    /// Whether the peer waits for an acknowledgment. Where it does not, completing the ticket sends nothing.
    pub fn wants_reply(&self) -> bool {
        self.ack_id != 0
    }

    /// Ends the handler: the payload is the acknowledgment, where one is wanted.
    ///
    /// A reply that can't be sent (`message_too_large`, `invalid_payload`) is reported to `on_error`; one to a connection that has
    /// ended is dropped.
    pub fn send(self, payload: impl IntoPayload) {
        match payload.into_payload() {
            Ok(payload) => self.send_payload(&payload.bytes, payload.text),
            Err(error) => self.fail_with(error),
        }
    }

    /// As [`send`](Self::send), of bytes of which it is known whether they are valid UTF-8.
    pub fn send_payload(mut self, payload: &[u8], text: bool) {
        self.done = true;
        answer(&self.conn, &self.name, self.ack_id, payload, text);
    }

    /// Ends the handler without a reply; the error goes to `on_error`.
    pub fn fail(self, error: impl Into<BoxError>) {
        let error = error.into();
        let error = match error.downcast::<Error>() {
            // What the core itself found wrong keeps its own code.
            Ok(own) if matches!(own.kind(), ErrorKind::InvalidPayload | ErrorKind::NoHandler) => *own,
            Ok(own) => self.failed().with_source(own),
            Err(other) => self.failed().with_source(other),
        };
        self.fail_with(error);
    }

    /// Ends the handler without a reply: nobody handles such events.
    pub fn no_handler(self) {
        let error = Error::new(ErrorKind::NoHandler, format!("no handler for event {:?}", self.name));
        self.fail_with(error);
    }

    /// Ends the handler with what it returned.
    pub fn finish(self, outcome: Result<Payload, BoxError>) {
        match outcome {
            Ok(payload) => self.send_payload(&payload.bytes, payload.text),
            Err(error) => self.fail(error),
        }
    }

    fn failed(&self) -> Error {
        Error::new(
            ErrorKind::HandlerFailed,
            format!("the handler of event {:?} failed", self.name),
        )
    }

    fn fail_with(mut self, error: Error) {
        self.done = true;
        self.conn.report(error);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        dropped(&self.conn, &self.name, self.done, self.bytes);
    }
}
