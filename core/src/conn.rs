//! One connection: the handle that everybody holds, and the state behind it.
//!
//! Any thread may emit, join, close: such a call takes the connection's lock, appends or flags, wakes the link and returns. The
//! link (the connection's task) is the only one that reads, writes, and ends. Nothing is called while the lock is held.

mod ack;
mod identity;
mod push;
mod shared;
mod wakes;

pub use self::ack::EmitWithAck;
pub(crate) use self::ack::GiveUp;
pub use self::identity::{ConnId, Data};
pub(crate) use self::push::{check_close, check_name, panic_message, panicked, too_large};
pub(crate) use self::shared::{Awake, By, Phase, Shared};
pub use self::wakes::{Held, Wakes};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broadcast::{Broadcast, IntoRooms};
use crate::error::Error;
use crate::handler::Waiter;
use crate::hub::Hub;
use crate::net::outbox::Outbox;
use crate::payload::IntoPayload;
use crate::protocol::session::{self, Session};
use crate::request::Request;

/// A connection. Cloning is cheap; the connection lives on when all handles are gone, until one side closes it.
#[derive(Clone)]
pub struct Conn(Arc<Inner>);

pub(crate) struct Inner {
    id: u128,
    hub: Arc<Hub>,
    request: Request,
    data: Data,
    shared: Mutex<Shared>,
    /// Handlers of this connection that have ended: counted by tickets on any thread. The link knows how many it has started.
    pub(crate) ended: AtomicU64,
    /// Bytes of those events of theirs that are large.
    pub(crate) ended_bytes: AtomicU64,
    /// Whether the phase is [`Phase::Open`], to be read without the lock; written under it.
    pub(crate) open: AtomicBool,
    /// The link has events waiting for a handler to end.
    pub(crate) starved: AtomicBool,
    /// It stands in the hub's line for a handler of another connection to end.
    pub(crate) blocked: AtomicBool,
    /// A number of the dispatcher's own.
    pub(crate) slot: AtomicU64,
    /// Those who wait for closing to begin have been told.
    told_closing: AtomicBool,
    closed: OnceLock<CancellationToken>,
    last_rooms: OnceLock<Vec<Arc<str>>>,
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing is called under the lock, so a panic there is a bug of ours; the state is still the best there is.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler of another connection has ended: look again whether there is room.
    pub(crate) fn unblock(&self) {
        self.lock().wake();
    }
}

impl Conn {
    pub(crate) fn new(hub: Arc<Hub>, request: Request, data: http::Extensions, masked: bool) -> Self {
        let session = Session::new(session::Limits {
            max_pending_acks: hub.limits.max_pending_acks,
        });
        Self(Arc::new(Inner {
            id: rand::random(),
            hub,
            request,
            data: Data(Mutex::new(data)),
            shared: Mutex::new(Shared {
                outbox: Outbox::new(masked),
                session,
                phase: Phase::Open,
                close: None,
                connected: None,
                cut: false,
                drop_handlers: false,
                overrun: false,
                drains: Vec::new(),
                pings: VecDeque::new(),
                next_ping: 0,
                awake: Awake::Yes,
                waker: None,
                direct: None,
                ended: None,
                connect_ended: false,
            }),
            ended: AtomicU64::new(0),
            ended_bytes: AtomicU64::new(0),
            open: AtomicBool::new(true),
            starved: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            slot: AtomicU64::new(0),
            told_closing: AtomicBool::new(false),
            closed: OnceLock::new(),
            last_rooms: OnceLock::new(),
        }))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    pub(crate) fn id_bits(&self) -> u128 {
        self.0.id
    }

    /// The connection's id: random, 32 hexadecimal digits when displayed.
    pub fn id(&self) -> ConnId {
        ConnId(self.0.id)
    }

    /// The HTTP request that the connection began with. In a client: the one that was sent.
    pub fn request(&self) -> &Request {
        &self.0.request
    }

    /// Typed values that live with the connection.
    pub fn data(&self) -> &Data {
        &self.0.data
    }

    /// Emits an event. `Ok` means queued: it is sent in order, at most once.
    ///
    /// # Errors
    /// `connection_closed`, `outbox_full` (nothing is queued, the connection lives: await [`drain`](Self::drain)),
    /// `message_too_large`, `invalid_event`, `invalid_payload`.
    pub fn emit(&self, name: &str, payload: impl IntoPayload) -> Result<(), Error> {
        let payload = payload.into_payload()?;
        self.push_event(name, &payload.bytes, payload.text)
    }

    /// Emits an event and awaits the acknowledgment: exactly one outcome, decided at most 100 ms after the deadline.
    ///
    /// The event is queued when the returned value is first awaited. Set a deadline of its own with
    /// [`timeout`](EmitWithAck::timeout); the default is the option `ack_timeout`.
    ///
    /// # Errors
    /// `ack_timeout`, `connection_closed` as soon as the connection ends, `too_many_acks`, and those of [`emit`](Self::emit).
    ///
    /// # Cancellation
    /// Dropping the future gives the acknowledgment up; the event itself may have been sent.
    pub fn emit_with_ack<P: IntoPayload>(&self, name: impl Into<String>, payload: P) -> EmitWithAck {
        EmitWithAck::from_conn(self.clone(), name.into(), payload.into_payload())
    }

    /// Sends a ping and awaits the pong: the round-trip time.
    ///
    /// # Errors
    /// `connection_closed`; `ack_timeout` after the option `ping_timeout`.
    ///
    /// # Cancellation
    /// The pong is ignored.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let (waiter, outcome) = Waiter::future();
        self.push_ping(waiter);
        outcome.await.unwrap_or_else(|_| Err(self.0.lock().closed_error()))
    }

