//! What all rounds together say: Markdown tables for people, JSON for programs.

use std::fmt;

use serde_json::{Value, json};

use crate::load::Sample;
use crate::options::Options;
use crate::scenarios::{self, Bound, Figure, Outcome, Scenario};
use crate::server::CEILING;
use crate::stats::Spread;

pub(crate) struct Report {
    machine: String,
    settings: String,
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
            "{} rounds of {} s, server on core {}, generator on core {}, which {} while it waits",
            options.rounds,
            options.seconds,
            options.cores.server,
            options.cores.generator,
            if options.spin { "stays awake" } else { "sleeps" },
        );
        Self {
            machine,
            settings,
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
            .map(|scenario| {
                let judged = self.judged(scenario);
                json!({
                    "name": scenario.name, "goal": scenario.goal.value, "at_least": scenario.floor.value,
                    "median": judged.map(|spread| spread.median), "min": judged.map(|spread| spread.min),
                    "max": judged.map(|spread| spread.max), "verdict": judged.map(|spread| verdict(scenario, spread)),
                })
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
        json!({ "machine": self.machine, "settings": self.settings, "scenarios": scenarios, "rounds": rounds })
    }

    fn measured(&self) -> impl Iterator<Item = &'static Scenario> {
        scenarios::ALL
            .iter()
            .filter(|scenario| self.entries.iter().any(|entry| entry.scenario == scenario.name))
    }

    fn outcomes(&self, scenario: &str, server: &str) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.scenario == scenario && entry.server == server)
    }

    /// The figure of the first server, or its share of the second's in the same round: what goal and floor are about.
    fn judged(&self, scenario: &Scenario) -> Option<Spread> {
        let first = self.servers.first()?;
        if first == CEILING {
            return None;
        }
        if matches!(scenario.figure, Figure::Bytes | Figure::Growth) {
            return Spread::of(self.outcomes(scenario.name, first).map(|entry| entry.outcome.figure));
        }
        let second = self.servers.get(1).filter(|second| *second != CEILING)?;
        Spread::of(self.outcomes(scenario.name, first).filter_map(|entry| {
            let other = self
                .outcomes(scenario.name, second)
                .find(|other| other.round == entry.round)?;
            Some(entry.outcome.figure / other.outcome.figure)
        }))
    }

    fn goals(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compared = match self.servers.as_slice() {
            [first, second, ..] if first != CEILING && second != CEILING => {
                format!("{first} / {second}")
            }
            [first, ..] if first != CEILING => first.clone(),
            _ => "compared".to_owned(),
        };
        write!(out, "| scenario | figure |")?;
        self.servers.iter().try_for_each(|server| write!(out, " {server} |"))?;
        writeln!(out, " {compared} | goal | at least | |")?;
        writeln!(
            out,
            "|---|---|{}---:|---:|---:|---|",
            "---:|".repeat(self.servers.len())
        )?;
        for scenario in self.measured() {
            write!(out, "| `{}` | {} |", scenario.name, unit(scenario.figure))?;
            for server in &self.servers {
                let spread = Spread::of(self.outcomes(scenario.name, server).map(|entry| entry.outcome.figure));
                match spread {
                    Some(spread) => write!(out, " {} |", ranged(spread, |value| plain(scenario.figure, value)))?,
                    None => write!(out, " |")?,
                }
            }
            let absolute = matches!(scenario.figure, Figure::Bytes | Figure::Growth);
            match self.judged(scenario) {
                Some(spread) => {
                    let shown = |value| {
                        if absolute {
                            plain(scenario.figure, value)
                        } else {
                            share(value, scenario.goal)
                        }
                    };
                    write!(
                        out,
                        " **{}** ({} to {}) |",
                        shown(spread.median),
                        shown(spread.min),
                        shown(spread.max)
                    )?;
                    writeln!(
                        out,
                        " {} | {} | {} |",
                        scenario.goal.text,
                        scenario.floor.text,
                        verdict(scenario, spread)
                    )?;
                }
                None => writeln!(out, " | {} | {} | |", scenario.goal.text, scenario.floor.text)?,
            }
        }
        Ok(())
    }

    fn details(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "| scenario | server | /s | server CPU µs each | median latency µs | p99 µs | server busy | others there | \
             generator busy | generator CPU µs each | RSS MiB |\n|---|---|{}",
            "---:|".repeat(9)
        )?;
        for scenario in self.measured() {
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

fn verdict(scenario: &Scenario, spread: Spread) -> &'static str {
    if spread.median <= scenario.goal.value {
        "goal met"
    } else if spread.median <= scenario.floor.value {
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
        Figure::Bytes => "KiB a connection".to_owned(),
        Figure::Growth => "times the CPU a reply".to_owned(),
    }
}

fn plain(kind: Figure, value: f64) -> String {
    match kind {
        Figure::Cpu(_) | Figure::Latency => digits(value / 1e3),
        Figure::Bytes => digits(value / 1_024.0),
        Figure::Growth => digits(value),
    }
}

/// A share, written as the goal is.
fn share(value: f64, as_in: Bound) -> String {
    if as_in.text.starts_with("1/") {
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
