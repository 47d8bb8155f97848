//! What an event loop does with its queue: one wake-up for a batch, tasks that draw from it, and the objects of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etp_ws::{Conn, Error};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use rustc_hash::FxHashMap;
use slab::Slab;

use crate::cell::AttachedCell;
use crate::error::{guard, misuse, raise, to_exception};
use crate::queue::{Batch, Chunk, Item, Queue, SiteId};
use crate::routes::{Callback, Routes};
use crate::runner::Runner;
use crate::runtime::Owned;
use crate::types::types;
use crate::wake::Wake;

/// Events that are begun in one turn of the loop; more wait for the next, so that others get theirs.
const BUDGET: u32 = 512;
/// Tasks that are made at once where handlers are expected to wait.
const MOST_TASKS: usize = 256;

/// A level of `logging` that has changed counts after this time, at the next wake-up.
const LEVELS: Duration = Duration::from_secs(1);

static NEXT_SITE: AtomicU64 = AtomicU64::new(1);

/// A server or client at work on this loop.
struct Site {
    routes: Py<Routes>,
    /// The context that each connection's is a copy of: that of whoever started it.
    context: Py<PyAny>,
    conns: Slab<Entry>,
}

/// A connection that Python knows.
struct Entry {
    conn: Py<PyAny>,
    /// `run` of the connection's own context.
    run: Py<PyAny>,
}

/// A task that is alive: the loop itself holds only weak references.
struct Tracked {
    task: Option<Py<PyAny>>,
    /// Whose handler it has become.
    site: Option<SiteId>,
}

struct Loop {
    /// `Task(coroutine)`, and what it stands in for where the application has set a task factory.
    make_task: Py<PyAny>,
    create_task: Py<PyAny>,
    get_task_factory: Py<PyAny>,
    create_future: Py<PyAny>,
    call_soon: Py<PyAny>,
    /// Tasks take their first step at once.
    eager: bool,
}

struct State {
    batch: Batch,
    sites: FxHashMap<SiteId, Site>,
    tasks: FxHashMap<u64, Tracked>,
    next_runner: u64,
    budget: u32,
    /// How often in a row a runner's first event has made it wait.
    waits: u32,
    scheduled: bool,
    flushing: bool,
    pumping: bool,
    /// The loop was woken, and nobody has looked into the queue since.
    unseen: bool,
    /// When `logging`'s levels were looked at.
    looked: Instant,
    event_loop: Option<Loop>,
}

/// The queue of one event loop and what is at work on it.
#[pyclass(frozen, weakref, module = "etp_ws._etp_ws")]
pub(crate) struct Pump {
    queue: Owned<Arc<Queue>>,
    state: Owned<AttachedCell<State>>,
}

/// What a connection's events are run with.
pub(crate) struct Home {
    pub(crate) conn: Py<PyAny>,
    pub(crate) run: Py<PyAny>,
}

#[pymethods]
impl Pump {
    /// `make_task(coroutine)` makes a task, `eager` says that it takes its first step at once; `create_task` does where `get_task_factory()` is
    /// not None; `plain`: woken through sockets.
    #[new]
    fn new(
        make_task: Py<PyAny>,
        create_task: Py<PyAny>,
        get_task_factory: Py<PyAny>,
        create_future: Py<PyAny>,
        call_soon: Py<PyAny>,
        eager: bool,
        plain: bool,
    ) -> PyResult<Self> {
        guard(|| {
            let wake = Wake::new(plain)?;
            let queue = Queue::new(wake, crate::runtime::handle()?);
            crate::runtime::register(&queue);
            Ok(Self {
                queue: Owned::new(queue),
                state: Owned::new(AttachedCell::new(State {
                    batch: Batch::default(),
                    sites: FxHashMap::default(),
                    tasks: FxHashMap::default(),
                    next_runner: 0,
                    budget: 0,
                    waits: 0,
                    scheduled: false,
                    flushing: false,
                    pumping: false,
                    unseen: false,
                    looked: Instant::now(),
                    event_loop: Some(Loop {
                        make_task,
                        create_task,
                        get_task_factory,
                        create_future,
                        call_soon,
                        eager,
                    }),
                })),
            })
        })
    }

