//! One connection: the handle that everybody holds, and the state behind it.
//!
//! Any thread may emit, join, close: such a call takes the connection's lock, appends or flags, wakes the link and returns. The
//! link (the connection's task) is the only one that reads, writes, and ends. Nothing is called while the lock is held.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broadcast::{Broadcast, IntoRooms};
use crate::disconnect::Disconnect;
use crate::error::{Error, ErrorKind};
use crate::handler::Waiter;
use crate::hub::Hub;
use crate::net::outbox::{Encoded, Heading, Kind, Outbox};
use crate::net::wire;
use crate::payload::{IntoPayload, Payload};
use crate::protocol::session::{self, Session};
use crate::protocol::{Time, frame};
use crate::request::Request;
use crate::websocket::{Opcode, close_payload, is_sendable_close_code};

/// A connection. Cloning is cheap; the connection lives on when all handles are gone, until one side closes it.
#[derive(Clone)]
pub struct Conn(Arc<Inner>);

pub(crate) struct Inner {
    id: u128,
    hub: Arc<Hub>,
    request: Request,
    data: Data,
    shared: Mutex<Shared>,
    /// Handlers that run on this connection: moved by tickets on any thread.
    pub(crate) inflight: AtomicUsize,
    /// Whether the phase is [`Phase::Open`], to be read without the lock; written under it.
    pub(crate) open: AtomicBool,
    /// The link has events waiting for a handler to end.
    pub(crate) starved: AtomicBool,
    /// It stands in the hub's line for a handler of another connection to end.
    pub(crate) blocked: AtomicBool,
    closed: OnceLock<CancellationToken>,
    last_rooms: OnceLock<Vec<Arc<str>>>,
}

/// What is behind the lock.
pub(crate) struct Shared {
    pub(crate) outbox: Outbox,
    pub(crate) session: Session<Waiter<Payload>>,
    pub(crate) phase: Phase,
    /// The close code and reason that this side sent or echoed, once it did.
    pub(crate) close: Option<Close>,
    /// Outcome of `on_connect`, until the link has seen it.
    pub(crate) connected: Option<bool>,
    /// Cut without a handshake.
    pub(crate) cut: bool,
    /// Handlers that still run are dropped.
    pub(crate) drop_handlers: bool,
    /// A room message or a reply would have passed four times the limit.
    pub(crate) overrun: bool,
    /// A drain of a queue for the time away waits for room in the outbox.
    pub(crate) drains: Vec<Waiter<()>>,
    pub(crate) pings: VecDeque<PingWait>,
    next_ping: u64,
    /// The link is awake, or has been woken: nobody needs to wake it.
    pub(crate) awake: bool,
    pub(crate) waker: Option<Waker>,
    /// The link has ended; `on_disconnect` runs when `on_connect` has ended as well.
    pub(crate) ended: Option<Disconnect>,
    connect_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// The server is shutting down: received events are dropped, handlers end, then the connection closes.
    Draining,
    /// Our close frame is in the outbox.
    Closing,
    Ended,
}

#[derive(Clone, Debug)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) by: By,
}

/// Who began a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The application on this side.
    User,
    /// A limit or a rule of this side.
    Core,
    Peer,
}

pub(crate) struct PingWait {
    pub(crate) id: u64,
    pub(crate) sent: Instant,
    pub(crate) deadline: Time,
    pub(crate) waiter: Waiter<Duration>,
}

impl Shared {
    /// Wakes the link, if it sleeps.
    fn wake(&mut self) {
        if !self.awake {
            self.awake = true;
            if let Some(waker) = &self.waker {
                waker.wake_by_ref();
            }
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Open | Phase::Draining => Ok(()),
            Phase::Closing | Phase::Ended => Err(self.closed_error()),
        }
    }