    /// Waits until at most half of `max_outbox` is queued: flow control for those who emit much.
    ///
    /// # Errors
    /// `connection_closed`.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn drain(&self) -> Result<(), Error> {
        let (waiter, outcome) = Waiter::future();
        self.push_drain(waiter);
        outcome.await.unwrap_or_else(|_| Err(self.0.lock().closed_error()))
    }

    /// Joins a room. A connection that has ended joins nothing.
    pub fn join(&self, room: impl AsRef<str>) {
        self.hub().rooms.join(self, room.as_ref());
    }

    /// Leaves a room.
    pub fn leave(&self, room: impl AsRef<str>) {
        self.hub().rooms.leave(self, room.as_ref());
    }

    /// The rooms it is in; in `on_disconnect` and later: those it was in last.
    pub fn rooms(&self) -> Vec<String> {
        if let Some(joined) = self.hub().rooms.of(self.0.id) {
            return joined;
        }
        let last = self.0.last_rooms.get().into_iter().flatten();
        last.map(ToString::to_string).collect()
    }

    /// A broadcast to the members of one or more rooms, this connection included if it is one:
    /// `conn.to("lobby").except(&conn).emit("say", "hi")`.
    pub fn to(&self, rooms: impl IntoRooms) -> Broadcast {
        Broadcast::to(self.hub().clone(), rooms)
    }

    /// Closes with code 1000: what was emitted before is sent, then the closing handshake, `close_timeout` in all. Closed by its server in
    /// this way a [`Client`](crate::Client) comes back; `close_with(1000, "why")` keeps it away.
    pub fn close(&self) {
        self.begin_close(1000, "", By::User);
    }

    /// Closes with a code and a reason.
    ///
    /// # Errors
    /// `invalid_option` if no endpoint may send the code (RFC 6455, 7.4) or the reason is longer than 123 bytes.
    pub fn close_with(&self, code: u16, reason: &str) -> Result<(), Error> {
        check_close(code, reason)?;
        self.begin_close(code, reason, By::User);
        Ok(())
    }

    /// Resolves when closing has begun, whoever began it: how a handler learns that its peer has left.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let token = self.0.closed.get_or_init(CancellationToken::new).clone();
        // The token may have been made after the end. Under the lock, so that either this or whoever begins to close sees the other.
        let open = self.0.lock().phase == Phase::Open;
        if !open {
            token.cancel();
        }
        token.cancelled_owned()
    }

    /// Whether closing has not begun. While a server shuts down it has: emits are still sent then, but nothing is received.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conn({})", self.id())
    }
}

impl PartialEq for Conn {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Conn {}

impl std::hash::Hash for Conn {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}
