//! The client: dialling, the connection of the moment, coming back, and what waits meanwhile.

mod builder;
mod life;

pub use self::builder::ClientBuilder;
use self::life::Inner;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::conn::{Conn, EmitWithAck, GiveUp};
use crate::error::{Error, ErrorKind};
use crate::handler::Waiter;
use crate::payload::{IntoPayload, Payload};
use crate::protocol::queue::QueueId;
use crate::stats::Stats;

/// Where a client is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It dials for the first time, or `on_connect` has not ended.
    Connecting,
    /// Events flow.
    Connected,
    /// The connection was lost; it dials again.
    Reconnecting,
    /// It is over: closed by the application, rejected, or told not to come back.
    Closed,
}

impl State {
    /// `connecting`, `connected`, `reconnecting` or `closed`, the same in every language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Closed => "closed",
        }
    }
}

/// How a client comes back: after a random time of at most `base` doubled with every attempt, up to `cap` ("full jitter"); it
/// begins anew after a connection that lived for `reset_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The most that the first wait takes; 0.5 s.
    pub base: Duration,
    /// The most that any wait takes; 30 s.
    pub cap: Duration,
    /// How long a connection must live for the next wait to be short again; 30 s.
    pub reset_after: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            reset_after: Duration::from_secs(30),
        }
    }
}

/// A client. Cloning is cheap; dropping the last handle closes the connection.
///
/// ```no_run
/// use std::time::Duration;
///
/// use etp_ws::{Bytes, Client, Conn};
///
/// # async fn run() -> Result<(), etp_ws::Error> {
/// let client = Client::builder()
///     .on("say", async |_: Conn, data: Bytes| println!("{data:?}"))
///     .connect("ws://127.0.0.1:8080/ws")
///     .await?;
/// let reply = client.emit_with_ack("hello", "you").timeout(Duration::from_secs(1)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Handles>);

/// Dropped with the last handle of the application; tasks hold the [`Inner`] alone.
struct Handles(Arc<Inner>);

impl Drop for Handles {
    fn drop(&mut self) {
        self.0.close(1000, "");
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.state().as_str())
    }
}

impl Client {
    /// A client's options and handlers.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Waits until `on_connect` has ended, then lets the client live on by itself.
    async fn begin(self, conn: Conn, link: JoinHandle<()>) -> Result<Self, Error> {
        let inner = self.0.0.clone();
        let mut state = inner.state.subscribe();
        let mut link = link;
        tokio::select! {
            // A connection that was there and is over already was there.
            biased;
            connected = state.wait_for(|state| *state == State::Connected) => {
                // The sender lives in `inner`.
                drop(connected);
            }
            _ = &mut link => {
                inner.close_for_good();
                let end = conn.inner().lock().ended.clone();
                let (code, reason) = end.map_or((1006, String::new()), |end| (end.code, end.reason));
                return Err(Error::new(
                    ErrorKind::ConnectFailed,
                    format!("the connection ended before on_connect had (code {code}, {reason:?})"),
                ));
            }
        }
        // Not tracked as a callback: nobody waits for it.
        inner.hub.runtime()?.spawn(inner.clone().live_on(conn, link));
        Ok(self)
    }

    /// Emits an event. `Ok` means queued: it is sent in order, at most once.
    ///
    /// # Errors
    /// `connection_closed` (while away, unless a [`queue`](ClientBuilder::queue) was asked for), `outbox_full` (also when that queue
    /// is full), `message_too_large`, `invalid_event`, `invalid_payload`.
    pub fn emit(&self, name: &str, payload: impl IntoPayload) -> Result<(), Error> {
        let payload = payload.into_payload()?;
        self.0.0.emit(name, payload)
    }

    /// Emits an event and awaits the acknowledgment, as [`Conn::emit_with_ack`]. One whose connection ends is not sent again: it
    /// ends with `connection_closed`.
    ///
    /// # Errors
    /// Those of [`Conn::emit_with_ack`] and of [`emit`](Self::emit).
    ///
    /// # Cancellation
    /// Dropping the future gives the acknowledgment up; the event itself may have been sent.
    pub fn emit_with_ack<P: IntoPayload>(&self, name: impl Into<String>, payload: P) -> EmitWithAck {
        EmitWithAck::from_client(self.clone(), name.into(), payload.into_payload())
    }

