//! The seam between the core and whoever handles events: one narrow, synchronous trait, and the tickets it hands out.
//!
//! The core calls a [`Handler`] on the connection's own task and never holds a lock while it does. An implementation either does
//! its work at once and answers `None`, or returns a future that the connection's task will drive (Rust's closures do that), or
//! keeps the ticket, queues the event and completes the ticket later from any thread (a binding to another language does that).
//!
//! Each ticket counts until it is completed, failed or dropped: a [`Reply`] is one handler in flight, whether or not the peer
//! waits for an acknowledgment.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use compact_str::CompactString;
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::client::Client;
use crate::conn::{Conn, GiveUp, panic_message};
pub use crate::conn::{Held, Wakes};
use crate::disconnect::Disconnect;
use crate::error::{BoxError, Error, ErrorKind};
use crate::event::Incoming;
pub use crate::names::Names;
use crate::net::outbox::{Heading, Kind};
use crate::payload::{IntoPayload, Payload};
use crate::request::Request;
use crate::upgrade::{Accept, Reject};
use crate::websocket;

/// A future that the connection's task drives.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// What a binding, or the router of Rust's closures, implements.
///
/// Every method must return quickly; what takes time belongs in the future that is returned or behind the ticket. A panic is
/// caught and reported.
pub trait Handler: Send + Sync + 'static {
    /// A handshake asks to be let in. The default accepts. A ticket that is dropped answers 500.
    fn upgrade(&self, request: &Request, ticket: UpgradeTicket) -> Option<BoxFuture> {
        let _ = request;
        ticket.accept(Accept::new());
        None
    }

    /// A connection is there. No event of it is handled before the ticket is completed; a ticket that is failed or dropped closes
    /// the connection with 1011.
    fn connect(&self, conn: &Conn, ticket: ConnectTicket) -> Option<BoxFuture> {
        let _ = conn;
        ticket.complete();
        None
    }

    /// An event arrived. Events of one connection are started in the order of their arrival.
    fn event(&self, conn: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture>;

    /// Closing has begun, whoever began it: called once for each connection, on any thread, before its handlers have ended. Where
    /// [`Conn::closed`] would take a task for each connection.
    fn closing(&self, conn: &Conn) {
        let _ = conn;
    }

    /// The connection has ended; called once if [`connect`](Self::connect) was. A future that is returned gets a task of its own. A
    /// shutdown waits for it, and for the ticket.
    fn disconnect(&self, conn: &Conn, disconnect: Disconnect, ticket: DisconnectTicket) -> Option<BoxFuture> {
        let _ = (conn, disconnect, ticket);
        None
    }

    /// Four fifths of a shutdown's time are over: futures are dropped now, and tickets are not waited for any more. Called once.
    fn abandon(&self) {}

    /// Something failed that has no caller to be told. The default logs it. Called on any thread.
    fn error(&self, conn: Option<&Conn>, error: Error) -> Option<BoxFuture> {
        log(conn, &error);
        None
    }
}

/// What happens to errors when nobody takes them.
pub(crate) fn log(conn: Option<&Conn>, error: &Error) {
    let conn = conn.map(|conn| conn.id().to_string());
    // What any stranger can cause is no error of this program.
    match error.kind() {
        ErrorKind::HandshakeFailed | ErrorKind::ConnectFailed | ErrorKind::MalformedFrame => {
            tracing::warn!(target: "etp_ws", code = error.code(), conn, "{error}");
        }
        _ => tracing::error!(target: "etp_ws", code = error.code(), conn, "{error}"),
    }
}

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
        conn.reply(name, self.detach())
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

    /// As [`Reply::send_payload`].
    #[inline]
    pub fn send_payload(mut self, payload: &[u8], text: bool) {
        self.done = true;
        answer(self.conn, self.name, self.ack_id, payload, text);
    }

    /// As [`Reply::finish`].
    pub fn finish(self, outcome: Result<Payload, BoxError>) {
        match outcome {
            Ok(payload) => self.send_payload(&payload.bytes, payload.text),
            Err(error) => self.into_reply().fail(error),
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        ended(self.conn, self.name, self.done, self.bytes);
        self.conn.handlers_ended(1);
    }
}

/// What a [`Ticket`] is beside its connection and name: sixteen bytes that are moved in registers. Give it back to its connection, by
/// [`Conn::complete`], [`Conn::reply`] or [`Conn::let_go`]: until then its handler is in flight, also when this is dropped.
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
}

/// Detached tickets come back.
impl Conn {
    /// Ends the handlers of this connection that `next` tells, in this order, each with the payload of its acknowledgment: the name of its
    /// event, its ticket, the payload and whether that is text.
    ///
    /// A reply that can't be sent is reported to `on_error`; one to a connection that has ended is dropped.
    pub fn complete<'a>(&self, mut next: impl FnMut() -> Option<(&'a str, Detached, &'a [u8], bool)>) {
        if self.hub().limits.wire_log {
            while let Some((name, ticket, payload, text)) = next() {
                self.reply(name, ticket).send_payload(payload, text);
            }
            return;
        }
        let (mut count, mut bytes) = (0, 0);
        let errors = self.push_replies(|| {
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
            if error.kind() != ErrorKind::ConnectionClosed {
                self.report(error);
            }
        }
        if bytes > 0 {
            self.inner().ended_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        }
        self.handlers_ended(count);
    }

    /// The whole ticket of an event of this name.
    pub fn reply(&self, name: &str, ticket: Detached) -> Reply {
        Reply {
            conn: self.clone(),
            name: CompactString::new(name),
            ack_id: ticket.ack_id,
            done: false,
            bytes: ticket.bytes,
        }
    }

