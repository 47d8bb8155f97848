//! A server at work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use etp_ws::handler::UpgradeTicket;
use etp_ws::{
    Accept, Bound as Listening, Broadcast, Conn, ConnId, Error, ErrorKind, Pem, Reject, Server, ServerBuilder, http,
};
use http::{HeaderName, HeaderValue};
use napi::Env;
use napi::bindgen_prelude::{Either, JsObjectValue, JsValue, Object, Uint8Array};
use napi::sys;
use napi_derive::napi;

use crate::bridge::Bridge;
use crate::conn::{describe, payload_of};
use crate::dispatch::{Dispatch, Routes};
use crate::error::{Failure, invalid_option, misuse};
use crate::kept::{Data, Kept};
use crate::options::{count, duration, limits, millis, option};
use crate::pump::{Pump, Site, What};
use crate::queue::{End, Item, Queue, SiteId, Value};
use crate::text::Payload;

/// Among the extensions of a request that came through an `http.Server`: the number of its `IncomingMessage`.
#[derive(Clone)]
pub(crate) struct Attached(pub(crate) u32);

/// PEM, or the path of a file of it.
pub(crate) fn pem(value: Either<String, Uint8Array>) -> Pem {
    match value {
        Either::A(text) if text.contains("-----BEGIN") => Pem::text(text),
        Either::A(path) => path.into(),
        Either::B(bytes) => Pem::text(bytes.to_vec()),
    }
}

/// Certificate chain and key, of an option.
pub(crate) fn identity(options: &Object<'_>, name: &str) -> Result<Option<(Pem, Pem)>, Failure> {
    let Some(pair) = option::<Object<'_>>(options, name)? else {
        return Ok(None);
    };
    let part = |part: &str| -> Result<Pem, Failure> {
        let value = option::<Either<String, Uint8Array>>(&pair, part)
            .map_err(|_| invalid_option(format!("{name}.{part}: its type is wrong")))?;
        value
            .map(pem)
            .ok_or_else(|| invalid_option(format!("{name}.{part} is missing: PEM, or the path of a file of it")))
    };
    Ok(Some((part("cert")?, part("key")?)))
}

fn builder(options: &Object<'_>) -> Result<ServerBuilder, Failure> {
    let mut builder = limits!(Server::builder(), options);
    if let Some(origins) = option::<Vec<String>>(options, "origins")? {
        builder = builder.origins(origins);
    }
    if let Some(hosts) = option::<Vec<String>>(options, "hosts")? {
        builder = builder.hosts(hosts);
    }
    if let Some(path) = option::<String>(options, "path")? {
        builder = builder.path(path);
    }
    if let Some((cert, key)) = identity(options, "tls")? {
        builder = builder.tls(cert, key);
    }
    if let Some(proxies) = option::<Vec<String>>(options, "trustedProxies")? {
        builder = builder.trusted_proxies(proxies);
    }
    if let Some(handlers) = count(options, "maxInflightTotal")? {
        builder = builder.max_inflight_total(handlers);
    }
    if let Some(time) = duration(options, "handshakeTimeout")? {
        builder = builder.handshake_timeout(time);
    }
    if let Some(time) = duration(options, "upgradeTimeout")? {
        builder = builder.upgrade_timeout(time);
    }
    builder = builder.max_connections(count(options, "maxConnections")?);
    if let Some(time) = duration(options, "shutdownTimeout")? {
        builder = builder.shutdown_timeout(time);
    }
    Ok(builder)
}

/// Names and values in turn.
pub(crate) fn pairs(flat: Vec<String>) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
        let header = HeaderName::try_from(name.as_str())
            .map_err(|_| invalid_option(format!("{name:?} is no name of a header")))?;
        // Latin-1, as Node has it.
        let bytes: Result<Vec<u8>, _> = value.chars().map(u8::try_from).collect();
        let value = bytes
            .ok()
            .and_then(|bytes| HeaderValue::from_bytes(&bytes).ok())
            .ok_or_else(|| invalid_option(format!("the value of header {name:?} can't be sent")))?;
        pairs.push((header, value));
    }
    Ok(pairs)
}

/// `{ url, address, port }`.
pub(crate) fn address(env: &Env, url: &str, addr: Option<(String, u16)>) -> napi::Result<sys::napi_value> {
    let mut object = Object::new(env)?;
    object.set_named_property("url", url)?;
    if let Some((address, port)) = addr {
        object.set_named_property("address", address)?;
        object.set_named_property("port", u32::from(port))?;
    }
    Ok(object.raw())
}

