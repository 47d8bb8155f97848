//! The seam between the core and whoever handles events: one narrow, synchronous trait, and the tickets it hands out.
//!
//! The core calls a [`Handler`] on the connection's own task and never holds a lock while it does. An implementation either does
//! its work at once and answers `None`, or returns a future that the connection's task will drive (Rust's closures do that), or
//! makes the ticket its own, queues the event and completes it later from any thread (a binding to another language does that).
//!
//! Each [`Ticket`] of an event is one handler in flight, whether or not the peer waits for an acknowledgment, until it is completed, failed
//! or dropped. It borrows; [`Ticket::into_reply`] makes a [`Reply`] of it, which can be kept, and [`Ticket::detach`] the smallest thing that
//! can.

mod ticket;
mod waiter;

use std::future::Future;
use std::pin::Pin;

pub use self::ticket::{ConnectTicket, Detached, DisconnectTicket, Reply, Ticket, UpgradeTicket};
pub use self::waiter::{AckId, Awaited, Waiter};
use crate::conn::Conn;
pub use crate::conn::{Held, Wakes};
use crate::disconnect::Disconnect;
use crate::error::{Error, ErrorKind};
use crate::event::Incoming;
pub use crate::names::Names;
use crate::request::Request;
use crate::upgrade::Accept;
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

/// Whether bytes are valid UTF-8, and travel in a text message: for the `text` that functions of tickets and connections ask for.
pub fn is_text(bytes: &[u8]) -> bool {
    websocket::is_text(bytes)
}
