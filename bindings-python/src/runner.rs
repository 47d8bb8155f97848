//! Awaits handlers in asyncio tasks.
//!
//! A runner is what one asyncio task awaits. It draws events from the batch, calls their handlers, and drives the coroutines that they
//! return by itself, so that handlers which never wait cost no task each. When a handler waits, the task is that handler's own from
//! there on: what the coroutine yields goes to the task, and what the task sends or throws goes to the coroutine, until it ends and
//! the task with it. A handler that never waits but leaves a trace on its task, a cancellation or a reference to it, is the last that
//! the task runs. So `asyncio.timeout`, task groups, cancellation and `current_task` are what they are in any task. Each connection
//! has one context, in which its callbacks and handlers run.

use std::ops::Deref;
use std::sync::Arc;

use etp_ws::handler::{ConnectTicket, DisconnectTicket, Reply, UpgradeTicket};
use etp_ws::{Accept, BoxError, Conn, Error, ErrorKind, Reject, http};
use pyo3::exceptions::{PyGeneratorExit, PyKeyboardInterrupt, PyStopIteration, PySystemExit, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::iterator::PySendResult;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyString};
use tokio::sync::oneshot;

use crate::call::{call, call_with};
use crate::cell::AttachedCell;
use crate::error::{Cause, guard, to_exception};
use crate::pump::{Home, Pump};
use crate::queue::{Item, Queue, SiteId};
use crate::request::Scope;
use crate::routes::{Callback, Handler, Routes};
use crate::runtime::Owned;
use crate::types::types;

/// What `on_upgrade` leaves for the connection: its data and its context.
#[derive(Clone)]
pub(crate) struct Kept(Arc<KeptValues>);

pub(crate) struct KeptValues {
    pub(crate) data: Option<Py<PyAny>>,
    pub(crate) run: Py<PyAny>,
}

impl Deref for Kept {
    type Target = KeptValues;

    fn deref(&self) -> &KeptValues {
        &self.0
    }
}

/// A call that has not ended: what drives it, where, and what its end means.
struct Active {
    /// A coroutine, or the iterator of another awaitable.
    coroutine: Py<PyAny>,
    run: Py<PyAny>,
    call: Call,
}

/// What was called, and who waits for its end.
struct Call {
    site: SiteId,
    what: What,
    handler: Option<Arc<Handler>>,
}

enum What {
    Event(Reply, Py<Routes>),
    Upgrade(UpgradeTicket, Py<PyAny>),
    Connect(ConnectTicket),
    Disconnect(DisconnectTicket, Conn),
    Error(Option<Py<PyAny>>),
    Ask(Callback, oneshot::Sender<Result<String, BoxError>>),
}

/// What is to be done inside a connection's context.
enum Work {
    Begin(Item, Option<Home>),
    Resume(Active, Option<PyErr>),
}

enum Turn {
    Done,
    /// The call waits: what it yielded is the task's.
    Waits(Active, Py<PyAny>),
    /// Something that ends more than this call.
    Fatal(PyErr),
}

/// The task of a runner's first step, and how to tell whether handlers have left it as it was.
struct Fresh {
    task: Py<PyAny>,
    /// The task's own `cancelling`.
    cancelling: Py<PyAny>,
    /// References to the task before the first handler.
    references: isize,
}

impl Fresh {
    /// None for the tasks of a factory that makes other ones than asyncio's.
    fn new(py: Python<'_>) -> PyResult<Option<Self>> {
        let task = types(py)?.current_task.call0(py)?;
        let Ok(cancelling) = task.getattr(py, intern!(py, "cancelling")) else {
            return Ok(None);
        };
        let references = references(py, &task);
        Ok(Some(Self {
            task,
            cancelling,
            references,
        }))
    }

    /// Whether the next handler may have the task: nobody has cancelled it, and nobody keeps it.
    fn is_unmarked(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(references(py, &self.task) <= self.references && !self.cancelling.call0(py)?.is_truthy(py)?)
    }
}