    /// The descriptor that is readable when something waits.
    #[getter]
    fn fd(&self) -> PyResult<i32> {
        Ok(self.queue.get()?.wake.fd())
    }

    #[getter]
    fn closed(&self) -> PyResult<bool> {
        Ok(self.queue.get()?.is_closed())
    }

    /// What the loop calls when the descriptor is readable. When it is dropped the loop has ended.
    fn reader(slf: &Bound<'_, Self>) -> Reader {
        Reader {
            pump: slf.clone().unbind(),
        }
    }

    /// Does what waits: called by the loop.
    fn run(slf: &Bound<'_, Self>) -> PyResult<()> {
        guard(|| {
            slf.get().state.borrow_mut(slf.py()).scheduled = false;
            Self::work(slf)
        })
    }

    /// Wakes the connections that this turn of the loop has written to.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        guard(|| {
            self.state.borrow_mut(py).flushing = false;
            let queue = self.queue.get()?;
            queue.wakes.release_on(&queue.runtime);
            Ok(())
        })
    }

    /// Ends everything at work here; nothing reaches Python any more.
    fn close(&self, py: Python<'_>) {
        self.shut(py);
    }

    /// Servers and clients, connections that Python knows, live tasks, and items that wait: what tests count.
    fn counts(&self, py: Python<'_>) -> PyResult<(usize, usize, usize, usize)> {
        let queued = self.queue.get()?.len();
        let state = self.state.borrow_mut(py);
        let conns = state.sites.values().map(|site| site.conns.len()).sum();
        Ok((
            state.sites.len(),
            conns,
            state.tasks.len(),
            state.batch.items.len() + queued,
        ))
    }
}

/// The callback of the wake-up's descriptor. The loop owns it: its end is the loop's.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct Reader {
    pump: Py<Pump>,
}

#[pymethods]
impl Reader {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        guard(|| {
            let pump = self.pump.bind(py);
            pump.get().queue()?.wake.clear();
            let mut state = pump.get().state.borrow_mut(py);
            state.unseen = true;
            // A backlog has its `run` in the next turn already. Work here as well would schedule one more in each turn of a burst, and
            // others would wait for all of them.
            if state.scheduled {
                return Ok(());
            }
            drop(state);
            Pump::work(pump)
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Not while the interpreter ends: then everything does.
        Python::try_attach(|py| self.pump.get().shut(py));
    }
}

/// Resets the note that the pump is at work, however that ends.
struct Pumping<'a>(&'a Pump);

impl Drop for Pumping<'_> {
    fn drop(&mut self) {
        Python::attach(|py| self.0.state.borrow_mut(py).pumping = false);
    }
}

/// What is next in a batch.
enum Next {
    Nothing,
    /// Done already, without a task.
    Done,
    Task(Item),
}

impl Pump {
    /// The queue, in the process that made it.
    pub(crate) fn queue(&self) -> PyResult<&Arc<Queue>> {
        self.queue.get()
    }

    fn shut(&self, py: Python<'_>) {
        let Ok(queue) = self.queue.get() else { return };
        queue.close();
        let mut state = self.state.borrow_mut(py);
        let gone = (
            state.event_loop.take(),
            std::mem::take(&mut state.batch),
            std::mem::take(&mut state.sites),
            std::mem::take(&mut state.tasks),
        );
        drop(state);
        drop(gone);
    }

    pub(crate) fn create_future(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let create = match &self.state.borrow_mut(py).event_loop {
            Some(event_loop) => event_loop.create_future.clone_ref(py),
            None => return Err(misuse("the event loop has ended".to_owned())),
        };
        create.call0(py)
    }

    /// Takes a server or client up.
    pub(crate) fn attach(&self, py: Python<'_>, routes: &Py<Routes>) -> PyResult<SiteId> {
        let context = types(py)?.copy_context.call0(py)?;
        let id = NEXT_SITE.fetch_add(1, Ordering::Relaxed);
        let site = Site {
            routes: routes.clone_ref(py),
            context,
            conns: Slab::new(),
        };
        self.state.borrow_mut(py).sites.insert(id, site);
        Ok(id)
    }