    /// Sends a ping and awaits the pong: the round-trip time.
    ///
    /// # Errors
    /// `connection_closed`; `ack_timeout` after the option `ping_timeout`.
    ///
    /// # Cancellation
    /// The pong is ignored.
    pub async fn ping(&self) -> Result<Duration, Error> {
        self.current()?.ping().await
    }

    /// Waits until at most half of `max_outbox` is queued.
    ///
    /// # Errors
    /// `connection_closed`.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn drain(&self) -> Result<(), Error> {
        self.current()?.drain().await
    }

    /// Where the client is in its life.
    pub fn state(&self) -> State {
        *self.0.0.state.borrow()
    }

    /// Waits until the client is in this state; returns the state that made it impossible if it is closed before.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn wait_for(&self, state: State) -> State {
        let mut states = self.0.0.state.subscribe();
        let reached = states.wait_for(|now| *now == state || *now == State::Closed).await;
        reached.map_or(State::Closed, |state| *state)
    }

    /// Resolves when the client is over. The future holds no handle: it keeps nothing alive.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut states = self.0.0.state.subscribe();
        async move {
            // A client that is gone is over as well.
            let _ = states.wait_for(|state| *state == State::Closed).await;
        }
    }

    /// The connection of the moment, if there is one.
    pub fn conn(&self) -> Option<Conn> {
        self.0.0.lock().conn.clone()
    }

    /// What the client has done and holds at this moment, over all its connections.
    pub fn stats(&self) -> Stats {
        self.0.0.hub.stats()
    }

    /// Closes with code 1000 and waits for the end: what was emitted before is sent, `close_timeout` in all.
    ///
    /// # Cancellation
    /// The closing goes on.
    pub async fn close(&self) {
        self.0.0.close(1000, "");
        self.wait_for(State::Closed).await;
    }

    /// Closes with a code and a reason, and waits for the end.
    ///
    /// # Errors
    /// `invalid_option` if the code can't be sent or the reason is longer than 123 bytes.
    ///
    /// # Cancellation
    /// The closing goes on.
    pub async fn close_with(&self, code: u16, reason: &str) -> Result<(), Error> {
        crate::conn::check_close(code, reason)?;
        self.0.0.close(code, reason);
        self.wait_for(State::Closed).await;
        Ok(())
    }

    fn current(&self) -> Result<Conn, Error> {
        let live = self.0.0.lock();
        live.conn.clone().ok_or_else(|| live.closed())
    }

    pub(crate) fn push_acked(
        &self,
        name: &str,
        payload: Payload,
        timeout: Option<Duration>,
        waiter: Waiter<Payload>,
    ) -> Result<GiveUp, Error> {
        let inner = &self.0.0;
        let timeout = timeout.unwrap_or(inner.hub.limits.ack_timeout);
        let deadline = inner.hub.now().after(timeout);
        inner.check(name, &payload)?;
        let mut waiter = waiter;
        let mut live = inner.lock();
        while let Some(conn) = live.open_conn(inner.config.queue) {
            drop(live);
            match conn.push_acked_until(name, &payload.bytes, payload.text, deadline, waiter) {
                Ok(ack_id) => return Ok(GiveUp::Conn(conn, ack_id)),
                Err((error, back)) if inner.may_queue(&error) => waiter = back,
                Err((error, _)) => return Err(error),
            }
            live = inner.lock();
            live.lost(&conn);
        }
        inner.check_queue(&live)?;
        match live.queue.push(name, payload, Some((waiter, deadline))) {
            Ok(id) => {
                drop(live);
                inner.queued.notify_one();
                Ok(GiveUp::Queued(self.clone(), id))
            }
            Err(_) => Err(inner.queue_full()),
        }
    }

    pub(crate) fn forget_queued(&self, id: QueueId) {
        let mut live = self.0.0.lock();
        let queued = live.queue.cancel(id);
        let sent = live.sent.remove(&id).flatten();
        drop(live);
        drop(queued);
        if let Some((conn, ack_id)) = sent {
            conn.forget_ack(ack_id);
        }
    }
}
