//! Cores, CPU clocks and the limit of descriptors.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::ClockId;
use nix::unistd::Pid;

/// The core for the server and the one for the generator.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) generator: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    pub(crate) fn first_two() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        let (server, generator) = (cores.next(), cores.next());
        ensure!(
            generator.is_some(),
            "the benchmark needs two cores: one for the server and one for the generator"
        );
        Ok(Self {
            server: server.unwrap_or_default(),
            generator: generator.unwrap_or_default(),
        })
    }
}

/// Keeps this thread, and what it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("there is no core {core}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("moving to core {core}"))
}

/// CPU time of this process in nanoseconds.
pub(crate) fn own() -> Result<u64> {
    nanos(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// What a CPU clock shows, in nanoseconds.
pub(crate) fn nanos(clock: ClockId) -> Result<u64> {
    let time = clock.now().context("reading a CPU clock")?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// How long a core has been idle since boot, in nanoseconds; exact to a hundredth of a second.
pub(crate) fn idle(core: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let start = format!("cpu{core} ");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&start))
        .with_context(|| format!("no core {core}"))?;
    // user nice system idle iowait ..., in hundredths of a second on every Linux.
    let hundredths = line
        .split_whitespace()
        .skip(3)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok());
    Ok(hundredths.sum::<u64>() * 10_000_000)
}

/// Allows as many descriptors as possible, for this process and the servers that it starts; returns how many.
pub(crate) fn raise_descriptors() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("setrlimit")?;
    Ok(hard)
}

/// How many programs wanted to run during the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or_default()
}

/// The machine in a line: processor, cores, kernel and load.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{model}, {cores} cores, Linux {}, load average at the start {:.2}",
        kernel.trim(),
        load_average()
    )
}
