//! What all rounds together say: Markdown tables for people, JSON for programs.

use std::fmt;

use serde_json::{Value, json};

use crate::load::Sample;
use crate::options::Options;
use crate::scenarios::{self, Figure, Outcome, Scenario};
use crate::server::CEILING;
use crate::sets::{Bounds, Row, Set};
use crate::stats::Spread;

pub(crate) struct Report {
    machine: String,
    settings: String,
    set: &'static Set,
    /// In the order of the command line, the ceiling last.
    servers: Vec<String>,
    entries: Vec<Entry>,
}

struct Entry {
    round: usize,
    scenario: &'static str,
    server: String,
    outcome: Outcome,
}

impl Report {
    pub(crate) fn new(options: &Options, machine: String) -> Self {
        let mut servers = options.servers.clone();
        if options.ceiling {
            servers.push(CEILING.to_owned());
        }
        let settings = format!(
            "Set {}, {} rounds of {} s, server on core {}, generator on core {}, which {} while it waits",
            options.set.name,
            options.rounds,
            options.seconds,
            options.cores.server,
            options.cores.generator,
            if options.spin { "stays awake" } else { "sleeps" },
        );
        Self {
            machine,
            settings,
            set: options.set,
            servers,
            entries: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn add(&mut self, round: usize, scenario: &'static str, server: &str, outcome: Outcome) {
        self.entries.push(Entry {
            round,
            scenario,
            server: server.to_owned(),
            outcome,
        });
    }

    pub(crate) fn to_json(&self) -> Value {
        let scenarios: Vec<Value> = self
            .measured()
            .map(|row| {
                let wanted = std::iter::once(None).chain(self.others().map(Some));
                let judged = wanted.filter_map(|than| {
                    let (bounds, spread) = (row.wanted(than)?, self.compared(row.scenario.name, than)?);
                    Some(json!({
                        "than": than, "goal": bounds.goal.value, "at_least": bounds.floor.value,
                        "median": spread.median, "min": spread.min, "max": spread.max,
                        "verdict": verdict(bounds, spread),
                    }))
                });
                json!({ "name": row.scenario.name, "judged": judged.collect::<Vec<_>>() })
            })
            .collect();
        let rounds: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| {
                json!({
                    "round": entry.round + 1, "scenario": entry.scenario, "server": entry.server,
                    "outcome": entry.outcome.to_json(),
                })
            })
            .collect();
        json!({
            "machine": self.machine, "settings": self.settings, "first": self.first(), "scenarios": scenarios,
            "rounds": rounds,
        })
    }

    fn measured(&self) -> impl Iterator<Item = &'static Row> {
        self.set
            .rows
            .iter()
            .filter(|row| self.entries.iter().any(|entry| entry.scenario == row.scenario.name))
    }

