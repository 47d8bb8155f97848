//! A client at work on an event loop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etp_ws::{BoxError, Client, ClientBuilder, Error, ErrorKind, Payload, Reconnect};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit};
use tokio::sync::oneshot;

use crate::conn::{ack_waiter, name_of, seconds};
use crate::dispatch::Dispatch;
use crate::error::{guard, misuse, raise};
use crate::pump::Pump;
use crate::queue::{End, Item, Queue, SiteId};
use crate::routes::{Callback, Routes};
use crate::runtime::Owned;
use crate::server::{ServerCore, duration, limits, option, stats_object};
use crate::waiting::{Value, Waiting};

type Handle = Arc<Mutex<Option<Client>>>;

/// A client at work on one event loop, from `connect` to its end.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct ClientCore {
    /// Empty until `connect` has ended, and after the end.
    client: Owned<Handle>,
    builder: Owned<Mutex<Option<ClientBuilder>>>,
    routes: Py<Routes>,
    pump: Py<Pump>,
    site: SiteId,
}

fn builder(options: &Bound<'_, PyDict>) -> PyResult<ClientBuilder> {
    let builder = Client::builder();
    let mut builder = limits!(builder, options);
    if let Some(headers) = option::<Vec<(String, String)>>(options, "headers")? {
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
    }
    if let Some(ca) = option::<std::path::PathBuf>(options, "ca")? {
        builder = builder.ca(ca);
    }
    if let Some((cert, key)) = option::<(std::path::PathBuf, std::path::PathBuf)>(options, "client_cert")? {
        builder = builder.client_cert(cert, key);
    }
    if let Some(time) = duration(options, "dial_timeout")? {
        builder = builder.dial_timeout(time);
    }
    if let Some(events) = option(options, "queue")? {
        builder = builder.queue(events);
    }
    builder = match option::<(f64, f64, f64)>(options, "reconnect")? {
        None => builder.reconnect(None),
        Some((base, cap, reset_after)) => builder.reconnect(Reconnect {
            base: seconds("reconnect.base", Some(base))?.unwrap_or_default(),
            cap: seconds("reconnect.cap", Some(cap))?.unwrap_or_default(),
            reset_after: seconds("reconnect.reset_after", Some(reset_after))?.unwrap_or_default(),
        }),
    };
    Ok(builder)
}

/// Asks Python for a text, on its event loop.
async fn ask(queue: Arc<Queue>, site: SiteId, what: Callback) -> Result<String, BoxError> {
    let (answer, text) = oneshot::channel();
    queue.push(Item::Ask { site, what, answer });
    match text.await {
        Ok(text) => text,
        Err(_) => Err("the event loop has ended".into()),
    }
}

impl ClientCore {
    fn client(&self) -> PyResult<Option<Client>> {
        let client = self.client.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(client.clone())
    }

    /// The client, or the error that there is none.
    fn connected(&self, py: Python<'_>) -> PyResult<Client> {
        self.client()?.ok_or_else(|| {
            let error = Error::new(ErrorKind::ConnectionClosed, "the client is not connected");
            raise(py, &error)
        })
    }

    fn begin(
        &self,
        pump: &Bound<'_, Pump>,
        connect: impl Future<Output = Result<Client, Error>> + Send + 'static,
    ) -> PyResult<Waiting> {
        let handle = self.client.get()?.clone();
        let queue = self.pump.get().queue()?.clone();
        let site = self.site;
        queue.add_end(site, End::Client(Arc::downgrade(&handle)));
        Waiting::spawn(pump, async move {
            let client = match connect.await {
                Ok(client) => client,
                Err(error) => {
                    queue.push(Item::Detach(site));
                    return Err(error);
                }
            };
            let closed = client.closed();
            *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
            tokio::spawn(async move {
                closed.await;
                // What the link has queued comes before this.
                queue.push(Item::Detach(site));
            });
            Ok(Value::None)
        })
    }

    fn take_builder(&self) -> PyResult<ClientBuilder> {
        let builder = self
            .builder
            .get()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        builder.ok_or_else(|| misuse("this client has connected already".to_owned()))
    }
}

#[pymethods]
impl ClientCore {
    #[new]
    fn new(routes: &Bound<'_, Routes>, options: &Bound<'_, PyDict>, pump: &Bound<'_, Pump>) -> PyResult<Self> {
        guard(|| {
            let py = pump.py();
            let queue = pump.get().queue()?.clone();
            let mut builder = builder(options)?;
            let routes = routes.clone().unbind();
            let site = pump.get().attach(py, &routes)?;
            let dispatch = Dispatch {
                queue: queue.clone(),
                site,
                flags: routes.get().flags.clone(),
            };
            builder = builder.handler(Arc::new(dispatch)).runtime(queue.runtime.clone());
            if routes.get().has(py, Callback::Auth) {
                let queue = queue.clone();
                builder = builder.auth_fn(move || ask(queue, site, Callback::Auth));
            }
            if routes.get().has(py, Callback::ShouldReconnect) {
                // The answer is Python's, and comes when its loop has time: until then nothing is dialled, since the URL is asked for
                // behind it.
                builder = builder.should_reconnect(|_| true);
            }
            Ok(Self {
                client: Owned::new(Handle::default()),
                builder: Owned::new(Mutex::new(Some(builder))),
                routes,
                pump: pump.clone().unbind(),
                site,
            })
        })
    }

