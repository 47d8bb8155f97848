//! Waking connections in batches: where a thread outside the runtime appends to many outboxes, each wake-up of its own would be a
//! system call, and on a busy machine a change of threads.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::runtime::{Handle, RuntimeFlavor};

use super::Conn;

thread_local! {
    static HELD: RefCell<Holding> = const { RefCell::new(Holding { by: None, row: Vec::new() }) };
}

/// What a thread holds back.
struct Holding {
    by: Option<Holder>,
    /// Of who [holds briefly](Wakes::hold_briefly): what others do not see yet. Its memory is used again.
    row: Vec<Due>,
}

struct Holder {
    wakes: Wakes,
    briefly: bool,
}

impl Holding {
    /// Puts what others do not see yet where they do.
    fn gather(&mut self) {
        if let Some(holder) = &self.by
            && !self.row.is_empty()
        {
            let mut gathered = holder.wakes.lock();
            if gathered.0.is_empty() {
                std::mem::swap(&mut gathered.0, &mut self.row);
            } else {
                gathered.0.append(&mut self.row);
            }
            drop(gathered);
            self.row.shrink_to(MOST_KEPT);
        }
    }

    fn replace(&mut self, by: Option<Holder>) -> Option<Holder> {
        self.gather();
        std::mem::replace(&mut self.by, by)
    }
}

/// Connections that are to be woken together: for dispatchers that complete tickets and emit on a thread of their own.
///
/// While a thread [holds](Self::hold) one, what it emits, replies or closes is queued at once, in order and with every check, but
/// the connections' tasks are woken only by [`release`](Self::release). Whoever holds must release soon.
#[derive(Clone)]
pub struct Wakes {
    gathered: Arc<Mutex<Gathered>>,
    /// The process it was made in, counted in forks.
    process: u64,
}

/// How many forks lie before this process.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Connections that a task writes to before it lets others have their turn.
const ROW: usize = 64;
/// Places of a thread that are kept for the next time.
const MOST_KEPT: usize = 4096;

#[derive(Default)]
struct Gathered(Vec<Due>);

enum Due {
    /// There is nothing to do but to write what lies in its outbox.
    ToWrite(Conn),
    Wake(Waker),
}

impl Due {
    /// Writes, if that is all and this thread can; else wakes the connection's task.
    fn settle(self) {
        let waker = match self {
            Self::ToWrite(conn) => conn.write_now(),
            Self::Wake(waker) => Some(waker),
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake(self) {
        let waker = match self {
            Self::ToWrite(conn) => conn.inner().lock().waker.clone(),
            Self::Wake(waker) => Some(waker),
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Default for Wakes {
    fn default() -> Self {
        Self {
            gathered: Arc::default(),
            process: FORKS.load(Ordering::Relaxed),
        }
    }
}

impl Wakes {
    /// From now on this thread's wake-ups gather here, until the guard is dropped. They are not released by that.
    pub fn hold(&self) -> Held {
        self.hold_as(false)
    }

    /// As [`hold`](Self::hold), for work that calls nothing that waits or takes long: what gathers can't be released from elsewhere before
    /// the guard is dropped, and costs less.
    pub fn hold_briefly(&self) -> Held {
        self.hold_as(true)
    }

    fn hold_as(&self, briefly: bool) -> Held {
        let wakes = self.clone();
        Held::new(Some(Holder { wakes, briefly }))
    }

    /// From now on this thread's wake-ups gather nowhere, until the guard is dropped: for the child of a fork, where those that the
    /// thread held back are the parent's. What gathered anywhere before the fork is nobody's in this process: neither is it released, nor
    /// are its locks taken.
    pub fn hold_nothing() -> Held {
        FORKS.fetch_add(1, Ordering::Relaxed);
        // They are the parent's.
        HELD.with_borrow_mut(|held| std::mem::forget(std::mem::take(&mut held.row)));
        Held::new(None)
    }

    /// Wakes those that have gathered, on this thread.
    pub fn release(&self) {
        // Outside the lock: a waker may run anything.
        for due in self.take() {
            due.wake();
        }
    }

    /// Wakes those that have gathered, in one task of the runtime, where that costs least. Nothing happens if there are none.
    ///
    /// Where there is nothing to do but to write, and the stream allows it, no connection's task is woken: to a single one this thread
    /// writes by itself, which saves two changes of threads; to several a runtime of one thread writes in a row.
    pub fn release_on(&self, runtime: &Handle) {
        if self.is_of_a_parent() {
            return;
        }
        HELD.with_borrow_mut(Holding::gather);
        let mut gathered = self.lock();
        if gathered.0.len() > 1 {
            drop(gathered);
            let wakes = self.clone();
            if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
                runtime.spawn(async move { wakes.settle().await });
            } else {
                // Several threads share the work.
                runtime.spawn(async move { wakes.release() });
            }
        } else if let Some(due) = gathered.0.pop() {
            drop(gathered);
            due.settle();
        }
    }

    async fn settle(self) {
        let mut all = self.take().into_iter();
        loop {
            all.by_ref().take(ROW).for_each(Due::settle);
            if all.len() == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn is_of_a_parent(&self) -> bool {
        self.process != FORKS.load(Ordering::Relaxed)
    }

    fn take(&self) -> Vec<Due> {
        if self.is_of_a_parent() {
            return Vec::new();
        }
        HELD.with_borrow_mut(Holding::gather);
        std::mem::take(&mut self.lock().0)
    }

    /// Whether this thread's wake-ups gather somewhere.
    pub(crate) fn are_held() -> bool {
        HELD.with_borrow(|held| held.by.is_some())
    }

    /// Whether nobody is to be woken.
    pub fn is_empty(&self) -> bool {
        self.is_of_a_parent() || self.lock().0.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Wakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wakes({})", self.lock().0.len())
    }
}

/// While it lives, its thread's wake-ups gather in the [`Wakes`] that it came from. It stays on that thread:
///
/// ```compile_fail,E0277
/// fn elsewhere(_: impl Send) {}
/// elsewhere(etp_ws::handler::Wakes::default().hold());
/// ```
#[must_use = "dropped at once it holds nothing"]
pub struct Held {
    before: Option<Holder>,
    of_this_thread: PhantomData<*const ()>,
}

impl Held {
    fn new(by: Option<Holder>) -> Self {
        Self {
            before: HELD.with_borrow_mut(|held| held.replace(by)),
            of_this_thread: PhantomData,
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Dropped outside the borrow: with it may go connections.
        let over = HELD.with_borrow_mut(|held| held.replace(self.before.take()));
        drop(over);
    }
}

/// Wakes a link now, or with those that this thread holds back; `to_write` is its connection, if it has only to write.
pub(super) fn wake(waker: &Waker, to_write: Option<&Conn>) {
    let held = HELD.with_borrow_mut(|held| {
        let Some(holder) = &held.by else { return false };
        let due = match to_write {
            Some(conn) => Due::ToWrite(conn.clone()),
            None => Due::Wake(waker.clone()),
        };
        if holder.briefly {
            held.row.push(due);
        } else {
            holder.wakes.lock().0.push(due);
        }
        true
    });
    if !held {
        waker.wake_by_ref();
    }
}
