//! State that only threads attached to Python touch.

use std::cell::{RefCell, RefMut};

use pyo3::Python;

/// A cell that the interpreter's lock guards. A borrow must not live while Python code may run: any call, and any drop of an object,
/// can let another thread in. One that does so all the same panics instead of racing.
pub(crate) struct AttachedCell<T>(RefCell<T>);

// SAFETY: a borrow asks for proof that the thread is attached, the module says `gil_used`, so attached threads take turns; `T: Send`
// since turns are taken by different threads.
#[expect(unsafe_code, reason = "the interpreter's lock is not known to the compiler")]
unsafe impl<T: Send> Sync for AttachedCell<T> {}

impl<T> AttachedCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    pub(crate) fn borrow_mut(&self, _attached: Python<'_>) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }

    /// For garbage collection, which may run in the midst of a borrow.
    pub(crate) fn try_borrow_mut(&self) -> Option<RefMut<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}
