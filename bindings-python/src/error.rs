//! The core's errors as Python exceptions, Python exceptions as causes of the core's errors, and panics as neither.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use etp_ws::{Error, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::types::types;

/// The code of uses that can't be: after a fork, on another event loop.
const STATE: &str = "invalid_state";
/// The code of bugs of this package.
const BUG: &str = "internal_error";

/// An exception of Python on its way through the core, to be found again by [`to_exception`].
pub(crate) struct Cause {
    error: PyErr,
    shown: String,
}

impl Cause {
    pub(crate) fn new(py: Python<'_>, error: PyErr) -> Self {
        let value = error.value(py);
        if let Some(traceback) = error.traceback(py) {
            // An exception object carries its own only once it was caught in Python.
            let _ = value.setattr("__traceback__", traceback);
        }
        let name = value
            .get_type()
            .qualname()
            .map_or_else(|_| "Exception".to_owned(), |name| name.to_string());
        let text = value.str().map(|text| text.to_string()).unwrap_or_default();
        let shown = if text.is_empty() {
            name
        } else {
            format!("{name}: {text}")
        };
        Self { error, shown }
    }

    pub(crate) fn again(&self, py: Python<'_>) -> Self {
        Self {
            error: self.error.clone_ref(py),
            shown: self.shown.clone(),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl std::error::Error for Cause {}

/// The Python exception object of a core's error, its cause set where it was one of Python's.
pub(crate) fn to_exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let types = types(py)?;
    let code = error.code();
    let class = match types.errors.bind(py).get_item(code)? {
        Some(class) => class,
        None => types.errors.bind(py).as_any().get_item(BUG)?,
    };
    let exception = class.call1((error.to_string(),))?;
    match error.kind() {
        ErrorKind::ConnectionClosed => {
            exception.setattr("close_code", error.close_code())?;
            exception.setattr("close_reason", error.close_reason())?;
        }
        ErrorKind::ConnectFailed | ErrorKind::Rejected | ErrorKind::HandshakeFailed => {
            exception.setattr("status", error.status())?;
        }
        _ => {}
    }
    if let Some(cause) = error.cause().and_then(|cause| cause.downcast_ref::<Cause>()) {
        exception.setattr("__cause__", cause.error.value(py))?;
    }
    Ok(exception)
}

/// The core's error to be raised.
pub(crate) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    match to_exception(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(failed) => failed,
    }
}

/// An error of a use that can't be.
pub(crate) fn misuse(message: String) -> PyErr {
    coded(STATE, message)
}

/// An error with one of the table's codes that is found on this side.
pub(crate) fn coded(code: &str, message: String) -> PyErr {
    Python::attach(|py| {
        let class = types(py).and_then(|types| types.errors.bind(py).as_any().get_item(code));
        match class.and_then(|class| class.call1((&message,))) {
            Ok(exception) => PyErr::from_value(exception),
            Err(_) => PyRuntimeError::new_err(message),
        }
    })
}

/// Runs an entry from Python: a panic becomes an exception that `except Exception` catches.
pub(crate) fn guard<T>(f: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            Err(coded(BUG, format!("a bug in etp_ws, please report it: {text}")))
        }
    }
}
