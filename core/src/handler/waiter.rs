//! Those who wait for an outcome: of an acknowledgment, a ping, room in an outbox.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::client::Client;
use crate::conn::{Conn, GiveUp, panic_message};
use crate::error::Error;
use crate::payload::Payload;

/// Who is told the outcome of a call that waits: a future of this crate, or a function of a foreign dispatcher that puts it into
/// its own batches. The function is called without a lock, on any thread, once; a panic of it is caught and logged.
pub struct Waiter<T>(Who<T>);

enum Who<T> {
    Future(oneshot::Sender<Result<T, Error>>),
    Call(Box<dyn FnOnce(Result<T, Error>) + Send>),
}

impl<T> Waiter<T> {
    /// A waiter that calls this function.
    pub fn call(f: impl FnOnce(Result<T, Error>) + Send + 'static) -> Self {
        Self(Who::Call(Box::new(f)))
    }

    pub(crate) fn future() -> (Self, oneshot::Receiver<Result<T, Error>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Who::Future(sender)), receiver)
    }

    pub(crate) fn done(self, outcome: Result<T, Error>) {
        match self.0 {
            // Whoever waited has given up.
            Who::Future(sender) => drop(sender.send(outcome)),
            Who::Call(f) => {
                // It may run in the midst of a connection's end: others wait behind it.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(outcome))) {
                    tracing::error!(target: "etp_ws", "a waiter panicked: {}", panic_message(&*panic));
                }
            }
        }
    }
}

impl<T> std::fmt::Debug for Waiter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiter")
    }
}

/// An acknowledgment that a foreign dispatcher awaits from a [`Client`], queued or sent: dropping this gives it up, if its outcome is
/// still to come.
#[must_use = "dropping it gives the acknowledgment up"]
pub struct Awaited(#[expect(dead_code, reason = "it is there to be dropped")] GiveUp);

impl std::fmt::Debug for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Awaited")
    }
}

impl Client {
    /// As [`Conn::emit_with_ack_to`], on the connection of the moment or through the queue for the time away.
    ///
    /// # Errors
    /// As [`Client::emit`], and `too_many_acks`; the waiter is dropped then.
    pub fn emit_with_ack_to(
        &self,
        name: &str,
        payload: Payload,
        timeout: Option<Duration>,
        waiter: Waiter<Payload>,
    ) -> Result<Awaited, Error> {
        self.push_acked(name, payload, timeout, waiter).map(Awaited)
    }
}

/// An acknowledgment that a foreign dispatcher awaits; give it to [`Conn::cancel_ack`] when the caller gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AckId(pub(crate) u64);

impl Conn {
    /// A number that a foreign dispatcher keeps with the connection, 0 at first: where its own object for it is.
    pub fn slot(&self) -> u64 {
        self.inner().slot.load(Ordering::Relaxed)
    }

    /// Sets that number. Nothing but the dispatcher reads it.
    pub fn set_slot(&self, slot: u64) {
        self.inner().slot.store(slot, Ordering::Relaxed);
    }

    /// Emits an event whose reply goes to `waiter`: for dispatchers that carry outcomes in batches of their own. Exactly one outcome
    /// comes, unless the call itself returns an error or the acknowledgment is cancelled.
    ///
    /// # Errors
    /// As [`Conn::emit`], and `too_many_acks`; the waiter is dropped then.
    pub fn emit_with_ack_to(
        &self,
        name: &str,
        payload: &[u8],
        text: bool,
        timeout: Option<Duration>,
        waiter: Waiter<Payload>,
    ) -> Result<AckId, Error> {
        let timeout = timeout.unwrap_or(self.hub().limits.ack_timeout);
        self.push_acked(name, payload, text, timeout, waiter).map(AckId)
    }

    /// Gives an acknowledgment up: its waiter is dropped, its reply will count as one that nobody waits for.
    pub fn cancel_ack(&self, id: AckId) {
        self.forget_ack(id.0);
    }

    /// Sends a ping; the round trip goes to `waiter`.
    pub fn ping_to(&self, waiter: Waiter<Duration>) {
        self.push_ping(waiter);
    }

    /// Tells `waiter` when the outbox has room again, at once if it has.
    pub fn drain_to(&self, waiter: Waiter<()>) {
        self.push_drain(waiter);
    }

    /// As [`Conn::emit`], of bytes of which it is known whether they are valid UTF-8.
    ///
    /// # Errors
    /// As [`Conn::emit`].
    pub fn emit_payload(&self, name: &str, payload: &[u8], text: bool) -> Result<(), Error> {
        self.push_event(name, payload, text)
    }
}
