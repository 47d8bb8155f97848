//! Broadcasts to a room. One more connection, itself no member, asks for them; a broadcast is done when its reply and all of
//! its deliveries have come, so the server is never further ahead than what is outstanding.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};

use super::{Counts, Measured};
use crate::dialect::{Dialect, Numbered};
use crate::pool::{Clock, Load, Outgoing};
use crate::wire;

pub(crate) const ROOM: &str = "bench";

/// Bytes of a delivered payload: the broadcast's number, then filler.
const PAYLOAD: usize = 128;
const DIGITS: usize = 12;

/// Broadcasts that may be begun after the oldest that is not done.
const SPAN: u64 = 64;

pub(crate) struct Shouts {
    /// Connections 0 to `members.len()` - 1; the next one asks.
    members: Vec<Member>,
    depth: usize,
    dialect: Dialect,
    request: Numbered,
    reply: Numbered,
    /// What stands before and after a delivery's payload.
    delivery: (String, &'static str),
    last: u64,
    /// Those not done, oldest first. Their numbers are consecutive; what is done in the middle waits for its elders.
    begun: VecDeque<Shout>,
    outstanding: usize,
    stopped: bool,
    counts: Counts,
}

/// What a member has got: all up to `low`, and of the following those whose bit is set.
#[derive(Clone, Copy)]
struct Member {
    low: u64,
    beyond: u64,
}

struct Shout {
    number: u64,
    sent: u64,
    /// Deliveries that have not come yet.
    missing: usize,
    replied: bool,
}

impl Shouts {
    /// `depth` broadcasts to `members` outstanding at a time.
    pub(crate) fn new(dialect: Dialect, members: usize, depth: usize) -> Self {
        Self {
            members: vec![Member { low: 0, beyond: 0 }; members],
            depth,
            dialect,
            request: dialect.request("shout"),
            reply: dialect.reply("shout"),
            delivery: dialect.delivery("shout"),
            last: 0,
            begun: VecDeque::new(),
            outstanding: 0,
            stopped: false,
            counts: Counts::new(),
        }
    }

    fn fill(&mut self, out: &mut Outgoing, now: u64) {
        while !self.stopped && self.outstanding < self.depth {
            if self
                .begun
                .front()
                .is_some_and(|oldest| self.last + 1 - oldest.number >= SPAN)
            {
                return;
            }
            self.last += 1;
            let number = self.last;
            let payload = format!("{ROOM}\n{number:0DIGITS$}{}", "x".repeat(PAYLOAD - DIGITS));
            let payload = self.dialect.payload(&payload);
            let Numbered { start, middle, end } = &self.request;
            let request = format!("{start}{number}{middle}{payload}{end}");
            wire::write_client_frame(wire::TEXT, request.as_bytes(), out.queue(self.members.len()));
            self.begun.push_back(Shout {
                number,
                sent: now,
                missing: self.members.len(),
                replied: false,
            });
            self.outstanding += 1;
        }
    }

    fn find(&mut self, number: u64) -> Result<&mut Shout> {
        let oldest = self.begun.front().map_or(u64::MAX, |shout| shout.number);
        let at = number.checked_sub(oldest).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.begun.get_mut(at))
            .with_context(|| format!("broadcast {number} is not outstanding"))
    }

    fn delivered(&mut self, member: usize, number: u64) -> Result<()> {
        let got = &mut self.members[member];
        let ahead = number.checked_sub(got.low + 1).filter(|ahead| *ahead < SPAN);
        let bit = 1 << ahead.with_context(|| format!("broadcast {number} after all up to {} were got", got.low))?;
        ensure!(got.beyond & bit == 0, "broadcast {number} has come twice");
        got.beyond |= bit;
        while got.beyond & 1 == 1 {
            got.beyond >>= 1;
            got.low += 1;
        }
        self.counts.done += 1;
        self.find(number)?.missing -= 1;
        Ok(())
    }

    fn finish(&mut self, number: u64, now: u64) -> Result<()> {
        let shout = self.find(number)?;
        if shout.missing > 0 || !shout.replied {
            return Ok(());
        }
        let sent = shout.sent;
        self.counts.latencies.record(now - sent);
        self.outstanding -= 1;
        while self
            .begun
            .front()
            .is_some_and(|oldest| oldest.missing == 0 && oldest.replied)
        {
            self.begun.pop_front();
        }
        Ok(())
    }
}

