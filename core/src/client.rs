//! The client: dialling, the connection of the moment, coming back, and what waits meanwhile.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::conn::{By, Conn, EmitWithAck, GiveUp, check_name, too_large};
use crate::disconnect::Disconnect;
use crate::error::{BoxError, Error, ErrorKind};
use crate::handler::{Handler, Waiter};
use crate::hub::{Hub, Owner};
use crate::limits::{Limits, duration, limit_setters};
use crate::net::dial::{Dial, Failed, Target};
use crate::net::link::Link;
use crate::net::outbox::Heading;
use crate::net::pipe::{Pipe, Piped};
use crate::net::stream::Stream;
use crate::net::transport::Transport;
use crate::payload::{IntoPayload, Payload};
use crate::protocol::queue::{Queue, QueueId};
use crate::protocol::reconnect::{Backoff, Redial, should_reconnect};
use crate::request::Request;
use crate::router::{Router, handler_setters};
use crate::stats::Stats;
use crate::websocket::Role;

type Text = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;
type TextSource = Arc<dyn Fn() -> Text + Send + Sync>;
type ShouldReconnect = Arc<dyn Fn(&Disconnect) -> bool + Send + Sync>;

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

struct Inner {
    hub: Arc<Hub>,
    config: Config,
    live: Mutex<Live>,
    state: watch::Sender<State>,
    /// The application has closed the client.
    closing: CancellationToken,
    /// Something was queued: its deadline may be the next.
    queued: Notify,
}

struct Config {
    url: TextSource,
    auth: Option<TextSource>,
    headers: HeaderMap,
    dial_timeout: Duration,
    reconnect: Option<Reconnect>,
    should_reconnect: Option<ShouldReconnect>,
    queue: usize,
    #[cfg(feature = "tls")]
    tls: crate::net::tls::ClientTls,
}

/// The connection of the moment and what waits for the next.
struct Live {
    conn: Option<Conn>,
    /// Emits go to the queue: the client is away, or the queue is not sent yet.
    away: bool,
    queue: Queue<Payload, Waiter<Payload>>,
    /// Code and reason of the last connection's end.
    last: Option<(u16, String)>,
    /// Queued acknowledgments that have been sent meanwhile, until their callers are done.
    sent: HashMap<QueueId, (Conn, u64)>,
}

/// The options and handlers of a [`Client`] while they are gathered. Nothing is checked before it connects.
#[must_use = "a builder does nothing before `connect`"]
pub struct ClientBuilder {
    limits: Limits,
    router: Router,
    handler: Option<Arc<dyn Handler>>,
    runtime: Option<Handle>,
    auth: Option<TextSource>,
    headers: Vec<(String, String)>,
    dial_timeout: Duration,
    reconnect: Option<Reconnect>,
    should_reconnect: Option<ShouldReconnect>,
    queue: usize,
    #[cfg(feature = "tls")]
    tls: crate::net::tls::ClientTls,
}

impl ClientBuilder {
    limit_setters!(limits);
    handler_setters!(router);

    /// Handles everything through this instead of closures: what a binding to another language does.
    pub fn handler(mut self, handler: Arc<dyn Handler>) -> Self {
        self.handler = Some(handler);
        self
    }

    /// The runtime that the client runs on. Without it: the one that it connects in.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// A token that authenticates each dial, as `Authorization: Bearer`.
    pub fn auth(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.auth_fn(move || async move { Ok::<_, std::convert::Infallible>(token) })
    }

