//! A server at work on an event loop.

use std::net::SocketAddr;

use etp_ws::{Bound as Listening, ConnId, Error, Server, ServerBuilder};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit};

use crate::conn::{emit_to, make_broadcast, objects, seconds};
use crate::dispatch::Dispatch;
use crate::error::{coded, guard, raise};
use crate::pump::Pump;
use crate::queue::{End, Item, SiteId};
use crate::routes::Routes;
use crate::runtime::Owned;
use crate::types::types;
use crate::waiting::{Value, Waiting};

/// A server at work on one event loop, until its shutdown.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct ServerCore {
    server: Owned<Server>,
    routes: Py<Routes>,
    pump: Py<Pump>,
    site: SiteId,
}

/// An option's value, or the error that names it.
pub(crate) fn option<'py, T: for<'a> FromPyObject<'a, 'py>>(
    options: &Bound<'py, PyDict>,
    name: &str,
) -> PyResult<Option<T>> {
    let Some(value) = options.get_item(name)? else {
        return Ok(None);
    };
    if value.is_none() {
        return Ok(None);
    }
    match value.extract::<T>() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(coded(
            "invalid_option",
            format!(
                "{name} is {}; its type or range is wrong",
                value.repr().map_or_else(|_| "?".into(), |text| text.to_string())
            ),
        )),
    }
}

pub(crate) fn duration(options: &Bound<'_, PyDict>, name: &str) -> PyResult<Option<std::time::Duration>> {
    seconds(name, option(options, name)?)
}

/// The limits that servers and clients share.
macro_rules! limits {
    ($builder:ident, $options:ident) => {{
        let mut builder = $builder;
        if let Some(size) = option($options, "max_message_size")? {
            builder = builder.max_message_size(size);
        }
        if let Some(handlers) = option($options, "max_inflight")? {
            builder = builder.max_inflight(handlers);
        }
        if let Some(size) = option($options, "max_outbox")? {
            builder = builder.max_outbox(size);
        }
        if let Some(acks) = option($options, "max_pending_acks")? {
            builder = builder.max_pending_acks(acks);
        }
        if let Some(time) = duration($options, "ack_timeout")? {
            builder = builder.ack_timeout(time);
        }
        builder = builder.ping_interval(duration($options, "ping_interval")?);
        if let Some(time) = duration($options, "ping_timeout")? {
            builder = builder.ping_timeout(time);
        }
        if let Some(time) = duration($options, "close_timeout")? {
            builder = builder.close_timeout(time);
        }
        builder.wire_log(option($options, "wire_log")?.unwrap_or(false))
    }};
}
pub(crate) use limits;

fn builder(options: &Bound<'_, PyDict>) -> PyResult<ServerBuilder> {
    let builder = Server::builder();
    let mut builder = limits!(builder, options);
    if let Some(origins) = option::<Vec<String>>(options, "origins")? {
        builder = builder.origins(origins);
    }
    if let Some(hosts) = option::<Vec<String>>(options, "hosts")? {
        builder = builder.hosts(hosts);
    }
    if let Some(path) = option::<String>(options, "path")? {
        builder = builder.path(path);
    }
    if let Some((cert, key)) = option::<(std::path::PathBuf, std::path::PathBuf)>(options, "tls")? {
        builder = builder.tls(cert, key);
    }
    if let Some(proxies) = option::<Vec<String>>(options, "trusted_proxies")? {
        builder = builder.trusted_proxies(proxies);
    }
    if let Some(handlers) = option(options, "max_inflight_total")? {
        builder = builder.max_inflight_total(handlers);
    }
    if let Some(time) = duration(options, "handshake_timeout")? {
        builder = builder.handshake_timeout(time);
    }
    if let Some(time) = duration(options, "upgrade_timeout")? {
        builder = builder.upgrade_timeout(time);
    }
    builder = builder.max_connections(option::<usize>(options, "max_connections")?);
    if let Some(time) = duration(options, "shutdown_timeout")? {
        builder = builder.shutdown_timeout(time);
    }
    Ok(builder)
}

impl ServerCore {
    fn listen(
        &self,
        pump: &Bound<'_, Pump>,
        bind: impl Future<Output = Result<Listening, Error>> + Send + 'static,
    ) -> PyResult<Waiting> {
        Waiting::spawn(pump, async move {
            let listening = bind.await?;
            let addr = listening.local_addr().map(|addr| (addr.ip().to_string(), addr.port()));
            let url = listening.url();
            // It returns after the shutdown; that it began is all there is to tell.
            tokio::spawn(async move { drop(listening.serve().await) });
            Ok(Value::Bound(url, addr))
        })
    }
}

