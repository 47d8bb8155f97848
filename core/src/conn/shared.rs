//! What is behind a connection's lock, and those who lose something when it ends.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::handler::Waiter;
use crate::net::outbox::Outbox;
use crate::net::tcp::Direct;
use crate::payload::Payload;
use crate::protocol::Time;
use crate::protocol::session::Session;

use super::Conn;

/// What is behind the lock.
pub(crate) struct Shared {
    pub(crate) outbox: Outbox,
    pub(crate) session: Session<Waiter<Payload>>,
    pub(crate) phase: Phase,
    /// The close code and reason that this side sent or echoed, once it did.
    pub(crate) close: Option<Close>,
    /// Outcome of `on_connect`, until the link has seen it.
    pub(crate) connected: Option<bool>,
    /// Cut without a handshake.
    pub(crate) cut: bool,
    /// Handlers that still run are dropped.
    pub(crate) drop_handlers: bool,
    /// A room message or a reply would have passed four times the limit.
    pub(crate) overrun: bool,
    /// A drain of a queue for the time away waits for room in the outbox.
    pub(crate) drains: Vec<Waiter<()>>,
    pub(crate) pings: VecDeque<PingWait>,
    pub(super) next_ping: u64,
    /// Whether somebody needs to wake the link.
    pub(crate) awake: Awake,
    pub(crate) waker: Option<Waker>,
    /// Where others may write while the link sleeps; nothing over other streams than TCP.
    pub(crate) direct: Option<Direct>,
    /// The link has ended; `on_disconnect` runs when `on_connect` has ended as well.
    pub(crate) ended: Option<Disconnect>,
    pub(super) connect_ended: bool,
}

/// What the link does, or has been told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awake {
    /// It sleeps.
    No,
    /// Its waker was called, or is held back, and only to write what lies in the outbox.
    ToWrite,
    /// It runs, or its waker was called or is held back for more than that.
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// The server is shutting down: received events are dropped, handlers end, then the connection closes.
    Draining,
    /// Our close frame is in the outbox.
    Closing,
    Ended,
}

#[derive(Clone, Debug)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) by: By,
}

/// Who began a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The application on this side.
    User,
    /// A limit or a rule of this side.
    Core,
    Peer,
}

pub(crate) struct PingWait {
    pub(crate) id: u64,
    pub(crate) sent: Instant,
    pub(crate) deadline: Time,
    pub(crate) waiter: Waiter<Duration>,
}

impl Shared {
    /// Wakes the link, if it sleeps.
    pub(super) fn wake(&mut self) {
        let before = std::mem::replace(&mut self.awake, Awake::Yes);
        if before == Awake::No
            && let Some(waker) = &self.waker
        {
            super::wakes::wake(waker, None);
        }
    }

    /// Wakes the link of this connection to write what was appended, if it sleeps.
    pub(super) fn wake_to_write(&mut self, conn: &Conn) {
        if self.awake == Awake::No {
            self.awake = Awake::ToWrite;
            if let Some(waker) = &self.waker {
                super::wakes::wake(waker, Some(conn));
            }
        }
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Open | Phase::Draining => Ok(()),
            Phase::Closing | Phase::Ended => Err(self.closed_error()),
        }
    }

    pub(super) fn closed_error(&self) -> Error {
        let told = match (&self.ended, &self.close) {
            (Some(end), _) => Some((end.code, &*end.reason)),
            (None, Some(close)) => Some((close.code, &*close.reason)),
            (None, None) => match self.phase {
                Phase::Open => None,
                Phase::Draining => Some((1000, "server shutdown")),
                Phase::Closing | Phase::Ended => Some((1006, "")),
            },
        };
        Error::closed(told)
    }
}

/// Those who wait for something that a connection's end takes from them.
pub(crate) struct Lost {
    pub(super) acks: Vec<Waiter<Payload>>,
    pub(super) pings: Vec<Waiter<Duration>>,
    pub(super) drains: Vec<Waiter<()>>,
    pub(super) error: Error,
}

impl Lost {
    /// Tells them; the lock must not be held.
    pub(crate) fn tell(self) {
        for waiter in self.acks {
            waiter.done(Err(self.error.clone()));
        }
        for waiter in self.pings {
            waiter.done(Err(self.error.clone()));
        }
        for waiter in self.drains {
            waiter.done(Err(self.error.clone()));
        }
    }
}

impl Shared {
    /// Takes everybody who waits.
    pub(super) fn lose(&mut self) -> Lost {
        let mut acks = Vec::new();
        self.session.close(|waiter| acks.push(waiter));
        Lost {
            acks,
            pings: self.pings.drain(..).map(|ping| ping.waiter).collect(),
            drains: std::mem::take(&mut self.drains),
            error: self.closed_error(),
        }
    }
}
