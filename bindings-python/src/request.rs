//! The HTTP request that a connection began with.

use std::sync::{Arc, Mutex, PoisonError};

use etp_ws::Request;
use pyo3::prelude::*;

use crate::error::guard;
use crate::types::types;

/// The ASGI scope of a request, for `on_upgrade` alone: what it holds may hold the connection in turn.
#[derive(Clone)]
pub(crate) struct Scope(Arc<Mutex<Option<Py<PyAny>>>>);

impl Scope {
    pub(crate) fn new(scope: Py<PyAny>) -> Self {
        Self(Arc::new(Mutex::new(Some(scope))))
    }

    pub(crate) fn take(&self) -> Option<Py<PyAny>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What [`RequestBase`] and the like are made of: Python subclasses can only be made by calling them.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct RequestSeed(Request);

/// The HTTP request that a connection began with.
#[pyclass(frozen, subclass, module = "etp_ws._etp_ws")]
pub(crate) struct RequestBase(Request);

pub(crate) fn make(py: Python<'_>, request: &Request) -> PyResult<Py<PyAny>> {
    let seed = Py::new(py, RequestSeed(request.clone()))?;
    Ok(types(py)?.request.bind(py).call1((seed,))?.unbind())
}

#[pymethods]
impl RequestBase {
    #[new]
    fn new(seed: &Bound<'_, RequestSeed>) -> Self {
        Self(seed.get().0.clone())
    }

    /// The method: "GET".
    #[getter]
    fn method(&self) -> &str {
        self.0.method().as_str()
    }

    /// Path and query as they were sent. A query may hold secrets: keep it out of logs.
    #[getter]
    fn url(&self) -> &str {
        self.0.uri()
    }

    /// The path without the query.
    #[getter]
    fn path(&self) -> &str {
        self.0.path()
    }

    /// The query without its question mark; empty where there is none.
    #[getter]
    fn query(&self) -> &str {
        self.0.query().unwrap_or_default()
    }

    /// The token that the client authenticates with, from `Authorization: Bearer` or, from a browser, the subprotocol; or None.
    #[getter]
    fn token(&self) -> Option<String> {
        self.0.token()
    }

    /// Host and port that the connection came from; None over a Unix socket or in memory.
    #[getter]
    fn peer(&self) -> Option<(String, u16)> {
        self.0.peer_addr().map(|peer| (peer.ip().to_string(), peer.port()))
    }

    /// The client's address: what `X-Forwarded-For` says where the peer is one of `trusted_proxies`, else the peer's; or None.
    #[getter]
    fn client_ip(&self) -> Option<String> {
        self.0.client_ip().map(|ip| ip.to_string())
    }

    /// The subprotocols that the client offers.
    #[getter]
    fn protocols(&self) -> Vec<&str> {
        self.0.protocols().collect()
    }

    /// Names, in lower case, and values of all headers, in their order.
    fn header_list(&self) -> PyResult<Vec<(String, String)>> {
        guard(|| {
            let headers = self.0.headers();
            let text = |value: &http::HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
            Ok(headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect())
        })
    }

    fn __repr__(&self) -> String {
        // No query: it may hold secrets.
        format!("<Request {} {}>", self.0.method(), self.0.path())
    }
}
