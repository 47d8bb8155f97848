//! What tells connections apart and what they carry: ids and typed values.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// A connection's id: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub(crate) u128);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ConnId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match u128::from_str_radix(text, 16) {
            Ok(id) if text.len() == 32 && !text.starts_with('+') => Ok(Self(id)),
            _ => Err(Error::option("a connection id is 32 hexadecimal digits")),
        }
    }
}

/// Typed values that live with a connection, one of each type.
#[derive(Default)]
pub struct Data(pub(super) Mutex<http::Extensions>);

impl Data {
    fn lock(&self) -> MutexGuard<'_, http::Extensions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a value, and answers the one of its type that it replaces.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) -> Option<T> {
        self.lock().insert(value)
    }

    /// A clone of the value of this type; share what is costly to clone in an `Arc`.
    pub fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.lock().get().cloned()
    }

    /// Takes the value of this type out.
    pub fn remove<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.lock().remove()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Data")
    }
}
