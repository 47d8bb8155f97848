//! The one error of the crate: a kind with a stable code, a sentence for people, and the cause below it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Any error that a handler may return or a cause may be.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong, for programs. [`ErrorKind::code`] is the same string in every language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection is closed, or closed while the call waited.
    ConnectionClosed,
    /// No reply arrived by the deadline.
    AckTimeout,
    /// A direct emit would pass `max_outbox`, or the queue for the time away is full.
    OutboxFull,
    /// As many acknowledgments are awaited as `max_pending_acks` allows.
    TooManyAcks,
    /// The message is larger than `max_message_size`.
    MessageTooLarge,
    /// The event's name is outside the grammar or reserved.
    InvalidEvent,
    /// A payload can't be encoded or decoded.
    InvalidPayload,
    /// An option that can't be: a limit, an address, a TLS file, an origin.
    InvalidOption,
    /// The listening address is taken or forbidden.
    ListenFailed,
    /// A dial did not lead to a connection.
    ConnectFailed,
    /// The server answered a dial with 401 or 403.
    Rejected,
    /// A received frame is outside the grammar (only to `on_error`).
    MalformedFrame,
    /// An event that nobody handles (only to `on_error`).
    NoHandler,
    /// A handler returned an error, panicked or gave its ticket away (only to `on_error`).
    HandlerFailed,
    /// A peer's handshake was refused or broke off (to `on_error`, and to whoever called an `accept` of the server).
    HandshakeFailed,
}

impl ErrorKind {
    /// The stable code: `ack_timeout`, `connection_closed`, and so on.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ConnectionClosed => "connection_closed",
            Self::AckTimeout => "ack_timeout",
            Self::OutboxFull => "outbox_full",
            Self::TooManyAcks => "too_many_acks",
            Self::MessageTooLarge => "message_too_large",
            Self::InvalidEvent => "invalid_event",
            Self::InvalidPayload => "invalid_payload",
            Self::InvalidOption => "invalid_option",
            Self::ListenFailed => "listen_failed",
            Self::ConnectFailed => "connect_failed",
            Self::Rejected => "rejected",
            Self::MalformedFrame => "malformed_frame",
            Self::NoHandler => "no_handler",
            Self::HandlerFailed => "handler_failed",
            Self::HandshakeFailed => "handshake_failed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The error of every fallible call. It carries no payload, token, cookie or query string.
#[derive(Clone)]
pub struct Error(Box<Repr>);

#[derive(Clone)]
struct Repr {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    close: Option<(u16, String)>,
    status: Option<u16>,
}

impl Error {
    /// An error of this kind that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Repr {
            kind,
            message: message.into(),
            source: None,
            close: None,
            status: None,
        }))
    }

    /// The same error with its cause.
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    pub(crate) fn closed(close: Option<(u16, &str)>) -> Self {
        let mut error = match close {
            Some((code, "")) => Self::new(
                ErrorKind::ConnectionClosed,
                format!("the connection is closed (code {code})"),
            ),
            Some((code, reason)) => Self::new(
                ErrorKind::ConnectionClosed,
                format!("the connection is closed (code {code}, {reason:?})"),
            ),
            None => Self::new(ErrorKind::ConnectionClosed, "the connection is closed"),
        };
        error.0.close = close.map(|(code, reason)| (code, reason.to_owned()));
        error
    }

    pub(crate) fn option(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidOption, message)
    }

    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code of the kind, the same in every language.
    pub fn code(&self) -> &'static str {
        self.0.kind.code()
    }

    /// The error that caused this one, to be looked at or downcast; its sentence stands in ours already.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.0.source.as_deref()
    }

    /// With [`ErrorKind::ConnectionClosed`]: the close code, where it is known.
    pub fn close_code(&self) -> Option<u16> {
        self.0.close.as_ref().map(|close| close.0)
    }

    /// With [`ErrorKind::ConnectionClosed`]: the close reason, where it is known.
    pub fn close_reason(&self) -> Option<&str> {
        self.0.close.as_ref().map(|close| close.1.as_str())
    }

    /// The HTTP status that ended a dial or a handshake, where there was one.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }
}

/// What an error says, with all its causes: for those that keep the cause out of their own text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += ": ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}: {self})", self.code())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The cause's own sentence already stands in ours; what is below it is still reachable.
        self.0.source.as_ref().and_then(|source| source.source())
    }
}
