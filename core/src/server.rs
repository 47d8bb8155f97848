//! The server: its options, the ways in, and its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request as HttpRequest, Response};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::broadcast::{Broadcast, IntoRooms};
use crate::conn::{Conn, ConnId};
use crate::error::{Error, ErrorKind};
use crate::handler::Handler;
use crate::hub::Hub;
use crate::limits::{Limits, duration, limit_setters};
use crate::net::accept::{Door, Granted, Refusal, negotiate};
use crate::net::link::Link;
use crate::net::origin::{Hosts, Origins};
use crate::net::stream::Stream;
use crate::net::transport::Transport;
use crate::payload::IntoPayload;
use crate::rooms::Selection;
use crate::router::{Router, handler_setters};
use crate::stats::Stats;
use crate::websocket::Role;

/// Handshake failures that `on_error` is told of in a second; the rest is counted.
const REPORTS_A_SECOND: u32 = 10;

/// A server. Cloning is cheap; all clones are the same server.
///
/// ```no_run
/// use etp_ws::{Bytes, Conn, Server};
///
/// # async fn run() -> Result<(), etp_ws::Error> {
/// let server = Server::builder()
///     .on_connect(|conn: Conn| conn.join("lobby"))
///     .on("hello", async |_conn: Conn, _data: Bytes| "hi")
///     .build()?;
/// server.listen("127.0.0.1:8080").await
/// # }
/// ```
#[derive(Clone)]
pub struct Server {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) hub: Arc<Hub>,
    pub(crate) options: Options,
    /// Connections and handshakes that hold a place.
    pub(crate) connections: AtomicUsize,
    failures: Mutex<(Option<Instant>, u32)>,
}

pub(crate) struct Options {
    pub(crate) origins: Origins,
    pub(crate) hosts: Hosts,
    pub(crate) path: String,
    pub(crate) handshake_timeout: Duration,
    pub(crate) upgrade_timeout: Duration,
    pub(crate) max_connections: Option<usize>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) trusted_proxies: Vec<ipnet::IpNet>,
    peer_addr: Option<PeerAddr>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

type PeerAddr = Box<dyn Fn(&http::Extensions) -> Option<SocketAddr> + Send + Sync>;

/// The options and handlers of a [`Server`] while they are gathered. Nothing is checked before [`build`](Self::build).
#[must_use = "a builder does nothing before `build`"]
pub struct ServerBuilder {
    limits: Limits,
    router: Router,
    handler: Option<Arc<dyn Handler>>,
    runtime: Option<Handle>,
    origins: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
    path: String,
    handshake_timeout: Duration,
    upgrade_timeout: Duration,
    max_connections: Option<usize>,
    shutdown_timeout: Duration,
    trusted_proxies: Vec<String>,
    peer_addr: Option<PeerAddr>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

#[cfg(feature = "tls")]
enum Tls {
    Files(PathBuf, PathBuf),
    Config(Arc<rustls::ServerConfig>),
}

impl ServerBuilder {
    limit_setters!(limits);
    handler_setters!(router);

    /// Called with every handshake, before a connection exists: authentication belongs here. It returns `()` or
    /// [`Accept`](crate::Accept) to let the client in, or `Err(`[`Reject`](crate::Reject)`)`. Any error turns into a 500 by `?`. Bounded by
    /// [`upgrade_timeout`](Self::upgrade_timeout).
    ///
    /// ```
    /// # use etp_ws::{Accept, Reject, Request, Server};
    /// # #[derive(Clone)] struct User(String);
    /// Server::builder().on_upgrade(async |request: Request| match request.token().as_deref() {
    ///     Some("secret") => Ok(Accept::new().data(User("ann".into()))),
    ///     _ => Err(Reject::new(401)),
    /// });
    /// ```
    pub fn on_upgrade<F, R, M>(mut self, f: F) -> Self
    where
        F: FnOnce(crate::Request) -> R + Clone + Send + Sync + 'static,
        R: crate::router::UpgradeOutcome<M>,
    {
        self.router.on_upgrade(f);
        self
    }