fn references(_attached: Python<'_>, object: &Py<PyAny>) -> isize {
    // SAFETY: the object is alive, and the thread is attached.
    #[expect(unsafe_code, reason = "PyO3 has no other way to the count")]
    unsafe {
        pyo3::ffi::Py_REFCNT(object.as_ptr())
    }
}

#[derive(Default)]
struct State {
    begun: bool,
    fresh: Option<Fresh>,
    /// A call has waited: the task is its own.
    owned: bool,
    calls: u32,
    active: Option<Active>,
    work: Option<(Work, Py<PyAny>)>,
    turn: Option<Turn>,
}

/// The awaitable of one asyncio task.
#[pyclass(frozen, module = "etp_ws._etp_ws")]
pub(crate) struct Runner {
    pump: Py<Pump>,
    queue: Owned<Arc<Queue>>,
    id: u64,
    state: Owned<AttachedCell<State>>,
}

impl Runner {
    pub(crate) fn new(pump: Py<Pump>, queue: Arc<Queue>, id: u64) -> Self {
        Self {
            pump,
            queue: Owned::new(queue),
            id,
            state: Owned::new(AttachedCell::new(State::default())),
        }
    }

    pub(crate) fn has_begun(&self, py: Python<'_>) -> bool {
        self.state.borrow_mut(py).begun
    }

    /// Its task has ended, or was dropped: another one has to take its place if it never began.
    fn is_over(&self, py: Python<'_>) {
        let Ok(queue) = self.queue.get() else { return };
        if !std::mem::replace(&mut self.state.borrow_mut(py).begun, true) {
            self.pump.get().lost(py, self.id);
            queue.runner_lost();
        }
    }

    /// The name that its task should have, once that is a handler's own.
    pub(crate) fn task_name(&self, py: Python<'_>) -> Option<Py<PyString>> {
        let state = self.state.borrow_mut(py);
        let handler = state.active.as_ref()?.call.handler.as_ref()?;
        Some(handler.task_name.clone_ref(py))
    }
}