    /// Ends a handler of which nobody will hear any more, without a reply and without a report.
    pub fn let_go(&self, ticket: Detached) {
        if ticket.bytes > 0 {
            self.inner()
                .ended_bytes
                .fetch_add(ticket.bytes as u64, Ordering::SeqCst);
        }
        self.handlers_ended(1);
    }
}

/// Sends a reply, where one is wanted.
fn answer(conn: &Conn, name: &str, ack_id: u64, payload: &[u8], text: bool) {
    if ack_id == 0 {
        return;
    }
    let heading = Heading::Reply { name, ack_id };
    if let Err(error) = conn.push(Kind::Reply, heading, payload, text)
        && error.kind() != ErrorKind::ConnectionClosed
    {
        conn.report(error);
    }
}

/// What is to be done before a handler counts as ended, which may let another one start.
fn ended(conn: &Conn, name: &str, done: bool, bytes: usize) {
    // While a panic unwinds, whoever catches it reports it.
    if !done && !std::thread::panicking() && conn.is_open() {
        conn.report(Error::new(
            ErrorKind::HandlerFailed,
            format!("the handler of event {name:?} ended without an outcome"),
        ));
    }
    if bytes > 0 {
        conn.inner().ended_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }
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
        ended(&self.conn, &self.name, self.done, self.bytes);
        self.conn.handlers_ended(1);
    }
}

/// Whether bytes are valid UTF-8, and travel in a text message: for the `text` that the functions below ask for.
pub fn is_text(bytes: &[u8]) -> bool {
    websocket::is_text(bytes)
}

/// Who is told the outcome of a call that waits: a future of this crate, or a function of a foreign dispatcher that puts it into
/// its own batches. The function is called without a lock, on any thread, once; a panic of it is caught and logged.
pub struct Waiter<T>(Who<T>);

enum Who<T> {
    Future(oneshot::Sender<Result<T, Error>>),
    Call(Box<dyn FnOnce(Result<T, Error>) + Send>),
}

impl<T> Waiter<T> {
    /// A waiter that calls this function.
    pub fn call(f: impl FnOnce(Result<T, Error>) + Send + 'static) -> Self {
        Self(Who::Call(Box::new(f)))
    }

    pub(crate) fn future() -> (Self, oneshot::Receiver<Result<T, Error>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Who::Future(sender)), receiver)
    }

    pub(crate) fn done(self, outcome: Result<T, Error>) {
        match self.0 {
            // Whoever waited has given up.
            Who::Future(sender) => drop(sender.send(outcome)),
            Who::Call(f) => {
                // It may run in the midst of a connection's end: others wait behind it.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(outcome))) {
                    tracing::error!(target: "etp_ws", "a waiter panicked: {}", panic_message(&*panic));
                }
            }
        }
    }
}

impl<T> std::fmt::Debug for Waiter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiter")
    }
}

/// An acknowledgment that a foreign dispatcher awaits from a [`Client`], queued or sent: dropping this gives it up, if its outcome is
/// still to come.
#[must_use = "dropping it gives the acknowledgment up"]
pub struct Awaited(#[expect(dead_code, reason = "it is there to be dropped")] GiveUp);

impl std::fmt::Debug for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Awaited")
    }
}

impl Client {
    /// As [`Conn::emit_with_ack_to`], on the connection of the moment or through the queue for the time away.
    ///
    /// # Errors
    /// As [`Client::emit`], and `too_many_acks`; the waiter is dropped then.
    pub fn emit_with_ack_to(
        &self,
        name: &str,
        payload: Payload,
        timeout: Option<Duration>,
        waiter: Waiter<Payload>,
    ) -> Result<Awaited, Error> {
        self.push_acked(name, payload, timeout, waiter).map(Awaited)
    }
}

/// An acknowledgment that a foreign dispatcher awaits; give it to [`Conn::cancel_ack`] when the caller gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AckId(pub(crate) u64);

impl Conn {
    /// A number that a foreign dispatcher keeps with the connection, 0 at first: where its own object for it is.
    pub fn slot(&self) -> u64 {
        self.inner().slot.load(Ordering::Relaxed)
    }

    /// Sets that number. Nothing but the dispatcher reads it.
    pub fn set_slot(&self, slot: u64) {
        self.inner().slot.store(slot, Ordering::Relaxed);
    }

    /// Emits an event whose reply goes to `waiter`: for dispatchers that carry outcomes in batches of their own. Exactly one outcome
    /// comes, unless the call itself returns an error or the acknowledgment is cancelled.
    ///
    /// # Errors
    /// As [`Conn::emit`], and `too_many_acks`; the waiter is dropped then.
    pub fn emit_with_ack_to(
        &self,
        name: &str,
        payload: &[u8],
        text: bool,
        timeout: Option<Duration>,
        waiter: Waiter<Payload>,
    ) -> Result<AckId, Error> {
        let timeout = timeout.unwrap_or(self.hub().limits.ack_timeout);
        self.push_acked(name, payload, text, timeout, waiter).map(AckId)
    }

    /// Gives an acknowledgment up: its waiter is dropped, its reply will count as one that nobody waits for.
    pub fn cancel_ack(&self, id: AckId) {
        self.forget_ack(id.0);
    }

    /// Sends a ping; the round trip goes to `waiter`.
    pub fn ping_to(&self, waiter: Waiter<Duration>) {
        self.push_ping(waiter);
    }

    /// Tells `waiter` when the outbox has room again, at once if it has.
    pub fn drain_to(&self, waiter: Waiter<()>) {
        self.push_drain(waiter);
    }

    /// As [`Conn::emit`], of bytes of which it is known whether they are valid UTF-8.
    ///
    /// # Errors
    /// As [`Conn::emit`].
    pub fn emit_payload(&self, name: &str, payload: &[u8], text: bool) -> Result<(), Error> {
        self.push_event(name, payload, text)
    }
}