    /// Lets a server or client go.
    pub(crate) fn detach(&self, py: Python<'_>, site: SiteId) {
        let gone = self.state.borrow_mut(py).sites.remove(&site);
        drop(gone);
        if let Ok(queue) = self.queue.get() {
            queue.remove_end(site);
        }
    }

    pub(crate) fn routes(&self, py: Python<'_>, site: SiteId) -> Option<Py<Routes>> {
        let state = self.state.borrow_mut(py);
        state.sites.get(&site).map(|site| site.routes.clone_ref(py))
    }

    /// A fresh context, as each connection gets one.
    pub(crate) fn context(&self, py: Python<'_>, site: SiteId) -> PyResult<Py<PyAny>> {
        let base = match self.state.borrow_mut(py).sites.get(&site) {
            Some(site) => site.context.clone_ref(py),
            None => return Err(misuse("the server or client is over".to_owned())),
        };
        let context = base.call_method0(py, intern!(py, "copy"))?;
        context.getattr(py, intern!(py, "run"))
    }

    /// The object and context of a connection, made when Python first meets it: for its callbacks and handlers.
    pub(crate) fn home(slf: &Bound<'_, Self>, site: SiteId, conn: &Conn) -> PyResult<Home> {
        Self::meet(slf, site, conn, true)
    }

    /// The object of a connection. One that has ended, and that Python has let go, gets a new one.
    pub(crate) fn object(slf: &Bound<'_, Self>, site: SiteId, conn: &Conn) -> PyResult<Py<PyAny>> {
        Ok(Self::meet(slf, site, conn, false)?.conn)
    }

    /// `called`: its end is still to be told, so that what is kept here is let go then. An open connection's end always is.
    fn meet(slf: &Bound<'_, Self>, site: SiteId, conn: &Conn, called: bool) -> PyResult<Home> {
        let py = slf.py();
        let this = slf.get();
        let known = |state: &State| {
            let index = usize::try_from(conn.slot()).ok()?.checked_sub(1)?;
            let entry = state.sites.get(&site)?.conns.get(index)?;
            Some(Home {
                conn: entry.conn.clone_ref(py),
                run: entry.run.clone_ref(py),
            })
        };
        if let Some(home) = known(&this.state.borrow_mut(py)) {
            return Ok(home);
        }
        let routes = this
            .routes(py, site)
            .ok_or_else(|| misuse("the server or client is over".to_owned()))?;
        let object = crate::conn::make(py, conn, &routes, slf, site)?;
        let kept = conn.data().get::<crate::runner::Kept>();
        let run = match &kept {
            Some(kept) => kept.run.clone_ref(py),
            None => this.context(py, site)?,
        };
        if let Some(data) = kept.as_ref().and_then(|kept| kept.data.as_ref()) {
            object.setattr(py, intern!(py, "data"), data)?;
        }
        let home = Home {
            conn: object.clone_ref(py),
            run: run.clone_ref(py),
        };
        let mut state = this.state.borrow_mut(py);
        // Python code has run: another thread may have made the object of this connection, and there is one.
        if let Some(first) = known(&state) {
            drop(state);
            return Ok(first);
        }
        if (called || conn.is_open())
            && let Some(site) = state.sites.get_mut(&site)
        {
            let slot = site.conns.insert(Entry { conn: object, run });
            conn.set_slot(slot as u64 + 1);
            drop(state);
            drop(conn.data().remove::<crate::runner::Kept>());
        }
        Ok(home)
    }

    /// A connection has ended, and everybody has been told.
    pub(crate) fn forget(&self, py: Python<'_>, site: SiteId, conn: &Conn) {
        let slot = conn.slot();
        if slot == 0 {
            return;
        }
        conn.set_slot(0);
        let mut state = self.state.borrow_mut(py);
        let gone = state
            .sites
            .get_mut(&site)
            .and_then(|site| site.conns.try_remove(slot as usize - 1));
        if let Some(site) = state.sites.get_mut(&site)
            && site.conns.capacity() > 64
            && site.conns.len() < site.conns.capacity() / 4
        {
            site.conns.shrink_to_fit();
        }
        drop(state);
        drop(gone);
    }

