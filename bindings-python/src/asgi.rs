//! The core's in-memory transport as an ASGI application uses it: messages that the host server has read, and messages for it to send.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use etp_ws::testing::{Message, PipeReceiver, PipeSender, pipe};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::error::{guard, misuse};
use crate::pump::Pump;
use crate::runtime::Owned;
use crate::waiting::{Value, Waiting};

/// A handshake that was let in, and whose answer the host has yet to send.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct Admitted(Owned<Mutex<Option<etp_ws::Admitted>>>);

impl Admitted {
    pub(crate) fn new(admitted: etp_ws::Admitted) -> Self {
        Self(Owned::new(Mutex::new(Some(admitted))))
    }
}

#[pymethods]
impl Admitted {
    /// Headers for the answer, `sec-websocket-protocol` among them.
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
        guard(|| {
            let admitted = self.0.get()?.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(admitted) = &*admitted else {
                return Ok(Vec::new());
            };
            let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                (
                    PyBytes::new(py, name.as_str().as_bytes()),
                    PyBytes::new(py, value.as_bytes()),
                )
            };
            Ok(admitted.headers().iter().map(pair).collect())
        })
    }

    /// Begins the connection.
    fn begin(&self) -> PyResult<Link> {
        guard(|| {
            let admitted = self.0.get()?.lock().unwrap_or_else(PoisonError::into_inner).take();
            let admitted = admitted.ok_or_else(|| misuse("this connection has begun already".to_owned()))?;
            let (ours, theirs) = pipe();
            admitted.serve_pipe(ours);
            let (sender, receiver) = theirs.split();
            Ok(Link {
                sender: Owned::new(Arc::new(sender)),
                receiver: Owned::new(Arc::new(receiver)),
            })
        })
    }
}

/// A connection's messages.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct Link {
    sender: Owned<Arc<PipeSender>>,
    receiver: Owned<Arc<PipeReceiver>>,
}

impl Link {
    fn send(&self, message: Message) -> PyResult<bool> {
        let sender = self.sender.get()?;
        // Where the other end has gone, nobody reads: the host learns it from the messages' end.
        let _ = sender.send(message);
        Ok(sender.is_ready())
    }
}

#[pymethods]
impl Link {
    /// A text message from the peer; false if `ready` is to be awaited before the next.
    fn text(&self, text: &Bound<'_, PyString>) -> PyResult<bool> {
        guard(|| self.send(Message::Text(Bytes::copy_from_slice(text.to_str()?.as_bytes()))))
    }

    /// A binary message from the peer.
    fn binary(&self, data: &[u8]) -> PyResult<bool> {
        guard(|| self.send(Message::Binary(Bytes::copy_from_slice(data))))
    }

    /// A ping of the core's, answered: the host server keeps the connection alive.
    fn pong(&self, data: &[u8]) -> PyResult<bool> {
        guard(|| self.send(Message::Pong(Bytes::copy_from_slice(data))))
    }

    /// The peer has closed, with a close frame.
    fn close(&self, code: u16, reason: String) -> PyResult<bool> {
        guard(|| {
            self.send(Message::Close(match code {
                1005 => None,
                code => Some((code, reason)),
            }))
        })
    }

    /// The peer has gone.
    fn end(&self) -> PyResult<()> {
        guard(|| {
            self.sender.get()?.end();
            Ok(())
        })
    }

    /// Waits for room.
    fn ready(&self, pump: &Bound<'_, Pump>) -> PyResult<Waiting> {
        guard(|| {
            let sender = self.sender.get()?.clone();
            Waiting::spawn(pump, async move {
                // An end is no failure: the messages end as well.
                let _ = sender.ready().await;
                Ok(Value::None)
            })
        })
    }

    /// Awaited: the messages for the peer that there are, one at least; an empty list is the end.
    fn recv(&self, pump: &Bound<'_, Pump>) -> PyResult<Waiting> {
        guard(|| {
            let receiver = self.receiver.get()?.clone();
            Waiting::spawn(pump, async move {
                Ok(Value::Messages(receiver.recv().await.unwrap_or_default()))
            })
        })
    }
}

/// Messages as Python has them: a str, bytes, or a tuple of a kind and what belongs to it.
pub(crate) fn to_python(py: Python<'_>, messages: Vec<Message>) -> PyResult<Py<PyAny>> {
    let list = PyList::empty(py);
    for message in messages {
        match message {
            Message::Text(bytes) => list.append(String::from_utf8_lossy(&bytes))?,
            Message::Binary(bytes) => list.append(PyBytes::new(py, &bytes))?,
            Message::Ping(bytes) => list.append(("ping", PyBytes::new(py, &bytes)))?,
            Message::Pong(_) => {}
            Message::Close(None) => list.append(("close", 1005, ""))?,
            Message::Close(Some((code, reason))) => list.append(("close", code, reason))?,
        }
    }
    Ok(list.into_any().unbind())
}