#[pymethods]
impl Runner {
    /// The task's done callback. Debug mode takes no object for one that looks like a coroutine, as a runner does.
    fn over(&self, py: Python<'_>, _task: &Bound<'_, PyAny>) {
        self.is_over(py);
    }

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        guard(|| Self::step(slf, None))
    }

    /// As an iterator's next: a task sends nothing but None.
    fn send(slf: &Bound<'_, Self>, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match guard(|| Self::step(slf, None))? {
            Some(yielded) => Ok(yielded),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    #[pyo3(signature = (error, value=None, traceback=None))]
    fn throw(
        slf: &Bound<'_, Self>,
        error: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        let thrown = PyErr::from_value(value.unwrap_or(error).clone());
        match guard(|| Self::step(slf, Some(thrown)))? {
            Some(yielded) => Ok(yielded),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        guard(|| {
            let py = slf.py();
            let this = slf.get();
            let active = this.state.borrow_mut(py).active.take();
            if let Some(active) = active {
                if let Ok(close) = active.coroutine.getattr(py, intern!(py, "close")) {
                    active.run.call1(py, (close,))?;
                }
                drop(active);
                Pump::ended(this.pump.bind(py), this.id, false)?;
            }
            Ok(())
        })
    }

    /// Works inside a context: for `Context.run`.
    fn inside(slf: &Bound<'_, Self>) -> PyResult<()> {
        guard(|| {
            let py = slf.py();
            let this = slf.get();
            let taken = this.state.borrow_mut(py).work.take();
            let Some((mut work, run)) = taken else { return Ok(()) };
            let turn = loop {
                let (turn, home) = match work {
                    Work::Begin(item, home) => {
                        let conn = match &item {
                            Item::Event { reply, .. } => Some(reply.conn().clone()),
                            _ => None,
                        };
                        let (turn, home) = this.begin(py, item, home, &run)?;
                        (turn, home.zip(conn))
                    }
                    Work::Resume(active, thrown) => (this.resume(py, active, thrown), None),
                };
                // The next event of the same connection needs no other context.
                match (&turn, home) {
                    (Turn::Done, Some((home, conn))) if this.may_go_on(py)? => match this.pump.get().next_of(py, &conn)
                    {
                        Some(item) => work = Work::Begin(item, Some(home)),
                        None => break turn,
                    },
                    _ => break turn,
                }
            };
            this.state.borrow_mut(py).turn = Some(turn);
            Ok(())
        })
    }
}

impl Runner {
    /// One step of the task: calls handlers until one waits or nothing is left. Answers what the waiting one yielded.
    fn step(slf: &Bound<'_, Self>, thrown: Option<PyErr>) -> PyResult<Option<Py<PyAny>>> {
        let this = slf.get();
        let queue = this.queue.get()?;
        let resumed = this.state.borrow_mut(slf.py()).owned;
        let held = queue.wakes.hold();
        let outcome = Self::turns(slf, thrown);
        let fresh = this.state.borrow_mut(slf.py()).fresh.take();
        drop((held, fresh));
        if !resumed {
            queue.wakes.release_on(&queue.runtime);
        } else if !queue.wakes.is_empty() {
            // Others that have waited may end in this turn as well: one wake-up for all.
            Pump::schedule_flush(this.pump.bind(slf.py()))?;
        }
        outcome
    }

    fn turns(slf: &Bound<'_, Self>, thrown: Option<PyErr>) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let this = slf.get();
        let pump = this.pump.bind(py);
        let mut first = false;
        let (active, owned) = {
            let mut state = this.state.borrow_mut(py);
            if !state.begun {
                state.begun = true;
                pump.get().begun();
                first = true;
            }
            (state.active.take(), state.owned)
        };
        if first {
            let fresh = Fresh::new(py)?;
            this.state.borrow_mut(py).fresh = fresh;
        }
        let mut next = match (active, thrown) {
            (Some(active), thrown) => {
                let run = active.run.clone_ref(py);
                Some((Work::Resume(active, thrown), run))
            }
            // Cancelled before it had anything to do.
            (None, Some(thrown)) => {
                Pump::ended(pump, this.id, !owned)?;
                return Err(thrown);
            }
            (None, None) => this.draw(py)?,
        };
        loop {
            let Some((work, run)) = next else {
                Pump::ended(pump, this.id, true)?;
                return Ok(None);
            };
            let turn = Self::within(slf, work, run)?;
            let mut state = this.state.borrow_mut(py);
            state.calls += 1;
            match turn {
                Turn::Done if state.owned => {
                    drop(state);
                    Pump::ended(pump, this.id, false)?;
                    return Ok(None);
                }
                Turn::Done => {
                    drop(state);
                    next = if this.may_go_on(py)? { this.draw(py)? } else { None };
                }
                Turn::Waits(active, yielded) => {
                    let first = state.calls == 1;
                    let become_own = !std::mem::replace(&mut state.owned, true);
                    let site = active.call.site;
                    let name = active
                        .call
                        .handler
                        .as_ref()
                        .map(|handler| handler.task_name.clone_ref(py));
                    state.active = Some(active);
                    drop(state);
                    if become_own && let Some(task) = Pump::suspended(pump, this.id, site, first)? {
                        let name = name.unwrap_or_else(|| crate::pump::plain_name(py).unbind());
                        task.call_method1(py, intern!(py, "set_name"), (name,))?;
                    }
                    return Ok(Some(yielded));
                }
                Turn::Fatal(error) => {
                    let owned = state.owned;
                    drop(state);
                    Pump::ended(pump, this.id, !owned)?;
                    return Err(error);
                }
            }
        }
    }

    /// Whether the handlers so far have left the task as it was.
    fn may_go_on(&self, py: Python<'_>) -> PyResult<bool> {
        // Nobody else takes it while the step lasts; it is put back, for `cancelling` may be anything.
        let Some(fresh) = self.state.borrow_mut(py).fresh.take() else {
            return Ok(true);
        };
        let unmarked = fresh.is_unmarked(py);
        self.state.borrow_mut(py).fresh = Some(fresh);
        unmarked
    }

    /// The next thing to do, and the context to do it in.
    fn draw(&self, py: Python<'_>) -> PyResult<Option<(Work, Py<PyAny>)>> {
        let pump = self.pump.bind(py);
        let Some(item) = Pump::next(pump)? else { return Ok(None) };
        let home = match &item {
            Item::Event { site, reply, .. } => Some(Pump::home(pump, *site, reply.conn())?),
            Item::Connect { site, conn, .. } | Item::Disconnect { site, conn, .. } => {
                Some(Pump::home(pump, *site, conn)?)
            }
            // What a forgotten connection had set is gone.
            Item::Error {
                site, conn: Some(conn), ..
            } if conn.slot() != 0 => Some(Pump::home(pump, *site, conn)?),
            _ => None,
        };
        let run = match (&home, &item) {
            (Some(home), _) => home.run.clone_ref(py),
            (None, Item::Upgrade { site, .. } | Item::Ask { site, .. } | Item::Error { site, .. }) => {
                pump.get().context(py, *site)?
            }
            (None, _) => return Ok(None),
        };
        Ok(Some((Work::Begin(item, home), run)))
    }

    /// Does a piece of work inside its context.
    fn within(slf: &Bound<'_, Self>, work: Work, run: Py<PyAny>) -> PyResult<Turn> {
        let py = slf.py();
        let this = slf.get();
        let inside = slf.getattr(intern!(py, "inside"))?;
        this.state.borrow_mut(py).work = Some((work, run.clone_ref(py)));
        let ran = call(run.bind(py), &inside);
        let (work, turn) = {
            let mut state = this.state.borrow_mut(py);
            (state.work.take(), state.turn.take())
        };
        match (ran, turn, work) {
            (Ok(_), Some(turn), _) => Ok(turn),
            // The context could not be entered: somebody holds it open.
            (Err(error), _, Some((Work::Begin(item, _), _))) => {
                if let Item::Event { reply, .. } = item {
                    reply.fail(Cause::new(py, error));
                }
                Ok(Turn::Done)
            }
            (Err(error), ..) => Err(error),
            (Ok(_), None, _) => Ok(Turn::Done),
        }
    }

    /// Calls what an item asks for. Answers the home of an event's connection as well, for the next one.
    fn begin(&self, py: Python<'_>, item: Item, home: Option<Home>, run: &Py<PyAny>) -> PyResult<(Turn, Option<Home>)> {
        let pump = self.pump.bind(py);
        let call = |site, what, handler| Call { site, what, handler };
        match item {
            Item::Event { site, reply, payload } => {
                let (Some(routes), Some(home)) = (pump.get().routes(py, site), home) else {
                    return Ok((Turn::Done, None));
                };
                let turn = self.event(py, site, routes, &home, (reply, payload), run);
                Ok((turn, Some(home)))
            }
            Item::Upgrade { site, request, ticket } => {
                let called = self.callback(py, site, Callback::Upgrade, |f| {
                    let object = crate::request::make(py, &request)?;
                    if let Some(scope) = request.extensions().get::<Scope>().and_then(Scope::take) {
                        object.setattr(py, intern!(py, "scope"), scope)?;
                    }
                    f.call1((object,))
                });
                let what = What::Upgrade(ticket, run.clone_ref(py));
                Ok((self.called(py, called, call(site, what, None), run), None))
            }
            Item::Connect { site, ticket, .. } => {
                let called = self.callback(py, site, Callback::Connect, |f| match &home {
                    Some(home) => f.call1((&home.conn,)),
                    None => f.call0(),
                });
                Ok((
                    self.called(py, called, call(site, What::Connect(ticket), None), run),
                    None,
                ))
            }
            Item::Disconnect {
                site,
                conn,
                mut disconnect,
                ticket,
            } => {
                if disconnect.will_reconnect {
                    disconnect.will_reconnect = match self.should_reconnect(py, site, &disconnect) {
                        Ok(again) => again,
                        Err(error) => {
                            if let Some(fatal) = self.fatal(py, &error) {
                                return Ok((Turn::Fatal(fatal), None));
                            }
                            self.callback_failed(py, site, &conn, "should_reconnect", error);
                            etp_ws::protocol::should_reconnect(disconnect.code, &disconnect.reason, false)
                        }
                    };
                }
                let called = self.callback(py, site, Callback::Disconnect, |f| {
                    let disconnect = disconnect_object(py, &disconnect)?;
                    match (&home, pump.get().routes(py, site)) {
                        (Some(home), Some(routes)) if !routes.get().client => f.call1((&home.conn, disconnect)),
                        _ => f.call1((disconnect,)),
                    }
                });
                let what = What::Disconnect(ticket, conn);
                Ok((self.called(py, called, call(site, what, None), run), None))
            }
            Item::Error { site, conn, error } => {
                let client = pump.get().routes(py, site).is_none_or(|routes| routes.get().client);
                let conn = match conn {
                    Some(conn) if !client => Some(Pump::object(pump, site, &conn)?),
                    _ => None,
                };
                let exception = to_exception(py, &error)?;
                let called = self.callback(py, site, Callback::Error, |f| {
                    if client {
                        f.call1((&exception,))
                    } else {
                        f.call1((&conn, &exception))
                    }
                });
                Ok((self.called(py, called, call(site, What::Error(conn), None), run), None))
            }
            Item::Ask { site, what, answer } => {
                let called = self.callback(py, site, what, |f| f.call0());
                let what = What::Ask(what, answer);
                Ok((self.called(py, called, call(site, what, None), run), None))
            }
            // These need no task.
            Item::Acked { .. } | Item::Settled { .. } | Item::Abandon(_) | Item::Detach(_) => Ok((Turn::Done, None)),
        }
    }

    fn callback<'py>(
        &self,
        py: Python<'py>,
        site: SiteId,
        callback: Callback,
        call: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let routes = self.pump.get().routes(py, site);
        match routes.and_then(|routes| routes.get().callback(py, callback)) {
            Some(f) => call(f.bind(py)),
            None => Ok(py.None().into_bound(py)),
        }
    }

    fn should_reconnect(&self, py: Python<'_>, site: SiteId, disconnect: &etp_ws::Disconnect) -> PyResult<bool> {
        let routes = self.pump.get().routes(py, site);
        let Some(f) = routes.and_then(|routes| routes.get().callback(py, Callback::ShouldReconnect)) else {
            return Ok(true);
        };
        // It stops the client by itself where the answer, or the usual rule in its place, is no.
        let answer = f.call1(py, (disconnect_object(py, disconnect)?,))?;
        answer.is_truthy(py)
    }

    /// Calls an event's handler.
    fn event(
        &self,
        py: Python<'_>,
        site: SiteId,
        routes: Py<Routes>,
        home: &Home,
        (reply, payload): (Reply, crate::queue::Chunk),
        run: &Py<PyAny>,
    ) -> Turn {
        let table = routes.get();
        let raw = self
            .pump
            .get()
            .with_payload(py, &payload, |bytes| table.codec.raw(py, bytes));
        let decoded = raw.and_then(|raw| table.codec.finish(raw));
        let data = match decoded {
            Ok(data) => data,
            Err(error) => {
                let name = reply.event_name().to_owned();
                reply.fail(in_context(error, &format!("event {name:?}")));
                return Turn::Done;
            }
        };
        let taps = table.taps(py);
        for tap in &taps {
            if let Err(error) = tap.call1(py, (reply.event_name(), &data)) {
                error.write_unraisable(py, None);
            }
        }
        let (called, handler) = match table.handler(py, reply.event_name()) {
            Some(handler) => {
                let f = handler.f.bind(py);
                let called = if table.client {
                    call(f, &data)
                } else {
                    call_with(f, home.conn.bind(py), &data)
                };
                (called, Some(handler))
            }
            None => match table.callback(py, Callback::Unknown) {
                Some(f) if table.client => (f.bind(py).call1((reply.event_name(), data)), None),
                Some(f) => (f.bind(py).call1((&home.conn, reply.event_name(), data)), None),
                // An iterator has it.
                None if !taps.is_empty() && !reply.wants_reply() => {
                    reply.send_payload(&[], true);
                    return Turn::Done;
                }
                None => {
                    reply.no_handler();
                    return Turn::Done;
                }
            },
        };
        let call = Call {
            site,
            what: What::Event(reply, routes),
            handler,
        };
        self.called(py, called, call, run)
    }

    /// Goes on with what a call returned: a coroutine is driven, another awaitable as well, anything else is the outcome.
    fn called(&self, py: Python<'_>, called: PyResult<Bound<'_, PyAny>>, call: Call, run: &Py<PyAny>) -> Turn {
        let returned = match called {
            Ok(returned) => returned,
            Err(error) => return self.complete(py, call, Err(error)),
        };
        let coroutine = match types(py) {
            Ok(types) => returned.get_type().is(types.coroutine.bind(py)),
            Err(error) => return self.complete(py, call, Err(error)),
        };
        let coroutine = if coroutine {
            returned
        } else if is_plain(&returned) || !returned.hasattr(intern!(py, "__await__")).unwrap_or(false) {
            return self.complete(py, call, Ok(returned));
        } else {
            match returned.call_method0(intern!(py, "__await__")) {
                Ok(iterator) => iterator,
                Err(error) => return self.complete(py, call, Err(error)),
            }
        };
        let active = Active {
            coroutine: coroutine.unbind(),
            run: run.clone_ref(py),
            call,
        };
        self.resume(py, active, None)
    }

    /// Lets a coroutine go on until it ends or waits.
    fn resume(&self, py: Python<'_>, active: Active, thrown: Option<PyErr>) -> Turn {
        let outcome = match thrown {
            None => send(active.coroutine.bind(py)),
            Some(thrown) => throw(active.coroutine.bind(py), thrown),
        };
        match outcome {
            Ok(PySendResult::Next(yielded)) => Turn::Waits(active, yielded.unbind()),
            Ok(PySendResult::Return(value)) => self.complete(py, active.call, Ok(value)),
            Err(error) => self.complete(py, active.call, Err(error)),
        }
    }

    /// A call has ended: whoever waits for that is told.
    fn complete(&self, py: Python<'_>, call: Call, outcome: PyResult<Bound<'_, PyAny>>) -> Turn {
        let fatal = outcome.as_ref().err().and_then(|error| self.fatal(py, error));
        match call.what {
            What::Event(reply, routes) => answer(py, reply, routes.get(), outcome, call.handler.as_deref()),
            What::Upgrade(ticket, run) => match outcome.and_then(|value| accept(py, &value, run)) {
                Ok(accept) => ticket.accept(accept),
                Err(error) => match reject(py, &error) {
                    Some(reject) => ticket.reject(reject),
                    None => ticket.fail(Cause::new(py, error)),
                },
            },
            What::Connect(ticket) => match outcome {
                Ok(_) => ticket.complete(),
                Err(error) => ticket.fail(Cause::new(py, error)),
            },
            What::Disconnect(ticket, conn) => {
                match outcome {
                    // Its time was over, or its loop ends: that is no failure.
                    Err(error) if is_cancelled(py, &error) => {}
                    Err(error) => self.callback_failed(py, call.site, &conn, "on_disconnect", error),
                    Ok(_) => {}
                }
                self.pump.get().forget(py, call.site, &conn);
                drop(ticket);
            }
            What::Error(conn) => {
                if let Err(error) = outcome {
                    let failed =
                        Error::new(ErrorKind::HandlerFailed, "on_error failed").with_source(Cause::new(py, error));
                    let logged =
                        to_exception(py, &failed).and_then(|failed| types(py)?.log_error.call1(py, (conn, failed)));
                    if let Err(error) = logged {
                        error.write_unraisable(py, None);
                    }
                }
            }
            What::Ask(callback, answer) => {
                let text = outcome.and_then(|value| match value.extract::<String>() {
                    Ok(text) => Ok(text),
                    Err(_) => Err(PyTypeError::new_err(format!("{} is to return a str", callback.name()))),
                });
                // Whoever asked may have given up.
                let _ = answer.send(text.map_err(|error| Cause::new(py, error).into()));
            }
        }
        fatal.map_or(Turn::Done, Turn::Fatal)
    }

    fn callback_failed(&self, py: Python<'_>, site: SiteId, conn: &Conn, what: &str, error: PyErr) {
        let error = Error::new(ErrorKind::HandlerFailed, format!("{what} failed")).with_source(Cause::new(py, error));
        self.queue.push(Item::Error {
            site,
            conn: Some(conn.clone()),
            error,
        });
    }

    /// What ends the task, or the loop: the interpreter's own exceptions, and the cancellation of the task of a handler that waits.
    fn fatal(&self, py: Python<'_>, error: &PyErr) -> Option<PyErr> {
        let ends = error.is_instance_of::<PyKeyboardInterrupt>(py)
            || error.is_instance_of::<PySystemExit>(py)
            || error.is_instance_of::<PyGeneratorExit>(py)
            || (self.state.borrow_mut(py).owned && is_cancelled(py, error));
        ends.then(|| error.clone_ref(py))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        Python::try_attach(|py| self.is_over(py));
    }
}

