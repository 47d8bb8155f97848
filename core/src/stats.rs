//! What a server or a client has done and holds: plain numbers, read at one moment.

use std::collections::BTreeMap;

/// What a server or a client has done and holds. Counts run from its start; sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that are open now.
    pub connections: usize,
    /// Connections that there ever were.
    pub connects: u64,
    /// Events received (replies are not events).
    pub events_in: u64,
    /// Messages queued for sending so far: events, replies and control frames.
    pub messages_out: u64,
    /// Bytes received on connections, WebSocket framing included.
    pub bytes_in: u64,
    /// Bytes that have left, WebSocket framing included.
    pub bytes_out: u64,
    /// Acknowledgments awaited now.
    pub acks_pending: usize,
    /// Acknowledgments that timed out.
    pub acks_timed_out: u64,
    /// Replies that nobody waited for.
    pub stray_replies: u64,
    /// Received frames outside the grammar.
    pub malformed_frames: u64,
    /// Handshakes that were refused or broke off.
    pub handshakes_failed: u64,
    /// Handlers that run now.
    pub handlers_in_flight: usize,
    /// Bytes in all outboxes now.
    pub bytes_queued: usize,
    /// Ended connections by reason: what this side closed for (`ping timeout`, `slow consumer`, ...), else the close code.
    pub closes: BTreeMap<String, u64>,
}
