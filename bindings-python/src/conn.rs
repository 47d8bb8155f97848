//! A connection, and broadcasts.

use std::hash::{Hash, Hasher};
use std::sync::Mutex;

use etp_ws::handler::Waiter;
use etp_ws::{Broadcast, Conn, ConnId, Error, Payload};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::{coded, guard, raise};
use crate::pump::Pump;
use crate::queue::{Item, Queue, SiteId};
use crate::routes::Routes;
use crate::runtime::Owned;
use crate::types::types;
use crate::waiting::{Value, Waiting};

/// What a [`ConnBase`] is made of: Python subclasses can only be made by calling them.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct ConnSeed(Mutex<Option<ConnBase>>);

/// A connection of a server, or the connection of the moment of a client.
#[pyclass(frozen, subclass, weakref, module = "etp_ws._etp_ws")]
pub(crate) struct ConnBase {
    conn: Owned<Conn>,
    routes: Py<Routes>,
    pump: Py<Pump>,
    site: SiteId,
}

/// A new Python object for a connection.
pub(crate) fn make(
    py: Python<'_>,
    conn: &Conn,
    routes: &Py<Routes>,
    pump: &Bound<'_, Pump>,
    site: SiteId,
) -> PyResult<Py<PyAny>> {
    let base = ConnBase {
        conn: Owned::new(conn.clone()),
        routes: routes.clone_ref(py),
        pump: pump.clone().unbind(),
        site,
    };
    let seed = Py::new(py, ConnSeed(Mutex::new(Some(base))))?;
    Ok(types(py)?.conn.bind(py).call1((seed,))?.unbind())
}

impl ConnBase {
    pub(crate) fn conn(&self) -> PyResult<&Conn> {
        self.conn.get()
    }
}

/// Seconds as a duration; `None` is the default of the server or client.
pub(crate) fn seconds(name: &str, value: Option<f64>) -> PyResult<Option<std::time::Duration>> {
    let Some(value) = value else { return Ok(None) };
    match std::time::Duration::try_from_secs_f64(value) {
        Ok(duration) => Ok(Some(duration)),
        Err(_) => Err(coded(
            "invalid_option",
            format!("{name} is {value}; it is a number of seconds"),
        )),
    }
}

/// How an outcome of an acknowledgment reaches its future.
pub(crate) fn ack_waiter(queue: std::sync::Arc<Queue>, future: Py<PyAny>, routes: Py<Routes>) -> Waiter<Payload> {
    Waiter::call(move |outcome| {
        queue.push(Item::Acked {
            future,
            routes,
            outcome,
        });
    })
}

#[pymethods]
impl ConnBase {
    #[new]
    fn new(seed: &Bound<'_, ConnSeed>) -> PyResult<Self> {
        let seed = seed.get().0.lock().ok().and_then(|mut seed| seed.take());
        seed.ok_or_else(|| PyTypeError::new_err("a Conn is made by its server or client"))
    }

    /// The connection's id: 32 hexadecimal digits, random.
    #[getter]
    fn id(&self) -> PyResult<String> {
        Ok(self.conn.get()?.id().to_string())
    }

    /// The HTTP request that the connection began with.
    #[getter]
    fn request(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        guard(|| crate::request::make(py, self.conn.get()?.request()))
    }

    /// Whether closing has not begun.
    #[getter]
    fn is_open(&self) -> PyResult<bool> {
        Ok(self.conn.get()?.is_open())
    }

    /// Emits an event. When it returns the event is queued: it is sent in order, at most once. Works from any thread.
    ///
    /// Raises ConnectionClosed, OutboxFull (nothing is queued, the connection lives: await drain()), MessageTooLarge, InvalidEvent,
    /// InvalidPayload.
    #[pyo3(signature = (name, data=None, /))]
    fn emit(&self, py: Python<'_>, name: &Bound<'_, PyString>, data: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        guard(|| {
            let conn = self.conn.get()?;
            let none = py.None().into_bound(py);
            let sent = (|| {
                let encoded = self.routes.get().codec.encode(data.unwrap_or(&none))?;
                let (bytes, text) = encoded.get()?;
                conn.emit_payload(name_of(name)?, &bytes, text)
            })();
            sent.map_err(|error| raise(py, &error))
        })
    }

