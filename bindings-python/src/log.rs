//! The core's logs on their way to `logging`: kept until an event loop takes them, since no thread of the core touches Python.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Records that may wait; more are counted and dropped.
const MOST: usize = 1000;

static LEVEL: AtomicU8 = AtomicU8::new(30);
static WAITING: AtomicBool = AtomicBool::new(false);
static LOGS: Mutex<Logs> = Mutex::new(Logs {
    records: VecDeque::new(),
    dropped: 0,
});

pub(crate) struct Logs {
    records: VecDeque<(u8, String, String)>,
    dropped: usize,
}

pub(crate) type Locked = MutexGuard<'static, Logs>;

pub(crate) fn lock() -> Locked {
    LOGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `logging`'s number of a level; TRACE lies below DEBUG.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

struct Collector;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string can't fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && metadata.target().starts_with("etp_ws")
            && number(*metadata.level()) >= LEVEL.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let metadata = event.metadata();
        {
            let mut logs = lock();
            if logs.records.len() >= MOST {
                logs.dropped += 1;
                return;
            }
            let name = metadata.target().replace("::", ".");
            logs.records.push_back((number(*metadata.level()), name, text.0));
        }
        if !WAITING.swap(true, Ordering::SeqCst) {
            crate::runtime::wake_any();
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Sets from which of `logging`'s levels on the core makes records.
#[pyfunction]
pub(crate) fn set_log_level(level: u8) {
    static BEGIN: Once = Once::new();
    // No other part of this module sets one.
    BEGIN.call_once(|| drop(tracing::subscriber::set_global_default(Collector)));
    if LEVEL.swap(level, Ordering::Relaxed) != level {
        tracing::callsite::rebuild_interest_cache();
    }
}

pub(crate) fn are_waiting() -> bool {
    WAITING.load(Ordering::Relaxed)
}

/// The records that wait, each a level, a logger's name and a text; and how many were dropped.
#[pyfunction]
pub(crate) fn take_logs() -> (Vec<(u8, String, String)>, usize) {
    WAITING.store(false, Ordering::SeqCst);
    let mut logs = lock();
    let dropped = std::mem::take(&mut logs.dropped);
    (logs.records.drain(..).collect(), dropped)
}
