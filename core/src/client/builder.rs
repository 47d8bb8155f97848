//! A client's options and handlers while they are gathered, and its first connection.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::conn::{Conn, panic_message};
use crate::disconnect::Disconnect;
use crate::error::{BoxError, Error};
use crate::handler::Handler;
use crate::hub::Hub;
use crate::limits::{Limits, duration, limit_setters};
use crate::net::dial::Target;
use crate::net::pipe::{Pipe, Piped};
use crate::net::transport::Transport;
use crate::protocol::queue::Queue;
use crate::request::Request;
use crate::router::{Router, handler_setters};

use super::life::{Inner, Live};
use super::{Client, Handles, Reconnect, State};

type Text = Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>>;
pub(super) type TextSource = Arc<dyn Fn() -> Text + Send + Sync>;
pub(super) type ShouldReconnect = Arc<dyn Fn(&Disconnect) -> bool + Send + Sync>;

pub(super) struct Config {
    pub(super) url: TextSource,
    pub(super) auth: Option<TextSource>,
    pub(super) headers: HeaderMap,
    pub(super) dial_timeout: Duration,
    pub(super) reconnect: Option<Reconnect>,
    pub(super) should_reconnect: Option<ShouldReconnect>,
    pub(super) queue: usize,
    #[cfg(feature = "tls")]
    pub(super) tls: crate::net::tls::ClientTls,
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
    pub(super) fn new() -> Self {
        Self {
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

    /// Trusts these certificates instead of the system's: a PEM file's path, or [`Pem::text`](crate::Pem::text).
    #[cfg(feature = "tls")]
    pub fn ca(mut self, pem: impl Into<crate::Pem>) -> Self {
        self.tls.ca = Some(pem.into());
        self
    }

    /// Shows a certificate of its own: PEM of the chain and its key, files or text.
    #[cfg(feature = "tls")]
    pub fn client_cert(mut self, cert: impl Into<crate::Pem>, key: impl Into<crate::Pem>) -> Self {
        self.tls.identity = Some((cert.into(), key.into()));
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
    /// The URL is `ws://host:port/path`, `wss://...`, or `unix:` and the path of a socket; `http://` and `https://` are read as these two.
    ///
    /// # Errors
    /// `connect_failed` (also if `on_connect` failed; its own error goes to `on_error`), `rejected` (401 and 403), `invalid_option`,
    /// `invalid_event` for a handler's name.
    ///
    /// # Cancellation
    /// The attempt is given up.
    pub async fn connect(self, url: impl Into<String>) -> Result<Client, Error> {
        let url = url.into();
        Target::parse(&url)?;
        self.connect_fn(move || async move { Ok::<_, std::convert::Infallible>(url) })
            .await
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
        self.connect_over(|limits| crate::net::tungstenite::Theirs::new(ws, limits))
            .await
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
            let value =
                HeaderValue::from_str(value).map_err(|_| wrong("its value has other characters than visible ASCII"))?;
            match key.as_str() {
                "upgrade"
                | "connection"
                | "content-length"
                | "transfer-encoding"
                | "sec-websocket-key"
                | "sec-websocket-version"
                | "sec-websocket-accept"
                | "sec-websocket-extensions" => {
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
        let f = f.clone();
        // A panic fails the dial, not the task that dials.
        let text = AssertUnwindSafe(async move { f().await.map_err(Into::into) }).catch_unwind();
        Box::pin(async move {
            text.await
                .unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_message(&*panic)).into()))
        })
    })
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