    /// Asks for the token anew at each dial.
    pub fn auth_fn<F, Fut, E>(mut self, f: F) -> Self
    where
        F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.auth = Some(text_source(f));
        self
    }

    /// A header of each handshake. `Host` replaces the one from the URL; headers of the handshake itself are refused.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Time for one dial: name, TCP, TLS and handshake together; 10 s by default. Past it: `connect_failed`.
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// How the client comes back after a lost connection; on by default, `None` turns it off.
    pub fn reconnect(mut self, reconnect: impl Into<Option<Reconnect>>) -> Self {
        self.reconnect = reconnect.into();
        self
    }

    /// Decides after which ends the client comes back. By default after all but its own close, 1008, and 1000 with a reason other
    /// than `server shutdown`.
    pub fn should_reconnect(mut self, f: impl Fn(&Disconnect) -> bool + Send + Sync + 'static) -> Self {
        self.should_reconnect = Some(Arc::new(f));
        self
    }

    /// Events that may wait while the client is away; none by default, and `emit` says `connection_closed` then. They are sent when
    /// `on_connect` has ended, so that a login comes first. An acknowledgment's deadline counts the time in the queue.
    pub fn queue(mut self, events: usize) -> Self {
        self.queue = events;
        self
    }

    /// Trusts the certificates in this PEM file instead of the system's.
    #[cfg(feature = "tls")]
    pub fn ca(mut self, pem: impl AsRef<std::path::Path>) -> Self {
        self.tls.ca = Some(pem.as_ref().to_owned());
        self
    }

    /// Shows a certificate of its own: PEM files of the chain and its key.
    #[cfg(feature = "tls")]
    pub fn client_cert(mut self, cert: impl AsRef<std::path::Path>, key: impl AsRef<std::path::Path>) -> Self {
        self.tls.identity = Some((cert.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// TLS as rustls has it, instead of `ca` and `client_cert`.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls.config = Some(config);
        self
    }

    /// Connects: one attempt, which says why it failed. When it returns, `on_connect` has ended.
    ///
    /// The URL is `ws://host:port/path`, `wss://...`, or `unix:` and the path of a socket.
    ///
    /// # Errors
    /// `connect_failed` (also if `on_connect` failed), `rejected` (401 and 403), `invalid_option`, `invalid_event` for a handler's name.
    ///
    /// # Cancellation
    /// The attempt is given up.
    pub async fn connect(self, url: impl Into<String>) -> Result<Client, Error> {
        let url = url.into();
        Target::parse(&url)?;
        self.connect_fn(move || async move { Ok::<_, std::convert::Infallible>(url) }).await
    }

    /// As [`connect`](Self::connect), with a URL that is asked for anew at each dial.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancellation
    /// As [`connect`](Self::connect).
    pub async fn connect_fn<F, Fut, E>(self, url: F) -> Result<Client, Error>
    where
        F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let client = self.build(text_source(url))?;
        let inner = &client.0.0;
        let (conn, link) = inner.dial().await.map_err(|failed| failed.error)?;
        client.begin(conn, link).await
    }

    /// A client over one end of an in-memory [`pipe`](crate::testing::pipe). It never reconnects.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancellation
    /// As [`connect`](Self::connect).
    pub async fn connect_pipe(self, pipe: Pipe) -> Result<Client, Error> {
        self.connect_over(|limits| Piped::new(pipe, limits)).await
    }

    /// A client over a WebSocket that the application dialled by itself. It never reconnects.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Cancellation
    /// As [`connect`](Self::connect).
    #[cfg(feature = "tokio-tungstenite")]
    pub async fn connect_websocket<S>(self, ws: tokio_tungstenite::WebSocketStream<S>) -> Result<Client, Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        self.connect_over(|limits| crate::net::tungstenite::Theirs::new(ws, limits)).await
    }

    async fn connect_over<T: Transport>(mut self, transport: impl FnOnce(&Limits) -> T) -> Result<Client, Error> {
        self.reconnect = None;
        let client = self.build(text_source(|| async { Err::<String, _>("there is no URL") }))?;
        let inner = &client.0.0;
        let runtime = inner.hub.runtime()?.clone();
        let conn = Conn::new(inner.hub.clone(), Request::bare("/"), http::Extensions::new(), false);
        let link = inner.begin_link(&runtime, &conn, transport(&inner.hub.limits));
        client.begin(conn, link).await
    }

    fn handshake_headers(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // The value may be a secret.
            let wrong = |why: &str| Error::option(format!("header {name:?} can't be sent: {why}"));
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("that is no name of a header"))?;
            let value = HeaderValue::from_str(value).map_err(|_| wrong("its value has other characters than visible ASCII"))?;
            match key.as_str() {
                "upgrade" | "connection" | "content-length" | "transfer-encoding" | "sec-websocket-key"
                | "sec-websocket-version" | "sec-websocket-accept" | "sec-websocket-extensions" => {
                    return Err(wrong("it belongs to the handshake"));
                }
                "authorization" if self.auth.is_some() => {
                    return Err(wrong("the option auth sends one already"));
                }
                "host" => drop(headers.insert(key, value)),
                _ => drop(headers.append(key, value)),
            }
        }
        Ok(headers)
    }

    fn build(self, url: TextSource) -> Result<Client, Error> {
        self.limits.check()?;
        duration("dial_timeout", self.dial_timeout)?;
        if let Some(reconnect) = &self.reconnect {
            duration("reconnect.base", reconnect.base)?;
            duration("reconnect.cap", reconnect.cap)?;
            if reconnect.cap < reconnect.base {
                return Err(Error::option(format!(
                    "reconnect.cap is {:?}, less than reconnect.base ({:?})",
                    reconnect.cap, reconnect.base
                )));
            }
        }
        let headers = self.handshake_headers()?;
        let routes = self.router.build()?;
        let handler = self.handler.unwrap_or_else(|| Arc::new(routes));
        let hub = Arc::new(Hub::new(self.limits, handler, self.runtime));
        hub.runtime()?;
        let inner = Arc::new(Inner {
            hub: hub.clone(),
            config: Config {
                url,
                auth: self.auth,
                headers,
                dial_timeout: self.dial_timeout,
                reconnect: self.reconnect,
                should_reconnect: self.should_reconnect,
                queue: self.queue,
                #[cfg(feature = "tls")]
                tls: self.tls,
            },
            live: Mutex::new(Live {
                conn: None,
                away: true,
                queue: Queue::new(self.queue),
                last: None,
                sent: HashMap::new(),
            }),
            state: watch::Sender::new(State::Connecting),
            closing: CancellationToken::new(),
            queued: Notify::new(),
        });
        let owner: Weak<Inner> = Arc::downgrade(&inner);
        hub.set_owner(owner);
        Ok(Client(Arc::new(Handles(inner))))
    }
}

