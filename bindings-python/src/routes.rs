//! The handlers and callbacks of one server or client, and its codec. They may change while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{PyTraverseError, PyVisit};
use rustc_hash::FxHashMap;

use crate::cell::AttachedCell;
use crate::codec::Codec;
use crate::error::guard;

/// What the core's thread must know of the callbacks.
#[derive(Default)]
pub(crate) struct Flags {
    pub(crate) upgrade: AtomicBool,
    pub(crate) connect: AtomicBool,
}

/// A function that is called at a turn of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    Upgrade,
    Connect,
    Disconnect,
    Error,
    Unknown,
    Url,
    Auth,
    ShouldReconnect,
}

impl Callback {
    const ALL: [(&'static str, Self); 8] = [
        ("on_upgrade", Self::Upgrade),
        ("on_connect", Self::Connect),
        ("on_disconnect", Self::Disconnect),
        ("on_error", Self::Error),
        ("on_unknown_event", Self::Unknown),
        ("url", Self::Url),
        ("auth", Self::Auth),
        ("should_reconnect", Self::ShouldReconnect),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// A function for an event, with the name of its tasks.
pub(crate) struct Handler {
    pub(crate) f: Py<PyAny>,
    pub(crate) task_name: Py<PyString>,
}

#[derive(Default)]
struct Table {
    handlers: FxHashMap<String, Arc<Handler>>,
    callbacks: [Option<Py<PyAny>>; Callback::ALL.len()],
    /// Functions that get a copy of each event: `tap(name, data)`.
    taps: Vec<Py<PyAny>>,
}

/// Handlers, callbacks and codec of a server or client.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct Routes {
    table: AttachedCell<Table>,
    pub(crate) flags: Arc<Flags>,
    pub(crate) codec: Codec,
    /// Handlers take `(data)` instead of `(conn, data)`.
    pub(crate) client: bool,
}

#[pymethods]
impl Routes {
    /// `codec`: "text", "bytes", or "json" and "pair" with two functions.
    #[new]
    #[pyo3(signature = (codec, dumps=None, loads=None, *, client=false))]
    fn new(codec: &str, dumps: Option<Py<PyAny>>, loads: Option<Py<PyAny>>, client: bool) -> PyResult<Self> {
        let codec = match (codec, dumps, loads) {
            ("text", ..) => Codec::Text,
            ("bytes", ..) => Codec::Bytes,
            (kind, Some(dumps), Some(loads)) => Codec::Pair {
                dumps,
                loads,
                text: kind == "json",
            },
            _ => return Err(crate::error::misuse("no such codec".to_owned())),
        };
        Ok(Self {
            table: AttachedCell::new(Table::default()),
            flags: Arc::default(),
            codec,
            client,
        })
    }

    /// Sets or replaces the handler of an event.
    fn set_handler(&self, py: Python<'_>, name: &Bound<'_, PyString>, f: Py<PyAny>) -> PyResult<()> {
        guard(|| {
            let name = crate::conn::name_of(name)
                .map_err(|error| crate::error::raise(py, &error))?
                .to_owned();
            if let Err(defect) = etp_ws::protocol::frame::check_name(&name) {
                return Err(crate::error::coded("invalid_event", format!("{name:?}: {defect}")));
            }
            let task_name = PyString::new(py, &format!("etp_ws {name}")).unbind();
            let handler = Arc::new(Handler { f, task_name });
            let replaced = self.table.borrow_mut(py).handlers.insert(name, handler);
            drop(replaced);
            Ok(())
        })
    }

    fn remove_handler(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        guard(|| {
            let removed = self.table.borrow_mut(py).handlers.remove(name);
            Ok(removed.is_some())
        })
    }

    /// Sets a callback by its name, or takes it away.
    #[pyo3(signature = (name, f))]
    fn set_callback(&self, py: Python<'_>, name: &str, f: Option<Py<PyAny>>) -> PyResult<()> {
        guard(|| {
            let found = Callback::ALL.iter().find(|(key, _)| *key == name);
            let Some((_, callback)) = found else {
                return Err(crate::error::misuse(format!("no callback {name:?}")));
            };
            match callback {
                Callback::Upgrade => self.flags.upgrade.store(f.is_some(), Ordering::Relaxed),
                Callback::Connect => self.flags.connect.store(f.is_some(), Ordering::Relaxed),
                _ => {}
            }
            let slot = &mut self.table.borrow_mut(py).callbacks[*callback as usize];
            let replaced = std::mem::replace(slot, f);
            drop(replaced);
            Ok(())
        })
    }

    /// The functions that get a copy of each event.
    fn set_taps(&self, py: Python<'_>, taps: Vec<Py<PyAny>>) -> PyResult<()> {
        guard(|| {
            let replaced = std::mem::replace(&mut self.table.borrow_mut(py).taps, taps);
            drop(replaced);
            Ok(())
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.codec.traverse(visit)?;
        let Some(table) = self.table.try_borrow_mut() else {
            return Ok(());
        };
        for handler in table.handlers.values() {
            visit.call(&handler.f)?;
        }
        for callback in table.callbacks.iter().flatten() {
            visit.call(callback)?;
        }
        for tap in &table.taps {
            visit.call(tap)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        // What is dropped may run code that comes back here: outside the borrow.
        let table = self.table.try_borrow_mut().map(|mut table| std::mem::take(&mut *table));
        drop(table);
    }
}

impl Routes {
    pub(crate) fn handler(&self, py: Python<'_>, name: &str) -> Option<Arc<Handler>> {
        self.table.borrow_mut(py).handlers.get(name).cloned()
    }

    pub(crate) fn callback(&self, py: Python<'_>, callback: Callback) -> Option<Py<PyAny>> {
        self.table.borrow_mut(py).callbacks[callback as usize]
            .as_ref()
            .map(|f| f.clone_ref(py))
    }

    pub(crate) fn has(&self, py: Python<'_>, callback: Callback) -> bool {
        self.table.borrow_mut(py).callbacks[callback as usize].is_some()
    }

    pub(crate) fn taps(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let table = self.table.borrow_mut(py);
        table.taps.iter().map(|tap| tap.clone_ref(py)).collect()
    }
}
