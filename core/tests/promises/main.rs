//! What the crate promises and the limits it keeps, through its public interface: each test is one sentence of the README.
//!
//! Time is paused wherever it matters, so it passes only while nothing else is left to do, and may be asserted exactly.

mod acks;
mod callbacks;
mod client;
mod closing;
mod doors;
mod handlers;
mod keepalive;
mod options;
mod outbox;
mod queue;
mod rooms;
mod shutdown;
mod sizes;
mod support;
