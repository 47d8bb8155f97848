//! The scenarios: what each one does, the figure that it yields, and what is wanted of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::load::{self, Connects, Joins, Requests, Sample, Shouts, Timing};
use crate::pool::Pool;
use crate::server::{Memory, Server};
use crate::wire::{self, Request};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) figure: Figure,
    pub(crate) goal: Bound,
    pub(crate) floor: Bound,
    run: Run,
}

/// The number that a scenario is about. Less is better, always.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Figure {
    /// The server's CPU time for each reply, delivery or connection, in nanoseconds; wanted as a share of the other server's.
    Cpu(&'static str),
    /// The median latency in nanoseconds; wanted as a share of the other server's.
    Latency,
    /// Resident bytes of one idle connection; wanted absolutely.
    Bytes,
    /// CPU time of a message with many connections over that with few; wanted absolutely.
    Growth,
}

/// What the figure, or its share of the other server's, should not exceed.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) text: &'static str,
    pub(crate) value: f64,
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
    Idle,
    Connects,
    Many,
}

const fn bound(text: &'static str, value: f64) -> Bound {
    Bound { text, value }
}

/// A share of the other server's figure.
const fn one_in(text: &'static str, parts: f64) -> Bound {
    Bound {
        text,
        value: 1.0 / parts,
    }
}

const KIB: f64 = 1_024.0;
const MEMBERS: usize = 1_000;
const FEW: usize = 1_000;
const MANY: usize = 10_000;
const IN_TURN: usize = 100;
const SLOW: &str = "5";