    /// The next item that needs a task; those that need none are done on the way.
    pub(crate) fn next(slf: &Bound<'_, Self>) -> PyResult<Option<Item>> {
        loop {
            match Self::advance(slf)? {
                Next::Nothing => return Ok(None),
                Next::Done => {}
                Next::Task(item) => return Ok(Some(item)),
            }
        }
    }

    /// The next event, if it is of this very connection: it needs no change of context.
    pub(crate) fn next_of(&self, py: Python<'_>, conn: &Conn) -> Option<Item> {
        let mut state = self.state.borrow_mut(py);
        if state.budget == 0 {
            return None;
        }
        match state.batch.items.front() {
            Some(Item::Event { reply, .. }) if reply.conn() == conn => {
                state.budget -= 1;
                state.batch.items.pop_front()
            }
            _ => None,
        }
    }

    /// Reads the payload of an event of the batch. `f` must not run Python code.
    pub(crate) fn with_payload<T>(&self, py: Python<'_>, chunk: &Chunk, f: impl FnOnce(&[u8]) -> T) -> T {
        match chunk {
            Chunk::Apart(bytes) => f(bytes),
            Chunk::Here(at, len) => {
                let state = self.state.borrow_mut(py);
                f(state.batch.bytes.get(*at..*at + *len).unwrap_or_default())
            }
        }
    }

    fn advance(slf: &Bound<'_, Self>) -> PyResult<Next> {
        let py = slf.py();
        let this = slf.get();
        let mut state = this.state.borrow_mut(py);
        if state.batch.items.is_empty() {
            this.queue.get()?.swap(&mut state.batch);
            state.unseen = false;
        }
        let inline = match state.batch.items.front() {
            None => return Ok(Next::Nothing),
            Some(Item::Acked { .. } | Item::Settled { .. } | Item::Abandon(_) | Item::Detach(_)) => true,
            Some(Item::Error { site, .. }) => {
                let site = state.sites.get(site);
                site.is_none_or(|site| !site.routes.get().has(py, Callback::Error))
            }
            Some(Item::Disconnect { site, .. }) => {
                let site = state.sites.get(site);
                site.is_none_or(|site| {
                    let routes = site.routes.get();
                    !routes.has(py, Callback::Disconnect) && !routes.has(py, Callback::ShouldReconnect)
                })
            }
            Some(
                Item::Event { site, .. }
                | Item::Upgrade { site, .. }
                | Item::Connect { site, .. }
                | Item::Ask { site, .. },
            ) => !state.sites.contains_key(site),
        };
        if !inline && state.budget == 0 {
            return Ok(Next::Nothing);
        }
        let Some(item) = state.batch.items.pop_front() else {
            return Ok(Next::Nothing);
        };
        if !inline {
            state.budget -= 1;
            return Ok(Next::Task(item));
        }
        drop(state);
        Self::settle(slf, item)?;
        Ok(Next::Done)
    }

