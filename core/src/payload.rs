//! Payloads in and out: what a handler may take ([`FromEvent`]), what may be emitted ([`IntoPayload`]) and what a handler may
//! return ([`IntoReply`]).

use bytes::Bytes;

use crate::error::{BoxError, Error, ErrorKind};
use crate::event::{Event, Incoming};
use crate::websocket::is_text;

/// Bytes ready to be sent, and whether they are valid UTF-8: such a payload travels in a text message, any other in a binary one.
#[derive(Clone, Default)]
pub struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) text: bool,
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What people send each other is not for logs.
        write!(f, "Payload({} bytes)", self.bytes.len())
    }
}

impl Payload {
    /// No data.
    pub fn empty() -> Self {
        Self {
            bytes: Bytes::new(),
            text: true,
        }
    }

    /// A payload of these bytes; looks whether they are valid UTF-8.
    pub fn from_bytes(bytes: Bytes) -> Self {
        let text = is_text(&bytes);
        Self { bytes, text }
    }

    /// A payload that is known to be UTF-8.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self {
            bytes: Bytes::from(text.into()),
            text: true,
        }
    }

    /// Bytes that are known to be valid UTF-8, or not: for bindings that have looked already.
    pub fn checked(bytes: Bytes, text: bool) -> Self {
        Self { bytes, text }
    }

    /// Whether the bytes are valid UTF-8.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// What can be emitted: `&str`, `String`, `&[u8]`, `Vec<u8>`, `Bytes`, [`Json`], `()`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a payload",
    note = "a payload is `&str`, `String`, `&[u8]`, `Vec<u8>`, `Bytes`, `()` or `Json(value)`",
    note = "to send a type of your own, derive `serde::Serialize` for it and write `Json(value)`"
)]
pub trait IntoPayload {
    /// The bytes to send.
    ///
    /// # Errors
    /// `invalid_payload` if the value can't be encoded.
    fn into_payload(self) -> Result<Payload, Error>;
}

impl IntoPayload for Payload {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(self)
    }
}

impl IntoPayload for () {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(Payload::empty())
    }
}

impl IntoPayload for &str {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(Payload {
            bytes: Bytes::copy_from_slice(self.as_bytes()),
            text: true,
        })
    }
}

impl IntoPayload for &String {
    fn into_payload(self) -> Result<Payload, Error> {
        self.as_str().into_payload()
    }
}

impl IntoPayload for String {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(Payload::from_text(self))
    }
}

impl IntoPayload for &[u8] {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(Payload::from_bytes(Bytes::copy_from_slice(self)))
    }
}

impl<const N: usize> IntoPayload for &[u8; N] {
    fn into_payload(self) -> Result<Payload, Error> {
        self.as_slice().into_payload()
    }
}

impl IntoPayload for Vec<u8> {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(Payload::from_bytes(self.into()))
    }
}

impl IntoPayload for Bytes {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(Payload::from_bytes(self))
    }
}

impl IntoPayload for &Bytes {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(Payload::from_bytes(self.clone()))
    }
}

/// What a handler can return: anything that [`IntoPayload`] takes, an `Option` of it (`None` is an empty reply) or a `Result` of
/// it (`Err` sends no reply and goes to `on_error`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a handler's reply",
    note = "a reply is `()`, `&str`, `String`, `Vec<u8>`, `Bytes` or `Json(value)`, an `Option` of these, or a `Result` of these",
    note = "to reply with a type of your own, derive `serde::Serialize` for it and return `Json(value)`"
)]
pub trait IntoReply {
    /// The payload of the acknowledgment.
    ///
    /// # Errors
    /// What the handler failed with; nothing is sent then.
    fn into_reply(self) -> Result<Payload, BoxError>;
}

impl<P: IntoPayload> IntoReply for P {
    fn into_reply(self) -> Result<Payload, BoxError> {
        Ok(self.into_payload()?)
    }
}