fn is_cancelled(py: Python<'_>, error: &PyErr) -> bool {
    types(py).is_ok_and(|types| error.is_instance(py, types.cancelled.bind(py)))
}

/// Values of these very types can't be awaited.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyList>()
}

fn send<'py>(coroutine: &Bound<'py, PyAny>) -> PyResult<PySendResult<'py>> {
    // SAFETY: `PyIter_Send`, all that is called through this type, takes coroutines and everything that has `send` or `__next__`.
    #[expect(unsafe_code, reason = "PyO3 knows coroutines only as iterators, which they are not")]
    let iterator = unsafe { coroutine.cast_unchecked::<PyIterator>() };
    iterator.send(coroutine.py().None().bind(coroutine.py()))
}

fn throw<'py>(coroutine: &Bound<'py, PyAny>, thrown: PyErr) -> PyResult<PySendResult<'py>> {
    let py = coroutine.py();
    let Ok(throw) = coroutine.getattr(intern!(py, "throw")) else {
        return Err(thrown);
    };
    match throw.call1((thrown.into_value(py),)) {
        Ok(yielded) => Ok(PySendResult::Next(yielded)),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            let value = error.value(py).getattr(intern!(py, "value"))?;
            Ok(PySendResult::Return(value))
        }
        Err(error) => Err(error),
    }
}

