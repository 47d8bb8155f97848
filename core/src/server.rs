//! The server: its options, the ways in, and its end.

mod admit;
mod builder;
mod listen;
mod mount;

pub use self::admit::Admitted;
use self::builder::Options;
pub use self::builder::ServerBuilder;
pub use self::listen::Bound;
use self::listen::{Listener, SocketFile, is_dead_socket, listen_on};
use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request as HttpRequest, Response};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::Instant;

use crate::broadcast::{Broadcast, IntoRooms};
use crate::conn::{Conn, ConnId};
use crate::error::{Error, ErrorKind};
use crate::hub::Hub;
use crate::net::accept::{Door, Granted, negotiate};
use crate::net::link::Link;
use crate::net::stream::Stream;
use crate::net::tcp::Tcp;
use crate::net::transport::Transport;
use crate::payload::IntoPayload;
use crate::rooms::Selection;
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

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("conns", &self.inner.hub.rooms.len())
            .finish_non_exhaustive()
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
        ServerBuilder::new()
    }

    /// Binds an address and serves until [`shutdown`](Self::shutdown): [`bind`](Self::bind) and [`Bound::serve`] in one. After a shutdown it
    /// returns at once: a server that has been shut down serves nobody any more.
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
        let wrong = || {
            Error::option(format!(
                "{text:?} is no address; write host and port, \"127.0.0.1:8080\""
            ))
        };
        if text
            .rsplit_once(':')
            .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            return Err(wrong());
        }
        let failed = |error| Error::new(ErrorKind::ListenFailed, format!("can't listen on {text}")).with_source(error);
        let bound = self.inner.hub.within(async {
            let addrs = tokio::net::lookup_host(text)
                .await
                .map_err(|error| wrong().with_source(error))?;
            let mut last = io::Error::other("no address found");
            for addr in addrs {
                match listen_on(addr) {
                    Ok(listener) => return self.bind_listener(listener),
                    Err(error) => last = error,
                }
            }
            Err(failed(last))
        });
        bound.await?
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
        let bound = self.inner.hub.within(async {
            match UnixListener::bind(path) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if !is_dead_socket(path).await {
                        return Err(error);
                    }
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                bound => bound,
            }
        });
        let listener = bound.await?.map_err(failed)?;
        Ok(Bound {
            server: self.clone(),
            listener: Listener::Unix(listener, SocketFile::of(path)),
        })
    }

    /// Serves on a listening Unix socket of one's own. Its file is left where it is.
    pub fn bind_unix_listener(&self, listener: UnixListener) -> Bound {
        Bound {
            server: self.clone(),
            listener: Listener::Unix(listener, SocketFile::foreign()),
        }
    }

    /// Takes over a stream whose HTTP request somebody else has read: decides about the handshake, writes the answer, and serves
    /// the connection on the server's runtime. `leftover` is what was read behind the request's head.
    ///
    /// # Errors
    /// `handshake_failed` if the request is refused (the answer has been written) or the stream breaks.
    ///
    /// # Cancellation
    /// The stream is dropped.
    pub async fn accept<B, IO>(
        &self,
        request: HttpRequest<B>,
        mut io: IO,
        leftover: impl AsRef<[u8]>,
    ) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.inner.hub.runtime()?;
        let (parts, _) = request.into_parts();
        let door = Door {
            peer: self.peer_of(&parts.extensions),
            ..Door::FOREIGN
        };
        let broken =
            |error| Error::new(ErrorKind::HandshakeFailed, "the answer could not be written").with_source(error);
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
                Err(Error::new(
                    ErrorKind::HandshakeFailed,
                    format!("the handshake was refused with {}", status.as_u16()),
                )
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
        let limits = &self.inner.hub.limits;
        let (conn, permit) = granted.connect(&self.inner);
        let mut io = Some(io);
        // A plain TCP stream, whatever brought it here.
        let tcp = (&mut io as &mut dyn Any).downcast_mut::<Option<TcpStream>>();
        if let Some(stream) = tcp.and_then(Option::take) {
            let tcp = Tcp::new(stream);
            conn.set_direct(tcp.direct());
            let transport = Stream::new(tcp, Role::Server, limits, leftover);
            self.spawn_link(Link::new(conn, transport, Some(permit)));
        } else if let Some(io) = io {
            let transport = Stream::new(io, Role::Server, limits, leftover);
            self.spawn_link(Link::new(conn, transport, Some(permit)));
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