    /// Handles everything through this instead of closures: what a binding to another language does. The `on...` methods have
    /// no effect then.
    pub fn handler(mut self, handler: Arc<dyn Handler>) -> Self {
        self.handler = Some(handler);
        self
    }

    /// The runtime that connections run on. Without it: the one that the server is first used in.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Handlers that run at once on all connections; 65 536 by default. A connection that has none in flight may always start one.
    pub fn max_inflight_total(mut self, handlers: usize) -> Self {
        self.limits.max_inflight_total = handlers;
        self
    }

    /// Which web pages may connect: exact origins (`https://example.org`), `https://*.example.org`, `null`, or `"*"` alone. By
    /// default a page may connect to the host and port that it came from. Requests without an `Origin`, from anything but a
    /// browser, are always allowed. Others get 403.
    pub fn origins<S: Into<String>>(mut self, origins: impl IntoIterator<Item = S>) -> Self {
        self.origins = Some(origins.into_iter().map(Into::into).collect());
        self
    }

    /// Under which names a web page may reach our own listener on a loopback address (a guard against DNS rebinding); by default
    /// `localhost`, `127.0.0.1` and `[::1]`. Set it behind a proxy on the same machine; `"*"` alone allows all.
    pub fn hosts<S: Into<String>>(mut self, hosts: impl IntoIterator<Item = S>) -> Self {
        self.hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }

    /// The path of our own listener; `/ws` by default. Any other gets 404.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Time for a handshake on our own listener, TLS included; 10 s by default. Past it the connection is cut.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Time for `on_upgrade`; 5 s by default. Past it: 503.
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Self {
        self.upgrade_timeout = timeout;
        self
    }

    /// Connections at once; no limit by default. Past it: 503.
    pub fn max_connections(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.max_connections = connections.into();
        self
    }

    /// Time that [`Server::shutdown`] takes at most; 10 s by default.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Addresses and networks of proxies whose `X-Forwarded-For` is believed: see
    /// [`Request::client_ip`](crate::Request::client_ip). None by default.
    pub fn trusted_proxies<S: Into<String>>(mut self, proxies: impl IntoIterator<Item = S>) -> Self {
        self.trusted_proxies = proxies.into_iter().map(Into::into).collect();
        self
    }

    /// How a request that comes through the tower service or `accept` tells its peer's address; by default a `SocketAddr` among its
    /// extensions. In axum: `.peer_addr(|extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0))`.
    pub fn peer_addr(mut self, f: impl Fn(&http::Extensions) -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        self.peer_addr = Some(Box::new(f));
        self
    }

    /// TLS on our own listener, from PEM files of the certificate chain and its key.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, cert: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        self.tls = Some(Tls::Files(cert.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// TLS on our own listener, as rustls has it.
    #[cfg(feature = "tls")]
    pub fn tls_config(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(Tls::Config(config));
        self
    }

