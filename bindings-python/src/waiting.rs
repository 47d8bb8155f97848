//! What Python awaits: an asyncio future, and how to give it up.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use etp_ws::testing::Message;
use etp_ws::{Error, http};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::asgi::Admitted;
use crate::pump::Pump;
use crate::queue::Item;
use crate::runtime::Owned;

/// An outcome on its way from the core's thread, not yet a Python object.
pub(crate) enum Value {
    None,
    Seconds(f64),
    /// A listener: URL, host and port.
    Bound(String, Option<(String, u16)>),
    Admitted(Box<etp_ws::Admitted>),
    Refused(Box<http::Response<String>>),
    Messages(Vec<Message>),
}

impl Value {
    pub(crate) fn into_py(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Self::None => Ok(py.None()),
            Self::Seconds(seconds) => Ok(seconds.into_pyobject(py)?.into_any().unbind()),
            Self::Bound(url, addr) => Ok((url, addr).into_pyobject(py)?.into_any().unbind()),
            Self::Admitted(admitted) => Ok(Py::new(py, Admitted::new(*admitted))?.into_any()),
            Self::Refused(response) => {
                let (parts, body) = response.into_parts();
                let headers: Vec<_> = parts
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        (
                            PyBytes::new(py, name.as_str().as_bytes()),
                            PyBytes::new(py, value.as_bytes()),
                        )
                    })
                    .collect();
                let refused = (parts.status.as_u16(), headers, PyBytes::new(py, body.as_bytes()));
                Ok(refused.into_pyobject(py)?.into_any().unbind())
            }
            Self::Messages(messages) => crate::asgi::to_python(py, messages),
        }
    }
}

type GiveUp = Box<dyn FnOnce() + Send>;

/// A call that is awaited: its future, and what a cancelled caller does.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct Waiting {
    future: Py<PyAny>,
    give_up: Owned<Mutex<Option<GiveUp>>>,
}

impl Waiting {
    pub(crate) fn new(future: Py<PyAny>, give_up: impl FnOnce() + Send + 'static) -> Self {
        Self {
            future,
            give_up: Owned::new(Mutex::new(Some(Box::new(give_up)))),
        }
    }

    /// Runs a future of the core on its thread; the outcome comes back through the queue.
    pub(crate) fn spawn(
        pump: &Bound<'_, Pump>,
        work: impl Future<Output = Result<Value, Error>> + Send + 'static,
    ) -> PyResult<Self> {
        let py = pump.py();
        let future = pump.get().create_future(py)?;
        let kept = future.clone_ref(py);
        let queue = pump.get().queue()?.clone();
        let task = queue.runtime.clone().spawn(async move {
            let outcome = work.await;
            queue.push(Item::Settled { future: kept, outcome });
        });
        Ok(Self::new(future, move || task.abort()))
    }
}

#[pymethods]
impl Waiting {
    /// The asyncio future to await.
    #[getter]
    fn future(&self, py: Python<'_>) -> Py<PyAny> {
        self.future.clone_ref(py)
    }

    /// The caller does not wait any more.
    fn give_up(&self) {
        let give_up = self.give_up.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(give_up) = give_up {
            give_up();
        }
    }
}
