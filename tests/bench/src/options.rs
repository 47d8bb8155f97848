//! The command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::cpu::Cores;
use crate::pool::Wait;
use crate::scenarios::{self, Figure, Scenario};

pub(crate) const USAGE: &str = "\
etp-bench: ETP servers compared, each on one core, with the load generator on another

  --servers rust,go       what the launcher knows; the first is compared with the second
  --rounds 7              interleaved rounds: every round runs every scenario against every server
  --seconds 2             measured time of a run; a quarter of it more warms up
  --only NAME[,NAME]      these scenarios alone
  --launcher tests/peers/run
  --json FILE             all figures of all rounds
  --ceiling               the generator's own limit alone: no server but the benchmark's own
  --no-ceiling            without it
  --cores S,G             the server's core and the generator's (the first two that may be used)
  --block                 the generator sleeps while it waits, instead of staying awake
  --list                  names the scenarios
";

/// How often a generator that stays awake asks its sockets, where latency is not the question: every 20 µs.
const PACE: u64 = 20_000;

pub(crate) struct Options {
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
        let mut options = Self {
            servers: vec!["rust".to_owned(), "go".to_owned()],
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
                "--servers" => options.servers = list(&value()?),
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--seconds" => options.seconds = value()?.parse().context("--seconds")?,
                "--only" => options.only.extend(list(&value()?)),
                "--launcher" => options.launcher = value()?.into(),
                "--json" => options.json = Some(value()?.into()),
                "--ceiling" => options.servers.clear(),
                "--no-ceiling" => options.ceiling = false,
                "--cores" => options.cores = cores(&value()?)?,
                "--block" => options.spin = false,
                "--list" => {
                    for scenario in &scenarios::ALL {
                        println!("{:12} {}", scenario.name, scenario.about);
                    }
                    return Ok(None);
                }
                "--help" | "-h" => {
                    print!("{USAGE}");
                    return Ok(None);
                }
                other => bail!("there is no option {other}\n\n{USAGE}"),
            }
        }
        ensure!(options.rounds > 0, "--rounds must be 1 or more");
        ensure!(
            (0.1..=600.0).contains(&options.seconds),
            "--seconds must lie between 0.1 and 600"
        );
        ensure!(options.ceiling || !options.servers.is_empty(), "nothing to measure");
        for name in &options.only {
            ensure!(
                scenarios::ALL.iter().any(|scenario| scenario.name == name),
                "no scenario `{name}`: see --list"
            );
        }
        Ok(Some(options))
    }

    pub(crate) fn wait(&self, scenario: &Scenario) -> Wait {
        match (self.spin, scenario.figure) {
            (false, _) => Wait::Sleep,
            (true, Figure::Latency) => Wait::Spin { pace: 0 },
            (true, _) => Wait::Spin { pace: PACE },
        }
    }

    pub(crate) fn wants(&self, scenario: &Scenario) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == scenario.name)
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
