//! What a link needs of the thing below it: messages in, frames out. A byte stream, an in-memory pipe and somebody else's
//! WebSocket are transports alike, under the same session, limits and outbox.

use std::io;
use std::task::{Context, Poll};

use crate::net::outbox::Writing;
use crate::websocket::{Item, Violation};

/// What one call to [`Transport::poll_read`] came to.
pub(crate) enum Read {
    /// So many bytes were read; their items have been handed over.
    Some(usize),
    /// The peer broke the WebSocket protocol or a limit.
    Violation(Violation),
    /// Nothing more will come.
    End(Option<io::Error>),
}

pub(crate) trait Transport: Send + Unpin + 'static {
    /// Reads once, hands over the items that are whole, until `on` answers false.
    fn poll_read(&mut self, cx: &mut Context<'_>, on: &mut dyn FnMut(Item<'_>) -> bool) -> Poll<Read>;

    /// Writes from the front of `out` and advances it; answers how many bytes have left.
    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Writing) -> Poll<io::Result<usize>>;

    /// Pushes out what the transport itself holds back.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// After the last frame: ends the sending direction and waits for the peer to end its own, so that what was sent last is not
    /// lost to a reset. The link bounds the time.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// A message has begun and is not complete.
    fn mid_message(&self) -> bool {
        false
    }

    /// Bytes of that message so far, to see whether it makes progress.
    fn message_bytes(&self) -> u64 {
        0
    }
}
