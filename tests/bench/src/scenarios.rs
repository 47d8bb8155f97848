//! The scenarios: what each one does, and the figure that it yields. What is wanted of it, a [set](crate::sets) says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::dialect::Dialect;
use crate::load::{self, Connects, Joins, Pings, Requests, Sample, Shouts, Timing};
use crate::pool::Pool;
use crate::server::{Memory, Server};
use crate::wire::{self, Request};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) figure: Figure,
    run: Run,
}

/// The number that a scenario is about. Less is better, always.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Figure {
    /// The server's CPU time for each reply, delivery or connection, in nanoseconds; compared with another server's.
    Cpu(&'static str),
    /// The median latency in nanoseconds; compared with another server's.
    Latency,
    /// The latency that 99 % do not exceed, in nanoseconds; by itself.
    Tail,
    /// Resident bytes of one idle connection; by itself.
    Bytes,
    /// CPU time of a message with many connections over that with few; by itself.
    Growth,
}

impl Figure {
    /// Whether it is about a server's share of another one's figure.
    pub(crate) fn is_compared(self) -> bool {
        matches!(self, Self::Cpu(_) | Self::Latency)
    }
}

enum Run {
    /// `echo` or `slow` on so many connections, so many in flight on each.
    Requests {
        event: &'static str,
        payload: usize,
        conns: usize,
        depth: usize,
    },
    Shouts {
        depth: usize,
    },
    /// Pings on so many connections.
    Pings {
        conns: usize,
    },
    Idle,
    Connects,
    Many,
}

const MEMBERS: usize = 1_000;
const FEW: usize = 1_000;
const CROWD: usize = 10_000;
const IN_TURN: usize = 100;
const SLOW_MILLISECONDS: &str = "5";

pub(crate) const ACKED: Scenario = Scenario {
    name: "acked",
    about: "acked `echo` of 32 B, 64 connections, 16 in flight on each",
    figure: Figure::Cpu("reply"),
    run: Run::Requests {
        event: "echo",
        payload: 32,
        conns: 64,
        depth: 16,
    },
};

pub(crate) const ACKED_1K: Scenario = Scenario {
    name: "acked-1k",
    about: "acked `echo` of 1 KiB, 64 connections, 16 in flight on each",
    figure: Figure::Cpu("reply"),
    run: Run::Requests {
        event: "echo",
        payload: 1_024,
        conns: 64,
        depth: 16,
    },
};

pub(crate) const ACKED_1: Scenario = Scenario {
    name: "acked-1",
    about: "acked `echo` of 32 B, 64 connections, 1 in flight on each",
    figure: Figure::Cpu("reply"),
    run: Run::Requests {
        event: "echo",
        payload: 32,
        conns: 64,
        depth: 1,
    },
};

pub(crate) const LATENCY: Scenario = Scenario {
    name: "latency",
    about: "acked `echo` of 32 B, 1 connection, 1 in flight",
    figure: Figure::Latency,
    run: Run::Requests {
        event: "echo",
        payload: 32,
        conns: 1,
        depth: 1,
    },
};

pub(crate) const SLOW: Scenario = Scenario {
    name: "slow",
    about: "`slow` 5 ms, 64 connections, 16 in flight on each",
    figure: Figure::Cpu("reply"),
    run: Run::Requests {
        event: "slow",
        payload: 0,
        conns: 64,
        depth: 16,
    },
};

pub(crate) const BROADCAST_8: Scenario = Scenario {
    name: "broadcast-8",
    about: "`shout` of 128 B to 1 000 members, 8 outstanding",
    figure: Figure::Cpu("delivery"),
    run: Run::Shouts { depth: 8 },
};

pub(crate) const BROADCAST_1: Scenario = Scenario {
    name: "broadcast-1",
    about: "`shout` of 128 B to 1 000 members, 1 outstanding",
    figure: Figure::Cpu("delivery"),
    run: Run::Shouts { depth: 1 },
};

pub(crate) const PING_BUSY: Scenario = Scenario {
    name: "ping-busy",
    about: "a ping every 5 ms on 8 connections each, while handlers block for 100 ms one after the other",
    figure: Figure::Tail,
    run: Run::Pings { conns: 8 },
};

pub(crate) const IDLE: Scenario = Scenario {
    name: "idle",
    about: "connections dialled with a browser's headers, each in one room: growth from 1 000 to 10 000",
    figure: Figure::Bytes,
    run: Run::Idle,
};

pub(crate) const CONNECT: Scenario = Scenario {
    name: "connect",
    about: "TCP connect, handshake, closing handshake; 16 at a time",
    figure: Figure::Cpu("connection"),
    run: Run::Connects,
};

pub(crate) const MANY: Scenario = Scenario {
    name: "many",
    about: "acked `echo` of 32 B, 100 in flight in all, in turn over 10 000 connections against over 100",
    figure: Figure::Growth,
    run: Run::Many,
};

/// What one scenario said of one server in one round.
pub(crate) struct Outcome {
    pub(crate) figure: f64,
    /// What was measured, under a name that begins with the scenario's.
    pub(crate) samples: Vec<(String, Sample)>,
    pub(crate) memory: Option<Growth>,
}

/// Memory with 1 000 and with 10 000 idle connections.
pub(crate) struct Growth {
    pub(crate) few: Memory,
    pub(crate) many: Memory,
}

impl Growth {
    pub(crate) fn rss_each(&self) -> f64 {
        (self.many.rss as f64 - self.few.rss as f64) / (CROWD - FEW) as f64
    }

    pub(crate) fn pss_each(&self) -> f64 {
        (self.many.pss as f64 - self.few.pss as f64) / (CROWD - FEW) as f64
    }
}