    /// Emits an event whose acknowledgment is awaited on the pump's event loop.
    #[pyo3(signature = (pump, name, data, timeout))]
    fn ask(
        &self,
        pump: &Bound<'_, Pump>,
        name: &Bound<'_, PyString>,
        data: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Waiting> {
        guard(|| {
            let py = pump.py();
            let conn = self.conn.get()?;
            let timeout = seconds("timeout", timeout)?;
            let future = pump.get().create_future(py)?;
            let waiter = ack_waiter(
                pump.get().queue()?.clone(),
                future.clone_ref(py),
                self.routes.clone_ref(py),
            );
            let sent = (|| {
                let encoded = self.routes.get().codec.encode(data)?;
                let (bytes, text) = encoded.get()?;
                conn.emit_with_ack_to(name_of(name)?, &bytes, text, timeout, waiter)
            })();
            let id = sent.map_err(|error| raise(py, &error))?;
            let conn = conn.clone();
            Ok(Waiting::new(future, move || conn.cancel_ack(id)))
        })
    }

    /// Sends a ping; the round-trip time in seconds is awaited.
    fn ask_ping(&self, pump: &Bound<'_, Pump>) -> PyResult<Waiting> {
        guard(|| {
            let conn = self.conn.get()?.clone();
            Waiting::spawn(
                pump,
                async move { Ok(Value::Seconds(conn.ping().await?.as_secs_f64())) },
            )
        })
    }

    /// Waits for room in the outbox.
    fn ask_drain(&self, pump: &Bound<'_, Pump>) -> PyResult<Waiting> {
        guard(|| {
            let conn = self.conn.get()?.clone();
            Waiting::spawn(pump, async move { conn.drain().await.map(|()| Value::None) })
        })
    }

    /// Waits until closing has begun.
    fn ask_closed(&self, pump: &Bound<'_, Pump>) -> PyResult<Waiting> {
        guard(|| {
            let closed = self.conn.get()?.closed();
            Waiting::spawn(pump, async move {
                closed.await;
                Ok(Value::None)
            })
        })
    }

    /// Joins a room. A connection that has ended joins nothing.
    fn join(&self, room: &str) -> PyResult<()> {
        guard(|| {
            self.conn.get()?.join(room);
            Ok(())
        })
    }

    /// Leaves a room.
    fn leave(&self, room: &str) -> PyResult<()> {
        guard(|| {
            self.conn.get()?.leave(room);
            Ok(())
        })
    }

    /// The rooms it is in; in on_disconnect and later, those it was in last.
    fn rooms(&self) -> PyResult<Vec<String>> {
        guard(|| Ok(self.conn.get()?.rooms()))
    }

    /// A broadcast to the members of rooms, this connection included if it is one.
    #[pyo3(signature = (*rooms))]
    fn to(&self, py: Python<'_>, rooms: Vec<String>) -> PyResult<Py<PyAny>> {
        guard(|| {
            let broadcast = self.conn.get()?.to(rooms);
            make_broadcast(py, broadcast, &self.routes, &self.pump, self.site)
        })
    }

    /// Begins to close: what was emitted before is sent, then the closing handshake, close_timeout in all. Returns at once.
    ///
    /// Raises InvalidOption if the code can't be sent or the reason is longer than 123 bytes of UTF-8.
    #[pyo3(signature = (code=1000, reason=""))]
    fn close(&self, py: Python<'_>, code: u16, reason: &str) -> PyResult<()> {
        guard(|| {
            let closed = self.conn.get()?.close_with(code, reason);
            closed.map_err(|error| raise(py, &error))
        })
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| *other.get().conn == *self.conn)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.conn.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        format!("<Conn {}>", self.conn.id())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.routes)?;
        visit.call(&self.pump)
    }
}

pub(crate) fn name_of<'a>(name: &'a Bound<'_, PyString>) -> Result<&'a str, Error> {
    name.to_str()
        .map_err(|_| Error::new(etp_ws::ErrorKind::InvalidEvent, "the name can't be encoded as UTF-8"))
}