    /// The server.
    ///
    /// # Errors
    /// `invalid_option` for a limit, path, origin or TLS file that can't be; `invalid_event` for a handler's name.
    pub fn build(self) -> Result<Server, Error> {
        self.limits.check()?;
        duration("handshake_timeout", self.handshake_timeout)?;
        duration("upgrade_timeout", self.upgrade_timeout)?;
        duration("shutdown_timeout", self.shutdown_timeout)?;
        if self.max_connections == Some(0) {
            return Err(Error::option("max_connections is 0; it can be 1 or more, or None"));
        }
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
        if !self.path.starts_with('/') || !self.path.bytes().all(legal) {
            return Err(Error::option(format!(
                "path {:?} can't be; it begins with \"/\" and has no query",
                self.path
            )));
        }
        let origins = self.origins.as_deref().map_or(Ok(Origins::Same), Origins::parse)?;
        let hosts = self.hosts.as_deref().map_or(Ok(Hosts::Loopback), Hosts::parse)?;
        let trusted_proxies = self
            .trusted_proxies
            .iter()
            .map(|text| proxy(text))
            .collect::<Result<_, _>>()?;
        #[cfg(feature = "tls")]
        let tls = match self.tls {
            Some(Tls::Files(cert, key)) => Some(crate::net::tls::server_config(&cert, &key)?),
            Some(Tls::Config(config)) => Some(config),
            None => None,
        };
        let routes = self.router.build()?;
        let handler = self.handler.unwrap_or_else(|| Arc::new(routes));
        Ok(Server {
            inner: Arc::new(Inner {
                hub: Arc::new(Hub::new(self.limits, handler, self.runtime)),
                options: Options {
                    origins,
                    hosts,
                    path: self.path,
                    handshake_timeout: self.handshake_timeout,
                    upgrade_timeout: self.upgrade_timeout,
                    max_connections: self.max_connections,
                    shutdown_timeout: self.shutdown_timeout,
                    trusted_proxies,
                    peer_addr: self.peer_addr,
                    #[cfg(feature = "tls")]
                    tls,
                },
                connections: AtomicUsize::new(0),
                failures: Mutex::default(),
            }),
        })
    }
}

fn proxy(text: &str) -> Result<ipnet::IpNet, Error> {
    text.parse()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into))
        .map_err(|_| {
            Error::option(format!(
                "trusted proxy {text:?} can't be; write an address, \"10.0.0.1\", or a network, \"10.0.0.0/8\""
            ))
        })
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("conns", &self.inner.hub.rooms.len()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Reports a handshake that came to nothing, at most ten times a second.
    pub(crate) fn handshake_failed(&self, error: Error) {
        self.hub.counters.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let report = {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            match failures.0 {
                Some(since) if now - since < Duration::from_secs(1) => failures.1 += 1,
                _ => *failures = (Some(now), 1),
            }
            failures.1 <= REPORTS_A_SECOND
        };
        if report {
            self.hub.report(None, error);
        }
    }
}

impl Server {
    /// A server's options and handlers.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            limits: Limits::default(),
            router: Router::default(),
            handler: None,
            runtime: None,
            origins: None,
            hosts: None,
            path: "/ws".to_owned(),
            handshake_timeout: Duration::from_secs(10),
            upgrade_timeout: Duration::from_secs(5),
            max_connections: None,
            shutdown_timeout: Duration::from_secs(10),
            trusted_proxies: Vec::new(),
            peer_addr: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Binds an address and serves until [`shutdown`](Self::shutdown): [`bind`](Self::bind) and [`Bound::serve`] in one.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Cancellation
    /// Accepting stops; open connections live on.
    pub async fn listen(&self, addr: impl AsRef<str>) -> Result<(), Error> {
        self.bind(addr).await?.serve().await
    }

    /// Binds an address, `127.0.0.1:8080` or `[::]:0` or `localhost:0`; port 0 lets the system choose.
    ///
    /// # Errors
    /// `listen_failed` if the address is taken or forbidden; `invalid_option` if it is none.
    ///
    /// # Cancellation
    /// Nothing is bound.
    pub async fn bind(&self, addr: impl AsRef<str>) -> Result<Bound, Error> {
        let text = addr.as_ref();
        let wrong = || Error::option(format!("{text:?} is no address; write host and port, \"127.0.0.1:8080\""));
        if text.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
            return Err(wrong());
        }
        let addrs = tokio::net::lookup_host(text).await.map_err(|error| wrong().with_source(error))?;
        let failed = |error| Error::new(ErrorKind::ListenFailed, format!("can't listen on {text}")).with_source(error);
        let mut last = io::Error::other("no address found");
        for addr in addrs {
            match listen_on(addr) {
                Ok(listener) => return self.bind_listener(listener),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Serves on a listener of one's own: an inherited descriptor, special socket options.
    ///
    /// # Errors
    /// `listen_failed` if it has no local address.
    pub fn bind_listener(&self, listener: TcpListener) -> Result<Bound, Error> {
        let addr = listener
            .local_addr()
            .map_err(|error| Error::new(ErrorKind::ListenFailed, "the listener has no address").with_source(error))?;
        Ok(Bound {
            server: self.clone(),
            listener: Listener::Tcp(listener, addr),
        })
    }

    /// Binds a Unix socket. A socket file that a dead server left behind is replaced; anything else in its place is an error.
    ///
    /// # Errors
    /// `listen_failed`.
    ///
    /// # Cancellation
    /// Nothing is bound.
    pub async fn bind_unix(&self, path: impl AsRef<Path>) -> Result<Bound, Error> {
        let path = path.as_ref();
        let failed = |error| {
            Error::new(ErrorKind::ListenFailed, format!("can't listen on {}", path.display())).with_source(error)
        };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let dead = tokio::net::UnixStream::connect(path)
                    .await
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
                if !dead {
                    return Err(failed(error));
                }
                std::fs::remove_file(path).map_err(failed)?;
                UnixListener::bind(path).map_err(failed)?
            }
            bound => bound.map_err(failed)?,
        };
        Ok(Bound {
            server: self.clone(),
            listener: Listener::Unix(listener, path.to_owned()),
        })
    }