impl Load for Shouts {
    fn message(&mut self, conn: usize, message: &[u8], now: u64) -> Result<()> {
        let unexpected = || format!("not what was to come: {}", wire::shown(message));
        let number = if conn == self.members.len() {
            let (number, members) = wire::reply_number(&self.reply, message)?;
            ensure!(members == self.members.len() as u64, unexpected());
            let shout = self.find(number)?;
            ensure!(!shout.replied, "broadcast {number} was acknowledged twice");
            shout.replied = true;
            number
        } else {
            let (start, end) = &self.delivery;
            let payload = message
                .strip_prefix(start.as_bytes())
                .and_then(|rest| rest.strip_suffix(end.as_bytes()))
                .with_context(unexpected)?;
            ensure!(
                payload.len() == PAYLOAD,
                "a delivery of {} bytes instead of {PAYLOAD}",
                payload.len()
            );
            let (digits, filler) = payload.split_at(DIGITS);
            ensure!(filler == [b'x'; PAYLOAD - DIGITS], unexpected());
            let (number, _) = wire::leading_number(digits).with_context(unexpected)?;
            self.delivered(conn, number)?;
            number
        };
        self.finish(number, now)
    }

    fn batch_ended(&mut self, _conn: usize, out: &mut Outgoing, clock: &Clock) {
        if !self.stopped && self.outstanding < self.depth {
            self.fill(out, clock.now());
        }
    }
}

impl Measured for Shouts {
    fn start(&mut self, out: &mut Outgoing, clock: &Clock) {
        self.fill(out, clock.now());
    }

    fn stop(&mut self) {
        self.stopped = true;
    }

    fn outstanding(&self) -> usize {
        self.outstanding
    }

    fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    fn check(&self) -> Result<()> {
        for (member, got) in self.members.iter().enumerate() {
            ensure!(
                got.low == self.last && got.beyond == 0,
                "member {member} got {} of {}",
                got.low,
                self.last
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: usize = 3;

    fn begun(depth: usize) -> Shouts {
        let mut shouts = Shouts::new(Dialect::Etp, MEMBERS, depth);
        shouts.start(&mut Outgoing::of(MEMBERS + 1), &Clock::start());
        shouts
    }

    fn deliver(shouts: &mut Shouts, member: usize, number: u64) -> Result<()> {
        let delivery = format!("shout||0||{number:0DIGITS$}{}", "x".repeat(PAYLOAD - DIGITS));
        shouts.message(member, delivery.as_bytes(), 1_000_000_000)
    }

    fn reply(shouts: &mut Shouts, number: u64, count: usize) -> Result<()> {
        shouts.message(
            MEMBERS,
            format!("__ack_shout||{number}||{count}").as_bytes(),
            1_000_000_000,
        )
    }

    #[test]
    fn a_broadcast_is_done_when_all_have_it_and_the_reply_is_there() {
        let mut shouts = begun(2);
        // The second overtakes the first on its way to one member.
        for (member, number) in [(0, 2), (0, 1), (1, 1), (1, 2), (2, 2)] {
            deliver(&mut shouts, member, number).unwrap();
        }
        reply(&mut shouts, 1, MEMBERS).unwrap();
        assert_eq!((shouts.outstanding(), shouts.check().is_err()), (2, true));
        reply(&mut shouts, 2, MEMBERS).unwrap();
        assert_eq!(shouts.outstanding(), 1);
        deliver(&mut shouts, 2, 1).unwrap();
        assert_eq!((shouts.outstanding(), shouts.counts().done), (0, 6));
        shouts.check().unwrap();
    }

    #[test]
    fn whatever_a_broadcast_must_not_do_is_an_error() {
        let mut shouts = begun(1);
        deliver(&mut shouts, 0, 1).unwrap();
        assert!(deliver(&mut shouts, 0, 1).is_err(), "twice");
        assert!(deliver(&mut shouts, 1, 2).is_err(), "never sent");
        assert!(reply(&mut shouts, 1, MEMBERS - 1).is_err(), "not to all");
        assert!(shouts.message(2, b"shout||0||short", 0).is_err(), "cut");
        reply(&mut shouts, 1, MEMBERS).unwrap();
        assert!(reply(&mut shouts, 1, MEMBERS).is_err(), "acknowledged twice");
    }
}
