//! ETP, the event transport protocol: events, acknowledgments and rooms over WebSocket. Server and client.
#![cfg_attr(not(feature = "net"), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

pub mod protocol;
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
mod net;
#[cfg(feature = "net")]
mod payload;
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
    net::dial::token_protocols,
    payload::{FromEvent, IntoPayload, IntoReply, Payload},
    request::Request,
    router::{Later, Next, Now, Outcome, UpgradeOutcome, blocking, spawned},
    server::{Bound, Server, ServerBuilder},
    stats::Stats,
    upgrade::{Accept, IntoUpgrade, Reject},
};
