//! Waking connections in batches: where a thread outside the runtime appends to many outboxes, each wake-up of its own would be a
//! system call, and on a busy machine a change of threads.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::runtime::Handle;

use super::Conn;

thread_local! {
    static HELD: RefCell<Option<Wakes>> = const { RefCell::new(None) };
}

/// Connections that are to be woken together: for dispatchers that complete tickets and emit on a thread of their own.
///
/// While a thread [holds](Self::hold) one, what it emits, replies or closes is queued at once, in order and with every check, but
/// the connections' tasks are woken only by [`release`](Self::release). Whoever holds must release soon.
#[derive(Clone, Default)]
pub struct Wakes(Arc<Mutex<Gathered>>);

#[derive(Default)]
struct Gathered {
    wakers: Vec<Waker>,
    /// The first of them, if it is to be woken only to write.
    first: Option<Conn>,
}

impl Wakes {
    /// From now on this thread's wake-ups gather here, until the guard is dropped. They are not released by that.
    pub fn hold(&self) -> Held {
        Held(HELD.replace(Some(self.clone())))
    }

    /// From now on this thread's wake-ups gather nowhere, until the guard is dropped: for the child of a fork, where those that the
    /// thread held back are the parent's.
    pub fn hold_nothing() -> Held {
        Held(HELD.replace(None))
    }

    /// Wakes those that have gathered, on this thread.
    pub fn release(&self) {
        // Outside the lock: a waker may run anything.
        let gathered = std::mem::take(&mut *self.lock());
        for waker in gathered.wakers {
            waker.wake();
        }
    }

    /// Wakes those that have gathered, in one task of the runtime, where that costs least. To a single one this thread writes by
    /// itself, if that is all there is to do and its stream allows it: two changes of threads are saved. Nothing happens if there are none.
    pub fn release_on(&self, runtime: &Handle) {
        let mut gathered = self.lock();
        if gathered.wakers.len() > 1 {
            drop(gathered);
            let wakes = self.clone();
            runtime.spawn(async move { wakes.release() });
        } else if let Some(waker) = gathered.wakers.pop() {
            let conn = gathered.first.take();
            drop(gathered);
            if !conn.is_some_and(|conn| conn.write_now()) {
                waker.wake();
            }
        }
    }

    /// Whether this thread's wake-ups gather somewhere.
    pub(crate) fn are_held() -> bool {
        HELD.with_borrow(Option::is_some)
    }

    /// Whether nobody is to be woken.
    pub fn is_empty(&self) -> bool {
        self.lock().wakers.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Wakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wakes({})", self.lock().wakers.len())
    }
}

/// While it lives, its thread's wake-ups gather in the [`Wakes`] that it came from.
#[must_use = "dropped at once it holds nothing"]
pub struct Held(Option<Wakes>);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(self.0.take());
    }
}

/// Wakes a link now, or with those that this thread holds back; `to_write` is its connection, if it has only to write.
pub(super) fn wake(waker: &Waker, to_write: Option<&Conn>) {
    HELD.with_borrow(|held| match held {
        Some(wakes) => {
            let mut gathered = wakes.lock();
            if gathered.wakers.is_empty() {
                gathered.first = to_write.cloned();
            }
            gathered.wakers.push(waker.clone());
        }
        None => waker.wake_by_ref(),
    });
}