/// What a [`BroadcastBase`] is made of.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct BroadcastSeed(Mutex<Option<BroadcastBase>>);

/// A broadcast in the making.
#[pyclass(frozen, subclass, module = "etp_ws._etp_ws")]
pub(crate) struct BroadcastBase {
    broadcast: Owned<Broadcast>,
    routes: Py<Routes>,
    /// Where the objects of its connections are.
    pump: Py<Pump>,
    site: SiteId,
}

pub(crate) fn make_broadcast(
    py: Python<'_>,
    broadcast: Broadcast,
    routes: &Py<Routes>,
    pump: &Py<Pump>,
    site: SiteId,
) -> PyResult<Py<PyAny>> {
    let base = BroadcastBase {
        broadcast: Owned::new(broadcast),
        routes: routes.clone_ref(py),
        pump: pump.clone_ref(py),
        site,
    };
    let seed = Py::new(py, BroadcastSeed(Mutex::new(Some(base))))?;
    Ok(types(py)?.broadcast.bind(py).call1((seed,))?.unbind())
}

#[pymethods]
impl BroadcastBase {
    #[new]
    fn new(seed: &Bound<'_, BroadcastSeed>) -> PyResult<Self> {
        let seed = seed.get().0.lock().ok().and_then(|mut seed| seed.take());
        seed.ok_or_else(|| PyTypeError::new_err("a Broadcast is made by `to`"))
    }

    /// Leaves out connections, given themselves or by their ids, and the members of rooms, given by name. A name that has the form of an id
    /// is one.
    #[pyo3(signature = (*whom))]
    fn except_(&self, py: Python<'_>, whom: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        guard(|| {
            let mut broadcast = self.broadcast.get()?.clone();
            for one in whom {
                broadcast = if let Ok(conn) = one.cast::<ConnBase>() {
                    broadcast.except(conn.get().conn()?)
                } else {
                    let text: String = one
                        .extract()
                        .map_err(|_| PyTypeError::new_err("except_ takes connections and names of rooms"))?;
                    match text.parse::<ConnId>() {
                        Ok(id) => broadcast.except(id),
                        Err(_) => broadcast.except(text),
                    }
                };
            }
            make_broadcast(py, broadcast, &self.routes, &self.pump, self.site)
        })
    }

    /// Emits to every connection that is selected at this moment; returns how many it was queued for. Encoded once. Works from any
    /// thread.
    ///
    /// Raises InvalidEvent, InvalidPayload, MessageTooLarge; nothing is sent then.
    #[pyo3(signature = (name, data=None, /))]
    fn emit(&self, py: Python<'_>, name: &Bound<'_, PyString>, data: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        guard(|| emit_to(py, self.broadcast.get()?, &self.routes, name, data))
    }

    /// The connections that it would reach now.
    fn conns(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        guard(|| {
            let conns = self.broadcast.get()?.conns();
            objects(&conns, self.pump.bind(py), self.site)
        })
    }

    fn __repr__(&self) -> String {
        format!("<Broadcast {:?}>", *self.broadcast)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.routes)?;
        visit.call(&self.pump)
    }
}

/// The Python objects of connections.
pub(crate) fn objects(conns: &[Conn], pump: &Bound<'_, Pump>, site: SiteId) -> PyResult<Vec<Py<PyAny>>> {
    conns.iter().map(|conn| Pump::object(pump, site, conn)).collect()
}

pub(crate) fn emit_to(
    py: Python<'_>,
    broadcast: &Broadcast,
    routes: &Py<Routes>,
    name: &Bound<'_, PyString>,
    data: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    let none = py.None().into_bound(py);
    let sent = (|| {
        let encoded = routes.get().codec.encode(data.unwrap_or(&none))?;
        let (bytes, text) = encoded.get()?;
        let payload = Payload::checked(bytes::Bytes::copy_from_slice(&bytes), text);
        let name = name_of(name)?;
        // A large room takes a while: other threads may go on.
        py.detach(|| broadcast.emit(name, payload))
    })();
    match sent {
        Ok(reached) => Ok(reached.count()),
        Err(error) => Err(raise(py, &error)),
    }
}