/// Where a function stands, for messages about what it returned.
fn whereabouts(py: Python<'_>, f: &Py<PyAny>) -> Option<String> {
    let f = f.bind(py).getattr("__wrapped__").unwrap_or_else(|_| f.bind(py).clone());
    let name: String = f.getattr("__qualname__").ok()?.extract().ok()?;
    let code = f.getattr("__code__").ok()?;
    let file: String = code.getattr("co_filename").ok()?.extract().ok()?;
    let line: u32 = code.getattr("co_firstlineno").ok()?.extract().ok()?;
    Some(format!("{name} at {file}:{line}"))
}

/// The same error with the place where it was found.
fn in_context(error: Error, place: &str) -> Error {
    let named = Error::new(error.kind(), format!("{place}: {error}"));
    match error.cause().and_then(|cause| cause.downcast_ref::<Cause>()) {
        // Its sentence stands in ours already; what is kept is the exception.
        Some(cause) => Python::attach(|py| Error::new(error.kind(), place.to_owned()).with_source(cause.again(py))),
        None => named,
    }
}

/// Sends what a handler returned.
fn answer(
    py: Python<'_>,
    reply: Reply,
    routes: &Routes,
    outcome: PyResult<Bound<'_, PyAny>>,
    handler: Option<&Handler>,
) {
    let value = match outcome {
        Ok(value) => value,
        // It was cancelled because its connection, or the server, ends: that is no failure.
        Err(error) if is_cancelled(py, &error) && !reply.conn().is_open() => return drop(reply),
        Err(error) => return reply.fail(Cause::new(py, error)),
    };
    if !reply.wants_reply() {
        return reply.send_payload(&[], true);
    }
    let encoded = routes.codec.encode(&value);
    match encoded
        .as_ref()
        .map_err(Clone::clone)
        .and_then(crate::codec::Encoded::get)
    {
        Ok((bytes, text)) => reply.send_payload(&bytes, text),
        Err(error) => {
            let place = handler.and_then(|handler| whereabouts(py, &handler.f));
            let name = reply.event_name();
            let place = match place {
                Some(place) => format!("the reply to event {name:?} ({place})"),
                None => format!("the reply to event {name:?}"),
            };
            reply.fail(in_context(error, &place));
        }
    }
}

