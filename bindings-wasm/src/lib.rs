//! What decides in a browser's client: heads of frames, acknowledgments and their deadlines, the queue while away, coming back.
//!
//! JavaScript owns the socket, the timers, handlers, promises and payloads; it tells [`Life`] what happens, and does what that
//! answers. Nothing but numbers crosses between the two, and the module imports nothing: it can't call JavaScript, so nothing
//! here can be entered twice.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

#[cfg(target_arch = "wasm32")]
mod exports;
mod life;

pub use life::{Ended, Life, Options, Push, Received, Return, Slot, State};