/// A request that an `http.Server` has read; the headers are names and values in turn.
fn request(
    method: &str,
    url: &str,
    version: &str,
    headers: Vec<String>,
    peer: Option<(String, u16)>,
) -> Result<http::Request<()>, Failure> {
    let version = match version {
        "0.9" => http::Version::HTTP_09,
        "1.0" => http::Version::HTTP_10,
        _ => http::Version::HTTP_11,
    };
    let mut request = http::Request::builder().method(method).uri(url).version(version);
    let unreadable = |error: String| {
        Failure::Core(Error::new(
            ErrorKind::HandshakeFailed,
            format!("the request can't be read: {error}"),
        ))
    };
    for (name, value) in pairs(headers)? {
        request = request.header(name, value);
    }
    let peer = peer.and_then(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, port)));
    if let Some(peer) = peer {
        request = request.extension(peer);
    }
    request.body(()).map_err(|error| unreadable(error.to_string()))
}

#[napi]
impl Pump {
    /// Throws what a server with these options would.
    #[napi]
    pub fn check_server(&self, env: Env, options: Object<'_>) -> napi::Result<()> {
        self.errors.guard(&env, || {
            builder(&options)?.build()?;
            Ok(())
        })
    }

    /// A number for a server or client to come.
    #[napi]
    pub fn next_site(&self) -> u32 {
        let mut state = self.state();
        state.next_site += 1;
        state.next_site
    }