pub(crate) fn disconnect_object<'py>(py: Python<'py>, disconnect: &etp_ws::Disconnect) -> PyResult<Bound<'py, PyAny>> {
    types(py)?.disconnect.bind(py).call1((
        disconnect.code,
        &disconnect.reason,
        disconnect.clean,
        disconnect.normal,
        disconnect.will_reconnect,
    ))
}

fn headers(value: &Bound<'_, PyAny>) -> PyResult<Vec<(http::HeaderName, http::HeaderValue)>> {
    let pairs: Vec<(String, String)> = value.extract()?;
    pairs
        .into_iter()
        .map(|(name, value)| {
            let wrong = || crate::error::coded("invalid_option", format!("the header {name:?} can't be sent"));
            let key = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            Ok((key, http::HeaderValue::from_str(&value).map_err(|_| wrong())?))
        })
        .collect()
}

/// What `on_upgrade` returned: an `Accept`, or the connection's data.
fn accept(py: Python<'_>, value: &Bound<'_, PyAny>, run: Py<PyAny>) -> PyResult<Accept> {
    let mut accept = Accept::new();
    let mut data = value.clone();
    if value.is_instance(types(py)?.accept.bind(py))? {
        for (name, value) in headers(&value.call_method0("_pairs")?)? {
            accept = accept.header(name, value);
        }
        if let Some(protocol) = value.getattr("protocol")?.extract::<Option<String>>()? {
            accept = accept.protocol(protocol);
        }
        if let Some((code, reason)) = value.getattr("close")?.extract::<Option<(u16, String)>>()? {
            accept = accept
                .close(code, reason)
                .map_err(|error| crate::error::raise(py, &error))?;
        }
        data = value.getattr("data")?;
    }
    let data = (!data.is_none()).then(|| data.unbind());
    Ok(accept.data(Kept(Arc::new(KeptValues { data, run }))))
}

/// The rejection that was raised, if it was one.
fn reject(py: Python<'_>, error: &PyErr) -> Option<Reject> {
    let types = types(py).ok()?;
    if !error.is_instance(py, types.reject.bind(py)) {
        return None;
    }
    let value = error.value(py);
    let status = value.getattr("status").ok()?.extract().ok()?;
    let mut reject = Reject::new(status);
    if let Ok(Some(body)) = value.getattr("body").ok()?.extract::<Option<String>>() {
        reject = reject.body(body);
    }
    for (name, value) in headers(&value.call_method0("_pairs").ok()?).ok()? {
        reject = reject.header(name, value);
    }
    Some(reject)
}
