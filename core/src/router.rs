//! Handlers as Rust writes them: plain and async closures and functions, turned into the [`Handler`] trait.

use std::future::Future;
use std::sync::Arc;

use crate::conn::{Conn, check_name};
use crate::disconnect::Disconnect;
use crate::error::{BoxError, Error};
use crate::event::{Event, Incoming};
use crate::handler::{self, BoxFuture, ConnectTicket, DisconnectTicket, Handler, Ticket, UpgradeTicket};
use crate::names::Names;
use crate::payload::{FromEvent, IntoReply, Payload};
use crate::request::Request;
use crate::upgrade::IntoUpgrade;

/// A future of what an event came to.
type Answer = std::pin::Pin<Box<dyn Future<Output = Result<Payload, BoxError>> + Send>>;

/// What a handler returned: a reply ([`Now`]) or a future of one ([`Later`]). `M` only tells the two apart.
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "this handler returns neither a reply nor a future of one",
    note = "a reply is `()`, `&str`, `String`, `Vec<u8>`, `Bytes` or `Json(value)`, an `Option` of these, or a `Result` of these",
    note = "to reply with a type of your own, derive `serde::Serialize` for it and return `Json(value)`",
    note = "the error of a `Result` implements `std::error::Error`, or is a `String` or a boxed error",
    note = "of an async handler all this holds for what its body ends with"
)]
pub trait Outcome<M>: Sized {
    #[doc(hidden)]
    fn finish(self, ticket: Ticket<'_>) -> Option<BoxFuture>;
    #[doc(hidden)]
    fn answer(self) -> Answer;
}

/// Marks an outcome that is there at once.
#[derive(Debug)]
pub struct Now;

/// Marks an outcome that a future brings.
#[derive(Debug)]
pub struct Later;

impl<R: IntoReply> Outcome<Now> for R {
    fn finish(self, ticket: Ticket<'_>) -> Option<BoxFuture> {
        ticket.finish(self.into_reply());
        None
    }

    fn answer(self) -> Answer {
        let outcome = self.into_reply();
        Box::pin(async move { outcome })
    }
}

impl<F: Future<Output: IntoReply> + Send + 'static> Outcome<Later> for F {
    fn finish(self, ticket: Ticket<'_>) -> Option<BoxFuture> {
        let reply = ticket.into_reply();
        Some(Box::pin(async move { reply.finish(self.await.into_reply()) }))
    }

    fn answer(self) -> Answer {
        Box::pin(async move { self.await.into_reply() })
    }
}

/// What `on_upgrade` returned, at once or later.
#[diagnostic::on_unimplemented(
    message = "`on_upgrade` can't return `{Self}`",
    label = "this returns neither an answer to the handshake nor a future of one",
    note = "an answer is `()`, `Accept` or `Result<Accept, Reject>`; any error turns into a `Reject` of status 500 by `?`",
    note = "of an async function all this holds for what its body ends with"
)]
pub trait UpgradeOutcome<M>: Sized {
    #[doc(hidden)]
    fn finish(self, ticket: UpgradeTicket) -> Option<BoxFuture>;
}

fn decide(outcome: impl IntoUpgrade, ticket: UpgradeTicket) {
    match outcome.into_upgrade() {
        Ok(accept) => ticket.accept(accept),
        Err(reject) => ticket.reject(reject),
    }
}

impl<R: IntoUpgrade> UpgradeOutcome<Now> for R {
    fn finish(self, ticket: UpgradeTicket) -> Option<BoxFuture> {
        decide(self, ticket);
        None
    }
}

impl<F: Future<Output: IntoUpgrade> + Send + 'static> UpgradeOutcome<Later> for F {
    fn finish(self, ticket: UpgradeTicket) -> Option<BoxFuture> {
        Some(Box::pin(async move { decide(self.await, ticket) }))
    }
}

