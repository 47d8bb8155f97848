//! What the decoder hands over: whole messages and control frames.

use std::ops::Deref;

use super::CloseFrame;

/// One whole message or control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A data message, put together from its fragments.
    Message {
        /// A binary message; else text, which is then valid UTF-8 unless `rsv1` is set.
        binary: bool,
        /// RSV1 of the first frame: what it means is the negotiated extension's (compressed, RFC 7692).
        rsv1: bool,
        /// The payload.
        data: Data<'a>,
    },
    /// A ping, to be answered by a pong with the same payload (RFC 6455, 5.5.2).
    Ping(Data<'a>),
    /// A pong, asked for or not.
    Pong(Data<'a>),
    /// A close frame; without a payload it is `None` (code 1005 to the application). Nothing comes after it.
    Close(Option<CloseFrame<'a>>),
}

/// A payload: a range of the caller's input where that held all of it, else gathered from pieces.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// A range of the input, unmasked in place.
    Borrowed(&'a [u8]),
    /// Gathered by the decoder, which keeps nothing of it.
    Owned(Vec<u8>),
}

impl Data<'_> {
    /// The payload as a vector: copied only if it was borrowed.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Data::Borrowed(bytes) => bytes.to_vec(),
            Data::Owned(bytes) => bytes,
        }
    }
}

impl Deref for Data<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Data::Borrowed(bytes) => bytes,
            Data::Owned(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Data<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

// Where the bytes lie is no part of what was received.
impl PartialEq for Data<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Data<'_> {}
