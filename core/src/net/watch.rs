//! The clocks of one connection: keepalive, stalls, floods, closing. It decides from instants that it is given and does nothing.

use std::time::Duration;

use crate::limits::{Limits, MAX_PINGS, OVER, PING_WINDOW, STALL};
use crate::protocol::Time;

/// What the time says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing to do before this instant.
    Wait(Option<Time>),
    /// Silence: send a ping.
    Ping,
    /// Close with this code and reason.
    Close(u16, &'static str),
    /// The time for a closing handshake is over, or the peer is dead: cut.
    Cut,
}

/// Why reading stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paused {
    No,
    /// Handlers run as many as may, and what waits behind them is full.
    Handlers,
    /// The peer does not take its replies.
    Replies,
}

/// What the link knows at this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) queued: usize,
    pub(crate) written: u64,
    pub(crate) paused: Paused,
    pub(crate) handlers_ended: u64,
    pub(crate) mid_message: bool,
    pub(crate) message_bytes: u64,
}

impl Facts {
    /// Nothing that a clock would have to run for.
    pub(crate) fn are_quiet(&self) -> bool {
        self.queued == 0 && self.paused == Paused::No && !self.mid_message
    }
}

#[derive(Debug)]
pub(crate) struct Watch {
    /// No clock runs but that of the silence.
    quiet: bool,
    ping_interval: Option<Duration>,
    ping_timeout: Duration,
    max_outbox: usize,
    last_read: Time,
    ping: Ping,
    pings: u32,
    pings_since: Time,
    paused: Option<(Time, u64)>,
    over: Option<Time>,
    /// The last position that left, and when it did, while something is queued.
    sending: Option<(Time, u64)>,
    message: Option<(Time, u64)>,
    closing_until: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
enum Ping {
    None,
    /// In the outbox, up to this position.
    Queued(u64),
    /// Left at this instant.
    Sent(Time),
}

impl Watch {
    pub(crate) fn new(limits: &Limits, now: Time) -> Self {
        Self {
            quiet: false,
            ping_interval: limits.ping_interval,
            ping_timeout: limits.ping_timeout,
            max_outbox: limits.max_outbox,
            last_read: now,
            ping: Ping::None,
            pings: 0,
            pings_since: now,
            paused: None,
            over: None,
            sending: None,
            message: None,
            closing_until: None,
        }
    }

    /// Bytes arrived: the peer lives.
    pub(crate) fn read(&mut self, now: Time) {
        self.last_read = now;
        if !self.quiet {
            self.ping = Ping::None;
        }
    }

    /// Whether the last check found no clock running but that of the silence: with quiet facts the next one would find nothing
    /// that is due before it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A message arrived: pings before it were no flood.
    pub(crate) fn message(&mut self) {
        self.pings = 0;
    }

    /// A ping arrived; answers whether it is one too many.
    pub(crate) fn pinged(&mut self, now: Time) -> bool {
        if self.pings == 0 || now >= self.pings_since.after(PING_WINDOW) {
            self.pings = 0;
            self.pings_since = now;
        }
        self.pings += 1;
        self.pings > MAX_PINGS
    }

    /// The ping that was asked for lies in the outbox up to this position.
    pub(crate) fn ping_queued(&mut self, position: u64) {
        self.quiet = false;
        self.ping = Ping::Queued(position);
    }

    /// The closing handshake has begun and must be over by then.
    pub(crate) fn closing(&mut self, until: Time) {
        self.quiet = false;
        let until = self.closing_until.map_or(until, |before| before.min(until));
        self.closing_until = Some(until);
    }

    pub(crate) fn check(&mut self, facts: Facts, now: Time) -> Verdict {
        if let Some(until) = self.closing_until {
            if now >= until {
                return Verdict::Cut;
            }
            return Verdict::Wait(Some(until));
        }
        let mut next = None;
        let verdict = self
            .outbox(facts, now, &mut next)
            .or_else(|| self.reading(facts, now, &mut next))
            .or_else(|| self.keepalive(facts, now, &mut next));
        self.quiet = facts.are_quiet() && verdict.is_none() && matches!(self.ping, Ping::None);
        verdict.unwrap_or(Verdict::Wait(next))
    }