    fn outcomes(&self, scenario: &str, server: &str) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.scenario == scenario && entry.server == server)
    }

    /// The server that goals are about.
    fn first(&self) -> Option<&str> {
        self.servers
            .first()
            .map(String::as_str)
            .filter(|first| *first != CEILING)
    }

    /// Those that it is compared with.
    fn others(&self) -> impl Iterator<Item = &str> {
        let others = self.servers.iter().skip(1).map(String::as_str);
        others.filter(|server| *server != CEILING)
    }

    /// The first server's figure as a share of another's in the same round, or by itself.
    fn compared(&self, scenario: &str, than: Option<&str>) -> Option<Spread> {
        let figures = self.outcomes(scenario, self.first()?);
        let Some(than) = than else {
            return Spread::of(figures.map(|entry| entry.outcome.figure));
        };
        Spread::of(figures.filter_map(|entry| {
            let mut others = self.outcomes(scenario, than);
            let other = others.find(|other| other.round == entry.round)?;
            Some(entry.outcome.figure / other.outcome.figure)
        }))
    }

    fn goals(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "| scenario | figure | server | measured | {} / it | goal | at least | |\n|---|---|---|---:|---:|---:|---:|---|",
            self.first().unwrap_or("first")
        )?;
        for row in self.measured() {
            for server in &self.servers {
                self.goal(out, row, server)?;
            }
        }
        Ok(())
    }

    /// One line: what a server's figure was, what share of it the first server's is, and what is wanted of that.
    fn goal(&self, out: &mut fmt::Formatter<'_>, row: &Row, server: &str) -> fmt::Result {
        let Scenario { name, figure, .. } = row.scenario;
        let Some(own) = Spread::of(self.outcomes(name, server).map(|entry| entry.outcome.figure)) else {
            return Ok(());
        };
        let than = (self.first() != Some(server)).then_some(server);
        let bounds = row.wanted(than);
        let share = self
            .compared(name, than)
            .filter(|_| than.is_some() && server != CEILING && figure.is_compared());
        write!(out, "| `{name}` | {} | {server} |", unit(figure))?;
        write!(out, " {} |", ranged(own, |value| plain(figure, value)))?;
        match share {
            Some(spread) => {
                let shown = |value| share_of(value, bounds);
                write!(
                    out,
                    " **{}** ({} to {}) |",
                    shown(spread.median),
                    shown(spread.min),
                    shown(spread.max)
                )?;
            }
            None => write!(out, " |")?,
        }
        match bounds {
            Some(bounds) => writeln!(
                out,
                " {} | {} | {} |",
                bounds.goal.text,
                bounds.floor.text,
                verdict(bounds, share.unwrap_or(own))
            ),
            None => writeln!(out, " | | |"),
        }
    }

    fn details(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "| scenario | server | /s | server CPU µs each | median latency µs | p99 µs | server busy | others there | \
             generator busy | generator CPU µs each | RSS MiB |\n|---|---|{}",
            "---:|".repeat(9)
        )?;
        for Row { scenario, .. } in self.measured() {
            let mut labels: Vec<&str> = Vec::new();
            for (label, _) in self.samples(scenario.name).map(|(_, sample)| sample) {
                if !labels.contains(&label.as_str()) {
                    labels.push(label);
                }
            }
            for label in labels {
                for server in &self.servers {
                    let of = |value: fn(&Sample) -> f64| {
                        let samples = self.samples(scenario.name);
                        let own = samples.filter(|(of, (name, _))| of.server == *server && name == label);
                        Spread::of(own.map(|(_, (_, sample))| value(sample)))
                    };
                    let Some(rate) = of(Sample::per_second) else {
                        continue;
                    };
                    let median = |value: fn(&Sample) -> f64| of(value).map_or(f64::NAN, |spread| spread.median);
                    let cpu = of(|sample| sample.cpu_each() / 1e3);
                    writeln!(
                        out,
                        "| `{label}` | {server} | {} | {} | {:.1} | {:.1} | {:.0} % | {:.1} % | {:.0} % | {:.2} | {:.1} |",
                        thousands(rate.median),
                        cpu.map_or(String::new(), |cpu| ranged(cpu, digits)),
                        median(|sample| sample.median / 1e3),
                        median(|sample| sample.p99 / 1e3),
                        median(|sample| 100.0 * sample.share(sample.server_cpu)),
                        median(|sample| 100.0 * sample.share(sample.others)),
                        median(|sample| 100.0 * sample.share(sample.generator_busy)),
                        median(|sample| sample.generator_each() / 1e3),
                        median(|sample| sample.rss as f64 / 1_048_576.0),
                    )?;
                }
            }
        }
        Ok(())
    }

    fn samples(&self, scenario: &str) -> impl Iterator<Item = (&Entry, &(String, Sample))> {
        let entries = self.entries.iter().filter(move |entry| entry.scenario == scenario);
        entries.flat_map(|entry| entry.outcome.samples.iter().map(move |sample| (entry, sample)))
    }

    fn memory(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.entries.iter().any(|entry| entry.outcome.memory.is_some()) {
            return Ok(());
        }
        writeln!(
            out,
            "\n| idle | server | RSS MiB, 1 000 | RSS MiB, 10 000 | RSS KiB each | PSS KiB each |\n|---|---|---:|---:|---:|---:|"
        )?;
        for server in &self.servers {
            let of = |value: fn(&scenarios::Growth) -> f64| {
                let own = self.entries.iter().filter(|entry| entry.server == *server);
                Spread::of(own.filter_map(|entry| entry.outcome.memory.as_ref().map(value)))
            };
            let Some(few) = of(|growth| growth.few.rss as f64 / 1_048_576.0) else {
                continue;
            };
            let shown = |spread: Option<Spread>| spread.map_or(String::new(), |spread| ranged(spread, digits));
            writeln!(
                out,
                "| `idle` | {server} | {} | {} | {} | {} |",
                shown(Some(few)),
                shown(of(|growth| growth.many.rss as f64 / 1_048_576.0)),
                shown(of(|growth| growth.rss_each() / 1_024.0)),
                shown(of(|growth| growth.pss_each() / 1_024.0)),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{}\n{}. Medians, in brackets the least and the most of all rounds.\n",
            self.machine, self.settings
        )?;
        self.goals(out)?;
        writeln!(out)?;
        self.details(out)?;
        self.memory(out)
    }
}

fn verdict(bounds: Bounds, spread: Spread) -> &'static str {
    if spread.median <= bounds.goal.value {
        "goal met"
    } else if spread.median <= bounds.floor.value {
        "above the floor"
    } else {
        "**missed**"
    }
}

/// A figure with its unit.
pub(crate) fn figure(kind: Figure, value: f64) -> String {
    format!("{} {}", plain(kind, value), unit(kind))
}

fn unit(kind: Figure) -> String {
    match kind {
        Figure::Cpu(each) => format!("µs of CPU a {each}"),
        Figure::Latency => "µs, median latency".to_owned(),
        Figure::Tail => "ms, p99 of a pong".to_owned(),
        Figure::Bytes => "KiB a connection".to_owned(),
        Figure::Growth => "times the CPU a reply".to_owned(),
    }
}

fn plain(kind: Figure, value: f64) -> String {
    match kind {
        Figure::Cpu(_) | Figure::Latency => digits(value / 1e3),
        Figure::Tail => digits(value / 1e6),
        Figure::Bytes => digits(value / 1_024.0),
        Figure::Growth => digits(value),
    }
}

/// A share, written as its goal is, and without one as its size suggests.
fn share_of(value: f64, bounds: Option<Bounds>) -> String {
    let parts = bounds.map_or(value < 0.4, |bounds| bounds.goal.text.starts_with("1/"));
    if parts && value < 1.0 {
        format!("1/{:.1}", 1.0 / value)
    } else {
        format!("{value:.2}")
    }
}

fn ranged(spread: Spread, shown: impl Fn(f64) -> String) -> String {
    format!(
        "{} ({} to {})",
        shown(spread.median),
        shown(spread.min),
        shown(spread.max)
    )
}

/// Three digits that say something.
fn digits(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(" ")
}