fn text_source<F, Fut, E>(f: F) -> TextSource
where
    F: FnOnce() -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<String, E>> + Send + 'static,
    E: Into<BoxError>,
{
    Arc::new(move || {
        let text = (f.clone())();
        Box::pin(async move { text.await.map_err(Into::into) })
    })
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder").field("limits", &self.limits).finish_non_exhaustive()
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
        ClientBuilder {
            limits: Limits::default(),
            router: Router::default(),
            handler: None,
            runtime: None,
            auth: None,
            headers: Vec::new(),
            dial_timeout: Duration::from_secs(10),
            reconnect: Some(Reconnect::default()),
            should_reconnect: None,
            queue: 0,
            #[cfg(feature = "tls")]
            tls: crate::net::tls::ClientTls::default(),
        }
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
        let sent = live.sent.remove(&id);
        drop(live);
        drop(queued);
        if let Some((conn, ack_id)) = sent {
            conn.forget_ack(ack_id);
        }
    }
}

impl Live {
    /// The connection that emits go to, unless they have to wait in the queue.
    fn open_conn(&self, queue: usize) -> Option<Conn> {
        if self.away && queue > 0 {
            return None;
        }
        self.conn.clone()
    }

    /// That connection takes nothing any more: what comes now waits for the next, unless the next is there already.
    fn lost(&mut self, conn: &Conn) {
        if self.conn.as_ref().is_none_or(|now| now == conn) {
            self.away = true;
        }
    }

    fn closed(&self) -> Error {
        Error::closed(self.last.as_ref().map(|(code, reason)| (*code, reason.as_str())))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, name: &str, payload: &Payload) -> Result<(), Error> {
        check_name(name)?;
        // With an acknowledgment's id the frame is longer: the connection decides about those last bytes.
        let heading = Heading::Event { name, ack_id: 0 };
        let len = heading.frame_len(payload.bytes.len());
        let most = self.hub.limits.max_message_size;
        if len > most {
            return Err(too_large(heading, len, most));
        }
        Ok(())
    }

