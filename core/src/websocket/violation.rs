//! What a peer did against the protocol or its limits, and the close code that answers it.

use std::error::Error;
use std::fmt;

/// Why a connection must be closed: send `code` and `reason` in a close frame, then end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// 1002 (protocol error), 1007 (text or a close reason is not UTF-8) or 1009 (message too big).
    pub code: u16,
    /// What was wrong, without any of the peer's bytes; short enough for a close frame.
    pub reason: &'static str,
}

impl Violation {
    pub(super) const fn protocol(reason: &'static str) -> Self {
        Self { code: 1002, reason }
    }

    pub(super) const fn not_utf8(reason: &'static str) -> Self {
        Self { code: 1007, reason }
    }

    pub(super) const fn too_big(reason: &'static str) -> Self {
        Self { code: 1009, reason }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "WebSocket violation by the peer: {} (close code {})",
            self.reason, self.code
        )
    }
}

impl Error for Violation {}