#[pymethods]
impl ServerCore {
    #[new]
    fn new(routes: &Bound<'_, Routes>, options: &Bound<'_, PyDict>, pump: &Bound<'_, Pump>) -> PyResult<Self> {
        guard(|| {
            let py = pump.py();
            let queue = pump.get().queue()?.clone();
            let builder = builder(options)?;
            let routes = routes.clone().unbind();
            let site = pump.get().attach(py, &routes)?;
            let dispatch = Dispatch {
                queue: queue.clone(),
                site,
                flags: routes.get().flags.clone(),
            };
            let built = builder
                .handler(std::sync::Arc::new(dispatch))
                .runtime(queue.runtime.clone())
                .build();
            let server = match built {
                Ok(server) => server,
                Err(error) => {
                    pump.get().detach(py, site);
                    return Err(raise(py, &error));
                }
            };
            queue.add_end(site, End::Server(server.clone()));
            Ok(Self {
                server: Owned::new(server),
                routes,
                pump: pump.clone().unbind(),
                site,
            })
        })
    }

    /// Raises what a server with these options would.
    #[staticmethod]
    fn check(py: Python<'_>, options: &Bound<'_, PyDict>) -> PyResult<()> {
        guard(|| match builder(options)?.build() {
            Ok(_) => Ok(()),
            Err(error) => Err(raise(py, &error)),
        })
    }

    /// Binds an address and begins to serve; awaited: the URL, and host and port.
    fn bind(&self, pump: &Bound<'_, Pump>, addr: String) -> PyResult<Waiting> {
        guard(|| {
            let server = self.server.get()?.clone();
            self.listen(pump, async move { server.bind(addr).await })
        })
    }

    /// Binds a Unix socket and begins to serve.
    fn bind_unix(&self, pump: &Bound<'_, Pump>, path: std::path::PathBuf) -> PyResult<Waiting> {
        guard(|| {
            let server = self.server.get()?.clone();
            self.listen(pump, async move { server.bind_unix(path).await })
        })
    }

    /// Begins to serve on a copy of a listening socket's descriptor.
    fn bind_fd(&self, pump: &Bound<'_, Pump>, fd: i32, unix: bool) -> PyResult<Waiting> {
        guard(|| {
            let server = self.server.get()?.clone();
            // SAFETY: the descriptor is borrowed for this call alone, and only copied; a number that is no descriptor is an error of the
            // copying.
            #[expect(unsafe_code, reason = "Python knows descriptors as numbers")]
            let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            let owned = borrowed.try_clone_to_owned()?;
            self.listen(pump, async move {
                let failed = |error: std::io::Error| {
                    Error::new(etp_ws::ErrorKind::ListenFailed, "can't listen on the socket").with_source(error)
                };
                if unix {
                    let listener = std::os::unix::net::UnixListener::from(owned);
                    listener.set_nonblocking(true).map_err(failed)?;
                    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
                    return Ok(server.bind_unix_listener(listener));
                }
                let listener = std::net::TcpListener::from(owned);
                listener.set_nonblocking(true).map_err(failed)?;
                server.bind_listener(tokio::net::TcpListener::from_std(listener).map_err(failed)?)
            })
        })
    }

    /// Ends the server; awaited: all connections have ended. It is let go of then.
    #[pyo3(signature = (pump, timeout))]
    fn shutdown(&self, pump: &Bound<'_, Pump>, timeout: Option<f64>) -> PyResult<Waiting> {
        guard(|| {
            let server = self.server.get()?.clone();
            let timeout = seconds("timeout", timeout)?;
            let queue = self.pump.get().queue()?.clone();
            let site = self.site;
            let future = pump.get().create_future(pump.py())?;
            let kept = future.clone_ref(pump.py());
            let theirs = pump.get().queue()?.clone();
            // It goes on when the caller does not wait any more.
            queue.runtime.clone().spawn(async move {
                match timeout {
                    Some(timeout) => server.shutdown_within(timeout).await,
                    None => server.shutdown().await,
                }
                queue.push(Item::Detach(site));
                theirs.push(Item::Settled {
                    future: kept,
                    outcome: Ok(Value::None),
                });
            });
            Ok(Waiting::new(future, || {}))
        })
    }