    /// Whether an event that its connection did not take may wait for the next one.
    fn may_queue(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::ConnectionClosed && self.config.queue > 0
    }

    fn check_queue(&self, live: &Live) -> Result<(), Error> {
        if self.config.queue == 0 || self.closing.is_cancelled() || *self.state.borrow() == State::Closed {
            return Err(live.closed());
        }
        Ok(())
    }

    fn queue_full(&self) -> Error {
        Error::new(
            ErrorKind::OutboxFull,
            format!("{} events wait already while the client is away (queue)", self.config.queue),
        )
    }

    fn emit(&self, name: &str, payload: Payload) -> Result<(), Error> {
        self.check(name, &payload)?;
        let mut live = self.lock();
        while let Some(conn) = live.open_conn(self.config.queue) {
            drop(live);
            match conn.push_event(name, &payload.bytes, payload.text) {
                Err(error) if self.may_queue(&error) => {}
                outcome => return outcome,
            }
            live = self.lock();
            live.lost(&conn);
        }
        self.check_queue(&live)?;
        live.queue.push(name, payload, None).map(drop).map_err(|_| self.queue_full())
    }

    fn close(&self, code: u16, reason: &str) {
        self.closing.cancel();
        let conn = self.lock().conn.clone();
        match conn {
            Some(conn) => conn.begin_close(code, reason, By::User),
            None if *self.state.borrow() == State::Connecting => self.close_for_good(),
            None => {}
        }
    }

    /// The end: whatever still waits is told.
    fn close_for_good(&self) {
        let mut lost = Vec::new();
        let mut live = self.lock();
        live.conn = None;
        live.away = true;
        live.queue.close(|waiter| lost.push(waiter));
        let error = live.closed();
        drop(live);
        self.state.send_replace(State::Closed);
        for waiter in lost {
            waiter.done(Err(error.clone()));
        }
    }

    fn begin_link<T: Transport>(&self, runtime: &Handle, conn: &Conn, transport: T) -> JoinHandle<()> {
        {
            let mut live = self.lock();
            live.conn = Some(conn.clone());
            live.away = true;
        }
        self.hub.register(conn);
        let link = runtime.spawn(Link::new(conn.clone(), transport, None));
        if self.closing.is_cancelled() {
            conn.begin_close(1000, "", By::User);
        }
        link
    }

    /// One attempt.
    async fn dial(&self) -> Result<(Conn, JoinHandle<()>), Failed> {
        let runtime = self.hub.runtime()?.clone();
        let failed = |what: &str, error: BoxError| Error::new(ErrorKind::ConnectFailed, what.to_owned()).with_source(error);
        let attempt = async {
            let url = (self.config.url)().await.map_err(|error| failed("the function for the URL failed", error))?;
            let target = Target::parse(&url)?;
            let token = match &self.config.auth {
                Some(auth) => Some(auth().await.map_err(|error| failed("the function of auth failed", error))?),
                None => None,
            };
            let dial = Dial {
                target: &target,
                headers: &self.config.headers,
                token,
                #[cfg(feature = "tls")]
                tls: &self.config.tls,
            };
            dial.dial().await
        };
        let dialled = match tokio::time::timeout(self.config.dial_timeout, attempt).await {
            Ok(dialled) => dialled?,
            Err(_) => {
                let what = format!("no connection within dial_timeout ({:?})", self.config.dial_timeout);
                return Err(Error::new(ErrorKind::ConnectFailed, what).into());
            }
        };
        let conn = Conn::new(self.hub.clone(), dialled.request, http::Extensions::new(), true);
        let transport = Stream::new(dialled.io, Role::Client, &self.hub.limits, &dialled.leftover);
        let link = self.begin_link(&runtime, &conn, transport);
        Ok((conn, link))
    }