    fn outbox(&mut self, facts: Facts, now: Time, next: &mut Option<Time>) -> Option<Verdict> {
        const SLOW: Verdict = Verdict::Close(1013, "slow consumer");
        if facts.queued > 4 * self.max_outbox {
            return Some(SLOW);
        }
        if facts.queued > self.max_outbox {
            let since = *self.over.get_or_insert(now);
            if due(since.after(OVER), now, next) {
                return Some(SLOW);
            }
        } else {
            self.over = None;
        }
        if facts.queued == 0 {
            self.sending = None;
            return None;
        }
        match self.sending {
            Some((since, position)) if position == facts.written => due(since.after(STALL), now, next).then_some(SLOW),
            _ => {
                self.sending = Some((now, facts.written));
                earliest(next, now.after(STALL));
                None
            }
        }
    }

    fn reading(&mut self, facts: Facts, now: Time, next: &mut Option<Time>) -> Option<Verdict> {
        if facts.paused != Paused::No {
            match self.paused {
                _ if facts.paused == Paused::Replies => self.paused = None,
                Some((since, ended)) if ended == facts.handlers_ended => {
                    if due(since.after(STALL), now, next) {
                        return Some(Verdict::Close(1013, "overloaded"));
                    }
                }
                _ => {
                    self.paused = Some((now, facts.handlers_ended));
                    earliest(next, now.after(STALL));
                }
            }
            // Nothing can arrive, so neither silence nor a message that stands still is the peer's fault.
            self.last_read = now;
            self.ping = Ping::None;
            self.message = None;
            return None;
        }
        self.paused = None;
        if !facts.mid_message {
            self.message = None;
            return None;
        }
        match self.message {
            Some((since, bytes)) if bytes == facts.message_bytes => {
                due(since.after(STALL), now, next).then_some(Verdict::Close(1008, "message stalled"))
            }
            _ => {
                self.message = Some((now, facts.message_bytes));
                earliest(next, now.after(STALL));
                None
            }
        }
    }