    /// Lets a server go that could not begin.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        guard(|| {
            self.pump.get().detach(py, self.site);
            Ok(())
        })
    }

    /// Emits to everyone; returns how many it was queued for.
    #[pyo3(signature = (name, data))]
    fn emit(&self, py: Python<'_>, name: &Bound<'_, PyString>, data: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        guard(|| emit_to(py, &self.all()?, &self.routes, name, data))
    }

    fn to(&self, py: Python<'_>, rooms: Vec<String>) -> PyResult<Py<PyAny>> {
        guard(|| make_broadcast(py, self.server.get()?.to(rooms), &self.routes, &self.pump, self.site))
    }

    fn everyone(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        guard(|| make_broadcast(py, self.all()?, &self.routes, &self.pump, self.site))
    }

    fn conns(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        guard(|| objects(&self.server.get()?.conns(), self.pump.bind(py), self.site))
    }

    fn conn(&self, py: Python<'_>, id: &str) -> PyResult<Option<Py<PyAny>>> {
        guard(|| {
            let Ok(id) = id.parse::<ConnId>() else { return Ok(None) };
            match self.server.get()?.conn(id) {
                Some(conn) => Pump::object(self.pump.bind(py), self.site, &conn).map(Some),
                None => Ok(None),
            }
        })
    }

    fn members(&self, py: Python<'_>, room: &str) -> PyResult<Vec<Py<PyAny>>> {
        guard(|| objects(&self.server.get()?.members(room), self.pump.bind(py), self.site))
    }

    fn member_count(&self, room: &str) -> PyResult<usize> {
        guard(|| Ok(self.server.get()?.member_count(room)))
    }

    fn clear_room(&self, room: &str) -> PyResult<()> {
        guard(|| {
            self.server.get()?.clear_room(room);
            Ok(())
        })
    }

    fn rooms(&self) -> PyResult<Vec<String>> {
        guard(|| Ok(self.server.get()?.rooms()))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        guard(|| stats_object(py, self.server.get()?.stats()))
    }

    /// Decides about a handshake that an ASGI server has read; awaited: an `Admitted`, or the refusal's status, headers and body.
    fn admit(
        &self,
        pump: &Bound<'_, Pump>,
        uri: &str,
        headers: Vec<(Vec<u8>, Vec<u8>)>,
        peer: Option<(String, u16)>,
        scope: Py<PyAny>,
    ) -> PyResult<Waiting> {
        guard(|| {
            let server = self.server.get()?.clone();
            let mut request = http::Request::builder().method("GET").uri(uri);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let peer = peer.and_then(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, port)));
            if let Some(peer) = peer {
                request = request.extension(peer);
            }
            request = request.extension(crate::request::Scope::new(scope));
            let request = request
                .body(())
                .map_err(|error| coded("handshake_failed", format!("the request can't be read: {error}")))?;
            Waiting::spawn(pump, async move {
                Ok(match server.admit(request).await {
                    Ok(admitted) => Value::Admitted(Box::new(admitted)),
                    Err(refusal) => Value::Refused(Box::new(refusal)),
                })
            })
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.routes)?;
        visit.call(&self.pump)
    }
}

impl ServerCore {
    pub(crate) fn server(&self) -> PyResult<&Server> {
        self.server.get()
    }

    fn all(&self) -> PyResult<etp_ws::Broadcast> {
        // Nobody is left out.
        Ok(self.server.get()?.except(&[] as &[etp_ws::Conn]))
    }
}

pub(crate) fn stats_object(py: Python<'_>, stats: etp_ws::Stats) -> PyResult<Py<PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("connections", stats.connections)?;
    fields.set_item("connects", stats.connects)?;
    fields.set_item("events_in", stats.events_in)?;
    fields.set_item("messages_out", stats.messages_out)?;
    fields.set_item("bytes_in", stats.bytes_in)?;
    fields.set_item("bytes_out", stats.bytes_out)?;
    fields.set_item("acks_pending", stats.acks_pending)?;
    fields.set_item("acks_timed_out", stats.acks_timed_out)?;
    fields.set_item("stray_replies", stats.stray_replies)?;
    fields.set_item("malformed_frames", stats.malformed_frames)?;
    fields.set_item("handshakes_failed", stats.handshakes_failed)?;
    fields.set_item("handlers_in_flight", stats.handlers_in_flight)?;
    fields.set_item("bytes_queued", stats.bytes_queued)?;
    fields.set_item("closes", stats.closes)?;
    Ok(types(py)?.stats.bind(py).call((), Some(&fields))?.unbind())
}
