//! How the core's thread calls an environment's: JavaScript's `wake`, without arguments.
//!
//! In Node through a handle of its event loop. Node-API's threadsafe function signals the loop while it holds a lock that the loop's thread
//! takes next: a thread that is woken at once waits for the one that woke it, which costs a wake-up two changes of threads. Where there is no
//! libuv (Bun, Deno) it is a threadsafe function.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::os::unix::Library;
use napi::bindgen_prelude::{Function, JsValue};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode, UnknownReturnValue};
use napi::{Env, Status, check_status, sys};

/// A `uv_async_t`, whose size is known to libuv alone.
type Handle = *mut c_void;
type OnHandle = unsafe extern "C" fn(Handle);

/// In libuv's `uv_handle_type`.
const UV_ASYNC: c_int = 1;

/// What is used of libuv, which Node exports. Its interface has been the same since version 1.
struct Libuv {
    handle_size: unsafe extern "C" fn(c_int) -> usize,
    async_init: unsafe extern "C" fn(*mut c_void, Handle, OnHandle) -> c_int,
    async_send: unsafe extern "C" fn(Handle) -> c_int,
    close: unsafe extern "C" fn(Handle, OnHandle),
    hold: unsafe extern "C" fn(Handle),
    let_go: unsafe extern "C" fn(Handle),
    set_data: unsafe extern "C" fn(Handle, *mut c_void),
    data: unsafe extern "C" fn(Handle) -> *mut c_void,
}

impl Libuv {
    /// Nothing if this process has none.
    fn find() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Libuv>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let process = Library::this();
            // SAFETY: these are the types that libuv's documentation gives for these names.
            #[expect(unsafe_code, reason = "functions are found by their names")]
            unsafe {
                Some(Self {
                    handle_size: *process.get(b"uv_handle_size\0").ok()?,
                    async_init: *process.get(b"uv_async_init\0").ok()?,
                    async_send: *process.get(b"uv_async_send\0").ok()?,
                    close: *process.get(b"uv_close\0").ok()?,
                    hold: *process.get(b"uv_ref\0").ok()?,
                    let_go: *process.get(b"uv_unref\0").ok()?,
                    set_data: *process.get(b"uv_handle_set_data\0").ok()?,
                    data: *process.get(b"uv_handle_get_data\0").ok()?,
                })
            }
        });
        found.as_ref()
    }
}

/// Handles of one environment that are being closed, which takes a turn of its loop: the environment's end waits for them.
#[derive(Default)]
pub(crate) struct Closing {
    count: Cell<usize>,
    /// The environment ends, and is told by this that it may.
    waiting: Cell<Option<sys::napi_async_cleanup_hook_handle>>,
}

impl Closing {
    #[expect(unsafe_code, reason = "Node-API's safe form ends the hook at once")]
    fn tell(&self) {
        if self.count.get() == 0
            && let Some(hook) = self.waiting.take()
        {
            // SAFETY: Node's handle, which it keeps until it is told.
            unsafe { sys::napi_remove_async_cleanup_hook(hook) };
        }
    }
}

/// What a handle calls, and what goes with it.
struct Target {
    env: sys::napi_env,
    function: sys::napi_ref,
    closing: Rc<Closing>,
    /// The handle itself.
    _memory: Box<[u64]>,
}

struct Signal {
    libuv: &'static Libuv,
    /// Nothing when it has been closed. Locked where it is closed and by who sends, never by who is called.
    handle: Mutex<Option<Open>>,
}

#[derive(Clone, Copy)]
struct Open(Handle);

// SAFETY: other threads use it for `uv_async_send` alone, which any thread may call while the handle is open.
#[expect(unsafe_code, reason = "the handle is libuv's")]
unsafe impl Send for Open {}

enum How {
    Signal(Signal),
    Function(Box<ThreadsafeFunction<(), UnknownReturnValue, (), Status, false, true>>),
}

pub(crate) struct Wake(How);

