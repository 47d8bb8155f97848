//! Every limit and timeout, with its default and the check that it can be.

use std::time::Duration;

use crate::error::Error;

/// Bytes of events that wait for a free handler before reading pauses.
pub(crate) const MAX_WAITING: usize = 1024 * 1024;
/// Raw bytes of one message on the wire beyond `max_message_size`: heads of fragments.
pub(crate) const MAX_OVERHEAD: usize = 64 * 1024;
/// How long a started message may stand still, reading may pause, and an outbox may send nothing.
pub(crate) const STALL: Duration = Duration::from_secs(30);
/// How long an outbox may stay over its limit.
pub(crate) const OVER: Duration = Duration::from_secs(10);
/// Pings without other traffic that make a flood, and the window they are counted in.
pub(crate) const MAX_PINGS: u32 = 1_000;
pub(crate) const PING_WINDOW: Duration = Duration::from_secs(10);

/// The longest time that any option may be.
pub(crate) const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The limits and timeouts of a server or a client. Sizes in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_message_size: usize,
    pub(crate) max_inflight: usize,
    pub(crate) max_inflight_total: usize,
    pub(crate) max_outbox: usize,
    pub(crate) max_pending_acks: usize,
    pub(crate) ack_timeout: Duration,
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) ping_timeout: Duration,
    pub(crate) close_timeout: Duration,
    /// Every message is logged with its payload.
    pub(crate) wire_log: bool,
    /// Messages are sent back as they are instead of being read as ETP frames; only with the feature `echo-for-conformance`.
    #[cfg(feature = "echo-for-conformance")]
    pub(crate) echo: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 1024 * 1024,
            max_inflight: 256,
            max_inflight_total: 65_536,
            max_outbox: 4 * 1024 * 1024,
            max_pending_acks: 16_384,
            ack_timeout: Duration::from_secs(10),
            ping_interval: Some(Duration::from_secs(25)),
            ping_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            wire_log: false,
            #[cfg(feature = "echo-for-conformance")]
            echo: false,
        }
    }
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), Error> {
        size("max_message_size", self.max_message_size, 1024, 1 << 30)?;
        size("max_inflight", self.max_inflight, 1, 1 << 24)?;
        size("max_inflight_total", self.max_inflight_total, 1, 1 << 30)?;
        size("max_outbox", self.max_outbox, 1024, 1 << 40)?;
        size("max_pending_acks", self.max_pending_acks, 1, 1 << 24)?;
        if self.max_outbox < self.max_message_size {
            return Err(Error::option(format!(
                "max_outbox is {} bytes, less than max_message_size ({}): one message has to fit",
                self.max_outbox, self.max_message_size
            )));
        }
        duration("ack_timeout", self.ack_timeout)?;
        if let Some(interval) = self.ping_interval {
            duration("ping_interval", interval)?;
        }
        duration("ping_timeout", self.ping_timeout)?;
        duration("close_timeout", self.close_timeout)
    }
}

pub(crate) fn size(name: &str, value: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::option(format!("{name} is {value}; it can be {least} to {most}")))
}

pub(crate) fn duration(name: &str, value: Duration) -> Result<(), Error> {
    if value >= Duration::from_millis(1) && value <= LONGEST {
        return Ok(());
    }
    Err(Error::option(format!("{name} is {value:?}; it can be 1 ms to 7 days")))
}

/// The setters that server and client builders share; `$limits` is the path to their [`Limits`].
macro_rules! limit_setters {
    ($($limits:ident).+) => {
        /// Largest message in either direction, in bytes, name, ack id and payload together; 1 MiB by default. A larger one received
        /// closes with 1009, a larger one emitted is refused with `message_too_large`.
        pub fn max_message_size(mut self, bytes: usize) -> Self {
            self.$($limits).+.max_message_size = bytes;
            self
        }

        /// Handlers that run at once on one connection; 256 by default. Past it up to 1 MiB of events wait, then reading pauses; after
        /// 30 s of pause without a handler ending the connection is closed with 1013 `overloaded`.
        pub fn max_inflight(mut self, handlers: usize) -> Self {
            self.$($limits).+.max_inflight = handlers;
            self
        }

        /// Bytes that one connection's outbox may hold; 4 MiB by default, and at least `max_message_size`. A direct emit past it is
        /// refused with `outbox_full`; room messages and replies may go past it up to four times. A connection that stays over it for
        /// 10 s, or passes four times as much, or sends nothing for 30 s, is closed with 1013 `slow consumer`.
        pub fn max_outbox(mut self, bytes: usize) -> Self {
            self.$($limits).+.max_outbox = bytes;
            self
        }

        /// Acknowledgments that one connection may await; 16 384 by default. Past it: `too_many_acks`.
        pub fn max_pending_acks(mut self, acks: usize) -> Self {
            self.$($limits).+.max_pending_acks = acks;
            self
        }

        /// Deadline of an acknowledgment that names none; 10 s by default.
        pub fn ack_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($limits).+.ack_timeout = timeout;
            self
        }

        /// Silence after which a ping is sent; 25 s by default, `None` for no pings.
        pub fn ping_interval(mut self, interval: impl Into<Option<std::time::Duration>>) -> Self {
            self.$($limits).+.ping_interval = interval.into();
            self
        }

        /// How long a ping that has left waits for a sign of life; 10 s by default. Past it the connection ends, 1011 `ping timeout`.
        /// Also how long [`Conn::ping`](crate::Conn::ping) waits.
        pub fn ping_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($limits).+.ping_timeout = timeout;
            self
        }

        /// Time for flushing and the closing handshake together; 5 s by default. Past it the connection is cut.
        pub fn close_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$($limits).+.close_timeout = timeout;
            self
        }

        /// Logs every message with the beginning of its payload, under the target `etp_ws::wire` at level TRACE. For debugging only:
        /// payloads hold secrets, which is why no other log shows them. Off by default.
        pub fn wire_log(mut self, on: bool) -> Self {
            self.$($limits).+.wire_log = on;
            self
        }

        /// Puts an echo in the place of ETP: every message comes back as it was. For WebSocket conformance suites, which test what is
        /// below; no part of the stable interface.
        #[cfg(feature = "echo-for-conformance")]
        #[doc(hidden)]
        pub fn echo_for_conformance(mut self) -> Self {
            self.$($limits).+.echo = true;
            self
        }
    };
}
pub(crate) use limit_setters;