    /// Raises what a client with these options would, where it can be known before dialling.
    #[staticmethod]
    fn check(options: &Bound<'_, PyDict>) -> PyResult<()> {
        guard(|| builder(options).map(drop))
    }

    /// Dials; awaited: `on_connect` has ended. Without a URL it is asked for at each dial.
    #[pyo3(signature = (pump, url))]
    fn connect(&self, pump: &Bound<'_, Pump>, url: Option<String>) -> PyResult<Waiting> {
        guard(|| {
            let builder = self.take_builder()?;
            let queue = self.pump.get().queue()?.clone();
            let site = self.site;
            match url {
                Some(url) => self.begin(pump, builder.connect(url)),
                None => self.begin(pump, builder.connect_fn(move || ask(queue, site, Callback::Url))),
            }
        })
    }

    /// Connects to a server in this process, without a port.
    fn connect_to(
        &self,
        pump: &Bound<'_, Pump>,
        server: &Bound<'_, ServerCore>,
        path: &str,
        headers: Vec<(String, String)>,
    ) -> PyResult<Waiting> {
        guard(|| {
            let builder = self.take_builder()?;
            let server = server.get().server()?.clone();
            let mut request = http::Request::builder().uri(path);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request
                .body(())
                .map_err(|error| crate::error::coded("invalid_option", format!("path or headers can't be: {error}")))?;
            self.begin(pump, async move {
                let (ours, theirs) = etp_ws::testing::pipe();
                server.accept_pipe(request, ours).await?;
                builder.connect_pipe(theirs).await
            })
        })
    }

    /// Lets a client go that could not begin.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        guard(|| {
            self.pump.get().detach(py, self.site);
            Ok(())
        })
    }

    #[getter]
    fn state(&self) -> PyResult<Option<&'static str>> {
        guard(|| Ok(self.client()?.map(|client| client.state().as_str())))
    }

    /// The connection of the moment.
    fn conn(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        guard(|| match self.client()?.and_then(|client| client.conn()) {
            Some(conn) => Pump::object(self.pump.bind(py), self.site, &conn).map(Some),
            None => Ok(None),
        })
    }

    fn emit(&self, py: Python<'_>, name: &Bound<'_, PyString>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        guard(|| {
            let client = self.connected(py)?;
            let sent = (|| {
                let encoded = self.routes.get().codec.encode(data)?;
                let (bytes, text) = encoded.get()?;
                let payload = Payload::checked(bytes::Bytes::copy_from_slice(&bytes), text);
                client.emit(name_of(name)?, payload)
            })();
            sent.map_err(|error| raise(py, &error))
        })
    }

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
            let client = self.connected(py)?;
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
                let payload = Payload::checked(bytes::Bytes::copy_from_slice(&bytes), text);
                client.emit_with_ack_to(name_of(name)?, payload, timeout, waiter)
            })();
            let awaited = sent.map_err(|error| raise(py, &error))?;
            Ok(Waiting::new(future, move || drop(awaited)))
        })
    }

    fn ask_ping(&self, pump: &Bound<'_, Pump>) -> PyResult<Waiting> {
        guard(|| {
            let client = self.connected(pump.py())?;
            Waiting::spawn(
                pump,
                async move { Ok(Value::Seconds(client.ping().await?.as_secs_f64())) },
            )
        })
    }

    fn ask_drain(&self, pump: &Bound<'_, Pump>) -> PyResult<Waiting> {
        guard(|| {
            let client = self.connected(pump.py())?;
            Waiting::spawn(pump, async move { client.drain().await.map(|()| Value::None) })
        })
    }

    /// Closes; awaited: the end. The closing goes on when nobody waits.
    #[pyo3(signature = (pump, code, reason))]
    fn close(&self, pump: &Bound<'_, Pump>, code: u16, reason: String) -> PyResult<Waiting> {
        guard(|| {
            let client = self.connected(pump.py())?;
            let queue = pump.get().queue()?.clone();
            let future = pump.get().create_future(pump.py())?;
            let kept = future.clone_ref(pump.py());
            queue.runtime.clone().spawn(async move {
                let outcome = client.close_with(code, &reason).await.map(|()| Value::None);
                queue.push(Item::Settled { future: kept, outcome });
            });
            Ok(Waiting::new(future, || {}))
        })
    }

    /// Begins to close, and waits for nothing.
    fn stop(&self) -> PyResult<()> {
        guard(|| {
            if let Some(client) = self.client()? {
                let queue = self.pump.get().queue()?;
                queue.runtime.spawn(async move {
                    // It ends by itself.
                    let _ = tokio::time::timeout(Duration::from_secs(60), client.close()).await;
                });
            }
            Ok(())
        })
    }

    /// Waits until the client is over.
    fn ask_closed(&self, pump: &Bound<'_, Pump>) -> PyResult<Waiting> {
        guard(|| {
            let closed = self.connected(pump.py())?.closed();
            Waiting::spawn(pump, async move {
                closed.await;
                Ok(Value::None)
            })
        })
    }

    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        guard(|| stats_object(py, self.client()?.map(|client| client.stats()).unwrap_or_default()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.routes)?;
        visit.call(&self.pump)
    }
}
