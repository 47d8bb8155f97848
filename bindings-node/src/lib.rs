//! The addon behind the npm package `etp-ws`: the core on a thread of its own, and one [`Pump`](pump::Pump) for each environment
//! that carries events to JavaScript in batches.
//!
//! JavaScript (in `lib/`) has the objects that users see, and calls handlers. Rust has what is on the path of an event. Nothing here
//! decides about the protocol.

#![allow(
    missing_docs,
    reason = "what `napi` exports is the package's own; its interface is documented in index.d.ts"
)]

mod bridge;
mod client;
mod conn;
mod deliver;
mod dispatch;
mod error;
mod kept;
mod options;
mod pump;
mod queue;
mod request;
mod runtime;
mod server;
mod text;
mod tickets;
mod wake;

/// The version that the binary was built as.
#[napi_derive::napi]
pub fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
