//! ETP as state machines over bytes and instants: what a frame is, which reply answers which call, when a call has waited
//! long enough, when a client dials again.
//!
//! Nothing here knows a socket, a clock, a lock, a task or a log. Who drives it passes in bytes and [`Time`] and carries out
//! what comes back; the native server and client and the browser's wasm module drive the same code. Instants passed to one
//! machine must never go backwards.
//!
//! - [`frame`]: the head of a frame, read and written; the rules for names
//! - [`session`]: what one connection has to know: received frames sorted out, calls that wait for a reply
//! - [`acks`]: the table of those calls
//! - [`queue`]: a client's events while it is away
//! - [`reconnect`]: whether and when a client dials again

pub mod acks;
pub mod frame;
pub mod queue;
pub mod reconnect;
mod scan;
pub mod session;
mod time;

pub use acks::Acks;
pub use frame::{Defect, Head, NameDefect};
pub use queue::{Queue, QueueId, Queued};
pub use reconnect::{Backoff, Redial, should_reconnect};
pub use session::{Limits, Received, Session};
pub use time::Time;
