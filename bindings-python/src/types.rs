//! The classes that are written in Python and that the core's side makes instances of.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::error::misuse;

/// Classes and functions of the package.
pub(crate) struct Types {
    pub(crate) conn: Py<PyAny>,
    pub(crate) broadcast: Py<PyAny>,
    pub(crate) request: Py<PyAny>,
    pub(crate) disconnect: Py<PyAny>,
    pub(crate) accept: Py<PyType>,
    pub(crate) reject: Py<PyType>,
    pub(crate) stats: Py<PyAny>,
    /// Error classes by code.
    pub(crate) errors: Py<PyDict>,
    /// `async def work(runner): await runner`.
    pub(crate) work: Py<PyAny>,
    /// `def log_error(conn, error)`: what happens to errors without `on_error`.
    pub(crate) log_error: Py<PyAny>,
    /// `def drain_logs()`.
    pub(crate) drain_logs: Py<PyAny>,
    pub(crate) coroutine: Py<PyType>,
    pub(crate) cancelled: Py<PyType>,
    pub(crate) copy_context: Py<PyAny>,
    pub(crate) current_task: Py<PyAny>,
}

static TYPES: PyOnceLock<Types> = PyOnceLock::new();

/// Tells the module its classes; called once, while the package is imported.
#[pyfunction]
pub(crate) fn install(py: Python<'_>, classes: &Bound<'_, PyDict>) -> PyResult<()> {
    let class = |name: &str| -> PyResult<Py<PyAny>> {
        classes
            .get_item(name)?
            .map(Bound::unbind)
            .ok_or_else(|| misuse(format!("the package has no {name}")))
    };
    let kind = |name: &str| -> PyResult<Py<PyType>> { Ok(class(name)?.bind(py).cast::<PyType>()?.clone().unbind()) };
    let types = Types {
        conn: class("Conn")?,
        broadcast: class("Broadcast")?,
        request: class("Request")?,
        disconnect: class("Disconnect")?,
        accept: kind("Accept")?,
        reject: kind("Reject")?,
        stats: class("Stats")?,
        errors: class("errors")?.bind(py).cast::<PyDict>()?.clone().unbind(),
        work: class("work")?,
        log_error: class("log_error")?,
        drain_logs: class("drain_logs")?,
        coroutine: kind("CoroutineType")?,
        cancelled: kind("CancelledError")?,
        copy_context: class("copy_context")?,
        current_task: class("current_task")?,
    };
    // A second import of the package in one interpreter finds the same classes.
    let _ = TYPES.set(py, types);
    Ok(())
}

pub(crate) fn types(py: Python<'_>) -> PyResult<&Types> {
    TYPES
        .get(py)
        .ok_or_else(|| misuse("import etp_ws, not etp_ws._etp_ws".to_owned()))
}