impl Wake {
    /// On the thread of the environment, as are all but [`call`](Self::call).
    pub(crate) fn new(
        env: &Env,
        wake: Function<'_, (), UnknownReturnValue>,
        closing: Option<&Rc<Closing>>,
    ) -> napi::Result<Self> {
        if let (Some(libuv), Some(closing)) = (Libuv::find(), closing) {
            return Ok(Self(How::Signal(Signal::new(env, &wake, closing, libuv)?)));
        }
        let wake = wake.build_threadsafe_function::<()>().weak::<true>().build()?;
        Ok(Self(How::Function(Box::new(wake))))
    }

    /// JavaScript is called soon, from any thread; once for calls that come before that.
    pub(crate) fn call(&self) {
        match &self.0 {
            How::Signal(signal) => signal.send(),
            How::Function(function) => {
                function.call((), ThreadsafeFunctionCallMode::NonBlocking);
            }
        }
    }

    /// Whether the process stays alive for what may come.
    ///
    /// # Safety
    /// Called on the thread of this environment.
    #[expect(unsafe_code, reason = "the environment's own thread is known to the caller")]
    pub(crate) unsafe fn hold(&self, env: sys::napi_env, hold: bool) {
        match &self.0 {
            How::Signal(signal) => {
                if let Some(Open(handle)) = *signal.lock() {
                    // SAFETY: the handle is open, and this is its loop's thread.
                    unsafe {
                        if hold {
                            (signal.libuv.hold)(handle);
                        } else {
                            (signal.libuv.let_go)(handle);
                        }
                    }
                }
            }
            How::Function(function) if function.aborted() => {}
            How::Function(function) => {
                // SAFETY: the function is alive, and this is its environment.
                unsafe {
                    if hold {
                        sys::napi_ref_threadsafe_function(env, function.raw());
                    } else {
                        sys::napi_unref_threadsafe_function(env, function.raw());
                    }
                }
            }
        }
    }

    /// JavaScript is called no more.
    ///
    /// # Safety
    /// Called on the thread of this environment.
    #[expect(unsafe_code, reason = "the environment's own thread is known to the caller")]
    pub(crate) unsafe fn close(&self) {
        if let How::Signal(signal) = &self.0 {
            // SAFETY: the caller's promise.
            unsafe { signal.close() };
        }
    }
}

impl Signal {
    #[expect(
        unsafe_code,
        reason = "libuv and Node-API as they are: neither has a safe form of this"
    )]
    fn new(
        env: &Env,
        wake: &Function<'_, (), UnknownReturnValue>,
        closing: &Rc<Closing>,
        libuv: &'static Libuv,
    ) -> napi::Result<Self> {
        let env = env.raw();
        let mut event_loop = ptr::null_mut();
        // SAFETY: the environment is that of the running call.
        check_status!(unsafe { sys::napi_get_uv_event_loop(env, &raw mut event_loop) })?;
        // SAFETY: the type is one of libuv's.
        let size = unsafe { (libuv.handle_size)(UV_ASYNC) };
        let mut memory = vec![0_u64; size.div_ceil(8)].into_boxed_slice();
        let handle: Handle = memory.as_mut_ptr().cast();
        // SAFETY: it has libuv's size, and lives until libuv says that it is closed.
        if unsafe { (libuv.async_init)(event_loop.cast(), handle, called) } != 0 {
            return Err(napi::Error::from_reason("the event loop takes no more handles"));
        }
        let mut function = ptr::null_mut();
        // SAFETY: the function is a value of the running call.
        let kept = check_status!(unsafe { sys::napi_create_reference(env, wake.raw(), 1, &raw mut function) });
        let target = Box::new(Target {
            env,
            function,
            closing: closing.clone(),
            _memory: memory,
        });
        // SAFETY: the handle was initialized; what it points to it owns until it is closed.
        unsafe {
            (libuv.set_data)(handle, Box::into_raw(target).cast());
            (libuv.let_go)(handle);
        }
        let signal = Self {
            libuv,
            handle: Mutex::new(Some(Open(handle))),
        };
        if let Err(error) = kept {
            // SAFETY: this is the environment's thread.
            unsafe { signal.close() };
            return Err(error);
        }
        Ok(signal)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(unsafe_code, reason = "libuv as it is")]
    fn send(&self) {
        if let Some(Open(handle)) = *self.lock() {
            // SAFETY: the handle is open while the lock is held.
            unsafe { (self.libuv.async_send)(handle) };
        }
    }

    #[expect(unsafe_code, reason = "libuv and Node-API as they are")]
    unsafe fn close(&self) {
        let Some(Open(handle)) = self.lock().take() else { return };
        // SAFETY: it is open, and so its target is there; this is its loop's thread.
        unsafe {
            let target = &*(self.libuv.data)(handle).cast::<Target>();
            target.closing.count.set(target.closing.count.get() + 1);
            // Now, as the environment may be gone when the handle is closed.
            if !target.function.is_null() {
                sys::napi_delete_reference(target.env, target.function);
            }
            (self.libuv.close)(handle, closed);
        }
    }
}

