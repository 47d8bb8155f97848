//! The wire log: every message with the beginning of its payload, for debugging. Off unless asked for, as payloads hold secrets.

use crate::conn::Conn;
use crate::net::outbox::Heading;

/// Bytes of a payload that are shown.
const SHOWN: usize = 256;

/// Logs a message that is queued.
pub(crate) fn sent(conn: &Conn, heading: Heading<'_>, payload: &[u8]) {
    if conn.hub().limits.wire_log {
        let (name, ack_id) = match heading {
            Heading::Event { name, ack_id } => (name.to_owned(), ack_id),
            Heading::Reply { name, ack_id } => (format!("__ack_{name}"), ack_id),
        };
        tracing::trace!(
            target: "etp_ws::wire", conn = %conn.id(), direction = "out", ack_id, bytes = payload.len(),
            "{name:?} \"{}\"", payload[..payload.len().min(SHOWN)].escape_ascii()
        );
    }
}

/// Logs a received message, whole or broken.
pub(crate) fn received(conn: &Conn, frame: &[u8]) {
    if conn.hub().limits.wire_log {
        tracing::trace!(
            target: "etp_ws::wire", conn = %conn.id(), direction = "in", bytes = frame.len(),
            "\"{}\"", frame[..frame.len().min(SHOWN)].escape_ascii()
        );
    }
}
