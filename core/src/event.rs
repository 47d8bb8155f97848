//! Events as they arrive: borrowed for the handler trait, owned for handlers.

use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;

/// A received event, borrowed from the bytes it arrived in.
///
/// What the [`Handler`](crate::handler::Handler) trait sees. Nothing is copied until [`payload_bytes`](Self::payload_bytes) or
/// [`to_event`](Self::to_event) is called.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    pub(crate) name: &'a str,
    pub(crate) payload: &'a [u8],
    /// The buffer that `payload` lies in, where it is one that can be shared.
    pub(crate) shared: Option<&'a Bytes>,
    pub(crate) text: bool,
    pub(crate) wants_reply: bool,
}

impl<'a> Incoming<'a> {
    /// The event's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The payload as it lies in the receive buffer.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload to keep: a slice of the message where that one owns its buffer (large or fragmented ones), else a copy, so
    /// that a kept payload never pins a receive buffer.
    pub fn payload_bytes(&self) -> Bytes {
        match self.shared {
            Some(bytes) => bytes.slice_ref(self.payload),
            None => Bytes::copy_from_slice(self.payload),
        }
    }

    /// Whether it came in a text message, whose payload is valid UTF-8.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// Whether the peer waits for an acknowledgment.
    pub fn wants_reply(&self) -> bool {
        self.wants_reply
    }

    /// An owned event.
    pub fn to_event(&self) -> Event {
        Event {
            name: self.name.into(),
            payload: self.payload_bytes(),
            text: self.text,
            wants_reply: self.wants_reply,
        }
    }
}

/// A received event: name and payload. Any handler may take one as its argument.
#[derive(Clone)]
pub struct Event {
    name: CompactString,
    payload: Bytes,
    text: bool,
    wants_reply: bool,
}

// What people send each other is not for logs: names and lengths are shown, payloads are not.
impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({:?}, {} bytes)", self.name, self.payload.len())
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?}, {} bytes)", self.name, self.payload.len())
    }
}

impl Event {
    /// The event's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload without a copy.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }

    /// Whether it came in a text message, whose payload is valid UTF-8.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// Whether the peer waits for an acknowledgment.
    pub fn wants_reply(&self) -> bool {
        self.wants_reply
    }

    pub(crate) fn as_incoming(&self) -> Incoming<'_> {
        Incoming {
            name: &self.name,
            payload: &self.payload,
            shared: Some(&self.payload),
            text: self.text,
            wants_reply: self.wants_reply,
        }
    }

    /// What the event costs while it waits, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.payload.len() + self.name.len() + size_of::<Self>()
    }
}