    /// Lives with a connection to its end, and with the next.
    async fn live_on(self: Arc<Self>, conn: Conn, link: JoinHandle<()>) {
        let reconnect = self.config.reconnect.unwrap_or_default();
        let mut backoff = Backoff::new(reconnect.base, reconnect.cap, reconnect.reset_after);
        let (mut conn, mut link) = (conn, link);
        loop {
            let began = Instant::now();
            // A link that panicked has ended its connection while it was dropped.
            tokio::select! {
                _ = link => {}
                never = self.keep_queue() => match never {},
            }
            backoff.alive(began.elapsed());
            let end = conn.inner().lock().ended.clone();
            let again = end.as_ref().is_some_and(|end| end.will_reconnect);
            self.lock().last = end.map(|end| (end.code, end.reason));
            if !again || self.closing.is_cancelled() {
                return self.close_for_good();
            }
            {
                let mut live = self.lock();
                live.conn = None;
                live.away = true;
            }
            self.state.send_replace(State::Reconnecting);
            match self.come_back(&mut backoff).await {
                Some(next) => (conn, link) = next,
                None => return self.close_for_good(),
            }
        }
    }

    /// Dials until there is a connection, or no hope.
    async fn come_back(&self, backoff: &mut Backoff) -> Option<(Conn, JoinHandle<()>)> {
        loop {
            let delay = backoff.next_delay(rand::random());
            let attempt = async {
                tokio::time::sleep(delay).await;
                self.dial().await
            };
            let failed = tokio::select! {
                () = self.closing.cancelled() => return None,
                never = self.keep_queue() => match never {},
                outcome = attempt => match outcome {
                    Ok(next) => return Some(next),
                    Err(failed) => failed,
                },
            };
            let redial = Redial::after(failed.status);
            self.hub.report(None, failed.error);
            match redial {
                Redial::Rejected => return None,
                Redial::Busy => backoff.retry_after(failed.retry_after.unwrap_or_default()),
                Redial::BackOff => {}
            }
        }
    }

    /// Ends queued acknowledgments at their deadlines, for as long as it is polled.
    async fn keep_queue(&self) -> std::convert::Infallible {
        loop {
            let mut late = Vec::new();
            let next = {
                let mut live = self.lock();
                live.queue.expire(self.hub.now(), |waiter| late.push(waiter));
                live.queue.deadline()
            };
            for waiter in late {
                waiter.done(Err(Error::new(ErrorKind::AckTimeout, "no reply by the deadline: the client was away")));
            }
            match next {
                Some(at) => {
                    let _ = tokio::time::timeout_at(self.hub.instant(at), self.queued.notified()).await;
                }
                None => self.queued.notified().await,
            }
        }
    }
}

impl Owner for Inner {
    fn opened(&self, conn: &Conn) -> bool {
        let limits = &self.hub.limits;
        loop {
            let mut late = Vec::new();
            let mut live = self.lock();
            live.queue.expire(self.hub.now(), |waiter| late.push(waiter));
            let room = conn.room() >= limits.max_message_size + 64;
            let next = if room { live.queue.pop() } else { None };
            let more = !room && !live.queue.is_empty();
            let done = next.is_none() && !more;
            if done {
                live.away = false;
            }
            drop(live);
            for waiter in late {
                waiter.done(Err(Error::new(ErrorKind::AckTimeout, "no reply by the deadline: the client was away")));
            }
            let Some(queued) = next else {
                if done {
                    self.state.send_replace(State::Connected);
                }
                return more;
            };
            let payload = &queued.payload;
            match queued.ack {
                None => {
                    if let Err(error) = conn.push_event(&queued.name, &payload.bytes, payload.text) {
                        conn.report(error);
                    }
                }
                Some((waiter, deadline)) => {
                    match conn.push_acked_until(&queued.name, &payload.bytes, payload.text, deadline, waiter) {
                        Ok(ack_id) => {
                            self.lock().sent.insert(queued.id, (conn.clone(), ack_id));
                        }
                        Err((error, waiter)) => waiter.done(Err(error)),
                    }
                }
            }
        }
    }

    fn will_reconnect(&self, disconnect: &Disconnect) -> bool {
        if self.config.reconnect.is_none() || self.closing.is_cancelled() || *self.state.borrow() == State::Connecting {
            return false;
        }
        match &self.config.should_reconnect {
            Some(f) => f(disconnect),
            None => should_reconnect(disconnect.code, &disconnect.reason, false),
        }
    }
}
