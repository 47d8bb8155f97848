//! The answers to a handshake: let in, or turn away.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::conn::check_close;
use crate::error::{BoxError, Error};

/// Lets a connection in, with data, answer headers, a subprotocol, or a close code at once.
#[derive(Default)]
pub struct Accept {
    pub(crate) data: http::Extensions,
    pub(crate) headers: HeaderMap,
    pub(crate) protocol: Option<String>,
    pub(crate) close: Option<(u16, String)>,
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may be cookies.
        write!(f, "Accept(protocol {:?}, close {:?})", self.protocol, self.close)
    }
}

impl Accept {
    /// Lets the connection in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a value with the connection: [`Conn::data`](crate::Conn::data). One of each type.
    pub fn data<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.data.insert(value);
        self
    }

    /// Adds a header to the answer, a cookie for example.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Selects a subprotocol that the client offered. Without this `etp` is selected if it was offered.
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocol = Some(protocol.into());
        self
    }

    /// Lets the connection in only to close it with a code that a browser's script can read, where a status would be hidden.
    ///
    /// # Errors
    /// `invalid_option` if the code can't be sent or the reason is longer than 123 bytes.
    pub fn close(mut self, code: u16, reason: impl Into<String>) -> Result<Self, Error> {
        let reason = reason.into();
        check_close(code, &reason)?;
        self.close = Some((code, reason));
        Ok(self)
    }
}

/// Turns a handshake away with an HTTP status.
///
/// Any error turns into a 500 by `?`; its text goes to `on_error`, not to the peer.
pub struct Reject(pub(crate) Box<Rejection>);

pub(crate) struct Rejection {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
    pub(crate) headers: HeaderMap,
    pub(crate) cause: Option<BoxError>,
}

impl Reject {
    /// A rejection with this status: 401 and 403 tell our clients not to come back, 503 and 429 to come back later.
    ///
    /// A status below 400 or above 599 becomes 500.
    pub fn new(status: u16) -> Self {
        let status = match StatusCode::from_u16(status) {
            Ok(status) if status.is_client_error() || status.is_server_error() => status,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(Box::new(Rejection {
            status,
            body: status.canonical_reason().unwrap_or("rejected").to_owned(),
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// A rejection with 500, for a failure of ours: the error goes to `on_error`, not to the peer. For errors that `?` does not take.
    pub fn because(error: impl Into<BoxError>) -> Self {
        let mut reject = Self::new(500);
        reject.0.cause = Some(error.into());
        reject
    }

    /// The body that the peer gets, as plain text.
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.0.body = body.into();
        self
    }

    /// Adds a header, `Retry-After` for example.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.0.status.as_u16()
    }
}

impl fmt::Debug for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reject({})", self.0.status)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Reject {
    fn from(error: E) -> Self {
        Self::because(error)
    }
}

/// What `on_upgrade` may return: `()`, [`Accept`], or a `Result` with a [`Reject`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the outcome of `on_upgrade`",
    note = "`on_upgrade` returns `()`, `Accept`, or `Result<Accept, Reject>`; any error turns into a `Reject` of status 500 by `?`"
)]
pub trait IntoUpgrade {
    /// What the connection gets if it is let in.
    ///
    /// # Errors
    /// The rejection.
    fn into_upgrade(self) -> Result<Accept, Reject>;
}

impl IntoUpgrade for () {
    fn into_upgrade(self) -> Result<Accept, Reject> {
        Ok(Accept::new())
    }
}

impl IntoUpgrade for Accept {
    fn into_upgrade(self) -> Result<Accept, Reject> {
        Ok(self)
    }
}

impl<T: IntoUpgrade> IntoUpgrade for Result<T, Reject> {
    fn into_upgrade(self) -> Result<Accept, Reject> {
        self?.into_upgrade()
    }
}