    /// Takes over a stream whose HTTP request somebody else has read: decides about the handshake, writes the answer, and serves
    /// the connection on the server's runtime. `leftover` is what was read behind the request's head.
    ///
    /// # Errors
    /// `handshake_failed` if the request is refused (the answer has been written) or the stream breaks.
    ///
    /// # Cancellation
    /// The stream is dropped.
    pub async fn accept<B, IO>(&self, request: HttpRequest<B>, mut io: IO, leftover: impl AsRef<[u8]>) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.inner.hub.runtime()?;
        let (parts, _) = request.into_parts();
        let door = Door {
            peer: self.peer_of(&parts.extensions),
            ..Door::FOREIGN
        };
        let broken = |error| Error::new(ErrorKind::HandshakeFailed, "the answer could not be written").with_source(error);
        match negotiate(&self.inner, &parts, door).await {
            Ok(mut granted) => {
                let head = head_bytes(&granted.answer());
                io.write_all(&head).await.map_err(broken)?;
                io.flush().await.map_err(broken)?;
                self.serve_stream(granted, io, leftover.as_ref());
                Ok(())
            }
            Err(refusal) => {
                let response = refusal.answer(&self.inner);
                let status = response.status();
                let mut bytes = head_bytes(&response);
                let body = http_body_util::BodyExt::collect(response.into_body()).await;
                bytes.extend_from_slice(&body.map(http_body_util::Collected::to_bytes).unwrap_or_default());
                io.write_all(&bytes).await.map_err(broken)?;
                // The answer has been written; how the stream ends is the caller's.
                let _ = io.shutdown().await;
                Err(Error::new(ErrorKind::HandshakeFailed, format!("the handshake was refused with {}", status.as_u16()))
                    .with_status(status.as_u16()))
            }
        }
    }

    fn peer_of(&self, extensions: &http::Extensions) -> Option<SocketAddr> {
        match &self.inner.options.peer_addr {
            Some(f) => f(extensions),
            None => extensions.get().copied(),
        }
    }

    /// Makes a connection of a granted handshake over a byte stream.
    fn serve_stream<IO>(&self, granted: Granted, io: IO, leftover: &[u8])
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let transport = Stream::new(io, Role::Server, &self.inner.hub.limits, leftover);
        let (conn, permit) = granted.connect(&self.inner);
        self.spawn_link(Link::new(conn, transport, Some(permit)));
    }

    /// Makes a connection over a message transport, for a request that another server has answered already. The origin rule and
    /// `on_upgrade` decide first.
    pub(crate) async fn serve_messages<B, T: Transport>(
        &self,
        request: HttpRequest<B>,
        transport: impl FnOnce(&Limits) -> T,
    ) -> Result<Conn, Error> {
        self.inner.hub.runtime()?;
        let (parts, _) = request.into_parts();
        let door = Door {
            peer: self.peer_of(&parts.extensions),
            ..Door::FOREIGN
        };
        match crate::net::accept::admit(&self.inner, &parts, door).await {
            Ok(granted) => {
                let transport = transport(&self.inner.hub.limits);
                let (conn, permit) = granted.connect(&self.inner);
                self.spawn_link(Link::new(conn.clone(), transport, Some(permit)));
                Ok(conn)
            }
            Err(refusal) => Err(refusal.into_error(&self.inner)),
        }
    }

    fn spawn_link<T: Transport>(&self, link: Link<T>) {
        // Whoever got this far has found the runtime.
        if let Ok(runtime) = self.inner.hub.runtime() {
            runtime.spawn(link);
        }
    }

    /// Emits to every connection.
    ///
    /// # Errors
    /// As [`Broadcast::emit`].
    pub fn emit(&self, name: &str, payload: impl IntoPayload) -> Result<crate::Reached, Error> {
        Broadcast::all(self.inner.hub.clone()).emit(name, payload)
    }

    /// A broadcast to the members of one or more rooms: `server.to(["a", "b"]).emit("news", "hi")`.
    pub fn to(&self, rooms: impl IntoRooms) -> Broadcast {
        Broadcast::to(self.inner.hub.clone(), rooms)
    }

    /// A broadcast to everybody but these connections or rooms.
    pub fn except(&self, whom: impl crate::broadcast::IntoExcept) -> Broadcast {
        Broadcast::all(self.inner.hub.clone()).except(whom)
    }

    /// All connections.
    pub fn conns(&self) -> Vec<Conn> {
        self.inner.hub.rooms.conns()
    }

    /// The connection of this id, if it is open.
    pub fn conn(&self, id: ConnId) -> Option<Conn> {
        self.inner.hub.rooms.conn(id.0)
    }

    /// The names of all rooms that have members.
    pub fn rooms(&self) -> Vec<String> {
        self.inner.hub.rooms.names()
    }

    /// The members of a room.
    pub fn members(&self, room: &str) -> Vec<Conn> {
        self.inner.hub.rooms.select(&Selection {
            rooms: Some(vec![room.to_owned()]),
            ..Selection::default()
        })
    }

    /// How many members a room has.
    pub fn member_count(&self, room: &str) -> usize {
        self.inner.hub.rooms.count(room)
    }

    /// Makes all members leave a room.
    pub fn clear_room(&self, room: &str) {
        self.inner.hub.rooms.clear(room);
    }

    /// What the server has done and holds at this moment.
    pub fn stats(&self) -> Stats {
        self.inner.hub.stats()
    }

    /// Ends the server within the option `shutdown_timeout`: accepting stops, received events are dropped, pending acknowledgments
    /// end with `connection_closed`, [`Conn::closed`] resolves; handlers get four fifths of the time, then are dropped; what is
    /// queued is sent, and every connection is closed with 1000 `server shutdown`, or cut at the end of the time.
    ///
    /// # Cancellation
    /// The server stays stopped; call it again to wait for the rest.
    pub async fn shutdown(&self) {
        self.inner.hub.shutdown(self.inner.options.shutdown_timeout).await;
    }

    /// As [`shutdown`](Self::shutdown), within this time.
    ///
    /// # Cancellation
    /// As [`shutdown`](Self::shutdown).
    pub async fn shutdown_within(&self, timeout: Duration) {
        self.inner.hub.shutdown(timeout).await;
    }
}

fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // A restarted server takes its port over while old connections linger (not on Windows, where it means another thing).
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

/// An HTTP/1.1 response head, for a stream that no HTTP library holds.
fn head_bytes(response: &Response<Full<Bytes>>) -> Vec<u8> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or("");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !status.is_informational() {
        let len = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
        bytes.extend_from_slice(format!("content-length: {len}\r\nconnection: close\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A server that is bound to an address and not serving yet.
#[must_use = "nobody is served before `serve`"]
pub struct Bound {
    server: Server,
    listener: Listener,
}

enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bound({})", self.url())
    }
}

impl Bound {
    /// The address that was bound; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(_, addr) => Some(*addr),
            Listener::Unix(..) => None,
        }
    }

    /// The URL to dial from this machine: `ws://127.0.0.1:8080/ws`, or `unix:` and the path of a Unix socket.
    pub fn url(&self) -> String {
        let options = &self.server.inner.options;
        match &self.listener {
            Listener::Tcp(_, addr) => {
                let ip = match addr.ip() {
                    std::net::IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
                    std::net::IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                #[cfg(feature = "tls")]
                let scheme = if options.tls.is_some() { "wss" } else { "ws" };
                #[cfg(not(feature = "tls"))]
                let scheme = "ws";
                format!("{scheme}://{}{}", SocketAddr::new(ip, addr.port()), options.path)
            }
            Listener::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// Accepts connections until the server is shut down, and returns when that has ended.
    ///
    /// # Errors
    /// `invalid_option` outside a tokio runtime if the builder was given none.
    ///
    /// # Cancellation
    /// Accepting stops; open connections live on.
    pub async fn serve(self) -> Result<(), Error> {
        let Self { server, listener } = self;
        let hub = server.inner.hub.clone();
        let runtime = hub.runtime()?.clone();
        let mut pause = Duration::from_millis(5);
        loop {
            let accepted = tokio::select! {
                () = hub.stopping.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(Socket::Tcp(stream, peer, loopback)) => {
                    // Events are small and wanted now; the outbox gathers what belongs together.
                    let _ = stream.set_nodelay(true);
                    let door = Door {
                        peer: Some(peer),
                        own: true,
                        loopback,
                    };
                    runtime.spawn(server.clone().handshake_tcp(stream, door));
                    pause = Duration::from_millis(5);
                }
                Ok(Socket::Unix(stream)) => {
                    let door = Door {
                        peer: None,
                        own: true,
                        loopback: false,
                    };
                    runtime.spawn(server.clone().handshake_bounded(stream, door));
                    pause = Duration::from_millis(5);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: those who are connected stay; accepting goes on when some have left.
                    server.inner.handshake_failed(
                        Error::new(ErrorKind::HandshakeFailed, "accepting pauses").with_source(error),
                    );
                    tokio::select! {
                        () = hub.stopping.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
        match listener {
            // Whoever dials from now on is refused at once.
            Listener::Tcp(listener, _) => drop(listener),
            Listener::Unix(listener, path) => {
                drop(listener);
                // It may have been removed by hand.
                let _ = std::fs::remove_file(path);
            }
        }
        hub.down.cancelled().await;
        Ok(())
    }
}

enum Socket {
    Tcp(tokio::net::TcpStream, SocketAddr, bool),
    Unix(tokio::net::UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener, addr) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Socket::Tcp(stream, peer, addr.ip().is_loopback()))
            }
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

/// An accept that failed because that one peer has gone.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
    )
}

impl Server {
    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_async, reason = "with TLS it waits"))]
    async fn handshake_tcp(self, stream: tokio::net::TcpStream, door: Door) {
        #[cfg(feature = "tls")]
        if let Some(config) = self.inner.options.tls.clone() {
            let deadline = Instant::now() + self.inner.options.handshake_timeout;
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            let accepted = tokio::select! {
                () = self.inner.hub.stopping.cancelled() => return,
                accepted = tokio::time::timeout_at(deadline, acceptor.accept(stream)) => accepted,
            };
            match accepted {
                Ok(Ok(stream)) => self.handshake_until(stream, door, deadline).await,
                Ok(Err(error)) => self.inner.handshake_failed(
                    Error::new(ErrorKind::HandshakeFailed, "the TLS handshake failed").with_source(error),
                ),
                Err(_) => self.too_slow(),
            }
            return;
        }
        self.handshake_bounded(stream, door).await;
    }

    async fn handshake_bounded<IO>(self, io: IO, door: Door)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let deadline = Instant::now() + self.inner.options.handshake_timeout;
        self.handshake_until(io, door, deadline).await;
    }

    async fn handshake_until<IO>(&self, io: IO, door: Door, deadline: Instant)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let done = tokio::select! {
            () = self.inner.hub.stopping.cancelled() => return,
            done = tokio::time::timeout_at(deadline, self.handshake(io, door)) => done,
        };
        if done.is_err() {
            self.too_slow();
        }
    }

    fn too_slow(&self) {
        self.inner.handshake_failed(Error::new(
            ErrorKind::HandshakeFailed,
            format!("no complete handshake within handshake_timeout ({:?})", self.inner.options.handshake_timeout),
        ));
    }

    /// Reads one request with hyper; a granted one turns into a connection with the typed stream and the bytes behind it.
    async fn handshake<IO>(&self, io: IO, door: Door)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let slot: Arc<Mutex<Option<Granted>>> = Arc::default();
        let service = hyper::service::service_fn(|request: HttpRequest<hyper::body::Incoming>| {
            let slot = slot.clone();
            async move {
                let (parts, _) = request.into_parts();
                let response = match negotiate(&self.inner, &parts, door).await {
                    Ok(mut granted) => {
                        let response = granted.answer();
                        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted);
                        response
                    }
                    Err(refusal) => {
                        let mut response = refusal.answer(&self.inner);
                        // One request a connection: whoever is refused dials anew.
                        response.headers_mut().append(http::header::CONNECTION, http::HeaderValue::from_static("close"));
                        response
                    }
                };
                Ok::<_, Infallible>(response)
            }
        });
        let conn = http1::Builder::new()
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(io), service);
        match conn.without_shutdown().await {
            Ok(parts) => {
                let granted = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                let mut io = parts.io.into_inner();
                match granted {
                    Some(granted) => self.serve_stream(granted, io, &parts.read_buf),
                    // The answer has been sent; the peer may be gone.
                    None => drop(io.shutdown().await),
                }
            }
            Err(error) => self.inner.handshake_failed(
                Error::new(ErrorKind::HandshakeFailed, "no HTTP request could be read").with_source(error),
            ),
        }
    }

    fn upgraded<B: Send + 'static>(&self, mut request: HttpRequest<B>) -> impl Future<Output = Response<Full<Bytes>>> + Send + use<B> {
        let server = self.clone();
        async move {
            let runtime = match server.inner.hub.runtime() {
                Ok(runtime) => runtime.clone(),
                Err(error) => return Refusal::internal(error).answer(&server.inner),
            };
            let on_upgrade = hyper::upgrade::on(&mut request);
            let (parts, body) = request.into_parts();
            drop(body);
            let door = Door {
                peer: server.peer_of(&parts.extensions),
                ..Door::FOREIGN
            };
            match negotiate(&server.inner, &parts, door).await {
                Ok(mut granted) => {
                    let response = granted.answer();
                    let timeout = server.inner.options.handshake_timeout;
                    runtime.spawn(async move {
                        match tokio::time::timeout(timeout, on_upgrade).await {
                            Ok(Ok(upgraded)) => server.serve_upgraded(granted, upgraded),
                            Ok(Err(error)) => server.inner.handshake_failed(
                                Error::new(ErrorKind::HandshakeFailed, "the HTTP server did not hand over the connection")
                                    .with_source(error),
                            ),
                            Err(_) => server.too_slow(),
                        }
                    });
                    response
                }
                Err(refusal) => refusal.answer(&server.inner),
            }
        }
    }

    fn serve_upgraded(&self, granted: Granted, upgraded: hyper::upgrade::Upgraded) {
        match upgraded.downcast::<TokioIo<tokio::net::TcpStream>>() {
            Ok(parts) => {
                let stream = parts.io.into_inner();
                let _ = stream.set_nodelay(true);
                self.serve_stream(granted, stream, &parts.read_buf);
            }
            Err(upgraded) => self.serve_stream(granted, TokioIo::new(upgraded), &[]),
        }
    }
}

/// Mounts in axum and every tower or hyper stack: `Router::new().route_service("/ws", server.clone())`.
///
/// The path is the router's matter then; the origin rule and all limits hold. The HTTP server must support upgrades (axum's does).
/// A `SocketAddr` among the request's extensions tells the peer's address; axum keeps its own as `ConnectInfo<SocketAddr>`, which a
/// layer of the application has to copy. End the connections with [`Server::shutdown`]: the HTTP server has handed them over.
impl<B: Send + 'static> tower_service::Service<HttpRequest<B>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
        let answered = self.upgraded(request);
        Box::pin(async move { Ok(answered.await) })
    }
}