    fn keepalive(&mut self, facts: Facts, now: Time, next: &mut Option<Time>) -> Option<Verdict> {
        let interval = self.ping_interval?;
        if facts.paused != Paused::No {
            return None;
        }
        if let Ping::Queued(position) = self.ping {
            if facts.written < position {
                return None;
            }
            self.ping = Ping::Sent(now);
        }
        match self.ping {
            Ping::Sent(since) => {
                due(since.after(self.ping_timeout), now, next).then_some(Verdict::Close(1011, "ping timeout"))
            }
            _ => due(self.last_read.after(interval), now, next).then_some(Verdict::Ping),
        }
    }
}

/// Whether `at` has come; else it is one of the instants to wake at.
fn due(at: Time, now: Time, next: &mut Option<Time>) -> bool {
    if now >= at {
        return true;
    }
    earliest(next, at);
    false
}

pub(crate) fn earliest(next: &mut Option<Time>, at: Time) {
    *next = Some(next.map_or(at, |before| before.min(at)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: u64 = 1_000;
    const IDLE: Facts = Facts {
        queued: 0,
        written: 0,
        paused: Paused::No,
        handlers_ended: 0,
        mid_message: false,
        message_bytes: 0,
    };

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn watch() -> Watch {
        Watch::new(&Limits::default(), at(0))
    }

    #[test]
    fn silence_is_pinged_and_the_timeout_counts_from_when_the_ping_left() {
        let mut watch = watch();
        assert_eq!(watch.check(IDLE, at(0)), Verdict::Wait(Some(at(25 * SEC))));
        assert_eq!(watch.check(IDLE, at(25 * SEC)), Verdict::Ping);
        watch.ping_queued(10);
        let stuck = Facts { queued: 10, ..IDLE };
        assert!(matches!(watch.check(stuck, at(40 * SEC)), Verdict::Wait(_)));
        let left = Facts { written: 10, ..IDLE };
        assert_eq!(watch.check(left, at(41 * SEC)), Verdict::Wait(Some(at(51 * SEC))));
        assert_eq!(watch.check(left, at(51 * SEC)), Verdict::Close(1011, "ping timeout"));
    }

    #[test]
    fn any_bytes_are_a_sign_of_life() {
        let mut watch = watch();
        assert_eq!(watch.check(IDLE, at(25 * SEC)), Verdict::Ping);
        watch.ping_queued(0);
        assert!(matches!(watch.check(IDLE, at(26 * SEC)), Verdict::Wait(_)));
        watch.read(at(30 * SEC));
        assert_eq!(watch.check(IDLE, at(36 * SEC)), Verdict::Wait(Some(at(55 * SEC))));
    }

    #[test]
    fn an_outbox_over_its_limit_for_ten_seconds_is_a_slow_consumer() {
        let mut watch = watch();
        let over = |written| Facts {
            queued: 5 << 20,
            written,
            ..IDLE
        };
        assert!(matches!(watch.check(over(1), at(0)), Verdict::Wait(_)));
        assert!(matches!(watch.check(over(2), at(9 * SEC)), Verdict::Wait(_)));
        assert_eq!(
            watch.check(over(3), at(10 * SEC)),
            Verdict::Close(1013, "slow consumer")
        );
    }

    #[test]
    fn four_times_the_limit_closes_at_once() {
        let over = Facts {
            queued: (16 << 20) + 1,
            ..IDLE
        };
        assert_eq!(watch().check(over, at(0)), Verdict::Close(1013, "slow consumer"));
    }

    #[test]
    fn an_outbox_that_sends_nothing_for_thirty_seconds_is_a_slow_consumer() {
        let mut watch = watch();
        let facts = |written| Facts {
            queued: 1,
            written,
            ..IDLE
        };
        watch.check(facts(0), at(0));
        watch.read(at(29 * SEC));
        assert!(matches!(watch.check(facts(1), at(29 * SEC)), Verdict::Wait(_)));
        watch.read(at(50 * SEC));
        assert!(matches!(watch.check(facts(1), at(58 * SEC)), Verdict::Wait(_)));
        assert_eq!(
            watch.check(facts(1), at(59 * SEC)),
            Verdict::Close(1013, "slow consumer")
        );
    }

    #[test]
    fn paused_reading_is_overload_after_thirty_seconds_without_a_handler_ending() {
        let mut watch = watch();
        let paused = |handlers_ended| Facts {
            paused: Paused::Handlers,
            handlers_ended,
            ..IDLE
        };
        watch.check(paused(0), at(0));
        assert!(matches!(watch.check(paused(1), at(29 * SEC)), Verdict::Wait(_)));
        assert!(matches!(watch.check(paused(1), at(58 * SEC)), Verdict::Wait(_)));
        assert_eq!(watch.check(paused(1), at(59 * SEC)), Verdict::Close(1013, "overloaded"));
    }

    #[test]
    fn a_started_message_must_make_progress() {
        let mut watch = watch();
        let facts = |message_bytes| Facts {
            mid_message: true,
            message_bytes,
            ..IDLE
        };
        watch.check(facts(1), at(0));
        watch.read(at(20 * SEC));
        assert!(matches!(watch.check(facts(2), at(20 * SEC)), Verdict::Wait(_)));
        watch.read(at(45 * SEC));
        assert_eq!(
            watch.check(facts(2), at(50 * SEC)),
            Verdict::Close(1008, "message stalled")
        );
    }

    #[test]
    fn a_thousand_pings_in_ten_seconds_are_no_flood_and_one_more_is() {
        let mut watch = watch();
        assert!(!(0..1_000).any(|_| watch.pinged(at(5 * SEC))));
        assert!(watch.pinged(at(14 * SEC)));
        watch.message();
        assert!(!watch.pinged(at(14 * SEC)));
        assert!(!(0..999).any(|_| watch.pinged(at(23 * SEC))));
        assert!(!watch.pinged(at(24 * SEC)));
    }

    #[test]
    fn closing_ends_by_its_deadline_and_nothing_else_matters_then() {
        let mut watch = watch();
        watch.closing(at(5 * SEC));
        watch.closing(at(9 * SEC));
        assert_eq!(watch.check(IDLE, at(SEC)), Verdict::Wait(Some(at(5 * SEC))));
        assert_eq!(watch.check(IDLE, at(5 * SEC)), Verdict::Cut);
    }
}
