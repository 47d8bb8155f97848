//! A load that can be measured, and measuring it: warm up, take the marks, run, take them again, and wait for every
//! outstanding answer, so that what is counted is also what was checked.

mod connects;
mod joins;
mod pings;
mod requests;
mod shouts;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

pub(crate) use connects::Connects;
pub(crate) use joins::Joins;
pub(crate) use pings::Pings;
pub(crate) use requests::Requests;
pub(crate) use shouts::{ROOM, Shouts};

use crate::cpu;
use crate::pool::{Clock, Load, Outgoing, Pool, Wait};
use crate::server::Server;
use crate::stats::Histogram;

/// Answered within this time after a load has stopped, or the run is a failure.
const ANSWERED: u64 = 15_000_000_000;

/// A load that goes on by itself until it is told to stop.
pub(crate) trait Measured: Load {
    /// Sends the first requests.
    fn start(&mut self, out: &mut Outgoing, clock: &Clock);

    /// Sends what is due by the clock.
    fn tick(&mut self, _out: &mut Outgoing, _clock: &Clock) {}

    /// From here on nothing new is begun.
    fn stop(&mut self);

    /// What was begun and is not done.
    fn outstanding(&self) -> usize;

    fn counts(&mut self) -> &mut Counts;

    /// Connections that the load wants to be dialled, those that live included.
    fn wants(&self) -> usize {
        0
    }

    /// Whether all connections have been used: until then it is still warming up.
    fn warm(&self) -> bool {
        true
    }

    /// Whether everything that must have come has come, once nothing is outstanding.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// What is counted between the marks.
pub(crate) struct Counts {
    /// What the server's work is divided by: replies, deliveries, pongs, connections.
    pub(crate) done: u64,
    pub(crate) latencies: Histogram,
}

impl Counts {
    fn new() -> Self {
        Self {
            done: 0,
            latencies: Histogram::new(),
        }
    }
}

/// Nanoseconds before and between the marks, and how the generator waits.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) warm_up: u64,
    pub(crate) measured: u64,
    pub(crate) wait: Wait,
}

/// What one measured stretch says. Times are nanoseconds.
pub(crate) struct Sample {
    pub(crate) done: u64,
    pub(crate) wall: u64,
    pub(crate) server_cpu: u64,
    /// Time in which anything else ran on the server's core, the kernel's own work included.
    pub(crate) others: u64,
    /// CPU time of the generator, what it spent on asking in vain included.
    pub(crate) generator_cpu: u64,
    /// Time in which the generator had something to do.
    pub(crate) generator_busy: u64,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    /// Resident bytes of the server at the end.
    pub(crate) rss: u64,
}

impl Sample {
    pub(crate) fn cpu_each(&self) -> f64 {
        self.server_cpu as f64 / self.done as f64
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 * 1e9 / self.wall as f64
    }

    /// What one of the things done costs the generator, about: nobody can tell work and waiting apart to the nanosecond.
    pub(crate) fn generator_each(&self) -> f64 {
        self.generator_cpu.min(self.generator_busy) as f64 / self.done as f64
    }

    pub(crate) fn share(&self, of: u64) -> f64 {
        of as f64 / self.wall as f64
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "done": self.done, "wall_ns": self.wall, "server_cpu_ns": self.server_cpu,
            "others_ns": self.others, "generator_cpu_ns": self.generator_cpu,
            "generator_busy_ns": self.generator_busy, "median_ns": self.median, "p99_ns": self.p99, "rss": self.rss,
        })
    }
}

/// Runs a load over a pool's connections and measures what it costs the server.
pub(crate) fn measure<L: Measured>(pool: &mut Pool, load: &mut L, server: &Server, timing: Timing) -> Result<Sample> {
    pool.set_wait(timing.wait);
    let (out, clock) = pool.outgoing();
    load.start(out, clock);
    let began = clock.now();
    run(pool, load, began + timing.warm_up)?;
    while !load.warm() {
        let soon = pool.clock().now() + timing.warm_up / 10;
        run(pool, load, soon)?;
    }

    load.counts().done = 0;
    load.counts().latencies.clear();
    let before = Marks::take(pool, server)?;
    run(pool, load, before.time + timing.measured)?;
    let after = Marks::take(pool, server)?;

    let counts = load.counts();
    let done = counts.done;
    let (median, p99) = (counts.latencies.quantile(0.5), counts.latencies.quantile(0.99));
    let rss = server.memory()?.rss;

    load.stop();
    let deadline = pool.clock().now() + ANSWERED;
    while load.outstanding() > 0 {
        let now = pool.turn(load)?;
        ensure!(
            now < deadline,
            "{} still unanswered 15 s after the last was sent",
            load.outstanding()
        );
    }
    load.check()?;
    pool.set_wait(Wait::Sleep);
    ensure!(done > 0, "nothing was done in the whole time");

    let wall = after.time - before.time;
    let server_cpu = after.server_cpu - before.server_cpu;
    Ok(Sample {
        done,
        wall,
        server_cpu,
        others: wall
            .saturating_sub(after.core_idle - before.core_idle)
            .saturating_sub(server_cpu),
        generator_cpu: after.generator_cpu - before.generator_cpu,
        generator_busy: wall.saturating_sub(after.waited - before.waited),
        median,
        p99,
        rss,
    })
}

fn run(pool: &mut Pool, load: &mut impl Measured, until: u64) -> Result<()> {
    loop {
        let now = pool.turn(load)?;
        let (out, clock) = pool.outgoing();
        load.tick(out, clock);
        while pool.len() < load.wants() {
            pool.dial()?;
        }
        if now >= until {
            return Ok(());
        }
        pool.check_alive(now, load.outstanding())?;
    }
}

struct Marks {
    time: u64,
    server_cpu: u64,
    core_idle: u64,
    generator_cpu: u64,
    waited: u64,
}

impl Marks {
    fn take(pool: &Pool, server: &Server) -> Result<Self> {
        Ok(Self {
            core_idle: server.core_idle()?,
            generator_cpu: cpu::own()?,
            waited: pool.waited(),
            server_cpu: server.cpu()?,
            time: pool.clock().now(),
        })
    }
}