    fn closed_error(&self) -> Error {
        let told = match (&self.ended, &self.close) {
            (Some(end), _) => Some((end.code, &*end.reason)),
            (None, Some(close)) => Some((close.code, &*close.reason)),
            (None, None) => match self.phase {
                Phase::Open => None,
                Phase::Draining => Some((1000, "server shutdown")),
                Phase::Closing | Phase::Ended => Some((1006, "")),
            },
        };
        Error::closed(told)
    }
}

/// Those who wait for something that a connection's end takes from them.
pub(crate) struct Lost {
    acks: Vec<Waiter<Payload>>,
    pings: Vec<Waiter<Duration>>,
    drains: Vec<Waiter<()>>,
    error: Error,
}

impl Lost {
    /// Tells them; the lock must not be held.
    pub(crate) fn tell(self) {
        for waiter in self.acks {
            waiter.done(Err(self.error.clone()));
        }
        for waiter in self.pings {
            waiter.done(Err(self.error.clone()));
        }
        for waiter in self.drains {
            waiter.done(Err(self.error.clone()));
        }
    }
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
                awake: true,
                waker: None,
                ended: None,
                connect_ended: false,
            }),
            inflight: AtomicUsize::new(0),
            open: AtomicBool::new(true),
            starved: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
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
        EmitWithAck {
            to: AckTarget::Conn(self.clone()),
            name: name.into(),
            payload: payload.into_payload(),
            timeout: None,
        }
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

    /// Closes with code 1000: what was emitted before is sent, then the closing handshake, `close_timeout` in all.
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
        // The token may have been made after the end.
        if !self.is_open() {
            token.cancel();
        }
        token.cancelled_owned()
    }

    /// Whether closing has not begun. While a server shuts down it has: emits are still sent then, but nothing is received.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Relaxed)
    }

    pub(crate) fn report(&self, error: Error) {
        self.hub().report(Some(self), error);
    }

    /// Appends a message; the limits of its kind decide.
    pub(crate) fn push(&self, kind: Kind, heading: Heading<'_>, payload: &[u8], text: bool) -> Result<(), Error> {
        self.check_size(heading, payload.len())?;
        let mut shared = self.0.lock();
        shared.check_open()?;
        self.check_room(&mut shared, kind, heading, payload.len())?;
        shared.outbox.push_message(kind, heading, payload, text);
        shared.wake();
        drop(shared);
        wire::sent(self, heading, payload);
        Ok(())
    }

    /// Sends a message back as it came, under the limits of a reply.
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
            Phase::Open => self
                .check_size(heading(shared.session.next_ack_id()), payload.len())
                .and_then(|()| self.check_room(&mut shared, Kind::Emit, heading(u64::MAX >> 1), payload.len())),
            _ => Err(shared.closed_error()),
        };
        if let Err(error) = checked {
            return Err((error, waiter));
        }
        match shared.session.register(name, deadline, waiter) {
            Ok(ack_id) => {
                shared.outbox.push_message(Kind::Emit, heading(ack_id), payload, text);
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
        shared.wake();
        true
    }

    fn check_size(&self, heading: Heading<'_>, payload: usize) -> Result<(), Error> {
        let most = self.hub().limits.max_message_size;
        let len = heading.frame_len(payload);
        if len <= most {
            return Ok(());
        }
        Err(too_large(heading, len, most))
    }

    fn check_room(&self, shared: &mut Shared, kind: Kind, heading: Heading<'_>, payload: usize) -> Result<(), Error> {
        let most = self.hub().limits.max_outbox;
        let queued = shared.outbox.queued();
        let len = heading.frame_len(payload);
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
        self.0.open.store(false, Ordering::Relaxed);
    }

    /// Begins the closing handshake, unless it has begun.
    pub(crate) fn begin_close(&self, code: u16, reason: &str, by: By) {
        let mut shared = self.0.lock();
        if !matches!(shared.phase, Phase::Open | Phase::Draining) {
            return;
        }
        let payload = if code == 1005 { Vec::new() } else { close_payload(code, reason) };
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

    pub(crate) fn closing_began(&self) {
        if let Some(token) = self.0.closed.get() {
            token.cancel();
        }
    }

    /// A ticket was completed, failed or dropped.
    pub(crate) fn handler_ended(&self) {
        let inner = self.inner();
        inner.inflight.fetch_sub(1, Ordering::SeqCst);
        if inner.starved.load(Ordering::SeqCst) && inner.starved.swap(false, Ordering::SeqCst) {
            inner.lock().wake();
        }
        self.hub().handler_ended();
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
        let call = std::panic::AssertUnwindSafe(|| hub.handler.disconnect(self, disconnect));
        match std::panic::catch_unwind(call) {
            Ok(None) => {}
            Ok(Some(future)) => hub.spawn(future),
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

impl Shared {
    /// Takes everybody who waits.
    fn lose(&mut self) -> Lost {
        let mut acks = Vec::new();
        self.session.close(|waiter| acks.push(waiter));
        Lost {
            acks,
            pings: self.pings.drain(..).map(|ping| ping.waiter).collect(),
            drains: std::mem::take(&mut self.drains),
            error: self.closed_error(),
        }
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

/// A connection's id: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub(crate) u128);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ConnId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match u128::from_str_radix(text, 16) {
            Ok(id) if text.len() == 32 && !text.starts_with('+') => Ok(Self(id)),
            _ => Err(Error::option("a connection id is 32 hexadecimal digits")),
        }
    }
}

/// Typed values that live with a connection, one of each type.
#[derive(Default)]
pub struct Data(Mutex<http::Extensions>);

impl Data {
    fn lock(&self) -> MutexGuard<'_, http::Extensions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a value, and answers the one of its type that it replaces.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) -> Option<T> {
        self.lock().insert(value)
    }

    /// A clone of the value of this type; share what is costly to clone in an `Arc`.
    pub fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.lock().get().cloned()
    }

    /// Takes the value of this type out.
    pub fn remove<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.lock().remove()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Data")
    }
}