pub(crate) const ALL: [Scenario; 10] = [
    Scenario {
        name: "acked",
        about: "acked `echo` of 32 B, 64 connections, 16 in flight on each",
        figure: Figure::Cpu("reply"),
        goal: one_in("1/18", 18.0),
        floor: one_in("1/14", 14.0),
        run: Run::Requests {
            event: "echo",
            payload: 32,
            conns: 64,
            depth: 16,
        },
    },
    Scenario {
        name: "acked-1k",
        about: "acked `echo` of 1 KiB, 64 connections, 16 in flight on each",
        figure: Figure::Cpu("reply"),
        goal: one_in("1/20", 20.0),
        floor: one_in("1/14", 14.0),
        run: Run::Requests {
            event: "echo",
            payload: 1_024,
            conns: 64,
            depth: 16,
        },
    },
    Scenario {
        name: "acked-1",
        about: "acked `echo` of 32 B, 64 connections, 1 in flight on each",
        figure: Figure::Cpu("reply"),
        goal: bound("0.5", 0.5),
        floor: bound("0.6", 0.6),
        run: Run::Requests {
            event: "echo",
            payload: 32,
            conns: 64,
            depth: 1,
        },
    },
    Scenario {
        name: "latency",
        about: "acked `echo` of 32 B, 1 connection, 1 in flight",
        figure: Figure::Latency,
        goal: bound("0.8", 0.8),
        floor: bound("1.0", 1.0),
        run: Run::Requests {
            event: "echo",
            payload: 32,
            conns: 1,
            depth: 1,
        },
    },
    Scenario {
        name: "slow",
        about: "`slow` 5 ms, 64 connections, 16 in flight on each",
        figure: Figure::Cpu("reply"),
        goal: one_in("1/4", 4.0),
        floor: one_in("1/3", 3.0),
        run: Run::Requests {
            event: "slow",
            payload: 0,
            conns: 64,
            depth: 16,
        },
    },
    Scenario {
        name: "broadcast-8",
        about: "`shout` of 128 B to 1 000 members, 8 outstanding",
        figure: Figure::Cpu("delivery"),
        goal: one_in("1/9", 9.0),
        floor: one_in("1/7", 7.0),
        run: Run::Shouts { depth: 8 },
    },
    Scenario {
        name: "broadcast-1",
        about: "`shout` of 128 B to 1 000 members, 1 outstanding",
        figure: Figure::Cpu("delivery"),
        goal: bound("0.7", 0.7),
        floor: bound("0.8", 0.8),
        run: Run::Shouts { depth: 1 },
    },
    Scenario {
        name: "idle",
        about: "connections dialled with a browser's headers, each in one room: growth from 1 000 to 10 000",
        figure: Figure::Bytes,
        goal: bound("4.5 KiB", 4.5 * KIB),
        floor: bound("6 KiB", 6.0 * KIB),
        run: Run::Idle,
    },
    Scenario {
        name: "connect",
        about: "TCP connect, handshake, closing handshake; 16 at a time",
        figure: Figure::Cpu("connection"),
        goal: bound("0.7", 0.7),
        floor: bound("0.85", 0.85),
        run: Run::Connects,
    },
    Scenario {
        name: "many",
        about: "acked `echo` of 32 B, 100 in flight in all, in turn over 10 000 connections against over 100",
        figure: Figure::Growth,
        goal: bound("1.3", 1.3),
        floor: bound("1.5", 1.5),
        run: Run::Many,
    },
];

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
        (self.many.rss as f64 - self.few.rss as f64) / (MANY - FEW) as f64
    }

    pub(crate) fn pss_each(&self) -> f64 {
        (self.many.pss as f64 - self.few.pss as f64) / (MANY - FEW) as f64
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
        !matches!(self.run, Run::Idle)
    }

    /// Runs it once against a server that has just been started.
    pub(crate) fn run(&self, server: &Server, timing: Timing) -> Result<Outcome> {
        let plain = || {
            Pool::new(
                server.address,
                wire::plain_request(&server.address.to_string(), &server.path),
            )
        };
        match self.run {
            Run::Requests {
                event,
                payload,
                conns,
                depth,
            } => {
                let request = if event == "slow" {
                    Request::new("slow", SLOW, "done")
                } else {
                    echo(payload)
                };
                let mut load = Requests::on_each(request, conns, depth);
                let mut pool = plain()?;
                pool.dial_up_to(conns, &mut load)?;
                self.one(load::measure(&mut pool, &mut load, server, timing)?)
            }
            Run::Shouts { depth } => {
                let mut pool = plain()?;
                join(&mut pool, MEMBERS)?;
                let mut load = Shouts::new(MEMBERS, depth);
                pool.dial_up_to(MEMBERS + 1, &mut load)?;
                self.one(load::measure(&mut pool, &mut load, server, timing)?)
            }
            Run::Connects => {
                let mut load = Connects::new(16);
                self.one(load::measure(&mut plain()?, &mut load, server, timing)?)
            }
            Run::Many => {
                let mut pool = plain()?;
                let mut few = Requests::in_turn(echo(32), IN_TURN, IN_TURN);
                pool.dial_up_to(IN_TURN, &mut few)?;
                let few_sample = load::measure(&mut pool, &mut few, server, timing)?;
                let mut many = Requests::in_turn(echo(32), MANY, IN_TURN);
                many.continue_ids(&few);
                pool.dial_up_to(MANY, &mut many)?;
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
                let host = server.address.to_string();
                let mut pool = Pool::new(server.address, wire::browser_request(&host, &server.path))?;
                let mut joins = Joins::new("lobby");
                let few = settled(&mut pool, &mut joins, FEW, server)?;
                let many = settled(&mut pool, &mut joins, MANY, server)?;
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
            _ => sample.cpu_each(),
        };
        Ok(Outcome {
            figure,
            samples: vec![(self.name.to_owned(), sample)],
            memory: None,
        })
    }
}

fn echo(bytes: usize) -> Request {
    let payload: String = ('a'..='z').cycle().take(bytes).collect();
    Request::new("echo", &payload, &payload)
}

/// Dials the room's members, all of them joined.
fn join(pool: &mut Pool, members: usize) -> Result<()> {
    let mut joins = Joins::new(load::ROOM);
    dial_and_join(pool, &mut joins, members)
}

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
