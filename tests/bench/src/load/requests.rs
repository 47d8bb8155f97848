//! Acknowledged requests in a closed loop: as soon as one is answered the next one goes out, on the same connection or on
//! the next in turn.

use std::collections::VecDeque;

use anyhow::{Context, Result};

use super::{Counts, Measured};
use crate::pool::{Clock, Load, Outgoing};
use crate::wire::Request;

pub(crate) struct Requests {
    request: Request,
    conns: Vec<Conn>,
    shape: Shape,
    /// Answered on this wake and not yet followed by new ones.
    freed: usize,
    sent: usize,
    outstanding: usize,
    stopped: bool,
    counts: Counts,
}

enum Shape {
    /// So many in flight on each connection.
    Each(usize),
    /// So many in flight in all, at most one a connection; `next` is the connection whose turn it is.
    InTurn { total: usize, next: usize },
}

struct Conn {
    last_id: u64,
    /// Ack id and time of sending of what is in flight, oldest first.
    in_flight: VecDeque<(u64, u64)>,
}

impl Requests {
    /// `depth` requests in flight on each of the first `conns` connections.
    pub(crate) fn on_each(request: Request, conns: usize, depth: usize) -> Self {
        Self::new(request, conns, Shape::Each(depth))
    }

    /// `total` requests in flight on changing connections, never two on one.
    pub(crate) fn in_turn(request: Request, conns: usize, total: usize) -> Self {
        assert!(
            total <= conns,
            "more in flight than connections, and at most one on each"
        );
        Self::new(request, conns, Shape::InTurn { total, next: 0 })
    }

    fn new(request: Request, conns: usize, shape: Shape) -> Self {
        let conns = (0..conns)
            .map(|_| Conn {
                last_id: 0,
                in_flight: VecDeque::new(),
            })
            .collect();
        Self {
            request,
            conns,
            shape,
            freed: 0,
            sent: 0,
            outstanding: 0,
            stopped: false,
            counts: Counts::new(),
        }
    }

    /// The connections go on where this load left them: ids are counted on.
    pub(crate) fn continue_ids(&mut self, other: &Self) {
        for (conn, before) in self.conns.iter_mut().zip(&other.conns) {
            conn.last_id = before.last_id;
        }
    }

    fn send(&mut self, conn: usize, out: &mut Outgoing, now: u64) {
        let held = &mut self.conns[conn];
        held.last_id += 1;
        held.in_flight.push_back((held.last_id, now));
        self.outstanding += 1;
        self.sent += 1;
        self.request.append(held.last_id, out.queue(conn));
    }

    /// Sends on the next idle connection in turn.
    fn send_in_turn(&mut self, out: &mut Outgoing, now: u64) {
        let Shape::InTurn { next, .. } = &mut self.shape else {
            return;
        };
        while !self.conns[*next].in_flight.is_empty() {
            *next = (*next + 1) % self.conns.len();
        }
        let conn = *next;
        *next = (conn + 1) % self.conns.len();
        self.send(conn, out, now);
    }
}

impl Load for Requests {
    fn message(&mut self, conn: usize, message: &[u8], now: u64) -> Result<()> {
        let id = self.request.reply_id(message)?;
        let in_flight = &mut self.conns[conn].in_flight;
        // Replies may come in any order; most come in that of the requests.
        let at = in_flight.iter().position(|(sent, _)| *sent == id);
        let (_, sent) = at
            .and_then(|at| in_flight.remove(at))
            .with_context(|| format!("a reply with ack id {id}, which is not in flight there"))?;
        self.counts.latencies.record(now - sent);
        self.counts.done += 1;
        self.outstanding -= 1;
        self.freed += 1;
        Ok(())
    }

    fn batch_ended(&mut self, conn: usize, out: &mut Outgoing, clock: &Clock) {
        let freed = std::mem::take(&mut self.freed);
        if self.stopped {
            return;
        }
        let now = clock.now();
        for _ in 0..freed {
            match self.shape {
                Shape::Each(_) => self.send(conn, out, now),
                Shape::InTurn { .. } => self.send_in_turn(out, now),
            }
        }
    }
}

impl Measured for Requests {
    fn start(&mut self, out: &mut Outgoing, clock: &Clock) {
        let now = clock.now();
        match self.shape {
            Shape::Each(depth) => {
                for conn in 0..self.conns.len() {
                    (0..depth).for_each(|_| self.send(conn, out, now));
                }
            }
            Shape::InTurn { total, .. } => (0..total).for_each(|_| self.send_in_turn(out, now)),
        }
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

    fn warm(&self) -> bool {
        self.sent >= self.conns.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    fn echo() -> Request {
        Request::new(Dialect::Etp, "echo", "data", "data")
    }

    fn reply(load: &mut Requests, conn: usize, id: u64) -> Result<()> {
        load.message(conn, format!("__ack_echo||{id}||data").as_bytes(), 1_000_000_000)
    }

    #[test]
    fn each_reply_makes_room_for_one_request_on_its_connection() {
        let (mut out, clock) = (Outgoing::of(2), Clock::start());
        let mut load = Requests::on_each(echo(), 2, 2);
        load.start(&mut out, &clock);
        assert_eq!(load.outstanding(), 4);
        reply(&mut load, 1, 2).unwrap();
        assert!(reply(&mut load, 1, 2).is_err(), "answered twice");
        assert!(reply(&mut load, 0, 3).is_err(), "never asked");
        load.batch_ended(1, &mut out, &clock);
        reply(&mut load, 1, 3).unwrap();
        assert_eq!((load.outstanding(), load.counts().done), (3, 2));
    }

    #[test]
    fn in_turn_a_connection_that_is_busy_is_passed_over() {
        let (mut out, clock) = (Outgoing::of(3), Clock::start());
        let mut load = Requests::in_turn(echo(), 3, 2);
        load.start(&mut out, &clock);
        for (answered, then_asked) in [(1, 2), (2, 1), (0, 2)] {
            let before = load.conns[then_asked].last_id;
            let id = load.conns[answered].last_id;
            reply(&mut load, answered, id).unwrap();
            load.batch_ended(answered, &mut out, &clock);
            assert_eq!(load.conns[then_asked].last_id, before + 1);
        }
    }
}
