//! Measures ETP servers against each other and against those of other libraries: CPU time, latency and memory of the same traffic, in interleaved rounds.
//! `tests/bench/README.md` says what is measured and how to read it.

mod ceiling;
mod cpu;
mod dialect;
mod load;
mod options;
mod pool;
mod report;
mod scenarios;
mod server;
mod sets;
mod stats;
mod wire;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use load::Timing;
use options::Options;
use report::Report;
use scenarios::{Outcome, Scenario};
use server::{CEILING, Server};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("etp-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(ceiling::ARGUMENT) {
        return ceiling::serve();
    }
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        return Ok(());
    };
    let descriptors = cpu::raise_descriptors()?;
    ensure!(
        descriptors >= 10_200,
        "10 000 connections need more than {descriptors} descriptors (ulimit -n)"
    );
    for name in &options.servers {
        Server::build(name, &options.launcher)?;
    }

    let machine = cpu::machine();
    if cpu::load_average() > 0.7 {
        eprintln!("warning: the machine has other work (see the load average); it shows in every figure");
    }
    cpu::pin(options.cores.generator)?;
    let mut report = Report::new(&options, machine);
    let measured = measure_all(&options, &mut report);
    // What was measured before a failure is worth reading, too.
    if !report.is_empty() {
        print!("{report}");
    }
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("writing {}", file.display()))?;
    }
    measured
}

/// Every round runs every scenario against every server, one right after the other, so that a change of the machine's mood
/// hits all alike; who comes first changes from round to round.
fn measure_all(options: &Options, report: &mut Report) -> Result<()> {
    for round in 0..options.rounds {
        for sets::Row { scenario, .. } in options.rows() {
            let mut servers: Vec<&str> = options.servers.iter().map(String::as_str).collect();
            if options.ceiling && scenario.has_ceiling() {
                servers.push(CEILING);
            }
            if !servers.is_empty() {
                let first = round % servers.len();
                servers.rotate_left(first);
            }
            for name in servers {
                let outcome = measure_one(options, scenario, name)
                    .with_context(|| format!("round {}, scenario `{}`, server `{name}`", round + 1, scenario.name))?;
                let figure = report::figure(scenario.figure, outcome.figure);
                eprintln!(
                    "round {}/{}  {:12} {name:10} {figure}",
                    round + 1,
                    options.rounds,
                    scenario.name
                );
                report.add(round, scenario.name, name, outcome);
            }
        }
    }
    Ok(())
}

fn measure_one(options: &Options, scenario: &Scenario, name: &str) -> Result<Outcome> {
    let measured = (options.seconds * 1e9) as u64;
    let timing = Timing {
        warm_up: measured / 4,
        measured,
        wait: options.wait(scenario),
    };
    let mut server = Server::start(name, &options.launcher, options.cores)?;
    match scenario.run(&server, timing) {
        Ok(outcome) => server.stop().map(|()| outcome),
        Err(error) => Err(server.blame(error)),
    }
}
