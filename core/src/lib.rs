//! ETP, the event transport protocol: events, acknowledgments and rooms over WebSocket. Server and client.
//!
//! Either side emits named events with a payload; where it wants an answer it awaits the acknowledgment, which is what the other
//! side's handler returns. The server knows rooms of connections and sends to all their members at once.
//!
//! ```
//! # #[cfg(not(feature = "net"))]
//! # fn main() {}
//! # #[cfg(feature = "net")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), etp_ws::Error> {
//! use std::time::Duration;
//!
//! use etp_ws::{Bytes, Client, Conn, Disconnect, Server, testing};
//!
//! let server = Server::builder()
//!     .on_connect(|conn: Conn| conn.join("lobby"))
//!     .on("say", |conn: Conn, text: String| conn.to("lobby").except(&conn).emit("said", text))
//!     .on("hello", async |_conn: Conn, data: Bytes| data)
//!     .on_disconnect(|conn: Conn, end: Disconnect| println!("{} left: {}", conn.id(), end.code))
//!     .build()?;
//!
//! // In memory here; over the network `server.listen("127.0.0.1:8080").await` and
//! // `Client::builder().connect("ws://127.0.0.1:8080/ws").await`.
//! let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
//! let ann = testing::connect(&server, Client::builder()).await?;
//! let bob = Client::builder().on("said", async move |_: Conn, text: String| drop(said.send(text)));
//! let bob = testing::connect(&server, bob).await?;
//!
//! ann.emit("say", "hi")?;
//! assert_eq!(heard.recv().await.as_deref(), Some("hi"));
//! let reply = bob.emit_with_ack("hello", "you").timeout(Duration::from_secs(1)).await?;
//! assert_eq!(reply, "you");
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | for | see |
//! |---|---|
//! | options, handlers and callbacks | [`ServerBuilder`], [`ClientBuilder`] |
//! | what a handler may take, and may return | [`FromEvent`], [`IntoReply`]; [`blocking`] and [`spawned`] wrap one that is busy for long |
//! | a connection: emitting, rooms, data, closing | [`Conn`] |
//! | sending to many | [`Server::to`], [`Conn::to`], [`Broadcast`] |
//! | letting connections in, or not | [`ServerBuilder::on_upgrade`], [`Request`], [`Accept`], [`Reject`] |
//! | ways in: a port, a listener, a Unix socket, axum, a stream | [`Server`] |
//! | wrapping every event | [`ServerBuilder::middleware`], [`Next`] |
//! | coming back after a lost connection | [`ClientBuilder::reconnect`], [`Reconnect`], [`State`] |
//! | what went wrong | [`Error`], [`ErrorKind`], [`Disconnect`] |
//! | numbers for monitoring | [`Stats`] |
//! | tests without ports | [`testing`] |
//! | binding another language | [`handler`] |
//! | the protocol without sockets; RFC 6455 without sockets | [`protocol`], [`websocket`] |
//!
//! # What to know
//!
//! - `emit` never waits: it queues, or says `outbox_full`. [`Conn::drain`] is the awaitable for flow control.
//! - Everything may be called from any thread, inside or outside a runtime. Connections run on one tokio runtime: the one in which
//!   the server or client was first used, or that of [`ServerBuilder::runtime`].
//! - Handlers are fixed when the server or client is built. Captures of a handler are cloned for each event.
//! - Async handlers share their connection's task: what blocks the thread there holds up that connection, and on a single thread all
//!   of them.
//! - No callback is required. Errors that have no caller are logged through `tracing`, target `etp_ws`, unless there is an `on_error`.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `net` | yes | server and client over tokio; without it only [`protocol`] is built, `no_std` with `alloc` |
//! | `tls` | yes | `wss://` in clients, certificates in servers, by rustls |
//! | `json` | yes | [`Json`], payloads through serde |
//! | `tokio-tungstenite` | no | [`Server::accept_websocket`] and [`ClientBuilder::connect_websocket`]: a WebSocket that the application upgraded or dialled itself |
#![cfg_attr(not(feature = "net"), no_std)]
// The front page links to what the feature `net` has.
#![cfg_attr(not(feature = "net"), allow(rustdoc::broken_intra_doc_links))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

#[cfg(feature = "net")]
mod broadcast;
#[cfg(feature = "net")]
mod client;
#[cfg(feature = "net")]
mod conn;
#[cfg(feature = "net")]
mod disconnect;
#[cfg(feature = "net")]
mod error;
#[cfg(feature = "net")]
mod event;
#[cfg(feature = "net")]
pub mod handler;
#[cfg(feature = "net")]
mod hub;
#[cfg(feature = "net")]
mod limits;
#[cfg(feature = "net")]
mod names;
#[cfg(feature = "net")]
mod net;
#[cfg(feature = "net")]
mod payload;
pub mod protocol;
#[cfg(feature = "net")]
mod request;
#[cfg(feature = "net")]
mod rooms;
#[cfg(feature = "net")]
mod router;
#[cfg(feature = "net")]
mod server;
#[cfg(feature = "net")]
mod stats;
#[cfg(feature = "net")]
pub mod testing;
#[cfg(feature = "net")]
mod upgrade;
#[cfg(feature = "net")]
pub mod websocket;

#[cfg(feature = "tls")]
pub use net::tls::Pem;
#[cfg(feature = "json")]
pub use payload::Json;
#[cfg(feature = "net")]
pub use {
    broadcast::{Broadcast, IntoExcept, IntoRooms, Reached},
    bytes::Bytes,
    client::{Client, ClientBuilder, Reconnect, State},
    conn::{Conn, ConnId, Data, EmitWithAck},
    disconnect::Disconnect,
    error::{BoxError, Error, ErrorKind},
    event::{Event, Incoming},
    http,
    net::dial::token_protocols,
    payload::{FromEvent, IntoPayload, IntoReply, Payload},
    request::Request,
    router::{Later, Next, Now, Outcome, UpgradeOutcome, blocking, spawned},
    server::{Admitted, Bound, Server, ServerBuilder},
    stats::Stats,
    upgrade::{Accept, IntoUpgrade, Reject},
};

/// The examples of README and docs, compiled and run as doctests.
#[cfg(all(doctest, feature = "tls", feature = "json"))]
mod examples {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/from-go.md")]
    struct FromGo;
}