impl Outcome {
    pub(crate) fn to_json(&self) -> Value {
        let samples: Value = self
            .samples
            .iter()
            .map(|(name, sample)| (name.clone(), sample.to_json()))
            .collect();
        let memory = self.memory.as_ref().map(|growth| {
            json!({
                "rss_1000": growth.few.rss, "rss_10000": growth.many.rss, "rss_each": growth.rss_each(),
                "pss_1000": growth.few.pss, "pss_10000": growth.many.pss, "pss_each": growth.pss_each(),
            })
        });
        json!({ "figure": self.figure, "samples": samples, "memory": memory })
    }
}

impl Scenario {
    /// Whether it says anything about the benchmark's own server.
    pub(crate) fn has_ceiling(&self) -> bool {
        !matches!(self.run, Run::Idle | Run::Pings { .. })
    }

    /// Runs it once against a server that has just been started.
    pub(crate) fn run(&self, server: &Server, timing: Timing) -> Result<Outcome> {
        let dialect = server.dialect;
        let host = server.address.to_string();
        let plain = || Pool::new(server.address, dialect, wire::plain_request(&host, &server.path));
        match self.run {
            Run::Requests {
                event,
                payload,
                conns,
                depth,
            } => {
                let request = if event == "slow" {
                    Request::new(dialect, "slow", SLOW_MILLISECONDS, "done")
                } else {
                    echo(dialect, payload)
                };
                let mut load = Requests::on_each(request, conns, depth);
                let mut pool = plain()?;
                pool.dial_up_to(conns, &mut load)?;
                self.one(load::measure(&mut pool, &mut load, server, timing)?)
            }
            Run::Shouts { depth } => {
                let mut pool = plain()?;
                dial_and_join(&mut pool, &mut Joins::new(dialect, load::ROOM), MEMBERS)?;
                let mut load = Shouts::new(dialect, MEMBERS, depth);
                pool.dial_up_to(MEMBERS + 1, &mut load)?;
                self.one(load::measure(&mut pool, &mut load, server, timing)?)
            }
            Run::Pings { conns } => {
                let mut load = Pings::new(dialect, conns);
                let mut pool = plain()?;
                pool.dial_up_to(1 + conns, &mut load)?;
                self.one(load::measure(&mut pool, &mut load, server, timing)?)
            }
            Run::Connects => {
                let mut load = Connects::new(16);
                self.one(load::measure(&mut plain()?, &mut load, server, timing)?)
            }
            Run::Many => {
                let mut pool = plain()?;
                let mut few = Requests::in_turn(echo(dialect, 32), IN_TURN, IN_TURN);
                pool.dial_up_to(IN_TURN, &mut few)?;
                let few_sample = load::measure(&mut pool, &mut few, server, timing)?;
                let mut many = Requests::in_turn(echo(dialect, 32), CROWD, IN_TURN);
                many.continue_ids(&few);
                pool.dial_up_to(CROWD, &mut many)?;
                let many_sample = load::measure(&mut pool, &mut many, server, timing)?;
                Ok(Outcome {
                    figure: many_sample.cpu_each() / few_sample.cpu_each(),
                    samples: vec![
                        (format!("{} (100 connections)", self.name), few_sample),
                        (format!("{} (10 000)", self.name), many_sample),
                    ],
                    memory: None,
                })
            }
            Run::Idle => {
                let mut pool = Pool::new(server.address, dialect, wire::browser_request(&host, &server.path))?;
                let mut joins = Joins::new(dialect, "lobby");
                let few = settled(&mut pool, &mut joins, FEW, server)?;
                let many = settled(&mut pool, &mut joins, CROWD, server)?;
                let growth = Growth { few, many };
                Ok(Outcome {
                    figure: growth.rss_each(),
                    samples: Vec::new(),
                    memory: Some(growth),
                })
            }
        }
    }

    /// The outcome of a scenario with a single sample.
    fn one(&self, sample: Sample) -> Result<Outcome> {
        let figure = match self.figure {
            Figure::Latency => sample.median,
            Figure::Tail => sample.p99,
            _ => sample.cpu_each(),
        };
        Ok(Outcome {
            figure,
            samples: vec![(self.name.to_owned(), sample)],
            memory: None,
        })
    }
}

fn echo(dialect: Dialect, bytes: usize) -> Request {
    let payload: String = ('a'..='z').cycle().take(bytes).collect();
    Request::new(dialect, "echo", &payload, &payload)
}

/// Dials until there are so many members, all of them joined.
fn dial_and_join(pool: &mut Pool, joins: &mut Joins, members: usize) -> Result<()> {
    pool.dial_up_to(members, joins)?;
    while joins.outstanding() > 0 {
        let now = pool.turn(joins)?;
        pool.check_alive(now, joins.outstanding())?;
    }
    joins.check()
}

/// The server's memory with so many members, once it has not changed by more than 0.2 % for a second (10 s at most).
fn settled(pool: &mut Pool, joins: &mut Joins, members: usize, server: &Server) -> Result<Memory> {
    dial_and_join(pool, joins, members)?;
    let began = Instant::now();
    let mut memory = server.memory()?;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) && began.elapsed() < Duration::from_secs(10) {
        let look = Instant::now() + Duration::from_millis(100);
        while Instant::now() < look {
            pool.turn(joins).context("while the connections were idle")?;
        }
        let now = server.memory()?;
        if now.rss.abs_diff(memory.rss) > memory.rss / 500 {
            memory = now;
            since = Instant::now();
        }
    }
    server.memory()
}