    /// Does what needs no task.
    fn settle(slf: &Bound<'_, Self>, item: Item) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        match item {
            Item::Acked {
                future,
                routes,
                outcome,
            } => {
                let value = outcome.and_then(|payload| routes.get().codec.decode(py, payload.as_bytes()));
                resolve(py, &future, value.map(Bound::unbind))
            }
            Item::Settled { future, outcome } => match outcome.map(|value| value.into_py(py)) {
                Ok(Ok(value)) => resolve(py, &future, Ok(value)),
                Ok(Err(error)) => reject(py, &future, error.value(py)),
                Err(error) => resolve(py, &future, Err(error)),
            },
            Item::Abandon(site) => {
                let tasks: Vec<_> = {
                    let state = this.state.borrow_mut(py);
                    let of_site = state.tasks.values().filter(|tracked| tracked.site == Some(site));
                    of_site
                        .filter_map(|tracked| tracked.task.as_ref().map(|task| task.clone_ref(py)))
                        .collect()
                };
                for task in tasks {
                    task.call_method1(py, intern!(py, "cancel"), ("the server shuts down",))?;
                }
                Ok(())
            }
            Item::Detach(site) => {
                this.detach(py, site);
                Ok(())
            }
            Item::Error { site, conn, error } => {
                let conn = match (conn, this.routes(py, site)) {
                    (Some(conn), Some(routes)) if !routes.get().client => Some(Self::object(slf, site, &conn)?),
                    _ => None,
                };
                types(py)?.log_error.call1(py, (conn, to_exception(py, &error)?))?;
                Ok(())
            }
            Item::Disconnect { site, conn, ticket, .. } => {
                this.forget(py, site, &conn);
                drop(ticket);
                Ok(())
            }
            // The server or client is over: what is still here of it is dropped, and its tickets with it.
            Item::Event { .. } | Item::Upgrade { .. } | Item::Connect { .. } | Item::Ask { .. } => Ok(()),
        }
    }

    /// Whether something waits that nobody has been called for.
    fn is_left(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow_mut(py);
        (state.unseen || !state.batch.items.is_empty()) && !state.scheduled
    }

    /// Lets the loop call `run` in its next turn, unless it will anyway.
    pub(crate) fn schedule(slf: &Bound<'_, Self>) -> PyResult<()> {
        let wanted = |state: &mut State| !state.pumping && !std::mem::replace(&mut state.scheduled, true);
        Self::call_soon(slf, intern!(slf.py(), "run"), wanted)
    }

    /// Lets the loop call `flush` when this turn has ended.
    pub(crate) fn schedule_flush(slf: &Bound<'_, Self>) -> PyResult<()> {
        let wanted = |state: &mut State| !std::mem::replace(&mut state.flushing, true);
        Self::call_soon(slf, intern!(slf.py(), "flush"), wanted)
    }

    /// Lets the loop call a method in its next turn, if it is `wanted` and the loop has not ended.
    fn call_soon(
        slf: &Bound<'_, Self>,
        method: &Bound<'_, PyString>,
        wanted: impl FnOnce(&mut State) -> bool,
    ) -> PyResult<()> {
        let py = slf.py();
        let call_soon = {
            let mut state = slf.get().state.borrow_mut(py);
            let Some(event_loop) = &state.event_loop else {
                return Ok(());
            };
            let call_soon = event_loop.call_soon.clone_ref(py);
            if !wanted(&mut state) {
                return Ok(());
            }
            call_soon
        };
        call_soon.call1(py, (slf.getattr(method)?,))?;
        Ok(())
    }

    fn work(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let queue = this.queue.get()?.clone();
        {
            let mut state = this.state.borrow_mut(py);
            if state.pumping || state.event_loop.is_none() {
                return Ok(());
            }
            state.pumping = true;
            state.budget = BUDGET;
        }
        let pumping = Pumping(this);
        let now = Instant::now();
        let looked = this.state.borrow_mut(py).looked;
        if crate::log::are_waiting() || now.duration_since(looked) > LEVELS {
            this.state.borrow_mut(py).looked = now;
            types(py)?.drain_logs.call0(py)?;
        }
        let held = queue.wakes.hold();
        let outcome = Self::make_tasks(slf, &queue);
        drop(held);
        queue.wakes.release_on(&queue.runtime);
        drop(pumping);
        if this.is_left(py) && queue.pending.load(Ordering::Relaxed) == 0 {
            Self::schedule(slf)?;
        }
        outcome
    }

    /// Does what can be done at once, and makes tasks for the rest.
    fn make_tasks(slf: &Bound<'_, Self>, queue: &Arc<Queue>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        loop {
            if queue.pending.load(Ordering::Relaxed) > 0 {
                return Ok(());
            }
            // The first item that needs a task goes back: the task draws it.
            let Some(item) = Self::next(slf)? else { return Ok(()) };
            let (count, eager) = {
                let mut state = this.state.borrow_mut(py);
                state.batch.items.push_front(item);
                state.budget += 1;
                let Some(event_loop) = &state.event_loop else {
                    return Ok(());
                };
                let expected = 1_usize << state.waits.min(16);
                (expected.min(state.batch.items.len()).min(MOST_TASKS), event_loop.eager)
            };
            if !eager {
                for _ in 0..count {
                    Self::make_task(slf, queue)?;
                }
                return Ok(());
            }
            Self::make_task(slf, queue)?;
        }
    }

    fn make_task(slf: &Bound<'_, Self>, queue: &Arc<Queue>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (id, make_task, create_task, get_task_factory) = {
            let mut state = this.state.borrow_mut(py);
            let Some(event_loop) = &state.event_loop else {
                return Ok(());
            };
            let make_task = event_loop.make_task.clone_ref(py);
            let create_task = event_loop.create_task.clone_ref(py);
            let get_task_factory = event_loop.get_task_factory.clone_ref(py);
            let id = state.next_runner;
            state.next_runner += 1;
            state.tasks.insert(id, Tracked { task: None, site: None });
            (id, make_task, create_task, get_task_factory)
        };
        let usual = get_task_factory.bind(py).call0()?.is_none();
        let make_task = if usual { make_task } else { create_task };
        queue.pending.fetch_add(1, Ordering::Relaxed);
        let runner = Py::new(py, Runner::new(slf.clone().unbind(), queue.clone(), id))?;
        let coroutine = types(py)?.work.bind(py).call1((&runner,))?;
        let task = make_task.bind(py).call1((coroutine,))?;
        if !runner.get().has_begun(py) {
            // Cancelled before its first step it ends without the runner's knowledge.
            let over = runner.getattr(py, intern!(py, "over"))?;
            task.call_method1(intern!(py, "add_done_callback"), (over,))?;
        }
        let name = runner.get().task_name(py);
        let mut state = this.state.borrow_mut(py);
        if let Some(tracked) = state.tasks.get_mut(&id) {
            tracked.task = Some(task.clone().unbind());
            drop(state);
            if let Some(name) = name {
                task.call_method1(intern!(py, "set_name"), (name,))?;
            }
        }
        Ok(())
    }

    /// A runner has begun its work.
    pub(crate) fn begun(&self) {
        self.queue.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// A runner has become the task of one handler, which waits. Answers the task, where it is known already.
    pub(crate) fn suspended(slf: &Bound<'_, Self>, id: u64, site: SiteId, first: bool) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let this = slf.get();
        let task = {
            let mut state = this.state.borrow_mut(py);
            if first {
                state.waits += 1;
            }
            let tracked = state.tasks.get_mut(&id);
            tracked.and_then(|tracked| {
                tracked.site = Some(site);
                tracked.task.as_ref().map(|task| task.clone_ref(py))
            })
        };
        this.go_on(slf)?;
        Ok(task)
    }

    fn go_on(&self, slf: &Bound<'_, Self>) -> PyResult<()> {
        if self.queue.pending.load(Ordering::Relaxed) == 0 && self.is_left(slf.py()) {
            Self::schedule(slf)?;
        }
        Ok(())
    }

    /// A runner's task ends. `idle`: none of its events has made it wait.
    pub(crate) fn ended(slf: &Bound<'_, Self>, id: u64, idle: bool) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let gone = {
            let mut state = this.state.borrow_mut(py);
            if idle {
                state.waits = 0;
            }
            state.tasks.remove(&id)
        };
        drop(gone);
        this.go_on(slf)
    }

    /// Forgets a task that was dropped before it began.
    pub(crate) fn lost(&self, py: Python<'_>, id: u64) {
        let gone = self.state.borrow_mut(py).tasks.remove(&id);
        drop(gone);
    }
}

/// Ends a future, unless its caller has given it up.
fn resolve(py: Python<'_>, future: &Py<PyAny>, outcome: Result<Py<PyAny>, Error>) -> PyResult<()> {
    match outcome {
        Ok(value) => {
            if !future.call_method0(py, intern!(py, "done"))?.is_truthy(py)? {
                future.call_method1(py, intern!(py, "set_result"), (value,))?;
            }
            Ok(())
        }
        Err(error) => reject(py, future, raise(py, &error).value(py)),
    }
}

fn reject(
    py: Python<'_>,
    future: &Py<PyAny>,
    exception: &Bound<'_, pyo3::exceptions::PyBaseException>,
) -> PyResult<()> {
    if !future.call_method0(py, intern!(py, "done"))?.is_truthy(py)? {
        future.call_method1(py, intern!(py, "set_exception"), (exception,))?;
    }
    Ok(())
}

/// The name of tasks that are no handler's yet.
pub(crate) fn plain_name(py: Python<'_>) -> Bound<'_, PyString> {
    intern!(py, "etp_ws").clone()
}
