//! Pings by the clock, whether the ones before are answered or not, while one more connection makes the server's handlers
//! block, one after the other.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};

use super::{Counts, Measured, Requests};
use crate::dialect::Dialect;
use crate::pool::{Clock, Load, Outgoing};
use crate::wire::{self, Request};

/// How long a handler blocks, in milliseconds.
const BLOCK: u64 = 100;

/// Nanoseconds between two pings on a connection.
const INTERVAL: u64 = 5_000_000;

/// A generator that looks at its sockets again only after so many nanoseconds was kept from it by the system. What comes then
/// has waited for the generator, and its time of arrival is not known.
const AWAY: u64 = 200_000;

const MILLISECOND: u64 = 1_000_000;

pub(crate) struct Pings {
    /// On connection 0, one at a time.
    blocks: Requests,
    /// When the one in flight was sent.
    blocked: u64,
    blocks_done: usize,
    /// On connections 1 and up.
    conns: Vec<Conn>,
    outstanding: usize,
    /// When the generator last had looked at all sockets.
    looked: u64,
    stopped: bool,
    counts: Counts,
}

#[derive(Clone)]
struct Conn {
    due: u64,
    last: u64,
    /// Number and time of sending of what is in flight, oldest first.
    in_flight: VecDeque<(u64, u64)>,
}

impl Pings {
    /// Pings on `conns` connections, evenly spread, after a first connection that has handlers block.
    pub(crate) fn new(dialect: Dialect, conns: usize) -> Self {
        let block = Request::new(dialect, "block", &BLOCK.to_string(), "done");
        let conn = Conn {
            due: 0,
            last: 0,
            in_flight: VecDeque::new(),
        };
        Self {
            blocks: Requests::on_each(block, 1, 1),
            blocked: 0,
            blocks_done: 0,
            conns: vec![conn; conns],
            outstanding: 0,
            looked: 0,
            stopped: false,
            counts: Counts::new(),
        }
    }
}

impl Load for Pings {
    fn message(&mut self, conn: usize, message: &[u8], now: u64) -> Result<()> {
        ensure!(conn == 0, "a message that nobody asked for: {}", wire::shown(message));
        self.blocks.message(conn, message, now)?;
        let took = now - self.blocked;
        ensure!(
            took >= BLOCK * MILLISECOND,
            "a handler that was to block for {BLOCK} ms replied after {} µs",
            took / 1_000
        );
        self.blocks_done += 1;
        Ok(())
    }

    /// A pong answers all pings that were sent before its own, too: RFC 6455 lets a server answer the last one alone.
    fn pong(&mut self, conn: usize, payload: &[u8], now: u64) -> Result<()> {
        let number = payload.try_into().map(u64::from_be_bytes).ok();
        let in_flight = conn.checked_sub(1).map(|at| &mut self.conns[at].in_flight);
        let (in_flight, at) = in_flight
            .and_then(|all| {
                let at = all.iter().position(|(sent, _)| Some(*sent) == number)?;
                Some((all, at))
            })
            .with_context(|| format!("a pong to no ping in flight: {}", wire::shown(payload)))?;
        let away = now.saturating_sub(self.looked) > AWAY;
        for (_, sent) in in_flight.drain(..=at) {
            self.outstanding -= 1;
            if !away {
                self.counts.latencies.record(now - sent);
                self.counts.done += 1;
            }
        }
        Ok(())
    }

    fn batch_ended(&mut self, conn: usize, out: &mut Outgoing, clock: &Clock) {
        self.blocked = clock.now();
        self.blocks.batch_ended(conn, out, clock);
    }
}

impl Measured for Pings {
    fn start(&mut self, out: &mut Outgoing, clock: &Clock) {
        let now = clock.now();
        let apart = INTERVAL / self.conns.len() as u64;
        for (conn, due) in self.conns.iter_mut().zip((0..).map(|place| now + place * apart)) {
            conn.due = due;
        }
        self.blocked = now;
        self.blocks.start(out, clock);
    }

    fn tick(&mut self, out: &mut Outgoing, clock: &Clock) {
        let now = clock.now();
        self.looked = now;
        if self.stopped {
            return;
        }
        for (at, conn) in self.conns.iter_mut().enumerate() {
            if now < conn.due {
                continue;
            }
            // What a generator that was away should have sent is left out.
            conn.due += INTERVAL * ((now - conn.due) / INTERVAL + 1);
            conn.last += 1;
            conn.in_flight.push_back((conn.last, now));
            self.outstanding += 1;
            wire::write_client_frame(wire::PING, &conn.last.to_be_bytes(), out.queue(at + 1));
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.blocks.stop();
    }

    fn outstanding(&self) -> usize {
        self.outstanding + self.blocks.outstanding()
    }

    fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// Handlers have begun to block.
    fn warm(&self) -> bool {
        self.blocks_done > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two connections that ping, and two pings in flight on the first of them.
    fn begun() -> Pings {
        let (mut out, clock) = (Outgoing::of(3), Clock::start());
        let mut pings = Pings::new(Dialect::Etp, 2);
        pings.start(&mut out, &clock);
        for _ in 0..2 {
            pings.conns[0].due = 0;
            pings.conns[1].due = u64::MAX;
            pings.tick(&mut out, &clock);
        }
        pings
    }

    fn pong(pings: &mut Pings, conn: usize, number: u64) -> Result<()> {
        let now = pings.looked;
        pings.pong(conn, &number.to_be_bytes(), now)
    }

    #[test]
    fn a_pong_answers_its_ping_and_those_before_it_once() {
        let mut pings = begun();
        assert_eq!(pings.outstanding(), 3, "two pings and a handler that blocks");
        pong(&mut pings, 1, 2).unwrap();
        assert_eq!((pings.outstanding(), pings.counts().done), (1, 2));
        for (conn, number) in [(1, 2), (1, 1), (1, 3), (2, 1), (0, 1)] {
            assert!(pong(&mut pings, conn, number).is_err(), "{number} on {conn}");
        }
    }

    #[test]
    fn what_came_while_the_generator_was_away_is_not_counted() {
        let mut pings = begun();
        let later = pings.looked + AWAY + 1;
        pings.pong(1, &2_u64.to_be_bytes(), later).unwrap();
        assert_eq!((pings.outstanding(), pings.counts().done), (1, 0));
    }

    #[test]
    fn a_handler_that_did_not_block_is_an_error() {
        for (took, did) in [(1_000, false), (BLOCK * MILLISECOND, true)] {
            let mut pings = begun();
            let replied = pings.blocked + took;
            assert_eq!(pings.message(0, b"__ack_block||1||done", replied).is_ok(), did);
            assert_eq!(pings.warm(), did);
        }
    }
}