    /// A server; its handlers are told by `route`.
    #[napi]
    pub fn server(&self, env: Env, site: u32, options: Object<'_>, bytes: bool) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let queue = self.require()?;
            let routes = Arc::<Routes>::default();
            let dispatch = Dispatch {
                queue: queue.clone(),
                site,
                routes: routes.clone(),
            };
            let server = builder(&options)?
                .handler(Arc::new(dispatch))
                .runtime(queue.runtime.clone())
                .build()?;
            queue.add_end(site, End::Server(server.clone()));
            let what = What::Server(server);
            self.state().sites.insert(site, Site { routes, bytes, what });
            Ok(())
        })
    }

    /// Throws if an event can't have this name.
    #[napi]
    pub fn check_name(&self, env: Env, name: Payload) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let name = crate::conn::name_of(&name)?;
            if let Err(defect) = etp_ws::protocol::frame::check_name(name) {
                return Err(Error::new(ErrorKind::InvalidEvent, format!("{name:?}: {defect}")).into());
            }
            Ok(())
        })
    }

    /// Events of this name go to the handler of this number; none with -1.
    #[napi]
    pub fn route(&self, env: Env, site: u32, name: String, handler: i32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            if let Some(site) = self.state().sites.get(&site) {
                if handler < 0 {
                    site.routes.remove(&name);
                } else {
                    site.routes.set(&name, handler);
                }
            }
            Ok(())
        })
    }

    /// Which callbacks there are.
    #[napi]
    pub fn callbacks(&self, site: u32, upgrade: bool, connect: bool, disconnect: bool) {
        if let Some(site) = self.state().sites.get(&site) {
            site.routes.upgrade.store(upgrade, Ordering::Relaxed);
            site.routes.connect.store(connect, Ordering::Relaxed);
            site.routes.disconnect.store(disconnect, Ordering::Relaxed);
        }
    }

    /// Binds an address and begins to serve.
    #[napi]
    pub fn listen(&self, env: Env, site: u32, id: u32, addr: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let server = self.server_of(site)?;
            self.spawn(id, async move { begin(server.bind(addr).await?) })
        })
    }

    /// Binds a Unix socket and begins to serve.
    #[napi]
    pub fn listen_unix(&self, env: Env, site: u32, id: u32, path: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let server = self.server_of(site)?;
            self.spawn(id, async move { begin(server.bind_unix(path).await?) })
        })
    }

    /// Takes over a connection whose request an `http.Server` has read: a copy of its descriptor, which is closed with the connection.
    /// Awaited: whether it was let in.
    #[napi]
    pub fn adopt(
        &self,
        env: Env,
        site: u32,
        id: u32,
        method: String,
        url: String,
        version: String,
        headers: Vec<String>,
        address: Option<String>,
        port: Option<u16>,
        incoming: u32,
        fd: i32,
        leftover: &[u8],
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let server = self.server_of(site)?;
            let mut request = request(&method, &url, &version, headers, address.zip(port))?;
            request.extensions_mut().insert(Attached(incoming));
            let leftover = Bytes::copy_from_slice(leftover);
            let stream = adopted(fd).map_err(|error| {
                Error::new(ErrorKind::HandshakeFailed, "the socket can't be taken over").with_source(error)
            })?;
            self.spawn(id, async move {
                let stream = stream.stream().map_err(|error| {
                    Error::new(ErrorKind::HandshakeFailed, "the socket can't be taken over").with_source(error)
                })?;
                let accepted = match stream {
                    Adopted::Tcp(stream) => server.accept(request, stream, leftover).await,
                    #[cfg(unix)]
                    Adopted::Unix(stream) => server.accept(request, stream, leftover).await,
                };
                Ok(Value::Bool(accepted.is_ok()))
            })
        })
    }

    /// As `adopt`, of a socket that stays JavaScript's: its bytes go through `bridgeRead` and the batches.
    #[napi]
    pub fn bridge(
        &self,
        env: Env,
        site: u32,
        id: u32,
        method: String,
        url: String,
        version: String,
        headers: Vec<String>,
        address: Option<String>,
        port: Option<u16>,
        incoming: u32,
        bridge: u32,
        leftover: &[u8],
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let server = self.server_of(site)?;
            let queue = self.require()?;
            let mut request = request(&method, &url, &version, headers, address.zip(port))?;
            request.extensions_mut().insert(Attached(incoming));
            let leftover = Bytes::copy_from_slice(leftover);
            let (ours, stream) = Bridge::new(&queue, bridge);
            self.state().bridges.insert(bridge, ours);
            self.spawn(id, async move {
                Ok(Value::Bool(server.accept(request, stream, leftover).await.is_ok()))
            })
        })
    }

    /// Bytes that a bridged socket has read; false: it is to be paused.
    #[napi]
    pub fn bridge_read(&self, bridge: u32, bytes: &[u8]) -> bool {
        let state = self.state();
        state
            .bridges
            .get(&bridge)
            .is_none_or(|bridge| bridge.read(crate::pump::owned(bytes)))
    }

    /// A bridged socket has taken so many bytes.
    #[napi]
    pub fn bridge_written(&self, bridge: u32, len: u32) {
        if let Some(bridge) = self.state().bridges.get(&bridge) {
            bridge.written(len as usize);
        }
    }

    /// A bridged socket will read no more.
    #[napi]
    pub fn bridge_read_end(&self, bridge: u32) {
        if let Some(bridge) = self.state().bridges.get_mut(&bridge) {
            bridge.read_end();
        }
    }

    /// A bridged socket has ended.
    #[napi]
    pub fn bridge_end(&self, bridge: u32) {
        let ended = self.state().bridges.remove(&bridge);
        drop(ended);
    }

    /// Lets a handshake in; what `onUpgrade` returned is kept under `data`.
    #[napi]
    pub fn accept(
        &self,
        env: Env,
        ticket: u32,
        data: Option<u32>,
        headers: Vec<String>,
        protocol: Option<String>,
        close_code: Option<u16>,
        close_reason: String,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let kept = data
                .zip(self.queue())
                .map(|(data, queue)| Data(Kept::new(data, &queue)));
            let Some(ticket) = self.take_upgrade(ticket) else {
                return Ok(());
            };
            let accept = (|| {
                let mut accept = Accept::new();
                if let Some(kept) = kept {
                    accept = accept.data(kept);
                }
                for (name, value) in pairs(headers)? {
                    accept = accept.header(name, value);
                }
                if let Some(protocol) = protocol {
                    accept = accept.protocol(protocol);
                }
                if let Some(code) = close_code {
                    accept = accept.close(code, close_reason)?;
                }
                Ok::<_, Failure>(accept)
            })();
            match accept {
                Ok(accept) => ticket.accept(accept),
                Err(Failure::Core(error)) => ticket.fail(error),
                Err(_) => ticket.fail("the answer of onUpgrade can't be read"),
            }
            Ok(())
        })
    }

    /// Turns a handshake away.
    #[napi]
    pub fn reject(
        &self,
        env: Env,
        ticket: u32,
        status: u16,
        body: Option<String>,
        headers: Vec<String>,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let Some(ticket) = self.take_upgrade(ticket) else {
                return Ok(());
            };
            let mut reject = Reject::new(status);
            if let Some(body) = body {
                reject = reject.body(body);
            }
            match pairs(headers) {
                Ok(headers) => {
                    for (name, value) in headers {
                        reject = reject.header(name, value);
                    }
                    ticket.reject(reject);
                }
                Err(Failure::Core(error)) => ticket.fail(error),
                Err(_) => ticket.fail("the answer of onUpgrade can't be read"),
            }
            Ok(())
        })
    }

    /// `onUpgrade` threw.
    #[napi]
    pub fn fail_upgrade(&self, env: Env, ticket: u32, cause: u32, shown: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let cause = self.cause(cause, shown);
            if let Some(ticket) = self.take_upgrade(ticket) {
                ticket.fail(cause);
            }
            Ok(())
        })
    }

    /// Ends a server; when all connections have ended it is let go of, which comes in a batch.
    #[napi]
    pub fn shutdown(&self, env: Env, site: u32, timeout: Option<f64>) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let server = self.server_of(site)?;
            let queue = self.require()?;
            let timeout = millis("timeout", timeout)?;
            // Nobody waits for what `onUpgrade` would still say.
            for ticket in self.refused_upgrades(site) {
                ticket.reject(Reject::new(503));
            }
            let done = queue.clone();
            queue.runtime.spawn(async move {
                match timeout {
                    Some(timeout) => server.shutdown_within(timeout).await,
                    None => server.shutdown().await,
                }
                done.push(Item::Detach(site));
            });
            Ok(())
        })
    }

    /// Lets a server or client go that could not begin.
    #[napi]
    pub fn discard(&self, env: Env, site: u32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            if let Some(queue) = self.queue() {
                queue.remove_end(site);
            }
            let over = self.state().sites.remove(&site);
            drop(over);
            Ok(())
        })
    }

    /// Emits to the members of rooms, or to everybody, but not to those in `except`: ids of connections and names of rooms. Answers how many.
    #[napi]
    pub fn broadcast(
        &self,
        env: Env,
        site: u32,
        rooms: Option<Vec<String>>,
        except: Vec<String>,
        name: Payload,
        data: Payload,
    ) -> napi::Result<u32> {
        self.errors.guard(&env, || {
            let broadcast = select(&self.server_of(site)?, rooms, except);
            let payload = payload_of(data)?;
            let name = crate::conn::name_of(&name)?;
            let reached = {
                let _held = self.writing();
                broadcast.emit(name, payload)?
            };
            Ok(u32::try_from(reached.count()).unwrap_or(u32::MAX))
        })
    }

    /// The connections that a broadcast would reach, as `[slot, generation, number of data or -1]` in turn.
    #[napi]
    pub fn selected(
        &self,
        env: Env,
        site: u32,
        rooms: Option<Vec<String>>,
        except: Vec<String>,
    ) -> napi::Result<Vec<f64>> {
        self.errors.guard(&env, || {
            let conns = select(&self.server_of(site)?, rooms, except).conns();
            Ok(self.slots(site, &conns))
        })
    }

    /// The connection of this id, as [`selected`](Self::selected) has it.
    #[napi]
    pub fn find(&self, env: Env, site: u32, id: String) -> napi::Result<Vec<f64>> {
        self.errors.guard(&env, || {
            let Ok(id) = id.parse::<ConnId>() else {
                return Ok(Vec::new());
            };
            let conn = self.server_of(site)?.conn(id);
            Ok(self.slots(site, conn.as_slice()))
        })
    }

    #[napi]
    pub fn rooms(&self, env: Env, site: u32) -> napi::Result<Vec<String>> {
        self.errors.guard(&env, || Ok(self.server_of(site)?.rooms()))
    }

    #[napi]
    pub fn member_count(&self, env: Env, site: u32, room: String) -> napi::Result<u32> {
        self.errors.guard(&env, || {
            let count = self.server_of(site)?.member_count(&room);
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        })
    }

    #[napi]
    pub fn clear_room(&self, env: Env, site: u32, room: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            self.server_of(site)?.clear_room(&room);
            Ok(())
        })
    }

    #[napi]
    pub fn stats<'a>(&self, env: &'a Env, site: u32) -> napi::Result<Object<'a>> {
        self.errors.guard(env, || {
            let stats = match self.state().sites.get(&site).map(|site| &site.what) {
                Some(What::Server(server)) => server.stats(),
                Some(What::Client(client)) => {
                    let client = client.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    client.as_ref().map(etp_ws::Client::stats).unwrap_or_default()
                }
                None => etp_ws::Stats::default(),
            };
            Ok(describe(env, &stats)?)
        })
    }
}