/// The loop's thread was signalled.
#[expect(unsafe_code, reason = "called by libuv")]
unsafe extern "C" fn called(handle: Handle) {
    // SAFETY: libuv calls this on the environment's thread while the handle is open, so its target and the reference are there. Values
    // live in the scope that is opened and closed here.
    unsafe {
        let Some(libuv) = Libuv::find() else { return };
        let target = &*(libuv.data)(handle).cast::<Target>();
        let env = target.env;
        let mut scope = ptr::null_mut();
        if sys::napi_open_handle_scope(env, &raw mut scope) != sys::Status::napi_ok {
            return;
        }
        let (mut function, mut global, mut result) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let mut status = sys::napi_get_reference_value(env, target.function, &raw mut function);
        if status == sys::Status::napi_ok {
            status = sys::napi_get_global(env, &raw mut global);
        }
        if status == sys::Status::napi_ok {
            // Ticks and microtasks run at its end, as after any callback of Node's.
            let none = ptr::null_mut();
            status = sys::napi_make_callback(env, none, global, function, 0, ptr::null(), &raw mut result);
        }
        if status == sys::Status::napi_pending_exception {
            let mut error = ptr::null_mut();
            if sys::napi_get_and_clear_last_exception(env, &raw mut error) == sys::Status::napi_ok {
                sys::napi_fatal_exception(env, error);
            }
        }
        sys::napi_close_handle_scope(env, scope);
    }
}

/// The loop has let go of a handle.
#[expect(unsafe_code, reason = "called by libuv")]
unsafe extern "C" fn closed(handle: Handle) {
    let Some(libuv) = Libuv::find() else { return };
    // SAFETY: nothing uses the handle any more; its target was a box.
    let target = unsafe { Box::from_raw((libuv.data)(handle).cast::<Target>()) };
    let closing = target.closing.clone();
    drop(target);
    closing.count.set(closing.count.get() - 1);
    closing.tell();
}

/// Calls `end` when the environment ends, which then waits until its handles are closed.
#[expect(unsafe_code, reason = "Node-API's safe form ends the hook at once")]
pub(crate) fn at_end(env: &Env, closing: &Rc<Closing>, end: impl FnOnce() + 'static) -> napi::Result<()> {
    type Last = (Rc<Closing>, RefCell<Option<Box<dyn FnOnce()>>>);
    unsafe extern "C" fn ending(hook: sys::napi_async_cleanup_hook_handle, last: *mut c_void) {
        // SAFETY: the box that the hook was added with; it is called once.
        let (closing, end) = *unsafe { Box::from_raw(last.cast::<Last>()) };
        if let Some(end) = end.take() {
            end();
        }
        closing.waiting.set(Some(hook));
        closing.tell();
    }
    let end: Box<dyn FnOnce()> = Box::new(end);
    let last: Box<Last> = Box::new((closing.clone(), RefCell::new(Some(end))));
    let mut hook = ptr::null_mut();
    // SAFETY: the environment is that of the running call; what the hook is given lives until it has been called.
    check_status!(unsafe {
        sys::napi_add_async_cleanup_hook(env.raw(), Some(ending), Box::into_raw(last).cast(), &raw mut hook)
    })
}