/// A handler whose types are forgotten.
trait Endpoint: Send + Sync {
    fn call(&self, conn: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture>;
    fn answer(&self, conn: Conn, event: &Event) -> Answer;
}

struct Typed<F, A, R, M> {
    f: F,
    /// A marker that is Send and Sync whatever the types are.
    types: std::marker::PhantomData<fn(A, M) -> R>,
}

impl<F, A, R, M> Endpoint for Typed<F, A, R, M>
where
    F: FnOnce(Conn, A) -> R + Clone + Send + Sync,
    A: FromEvent,
    R: Outcome<M>,
{
    fn call(&self, conn: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        match A::from_event(&event) {
            Ok(data) => (self.f.clone())(conn.clone(), data).finish(ticket),
            Err(error) => {
                ticket.fail(error);
                None
            }
        }
    }

    fn answer(&self, conn: Conn, event: &Event) -> Answer {
        match A::from_event(&event.as_incoming()) {
            Ok(data) => (self.f.clone())(conn, data).answer(),
            Err(error) => Box::pin(async move { Err(error.into()) }),
        }
    }
}

/// The rest of the way to an event's handler: what a middleware calls, or does not.
pub struct Next {
    table: Arc<Table>,
    at: usize,
}

impl Next {
    /// Runs the other middleware and the handler: what it returns is the acknowledgment.
    ///
    /// # Errors
    /// What the handler failed with, or `no_handler`.
    ///
    /// # Cancellation
    /// The handler's future is dropped.
    pub async fn run(self, conn: Conn, event: Event) -> Result<Payload, BoxError> {
        match self.table.middleware.get(self.at) {
            Some(layer) => {
                let next = Self {
                    table: self.table.clone(),
                    at: self.at + 1,
                };
                layer(conn, event, next).await
            }
            None => {
                let endpoint = self.table.find(event.name());
                match endpoint {
                    Some(endpoint) => endpoint.answer(conn, &event).await,
                    None => Err(Box::new(no_handler(event.name()))),
                }
            }
        }
    }
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Next")
    }
}

fn no_handler(name: &str) -> Error {
    Error::new(
        crate::error::ErrorKind::NoHandler,
        format!("no handler for event {name:?}"),
    )
}

type Layer = Box<dyn Fn(Conn, Event, Next) -> Answer + Send + Sync>;

#[derive(Default)]
struct Table {
    endpoints: Names<Box<dyn Endpoint>>,
    unknown: Option<Box<dyn Endpoint>>,
    middleware: Vec<Layer>,
}

impl Table {
    fn find(&self, name: &str) -> Option<&dyn Endpoint> {
        let endpoint = self.endpoints.get(name).or(self.unknown.as_ref());
        endpoint.map(|endpoint| &**endpoint)
    }
}

type OnUpgrade = Box<dyn Fn(Request, UpgradeTicket) -> Option<BoxFuture> + Send + Sync>;
type OnConnect = Box<dyn Fn(Conn, ConnectTicket) -> Option<BoxFuture> + Send + Sync>;
type OnDisconnect = Box<dyn Fn(Conn, Disconnect) -> Answer + Send + Sync>;
type OnError = Box<dyn Fn(Option<Conn>, Error) -> Answer + Send + Sync>;

/// The handlers of a server or client while they are gathered.
#[derive(Default)]
pub(crate) struct Router {
    table: Table,
    upgrade: Option<OnUpgrade>,
    connect: Option<OnConnect>,
    disconnect: Option<OnDisconnect>,
    error: Option<OnError>,
    /// The first name that can't be.
    invalid: Option<Error>,
}

impl Router {
    pub(crate) fn on<F, A, R, M>(&mut self, name: &str, f: F)
    where
        F: FnOnce(Conn, A) -> R + Clone + Send + Sync + 'static,
        A: FromEvent,
        R: Outcome<M> + 'static,
        M: 'static,
    {
        if let Err(error) = check_name(name) {
            self.invalid.get_or_insert(error);
        }
        let endpoint = Box::new(Typed {
            f,
            types: std::marker::PhantomData,
        });
        self.table.endpoints.insert(name, endpoint);
    }

    pub(crate) fn off(&mut self, name: &str) {
        self.table.endpoints.remove(name);
    }

    pub(crate) fn on_unknown_event<F, A, R, M>(&mut self, f: F)
    where
        F: FnOnce(Conn, A) -> R + Clone + Send + Sync + 'static,
        A: FromEvent,
        R: Outcome<M> + 'static,
        M: 'static,
    {
        self.table.unknown = Some(Box::new(Typed {
            f,
            types: std::marker::PhantomData,
        }));
    }

    pub(crate) fn on_upgrade<F, R, M>(&mut self, f: F)
    where
        F: FnOnce(Request) -> R + Clone + Send + Sync + 'static,
        R: UpgradeOutcome<M>,
    {
        self.upgrade = Some(Box::new(move |request, ticket| (f.clone())(request).finish(ticket)));
    }

    pub(crate) fn on_connect<F, R, M>(&mut self, f: F)
    where
        F: FnOnce(Conn) -> R + Clone + Send + Sync + 'static,
        R: Outcome<M>,
    {
        self.connect = Some(Box::new(move |conn, ticket| {
            let answer = (f.clone())(conn).answer();
            Some(Box::pin(async move {
                match answer.await {
                    Ok(_) => ticket.complete(),
                    Err(error) => ticket.fail(error),
                }
            }))
        }));
    }

