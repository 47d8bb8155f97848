//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::cpu::Cores;
use crate::pool::Wait;
use crate::scenarios::{Figure, Scenario};
use crate::sets::{self, Row, Set};

pub(crate) const USAGE: &str = "\
etp-bench: ETP servers compared, each on one core, with the load generator on another

  --set rust              servers, scenarios and goals: rust (against go), python and node (each against other libraries
                          of its language) or node-attach (node on an HTTP server's port against its own)
  --servers rust,go       others than the set's; the first is compared with each of the others
  --rounds 7              interleaved rounds: every round runs every scenario against every server
  --seconds 2             measured time of a run; a quarter of it more warms up
  --only NAME[,NAME]      these scenarios alone
  --launcher tests/peers/run   starts the ETP servers
  --json FILE             all figures of all rounds
  --ceiling               the generator's own limit alone: no server but the benchmark's own
  --no-ceiling            without it
  --cores S,G             the server's core and the generator's (the first two that may be used)
  --block                 the generator sleeps while it waits, instead of staying awake
  --list                  names the set's servers and scenarios
";

/// How often a generator that stays awake asks its sockets, where latency is not the question: every 20 µs.
const PACE: u64 = 20_000;

pub(crate) struct Options {
    pub(crate) set: &'static Set,
    pub(crate) servers: Vec<String>,
    pub(crate) ceiling: bool,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) only: Vec<String>,
    pub(crate) launcher: PathBuf,
    pub(crate) json: Option<PathBuf>,
    pub(crate) cores: Cores,
    pub(crate) spin: bool,
}

impl Options {
    /// Nothing: the user asked for help or a list and has got it.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Option<Self>> {
        let mut servers = None;
        let mut list_only = false;
        let mut options = Self {
            set: &sets::ALL[0],
            servers: Vec::new(),
            ceiling: true,
            rounds: 7,
            seconds: 2.0,
            only: Vec::new(),
            launcher: PathBuf::from("tests/peers/run"),
            json: None,
            cores: Cores::first_two()?,
            spin: true,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{name} needs a value"));
            match name.as_str() {
                "--set" => {
                    let name = value()?;
                    options.set = Set::find(&name).with_context(|| format!("no set `{name}`\n\n{USAGE}"))?;
                }
                "--servers" => servers = Some(list(&value()?)),
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--seconds" => options.seconds = value()?.parse().context("--seconds")?,
                "--only" => options.only.extend(list(&value()?)),
                "--launcher" => options.launcher = value()?.into(),
                "--json" => options.json = Some(value()?.into()),
                "--ceiling" => servers = Some(Vec::new()),
                "--no-ceiling" => options.ceiling = false,
                "--cores" => options.cores = cores(&value()?)?,
                "--block" => options.spin = false,
                "--list" => list_only = true,
                "--help" | "-h" => {
                    print!("{USAGE}");
                    return Ok(None);
                }
                other => bail!("there is no option {other}\n\n{USAGE}"),
            }
        }
        options.servers =
            servers.unwrap_or_else(|| options.set.servers.iter().map(|server| (*server).to_owned()).collect());
        if list_only {
            println!("servers: {}", options.servers.join(", "));
            for Row { scenario, .. } in options.set.rows {
                println!("{:12} {}", scenario.name, scenario.about);
            }
            return Ok(None);
        }
        ensure!(options.rounds > 0, "--rounds must be 1 or more");
        ensure!(
            (0.1..=600.0).contains(&options.seconds),
            "--seconds must lie between 0.1 and 600"
        );
        ensure!(options.ceiling || !options.servers.is_empty(), "nothing to measure");
        for name in &options.only {
            ensure!(
                options.set.rows.iter().any(|row| row.scenario.name == name),
                "no scenario `{name}` in set `{}`: see --list",
                options.set.name
            );
        }
        Ok(Some(options))
    }

    pub(crate) fn wait(&self, scenario: &Scenario) -> Wait {
        match (self.spin, scenario.figure) {
            // What is sent by the clock can't sleep until something comes.
            (_, Figure::Tail) | (true, Figure::Latency) => Wait::Spin { pace: 0 },
            (true, _) => Wait::Spin { pace: PACE },
            (false, _) => Wait::Sleep,
        }
    }

    /// What is to be measured.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &'static Row> {
        let wanted = |name| self.only.is_empty() || self.only.iter().any(|only| only == name);
        self.set.rows.iter().filter(move |row| wanted(row.scenario.name))
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

fn cores(text: &str) -> Result<Cores> {
    let (server, generator) = text.split_once(',').context("--cores takes two numbers: 0,1")?;
    let cores = Cores {
        server: server.parse().context("--cores")?,
        generator: generator.parse().context("--cores")?,
    };
    ensure!(cores.server != cores.generator, "--cores takes two different cores");
    Ok(cores)
}
