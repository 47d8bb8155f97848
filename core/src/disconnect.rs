//! How a connection ended.

/// How a connection ended: what `on_disconnect` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnect {
    /// The close code (RFC 6455, 7.4): the peer's, or ours where we closed first. 1005 if the peer's close frame carried none,
    /// 1006 if the connection ended without a close frame.
    pub code: u16,
    /// The close reason; empty where there was no close frame.
    pub reason: String,
    /// Whether the closing handshake finished.
    pub clean: bool,
    /// Whether the code is 1000.
    pub normal: bool,
    /// In a client: whether it dials again by itself.
    pub will_reconnect: bool,
}

impl Disconnect {
    pub(crate) fn new(code: u16, reason: impl Into<String>, clean: bool) -> Self {
        Self {
            code,
            reason: reason.into(),
            clean,
            normal: code == 1000,
            will_reconnect: false,
        }
    }
}