    pub(crate) fn on_disconnect<F, R, M>(&mut self, f: F)
    where
        F: FnOnce(Conn, Disconnect) -> R + Clone + Send + Sync + 'static,
        R: Outcome<M>,
    {
        self.disconnect = Some(Box::new(move |conn, disconnect| (f.clone())(conn, disconnect).answer()));
    }

    pub(crate) fn on_error<F, R, M>(&mut self, f: F)
    where
        F: FnOnce(Option<Conn>, Error) -> R + Clone + Send + Sync + 'static,
        R: Outcome<M>,
    {
        self.error = Some(Box::new(move |conn, error| (f.clone())(conn, error).answer()));
    }

    pub(crate) fn middleware<F, Fut>(&mut self, f: F)
    where
        F: FnOnce(Conn, Event, Next) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: IntoReply> + Send + 'static,
    {
        self.table.middleware.push(Box::new(move |conn, event, next| {
            let future = (f.clone())(conn, event, next);
            Box::pin(async move { future.await.into_reply() })
        }));
    }

    pub(crate) fn build(self) -> Result<Routes, Error> {
        if let Some(error) = self.invalid {
            return Err(error);
        }
        Ok(Routes {
            table: Arc::new(self.table),
            upgrade: self.upgrade,
            connect: self.connect,
            disconnect: self.disconnect,
            error: self.error,
        })
    }
}

/// The handlers of a server or client, complete.
pub(crate) struct Routes {
    table: Arc<Table>,
    upgrade: Option<OnUpgrade>,
    connect: Option<OnConnect>,
    disconnect: Option<OnDisconnect>,
    error: Option<OnError>,
}

impl Handler for Routes {
    fn upgrade(&self, request: &Request, ticket: UpgradeTicket) -> Option<BoxFuture> {
        match &self.upgrade {
            Some(f) => f(request.clone(), ticket),
            None => {
                ticket.accept(crate::upgrade::Accept::new());
                None
            }
        }
    }

    fn connect(&self, conn: &Conn, ticket: ConnectTicket) -> Option<BoxFuture> {
        match &self.connect {
            Some(f) => f(conn.clone(), ticket),
            None => {
                ticket.complete();
                None
            }
        }
    }

    fn event(&self, conn: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        if !self.table.middleware.is_empty() {
            let next = Next {
                table: self.table.clone(),
                at: 0,
            };
            let answer = next.run(conn.clone(), event.to_event());
            let reply = ticket.into_reply();
            return Some(Box::pin(async move { reply.finish(answer.await) }));
        }
        match self.table.find(event.name()) {
            Some(endpoint) => endpoint.call(conn, event, ticket),
            None => {
                ticket.no_handler();
                None
            }
        }
    }

    fn disconnect(&self, conn: &Conn, disconnect: Disconnect, _: DisconnectTicket) -> Option<BoxFuture> {
        let answer = (self.disconnect.as_ref()?)(conn.clone(), disconnect);
        let conn = conn.clone();
        Some(Box::pin(async move {
            if let Err(error) = answer.await {
                conn.report(
                    Error::new(crate::error::ErrorKind::HandlerFailed, "on_disconnect failed").with_source(error),
                );
            }
        }))
    }

    fn error(&self, conn: Option<&Conn>, error: Error) -> Option<BoxFuture> {
        let Some(f) = &self.error else {
            handler::log(conn, &error);
            return None;
        };
        let answer = f(conn.cloned(), error);
        Some(Box::pin(async move {
            if let Err(error) = answer.await {
                tracing::error!(target: "etp_ws", "on_error failed: {error}");
            }
        }))
    }
}

/// Runs a plain handler on the runtime's pool for blocking work, with the same limits and reports as any handler.
///
/// ```
/// # use etp_ws::{Conn, Server, blocking};
/// # fn expensive(_: String) -> String { String::new() }
/// Server::builder().on("hash", blocking(|_conn: Conn, data: String| expensive(data)));
/// ```
pub fn blocking<F, A, R>(f: F) -> impl FnOnce(Conn, A) -> Answer + Clone + Send + Sync + 'static
where
    F: FnOnce(Conn, A) -> R + Clone + Send + Sync + 'static,
    A: Send + 'static,
    R: IntoReply + 'static,
{
    move |conn: Conn, data: A| -> Answer {
        let hub = conn.hub().clone();
        Box::pin(async move {
            let task = hub.runtime()?.spawn_blocking(move || f(conn, data).into_reply());
            joined(task.await)
        })
    }
}