impl<T: IntoReply> IntoReply for Option<T> {
    fn into_reply(self) -> Result<Payload, BoxError> {
        self.map_or_else(|| Ok(Payload::empty()), T::into_reply)
    }
}

impl<T: IntoReply, E: Into<BoxError>> IntoReply for Result<T, E> {
    fn into_reply(self) -> Result<Payload, BoxError> {
        self.map_err(Into::into)?.into_reply()
    }
}

/// What a handler can take as its second argument.
#[diagnostic::on_unimplemented(
    message = "a handler can't take `{Self}` as its data",
    note = "the second argument of a handler is `Bytes`, `Vec<u8>`, `String`, `Json<T>`, `Option<Json<T>>`, `Event` or `()`",
    note = "to take a type of your own, derive `serde::Deserialize` for it and write `Json(value): Json<T>`"
)]
pub trait FromEvent: Sized + Send + 'static {
    /// The handler's argument, made of a received event.
    ///
    /// # Errors
    /// `invalid_payload` if the payload is not such a value: the handler is not called, no reply is sent.
    fn from_event(event: &Incoming<'_>) -> Result<Self, Error>;
}

impl FromEvent for () {
    fn from_event(_: &Incoming<'_>) -> Result<Self, Error> {
        Ok(())
    }
}

impl FromEvent for Bytes {
    fn from_event(event: &Incoming<'_>) -> Result<Self, Error> {
        Ok(event.payload_bytes())
    }
}

impl FromEvent for Vec<u8> {
    fn from_event(event: &Incoming<'_>) -> Result<Self, Error> {
        Ok(event.payload().to_vec())
    }
}

impl FromEvent for Event {
    fn from_event(event: &Incoming<'_>) -> Result<Self, Error> {
        Ok(event.to_event())
    }
}

impl FromEvent for String {
    fn from_event(event: &Incoming<'_>) -> Result<Self, Error> {
        match simdutf8::basic::from_utf8(event.payload()) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(invalid(event, "is not UTF-8")),
        }
    }
}

fn invalid(event: &Incoming<'_>, what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidPayload,
        format!("the payload of event {:?} {what}", event.name()),
    )
}

/// A payload that is JSON, through serde (feature `json`). As an argument it decodes, emitted or returned it encodes.
///
/// `Option<Json<T>>` as an argument tells "no data" (`None`) from JSON `null`.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

#[cfg(feature = "json")]
mod json {
    use bytes::Bytes;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::{FromEvent, IntoPayload, Json, Payload, invalid};
    use crate::error::{Error, ErrorKind};
    use crate::event::Incoming;

    impl<T: Serialize> IntoPayload for Json<T> {
        fn into_payload(self) -> Result<Payload, Error> {
            match serde_json::to_vec(&self.0) {
                Ok(bytes) => Ok(Payload {
                    bytes: Bytes::from(bytes),
                    text: true,
                }),
                Err(error) => Err(Error::new(
                    ErrorKind::InvalidPayload,
                    format!(
                        "a value of type {} can't be written as JSON",
                        std::any::type_name::<T>()
                    ),
                )
                .with_source(error)),
            }
        }
    }

    impl<T: DeserializeOwned + Send + 'static> FromEvent for Json<T> {
        fn from_event(event: &Incoming<'_>) -> Result<Self, Error> {
            serde_json::from_slice(event.payload()).map(Json).map_err(|error| {
                // serde_json's sentence may quote the payload; its place and category do not.
                invalid(
                    event,
                    &format!(
                        "is not JSON of the handler's type ({:?} error at line {}, column {})",
                        error.classify(),
                        error.line(),
                        error.column()
                    ),
                )
            })
        }
    }

    impl<T: DeserializeOwned + Send + 'static> FromEvent for Option<Json<T>> {
        fn from_event(event: &Incoming<'_>) -> Result<Self, Error> {
            if event.payload().is_empty() {
                return Ok(None);
            }
            Json::from_event(event).map(Some)
        }
    }
}
