//! Values of JavaScript's that travel through the core: it holds a number, JavaScript the value.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::queue::{Item, Queue};

/// A number under which JavaScript keeps a value, until it is taken or this is dropped.
pub(crate) struct Kept {
    key: u32,
    taken: AtomicBool,
    queue: Weak<Queue>,
}

impl Kept {
    pub(crate) fn new(key: u32, queue: &Arc<Queue>) -> Arc<Self> {
        Arc::new(Self {
            key,
            taken: AtomicBool::new(false),
            queue: Arc::downgrade(queue),
        })
    }

    /// A number that nobody will be told about.
    pub(crate) fn lost(key: u32) -> Arc<Self> {
        Arc::new(Self {
            key,
            taken: AtomicBool::new(true),
            queue: Weak::new(),
        })
    }

    /// The number, for JavaScript to look at the value; it is kept on.
    pub(crate) fn key(&self) -> u32 {
        self.key
    }

    /// The number, for JavaScript to take the value out: once.
    pub(crate) fn take(&self) -> Option<u32> {
        (!self.taken.swap(true, Ordering::Relaxed)).then_some(self.key)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let (Some(key), Some(queue)) = (self.take(), self.queue.upgrade()) {
            queue.push(Item::Forget(key));
        }
    }
}

/// What `onUpgrade` returned, among the data of a connection.
#[derive(Clone)]
pub(crate) struct Data(pub(crate) Arc<Kept>);