/// Begins to serve.
fn begin(listening: Listening) -> Result<Value, Error> {
    let addr = listening.local_addr().map(|addr| (addr.ip().to_string(), addr.port()));
    let url = listening.url();
    // It returns after the shutdown; that it began is all there is to tell.
    tokio::spawn(async move { drop(listening.serve().await) });
    Ok(Value::Bound(url, addr))
}

fn select(server: &Server, rooms: Option<Vec<String>>, except: Vec<String>) -> Broadcast {
    let nobody: &[Conn] = &[];
    let mut broadcast = match rooms {
        Some(rooms) => server.to(rooms),
        None => server.except(nobody),
    };
    for whom in except {
        broadcast = match whom.parse::<ConnId>() {
            Ok(id) => broadcast.except(id),
            Err(_) => broadcast.except(whom),
        };
    }
    broadcast
}

/// A descriptor of ours: the copy of a socket's.
struct Copied(std::os::fd::OwnedFd, bool);

/// A stream of it.
enum Adopted {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

fn adopted(fd: i32) -> std::io::Result<Copied> {
    // SAFETY: the descriptor is borrowed for this call alone, and only copied; a number that is no descriptor is an error of the copying.
    #[expect(unsafe_code, reason = "JavaScript knows descriptors as numbers")]
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let owned = borrowed.try_clone_to_owned()?;
    // Which family it is: a Unix socket has an address of another kind.
    let unix = std::os::unix::net::UnixStream::from(owned.try_clone()?)
        .local_addr()
        .is_ok();
    Ok(Copied(owned, unix))
}

impl Copied {
    fn stream(self) -> std::io::Result<Adopted> {
        if self.1 {
            let stream = std::os::unix::net::UnixStream::from(self.0);
            stream.set_nonblocking(true)?;
            return Ok(Adopted::Unix(tokio::net::UnixStream::from_std(stream)?));
        }
        let stream = std::net::TcpStream::from(self.0);
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Adopted::Tcp(tokio::net::TcpStream::from_std(stream)?))
    }
}

