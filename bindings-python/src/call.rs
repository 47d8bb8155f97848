//! Calls without a tuple of arguments: under the limited API of Python 3.11, PyO3 makes one for each call.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

/// `f(a)`.
pub(crate) fn call<'py>(f: &Bound<'py, PyAny>, a: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: all are alive and of an attached thread; the list of arguments ends with null; what comes back is owned, or null with an
    // exception set.
    #[expect(unsafe_code, reason = "variadic function of the stable interface")]
    unsafe {
        let returned = ffi::PyObject_CallFunctionObjArgs(f.as_ptr(), a.as_ptr(), ptr::null_mut::<ffi::PyObject>());
        Bound::from_owned_ptr_or_err(f.py(), returned)
    }
}

/// `f(a, b)`.
pub(crate) fn call_with<'py>(
    f: &Bound<'py, PyAny>,
    a: &Bound<'py, PyAny>,
    b: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: as in `call`.
    #[expect(unsafe_code, reason = "variadic function of the stable interface")]
    unsafe {
        let returned =
            ffi::PyObject_CallFunctionObjArgs(f.as_ptr(), a.as_ptr(), b.as_ptr(), ptr::null_mut::<ffi::PyObject>());
        Bound::from_owned_ptr_or_err(f.py(), returned)
    }
}
