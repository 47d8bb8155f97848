//! The server's own listener: binding, accepting, and the handshake of what was accepted.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request as HttpRequest;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

use super::Server;
use crate::error::{Error, ErrorKind, chain};
use crate::net::accept::{Door, Granted, MAX_HEADER_BYTES, negotiate};

/// How long a refused peer may take to read its answer.
const LINGER: Duration = Duration::from_secs(2);

pub(super) fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
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

/// Whether a path holds a socket that nobody listens on any more.
pub(super) async fn is_dead_socket(path: &Path) -> bool {
    // A file that is no socket refuses as well.
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && tokio::net::UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The file of a Unix socket.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode, to know it again.
    id: Option<(u64, u64)>,
}

impl SocketFile {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            id: Self::id(path),
        }
    }

    /// The file of a listener that somebody else made.
    pub(super) fn foreign() -> Self {
        Self {
            path: PathBuf::new(),
            id: None,
        }
    }

    fn id(path: &Path) -> Option<(u64, u64)> {
        let file = std::fs::symlink_metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    }

    /// Removes the file, unless somebody else's has taken its place. The listener must still be open: it keeps the inode from
    /// being given to another file.
    fn remove(&self) {
        if self.id.is_some() && Self::id(&self.path) == self.id {
            // It may have been removed by hand.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A server that is bound to an address and not serving yet.
#[must_use = "nobody is served before `serve`"]
pub struct Bound {
    pub(super) server: Server,
    pub(super) listener: Listener,
}

pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
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
            Listener::Unix(listener, file) if file.id.is_none() => {
                let addr = listener.local_addr().ok();
                let path = addr.as_ref().and_then(|addr| addr.as_pathname());
                format!("unix:{}", path.unwrap_or(&file.path).display())
            }
            Listener::Unix(_, file) => format!("unix:{}", file.path.display()),
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
        let hub = self.server.inner.hub.clone();
        hub.within(self.accept_all()).await?
    }

    async fn accept_all(self) -> Result<(), Error> {
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
            Listener::Unix(listener, file) => {
                file.remove();
                drop(listener);
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
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl Server {
    async fn handshake_tcp(self, stream: tokio::net::TcpStream, door: Door) {
        #[cfg(feature = "tls")]
        if let Some(config) = self.inner.options.tls.clone() {
            let deadline = Instant::now() + self.inner.options.handshake_timeout;
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            let accepted = tokio::select! {
                () = self.inner.hub.stopping.cancelled() => return,
                accepted = tokio::time::timeout_at(deadline, acceptor.accept(stream).into_fallible()) => accepted,
            };
            match accepted {
                Ok(Ok(stream)) => self.handshake_until(stream, door, deadline).await,
                Ok(Err((error, stream))) => {
                    self.inner.handshake_failed(
                        Error::new(ErrorKind::HandshakeFailed, "the TLS handshake failed").with_source(error),
                    );
                    self.linger(stream).await;
                }
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
        match done {
            Ok(None) => {}
            Ok(Some(io)) => self.linger(io).await,
            Err(_) => self.too_slow(),
        }
    }

    /// Ends a stream on which a refusal has been written. Closed with bytes unread it would be reset, and a peer that is reset may
    /// lose what it has not read yet.
    async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(&self, mut io: IO) {
        let farewell = async {
            let mut discard = [0; 1024];
            let ended = io.shutdown().await;
            while ended.is_ok() && io.read(&mut discard).await.is_ok_and(|read| read > 0) {}
        };
        tokio::select! {
            () = self.inner.hub.stopping.cancelled() => {}
            // However it ends: the answer has been sent, and the peer may be gone.
            _ = tokio::time::timeout(LINGER, farewell) => {}
        }
    }

    pub(super) fn too_slow(&self) {
        self.inner.handshake_failed(Error::new(
            ErrorKind::HandshakeFailed,
            format!(
                "no complete handshake within handshake_timeout ({:?})",
                self.inner.options.handshake_timeout
            ),
        ));
    }

    /// Reads one request with hyper; a granted one turns into a connection with the typed stream and the bytes behind it. Answers
    /// the stream of one that came to nothing.
    async fn handshake<IO>(&self, io: IO, door: Door) -> Option<IO>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let slot: Arc<Mutex<Option<Granted>>> = Arc::default();
        let service = hyper::service::service_fn(|request: HttpRequest<hyper::body::Incoming>| {
            let slot = slot.clone();
            Box::pin(async move {
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
                        response
                            .headers_mut()
                            .append(http::header::CONNECTION, http::HeaderValue::from_static("close"));
                        response
                    }
                };
                Ok::<_, Infallible>(response)
            })
        });
        let mut conn = http1::Builder::new()
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(io), service);
        let served = std::future::poll_fn(|cx| conn.poll_without_shutdown(cx)).await;
        let parts = conn.into_parts();
        let io = parts.io.into_inner();
        if let Err(error) = served {
            self.inner.handshake_failed(
                Error::new(ErrorKind::HandshakeFailed, "no HTTP request could be read").with_source(chain(&error)),
            );
            return Some(io);
        }
        let granted = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        match granted {
            Some(granted) => {
                self.serve_stream(granted, io, &parts.read_buf);
                None
            }
            None => Some(io),
        }
    }
}