impl Pump {
    fn take_upgrade(&self, ticket: u32) -> Option<UpgradeTicket> {
        let taken = self.state().upgrades.try_remove(ticket as usize).flatten();
        taken.map(|(_, ticket)| ticket)
    }

    /// The handshakes of a server that `onUpgrade` has not decided about. Their places stay: the answer may still come.
    fn refused_upgrades(&self, site: SiteId) -> Vec<UpgradeTicket> {
        let mut state = self.state();
        let of_site = state
            .upgrades
            .iter_mut()
            .filter(|(_, place)| place.as_ref().is_some_and(|(of, _)| *of == site));
        of_site
            .filter_map(|(_, place)| place.take())
            .map(|(_, ticket)| ticket)
            .collect()
    }

    pub(crate) fn server_of(&self, site: SiteId) -> Result<Server, Failure> {
        match self.state().sites.get(&site).map(|site| &site.what) {
            Some(What::Server(server)) => Ok(server.clone()),
            _ => Err(misuse("the server is not at work")),
        }
    }

    /// Runs a future on the core's thread; its outcome comes back through the queue.
    pub(crate) fn spawn(
        &self,
        id: u32,
        work: impl Future<Output = Result<Value, Error>> + Send + 'static,
    ) -> Result<(), Failure> {
        let queue: Arc<Queue> = self.require()?;
        let done = queue.clone();
        let task = queue.runtime.spawn(async move {
            let outcome = work.await;
            done.push(Item::Settled { id, outcome });
        });
        self.state().tasks.insert(id, task.abort_handle());
        Ok(())
    }

    /// Connections for JavaScript: slot, generation and the number of the data, or -1 for those it knows.
    pub(crate) fn slots(&self, site: SiteId, conns: &[Conn]) -> Vec<f64> {
        let bytes = self.state().sites.get(&site).is_some_and(|site| site.bytes);
        let mut slots = Vec::with_capacity(conns.len() * 3);
        for conn in conns {
            let (slot, new) = self.meet(conn, bytes);
            if slot < 0 {
                continue;
            }
            let data = new
                .and_then(|_| conn.data().remove::<Data>())
                .and_then(|data| data.0.take());
            slots.push(f64::from(slot));
            slots.push(new.map_or(-1.0, f64::from));
            slots.push(data.map_or(-1.0, f64::from));
        }
        slots
    }
}
