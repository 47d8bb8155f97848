//! A server under measurement: a process of its own, started through the launcher on its core, observed from outside, and
//! stopped by its process id.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use crate::cpu::{self, Cores};
use crate::dialect::Dialect;

/// The benchmark's own server, which shows the limit of the generator and of the kernel.
pub(crate) const CEILING: &str = "ceiling";

/// What `tests/bench/peers/run` starts: servers of other libraries, each with what it speaks. A new one is a line here and an
/// arm there. Whatever has another name is a test peer, which speaks ETP. A name may have options of the server's behind it:
/// `node --attach`.
const OTHERS: [(&str, Dialect); 9] = [
    ("websockets", Dialect::Raw),
    ("websockets-uvloop", Dialect::Raw),
    ("picows", Dialect::Raw),
    ("picows-callback", Dialect::Raw),
    ("socketio", Dialect::SocketIo),
    ("ws", Dialect::Raw),
    ("ws-cork", Dialect::Raw),
    ("socketio-node", Dialect::SocketIo),
    ("bun", Dialect::Raw),
];

const OTHERS_LAUNCHER: &str = "tests/bench/peers/run";

/// How long a server may take to end after SIGTERM: the slowest needs half of it to see off 10 000 connections.
const ENDING: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    name: String,
    child: Child,
    pid: Pid,
    clock: ClockId,
    core: usize,
    /// Kept open, so that the server never writes into a closed pipe.
    _stdout: BufReader<ChildStdout>,
    log: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) dialect: Dialect,
}

/// Resident memory in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) rss: u64,
    pub(crate) pss: u64,
}

impl Server {
    /// Builds what the launcher has for this server; `launcher` is that of the test peers.
    pub(crate) fn build(name: &str, launcher: &Path) -> Result<()> {
        if name == CEILING {
            return Ok(());
        }
        let (launcher, _) = found(name, launcher);
        let name = name.split_whitespace().next().unwrap_or(name);
        let status = Command::new(launcher)
            .args(["--build", name])
            .stdout(Stdio::null())
            .status();
        let status =
            status.with_context(|| format!("running {} (start me in the repository's root)", launcher.display()))?;
        ensure!(status.success(), "{} --build {name}: {status}", launcher.display());
        Ok(())
    }

    /// Starts a server that is built, on its core, and waits until it listens.
    pub(crate) fn start(name: &str, launcher: &Path, cores: Cores) -> Result<Self> {
        let (launcher, dialect) = found(name, launcher);
        let mut command = if name == CEILING {
            let mut own = Command::new(std::env::current_exe().context("finding the benchmark's own program")?);
            own.arg(crate::ceiling::ARGUMENT);
            own
        } else {
            let mut launched = Command::new(launcher);
            launched
                .args(name.split_whitespace())
                .args(["--listen", "127.0.0.1:0"])
                .env("ETP_PEERS_BUILT", "1");
            launched
        };
        let log = std::env::temp_dir().join(format!("etp-bench-{}-{name}.log", std::process::id()));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).context("making the server's log")?);

        // A child inherits the core of the thread that starts it, and its runtime counts one processor.
        cpu::pin(cores.server)?;
        let child = command.spawn();
        cpu::pin(cores.generator)?;
        let mut child = child.with_context(|| format!("starting {}", command.get_program().display()))?;

        let pid = Pid::from_raw(child.id() as i32);
        let stdout = child.stdout.take().context("the server has no standard output")?;
        let clock = clock_getcpuclockid(pid).context("finding the server's CPU clock")?;
        let mut server = Self {
            name: name.to_owned(),
            child,
            pid,
            clock,
            core: cores.server,
            _stdout: BufReader::new(stdout),
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            path: String::new(),
            dialect,
        };
        if let Err(error) = server.wait_until_listening() {
            return Err(server.blame(error));
        }
        Ok(server)
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let mut line = String::new();
        self._stdout
            .read_line(&mut line)
            .context("reading the server's first line")?;
        let url = line.trim().strip_prefix("LISTENING ws://");
        let url = url.with_context(|| format!("the server said {line:?} instead of LISTENING and its URL"))?;
        let (address, path) = url.split_once('/').context("a URL without a path")?;
        self.address = address.parse().with_context(|| format!("{address:?} is no address"))?;
        self.path = format!("/{path}");
        let program = fs::read_to_string(self.proc("comm")).unwrap_or_default();
        ensure!(
            !matches!(program.trim(), "sh" | "bash" | "dash"),
            "the launcher must exec the server, not be its parent"
        );
        Ok(())
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.pid)
    }

    /// CPU time of all its threads, living and ended, user and system, in nanoseconds.
    pub(crate) fn cpu(&self) -> Result<u64> {
        cpu::nanos(self.clock)
    }

    /// How long its core has had nothing to do at all, since boot, in nanoseconds.
    pub(crate) fn core_idle(&self) -> Result<u64> {
        cpu::idle(self.core)
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let text = fs::read_to_string(self.proc("smaps_rollup")).context("reading the server's memory")?;
        let field = |name: &str| -> Result<u64> {
            let value: Option<u64> = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
            Ok(1_024 * value.with_context(|| format!("no {name} in smaps_rollup"))?)
        };
        Ok(Memory {
            rss: field("Rss:")?,
            pss: field("Pss:")?,
        })
    }

    /// Ends it with SIGTERM and holds it to ending with status 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        match self.terminate() {
            Ok(status) if status.success() || self.name == CEILING => Ok(()),
            Ok(status) => {
                eprintln!("warning: {} ended with {status} after SIGTERM", self.name);
                Ok(())
            }
            Err(error) => Err(self.blame(error)),
        }
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server had ended by itself: {status}");
        }
        kill(self.pid, Signal::SIGTERM).context("sending SIGTERM")?;
        let sent = Instant::now();
        while sent.elapsed() < ENDING {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the server did not end within {} s of SIGTERM", ENDING.as_secs())
    }

    /// Adds what the server wrote last to an error.
    pub(crate) fn blame(&mut self, error: anyhow::Error) -> anyhow::Error {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("; it has ended: {status}"),
            _ => String::new(),
        };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        let said = if last.is_empty() {
            String::new()
        } else {
            format!("; its last words:\n{last}\n")
        };
        anyhow!("{error:#}; server `{}`{state}{said}", self.name)
    }
}

/// The launcher that has a server, and what the server speaks.
fn found<'a>(name: &str, peers: &'a Path) -> (&'a Path, Dialect) {
    match OTHERS.iter().find(|(other, _)| *other == name) {
        Some((_, dialect)) => (Path::new(OTHERS_LAUNCHER), *dialect),
        None => (peers, Dialect::Etp),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about a failure: it has ended already, or nobody can end it.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.log);
    }
}
