//! The thread that the core runs on: begun with the first server or client, ended with the interpreter, absent after a fork.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use etp_ws::handler::Wakes;
use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::error::{guard, misuse};
use crate::queue::Queue;

/// How often this process came out of a fork with objects of its parent's.
static GENERATION: AtomicU32 = AtomicU32::new(0);
/// The process that the runtime was begun in.
static OWNER: AtomicU32 = AtomicU32::new(0);

static RUNTIME: Mutex<Option<Running>> = Mutex::new(None);
/// The queues of all event loops: their servers and clients end with the interpreter.
static QUEUES: Mutex<Vec<Weak<Queue>>> = Mutex::new(Vec::new());

struct Running {
    handle: Handle,
    stop: Arc<Notify>,
    thread: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime, begun if need be.
pub(crate) fn handle() -> PyResult<Handle> {
    let mut running = lock(&RUNTIME);
    if let Some(running) = &*running {
        return Ok(running.handle.clone());
    }
    // One thread: the interpreter's lock lets Python use one core at a time, and what the core does for an event costs less than
    // what Python does for it. Tasks run in the order they were woken in, which the batches rest on.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| misuse(format!("the runtime can't begin: {error}")))?;
    let stop = Arc::new(Notify::new());
    let handle = runtime.handle().clone();
    let stopped = stop.clone();
    let thread = std::thread::Builder::new()
        .name("etp-ws".to_owned())
        .spawn(move || {
            runtime.block_on(stopped.notified());
            runtime.shutdown_background();
        })
        .map_err(|error| misuse(format!("the core's thread can't begin: {error}")))?;
    OWNER.store(std::process::id(), Ordering::SeqCst);
    *running = Some(Running {
        handle: handle.clone(),
        stop,
        thread,
    });
    Ok(handle)
}

pub(crate) fn register(queue: &Arc<Queue>) {
    let mut queues = lock(&QUEUES);
    queues.retain(|queue| queue.strong_count() > 0);
    queues.push(Arc::downgrade(queue));
}

/// Wakes an event loop that logs wait for.
pub(crate) fn wake_any() {
    // Called where logs are made, which may be anywhere: never wait here.
    if let Ok(queues) = QUEUES.try_lock() {
        for queue in queues.iter().filter_map(Weak::upgrade) {
            if queue.wake_for_logs() {
                return;
            }
        }
    }
}

/// Queues of event loops that are alive, and objects that wait in them: what tests count.
#[pyfunction]
pub(crate) fn live() -> (usize, usize) {
    let queues = lock(&QUEUES);
    let alive: Vec<_> = queues
        .iter()
        .filter_map(Weak::upgrade)
        .filter(|queue| !queue.is_closed())
        .collect();
    (alive.len(), alive.iter().map(|queue| queue.len()).sum())
}

/// Ends all servers and clients, briefly, and the runtime: what the package does when the interpreter exits.
#[pyfunction]
pub(crate) fn stop(py: Python<'_>) -> PyResult<()> {
    guard(|| {
        let Some(running) = lock(&RUNTIME).take() else {
            return Ok(());
        };
        let queues: Vec<_> = lock(&QUEUES).drain(..).filter_map(|queue| queue.upgrade()).collect();
        py.detach(|| {
            let done = Arc::new((Mutex::new(false), Condvar::new()));
            let told = done.clone();
            running.handle.spawn(async move {
                for queue in &queues {
                    queue.end_all(Duration::from_millis(100)).await;
                    queue.close();
                }
                *lock(&told.0) = true;
                told.1.notify_all();
            });
            // A thread that can't be reached is no reason to hang: the process is about to end.
            let guard = lock(&done.0);
            drop(done.1.wait_timeout_while(guard, Duration::from_secs(1), |done| !*done));
            running.stop.notify_one();
            let ended = Arc::new((Mutex::new(false), Condvar::new()));
            let told = ended.clone();
            let joining = std::thread::Builder::new().spawn(move || {
                let _ = running.thread.join();
                *lock(&told.0) = true;
                told.1.notify_all();
            });
            if joining.is_ok() {
                let guard = lock(&ended.0);
                drop(
                    ended
                        .1
                        .wait_timeout_while(guard, Duration::from_secs(1), |ended| !*ended),
                );
            }
        });
        Ok(())
    })
}

type Forking = (
    MutexGuard<'static, Option<Running>>,
    MutexGuard<'static, Vec<Weak<Queue>>>,
    crate::log::Locked,
);

thread_local! {
    /// What all of the process shares is locked by the thread that forks: no other is in the midst of it in the copy.
    static FORKING: RefCell<Option<Forking>> = const { RefCell::new(None) };
}

/// Right before a fork.
#[pyfunction]
pub(crate) fn before_fork() {
    // Whoever has one of these waits for nothing meanwhile.
    FORKING.set(Some((lock(&RUNTIME), lock(&QUEUES), crate::log::lock())));
}

/// After a fork, in the parent.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    drop(FORKING.take());
}

/// In the child of a fork: the core's thread is the parent's alone.
#[pyfunction]
pub(crate) fn after_fork() {
    let Some((mut running, mut queues, logs)) = FORKING.take() else {
        return;
    };
    if OWNER.load(Ordering::SeqCst) == 0 {
        return;
    }
    GENERATION.fetch_add(1, Ordering::SeqCst);
    // Its thread does not exist here, and its descriptors are shared with the parent.
    std::mem::forget(running.take());
    std::mem::forget(std::mem::take(&mut *queues));
    // The fork may have come from a handler: what this thread held back for its parent's connections concerns nobody here.
    std::mem::forget(Wakes::hold_nothing());
    drop((running, queues, logs));
}

/// A value of the process that made it: after a fork it can't be used, and is not dropped either, since what it would wake and lock
/// is the parent's.
pub(crate) struct Owned<T> {
    generation: u32,
    process: u32,
    value: ManuallyDrop<T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            generation: GENERATION.load(Ordering::SeqCst),
            process: std::process::id(),
            value: ManuallyDrop::new(value),
        }
    }

    fn is_ours(&self) -> bool {
        self.generation == GENERATION.load(Ordering::Relaxed)
    }

    /// The value, in the process that made it.
    pub(crate) fn get(&self) -> PyResult<&T> {
        if self.is_ours() {
            return Ok(&self.value);
        }
        Err(misuse(format!(
            "this object belongs to process {}, and this is process {}, forked from it after the first server or client had begun: \
             a fork has no copy of their thread. Start servers and clients in the child, or make processes with the \"spawn\" start method",
            self.process,
            std::process::id()
        )))
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    /// Where it is known that no fork came between.
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: it is dropped once, here, and nobody can reach it afterwards.
            #[expect(unsafe_code, reason = "dropping depends on which process this is")]
            unsafe {
                ManuallyDrop::drop(&mut self.value);
            }
        }
    }
}

/// Panics inside the module's guard: shows what becomes of a bug of ours.
#[pyfunction]
#[pyo3(name = "_panic_for_tests")]
pub(crate) fn panic_for_tests() -> PyResult<()> {
    guard(|| panic!("a panic for tests"))
}
