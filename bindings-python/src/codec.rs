//! Payloads as Python values: `text`, `json`, `bytes`, or a pair of functions.

use std::borrow::Cow;

use etp_ws::handler::is_text;
use etp_ws::{Error, ErrorKind};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::Cause;

pub(crate) enum Codec {
    Text,
    Bytes,
    /// `json`, and pairs of the application's own.
    Pair {
        dumps: Py<PyAny>,
        loads: Py<PyAny>,
        /// `loads` takes a `str`, else `bytes`.
        text: bool,
    },
}

/// An encoded payload, borrowed from the Python object where that is possible.
pub(crate) enum Encoded<'py> {
    Empty,
    Text(Bound<'py, PyString>),
    Bytes(Bound<'py, PyBytes>),
    Owned(Vec<u8>),
}

impl Encoded<'_> {
    /// The bytes, and whether they are valid UTF-8.
    pub(crate) fn get(&self) -> Result<(Cow<'_, [u8]>, bool), Error> {
        match self {
            Self::Empty => Ok((Cow::Borrowed(&[]), true)),
            Self::Text(text) => match text.to_str() {
                Ok(text) => Ok((Cow::Borrowed(text.as_bytes()), true)),
                Err(error) => Err(Error::new(
                    ErrorKind::InvalidPayload,
                    "the text can't be encoded as UTF-8 (a lone surrogate)",
                )
                .with_source(Cause::new(text.py(), error))),
            },
            Self::Bytes(bytes) => Ok((Cow::Borrowed(bytes.as_bytes()), is_text(bytes.as_bytes()))),
            Self::Owned(bytes) => Ok((Cow::Borrowed(bytes), is_text(bytes))),
        }
    }
}

fn wrong_type(value: &Bound<'_, PyAny>, wanted: &str) -> Error {
    let name = value
        .get_type()
        .qualname()
        .map_or_else(|_| "?".to_owned(), |name| name.to_string());
    Error::new(ErrorKind::InvalidPayload, format!("{wanted}, not {name}"))
}

/// `bytes`, `bytearray` or `memoryview`.
fn bytes_of<'py>(value: &Bound<'py, PyAny>) -> Option<Encoded<'py>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Some(Encoded::Bytes(bytes.clone()));
    }
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        return Some(Encoded::Owned(bytes.to_vec()));
    }
    let buffer = PyBuffer::<u8>::get(value).ok()?;
    buffer.to_vec(value.py()).ok().map(Encoded::Owned)
}

impl Codec {
    /// The payload of a value; `None` is an empty one.
    pub(crate) fn encode<'py>(&self, value: &Bound<'py, PyAny>) -> Result<Encoded<'py>, Error> {
        if value.is_none() {
            return Ok(Encoded::Empty);
        }
        match self {
            Self::Text => match value.cast::<PyString>() {
                Ok(text) => Ok(Encoded::Text(text.clone())),
                Err(_) => Err(wrong_type(value, "the codec \"text\" takes a str or None")),
            },
            Self::Bytes => bytes_of(value)
                .ok_or_else(|| wrong_type(value, "the codec \"bytes\" takes bytes, bytearray, memoryview or None")),
            Self::Pair { dumps, .. } => {
                let py = value.py();
                let encoded = dumps.bind(py).call1((value,)).map_err(|error| {
                    Error::new(ErrorKind::InvalidPayload, "the codec can't encode the value")
                        .with_source(Cause::new(py, error))
                })?;
                match encoded.cast_into::<PyString>() {
                    Ok(text) => Ok(Encoded::Text(text)),
                    Err(other) => {
                        let other = other.into_inner();
                        bytes_of(&other)
                            .ok_or_else(|| wrong_type(&other, "the codec's first function returns str or bytes"))
                    }
                }
            }
        }
    }

    /// The value of a payload.
    pub(crate) fn decode<'py>(&self, py: Python<'py>, payload: &[u8]) -> Result<Bound<'py, PyAny>, Error> {
        self.finish(self.raw(py, payload)?)
    }

    /// The payload as a `str` or `bytes`, or `None` where it is no data. Runs no Python code.
    pub(crate) fn raw<'py>(&self, py: Python<'py>, payload: &[u8]) -> Result<Bound<'py, PyAny>, Error> {
        match self {
            Self::Pair { .. } if payload.is_empty() => Ok(py.None().into_bound(py)),
            Self::Text | Self::Pair { text: true, .. } => match std::str::from_utf8(payload) {
                Ok(text) => Ok(PyString::new(py, text).into_any()),
                Err(_) => Err(Error::new(ErrorKind::InvalidPayload, "the payload is not UTF-8")),
            },
            Self::Bytes | Self::Pair { .. } => Ok(PyBytes::new(py, payload).into_any()),
        }
    }

    /// The value of what [`raw`](Self::raw) made.
    pub(crate) fn finish<'py>(&self, raw: Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Error> {
        match self {
            Self::Pair { loads, .. } if !raw.is_none() => {
                let py = raw.py();
                loads.bind(py).call1((raw,)).map_err(|error| {
                    Error::new(ErrorKind::InvalidPayload, "the codec can't decode the payload")
                        .with_source(Cause::new(py, error))
                })
            }
            _ => Ok(raw),
        }
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Self::Pair { dumps, loads, .. } = self {
            visit.call(dumps)?;
            visit.call(loads)?;
        }
        Ok(())
    }
}
