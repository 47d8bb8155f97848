//! What moves bytes: handshakes, dials, the task of a connection and its outbox.

pub(crate) mod accept;
pub(crate) mod dial;
pub(crate) mod link;
pub(crate) mod origin;
pub(crate) mod outbox;
pub(crate) mod pipe;
pub(crate) mod stream;
pub(crate) mod tcp;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod transport;
#[cfg(feature = "tokio-tungstenite")]
pub(crate) mod tungstenite;
pub(crate) mod watch;
pub(crate) mod wire;