/// An acknowledged emit that has not been sent yet: await it.
#[derive(Debug)]
#[must_use = "the event is emitted when this is awaited"]
pub struct EmitWithAck {
    to: AckTarget,
    name: String,
    payload: Result<Payload, Error>,
    timeout: Option<Duration>,
}

#[derive(Debug)]
pub(crate) enum AckTarget {
    Conn(Conn),
    Client(crate::client::Client),
}

impl EmitWithAck {
    pub(crate) fn from_client(client: crate::client::Client, name: String, payload: Result<Payload, Error>) -> Self {
        Self {
            to: AckTarget::Client(client),
            name,
            payload,
            timeout: None,
        }
    }

    /// The deadline of this acknowledgment, counted from when it is first awaited.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn send(self) -> Result<Bytes, Error> {
        let payload = self.payload?;
        let (waiter, outcome) = Waiter::future();
        let _giving_up = match &self.to {
            AckTarget::Conn(conn) => {
                let timeout = self.timeout.unwrap_or(conn.hub().limits.ack_timeout);
                let ack_id = conn.push_acked(&self.name, &payload.bytes, payload.text, timeout, waiter)?;
                GiveUp::Conn(conn.clone(), ack_id)
            }
            AckTarget::Client(client) => client.push_acked(&self.name, payload, self.timeout, waiter)?,
        };
        match outcome.await {
            Ok(outcome) => outcome.map(|payload| payload.bytes),
            Err(_) => Err(Error::closed(None)),
        }
    }
}

impl IntoFuture for EmitWithAck {
    type Output = Result<Bytes, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Gives an acknowledgment up when its caller's future is dropped.
pub(crate) enum GiveUp {
    Conn(Conn, u64),
    Queued(crate::client::Client, crate::protocol::queue::QueueId),
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        match self {
            Self::Conn(conn, ack_id) => conn.forget_ack(*ack_id),
            Self::Queued(client, id) => client.forget_queued(*id),
        }
    }
}
