//! A server's options and handlers while they are gathered, and the check that they can be.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Inner, Server};
use crate::error::Error;
use crate::handler::Handler;
use crate::hub::Hub;
use crate::limits::{Limits, duration, limit_setters};
use crate::net::origin::{Hosts, Origins};
#[cfg(feature = "tls")]
use crate::net::tls::Pem;
use crate::router::{Router, handler_setters};

pub(crate) struct Options {
    pub(crate) origins: Origins,
    pub(crate) hosts: Hosts,
    pub(crate) path: String,
    pub(crate) handshake_timeout: Duration,
    pub(crate) upgrade_timeout: Duration,
    pub(crate) max_connections: Option<usize>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) trusted_proxies: Vec<ipnet::IpNet>,
    pub(super) peer_addr: Option<PeerAddr>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

pub(super) type PeerAddr = Box<dyn Fn(&http::Extensions) -> Option<SocketAddr> + Send + Sync>;

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
    Pem(Pem, Pem),
    Config(Arc<rustls::ServerConfig>),
}

impl ServerBuilder {
    pub(super) fn new() -> Self {
        Self {
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

    /// TLS on our own listener, from PEM of the certificate chain and its key: paths of files, or [`Pem::text`](crate::Pem::text).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, cert: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        self.tls = Some(Tls::Pem(cert.into(), key.into()));
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
            Some(Tls::Pem(cert, key)) => Some(crate::net::tls::server_config(&cert, &key)?),
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
        f.debug_struct("ServerBuilder")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
