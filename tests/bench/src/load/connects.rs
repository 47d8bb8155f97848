//! Connections that are opened, closed at once with the closing handshake, and dialled anew when the server has ended them.

use anyhow::{Result, bail, ensure};

use super::{Counts, Measured};
use crate::pool::{Clock, Load, Outgoing};
use crate::wire;

pub(crate) struct Connects {
    at_a_time: usize,
    live: usize,
    stopped: bool,
    counts: Counts,
}

impl Connects {
    /// So many connections at a time.
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self {
            at_a_time,
            live: at_a_time,
            stopped: false,
            counts: Counts::new(),
        }
    }
}

impl Load for Connects {
    fn opened(&mut self, conn: usize, out: &mut Outgoing) {
        wire::write_client_frame(wire::CLOSE, &1_000u16.to_be_bytes(), out.queue(conn));
    }

    fn message(&mut self, _conn: usize, message: &[u8], _now: u64) -> Result<()> {
        bail!("a message that nobody asked for: {}", wire::shown(message))
    }

    fn closed(&mut self, _conn: usize, code: Option<u16>, dialled: u64, now: u64) -> Result<()> {
        ensure!(
            code == Some(1_000),
            "the close frame with 1000 was answered with {code:?}"
        );
        self.counts.latencies.record(now - dialled);
        self.counts.done += 1;
        if self.stopped {
            self.live -= 1;
        }
        Ok(())
    }
}

impl Measured for Connects {
    fn start(&mut self, _out: &mut Outgoing, _clock: &Clock) {}

    fn stop(&mut self) {
        self.stopped = true;
    }

    fn outstanding(&self) -> usize {
        self.live
    }

    fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    fn wants(&self) -> usize {
        if self.stopped { 0 } else { self.at_a_time }
    }
}