/// Runs an async handler as a task of its own, which may run beside its connection's task on another thread. Limits, tickets and
/// caught panics are the same.
pub fn spawned<F, A, Fut>(f: F) -> impl FnOnce(Conn, A) -> Answer + Clone + Send + Sync + 'static
where
    F: FnOnce(Conn, A) -> Fut + Clone + Send + Sync + 'static,
    A: Send + 'static,
    Fut: Future<Output: IntoReply> + Send + 'static,
{
    move |conn: Conn, data: A| -> Answer {
        let hub = conn.hub().clone();
        Box::pin(async move {
            let task = hub.runtime()?.spawn(async move { f(conn, data).await.into_reply() });
            let task = AbortOnDrop(task);
            joined(task.await)
        })
    }
}

/// A handler that is dropped (at shutdown) takes its task with it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn joined(outcome: Result<Result<Payload, BoxError>, tokio::task::JoinError>) -> Result<Payload, BoxError> {
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Err(format!("panicked: {}", crate::conn::panic_message(&*panic)).into()),
            Err(error) => Err(error.into()),
        },
    }
}

/// The `on...` methods that server and client builders share; `$router` is the path to their [`Router`].
macro_rules! handler_setters {
    ($router:ident) => {
        /// Handles an event. What the handler returns is the acknowledgment, where the peer wants one; `()` and `None` are empty
        /// replies; an `Err` or a panic sends none and goes to `on_error`.
        ///
        /// A handler is a plain or async closure or function of `(Conn, data)`, where data is `Bytes`, `Vec<u8>`, `String`,
        /// [`Json<T>`](crate::Json), `Option<Json<T>>`, [`Event`](crate::Event) or `()`. Captures are cloned for each event. A second
        /// handler of the same name replaces the first. A name outside the grammar is an error of `build`.
        pub fn on<F, A, R, M>(mut self, name: &str, f: F) -> Self
        where
            F: FnOnce(crate::Conn, A) -> R + Clone + Send + Sync + 'static,
            A: crate::FromEvent,
            R: crate::Outcome<M> + 'static,
            M: 'static,
        {
            self.$router.on(name, f);
            self
        }

        /// Takes the handler of an event away.
        pub fn off(mut self, name: &str) -> Self {
            self.$router.off(name);
            self
        }

        /// Handles every event that has no handler of its own; take an [`Event`](crate::Event) to see its name. Without it such an
        /// event gets no reply and `on_error` is told `no_handler`.
        pub fn on_unknown_event<F, A, R, M>(mut self, f: F) -> Self
        where
            F: FnOnce(crate::Conn, A) -> R + Clone + Send + Sync + 'static,
            A: crate::FromEvent,
            R: crate::Outcome<M> + 'static,
            M: 'static,
        {
            self.$router.on_unknown_event(f);
            self
        }

        /// Called when a connection is there; no event of it is handled before this has ended. If it fails, the connection is closed
        /// with 1011.
        pub fn on_connect<F, R, M>(mut self, f: F) -> Self
        where
            F: FnOnce(crate::Conn) -> R + Clone + Send + Sync + 'static,
            R: crate::Outcome<M>,
        {
            self.$router.on_connect(f);
            self
        }

        /// Called exactly once for each connection whose `on_connect` began. [`Conn::rooms`](crate::Conn::rooms) still tells the last
        /// rooms, while broadcasts no longer reach the connection.
        pub fn on_disconnect<F, R, M>(mut self, f: F) -> Self
        where
            F: FnOnce(crate::Conn, crate::Disconnect) -> R + Clone + Send + Sync + 'static,
            R: crate::Outcome<M>,
        {
            self.$router.on_disconnect(f);
            self
        }

        /// Told of every failure that has no caller: failed handlers, malformed frames, refused handshakes and failed re-dials (`None`
        /// as connection). Without it they are logged.
        pub fn on_error<F, R, M>(mut self, f: F) -> Self
        where
            F: FnOnce(Option<crate::Conn>, crate::Error) -> R + Clone + Send + Sync + 'static,
            R: crate::Outcome<M>,
        {
            self.$router.on_error(f);
            self
        }

        /// Wraps every event: logging, authorization, timing. Middleware runs in the order in which it was added; what it returns is the
        /// acknowledgment.
        ///
        /// ```
        /// # use etp_ws::{Conn, Event, Next, Server};
        /// Server::builder().middleware(async |conn: Conn, event: Event, next: Next| {
        ///     let name = event.name().to_owned();
        ///     let outcome = next.run(conn, event).await;
        ///     println!("{name}: {}", if outcome.is_ok() { "ok" } else { "failed" });
        ///     outcome
        /// });
        /// ```
        pub fn middleware<F, Fut>(mut self, f: F) -> Self
        where
            F: FnOnce(crate::Conn, crate::Event, crate::Next) -> Fut + Clone + Send + Sync + 'static,
            Fut: std::future::Future<Output: crate::IntoReply> + Send + 'static,
        {
            self.$router.middleware(f);
            self
        }
    };
}
pub(crate) use handler_setters;
