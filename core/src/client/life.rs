//! A client's life: dialling, the connection of the moment, coming back, and what waits meanwhile.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::conn::{By, Conn, check_name, panicked, too_large};
use crate::disconnect::Disconnect;
use crate::error::{BoxError, Error, ErrorKind};
use crate::handler::Waiter;
use crate::hub::{Hub, Owner};
use crate::net::dial::{Dial, Failed, Target};
use crate::net::link::Link;
use crate::net::outbox::Heading;
use crate::net::stream::Stream;
use crate::net::transport::Transport;
use crate::payload::Payload;
use crate::protocol::queue::{Queue, QueueId};
use crate::protocol::reconnect::{Backoff, Redial, should_reconnect};
use crate::websocket::Role;

use super::State;
use super::builder::Config;

/// The longest wait that a server's Retry-After may ask for: a slip of its must not keep a client away for good.
const LONGEST_RETRY: std::time::Duration = std::time::Duration::from_secs(3600);

pub(super) struct Inner {
    pub(super) hub: Arc<Hub>,
    pub(super) config: Config,
    pub(super) live: Mutex<Live>,
    pub(super) state: watch::Sender<State>,
    /// The application has closed the client.
    pub(super) closing: CancellationToken,
    /// Something was queued: its deadline may be the next.
    pub(super) queued: Notify,
}

/// The connection of the moment and what waits for the next.
pub(super) struct Live {
    pub(super) conn: Option<Conn>,
    /// Emits go to the queue: the client is away, or the queue is not sent yet.
    pub(super) away: bool,
    pub(super) queue: Queue<Payload, Waiter<Payload>>,
    /// Code and reason of the last connection's end.
    pub(super) last: Option<(u16, String)>,
    /// Queued acknowledgments that have left the queue, until their callers are done; `None` while one is being sent.
    pub(super) sent: HashMap<QueueId, Option<(Conn, u64)>>,
}

impl Live {
    /// The connection that emits go to, unless they have to wait in the queue.
    pub(super) fn open_conn(&self, queue: usize) -> Option<Conn> {
        if self.away && queue > 0 {
            return None;
        }
        self.conn.clone()
    }

    /// That connection takes nothing any more: what comes now waits for the next, unless the next is there already.
    pub(super) fn lost(&mut self, conn: &Conn) {
        if self.conn.as_ref().is_none_or(|now| now == conn) {
            self.away = true;
        }
    }

    pub(super) fn closed(&self) -> Error {
        Error::closed(self.last.as_ref().map(|(code, reason)| (*code, reason.as_str())))
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check(&self, name: &str, payload: &Payload) -> Result<(), Error> {
        check_name(name)?;
        // With an acknowledgment's id the frame is longer: the connection decides about those last bytes.
        let heading = Heading::Event { name, ack_id: 0 };
        let len = heading.frame_len(payload.bytes.len());
        let most = self.hub.limits.max_message_size;
        if len > most {
            return Err(too_large(heading, len, most));
        }
        Ok(())
    }

    /// Whether an event that its connection did not take may wait for the next one.
    pub(super) fn may_queue(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::ConnectionClosed && self.config.queue > 0
    }

    pub(super) fn check_queue(&self, live: &Live) -> Result<(), Error> {
        if self.config.queue == 0 || self.closing.is_cancelled() || *self.state.borrow() == State::Closed {
            return Err(live.closed());
        }
        Ok(())
    }

    pub(super) fn queue_full(&self) -> Error {
        Error::new(
            ErrorKind::OutboxFull,
            format!(
                "{} events wait already while the client is away (queue)",
                self.config.queue
            ),
        )
    }

    pub(super) fn emit(&self, name: &str, payload: Payload) -> Result<(), Error> {
        self.check(name, &payload)?;
        let mut live = self.lock();
        while let Some(conn) = live.open_conn(self.config.queue) {
            drop(live);
            match conn.push_event(name, &payload.bytes, payload.text) {
                Err(error) if self.may_queue(&error) => {}
                outcome => return outcome,
            }
            live = self.lock();
            live.lost(&conn);
        }
        self.check_queue(&live)?;
        live.queue
            .push(name, payload, None)
            .map(drop)
            .map_err(|_| self.queue_full())
    }

    pub(super) fn close(&self, code: u16, reason: &str) {
        self.closing.cancel();
        let conn = self.lock().conn.clone();
        match conn {
            Some(conn) => conn.begin_close(code, reason, By::User),
            None if *self.state.borrow() == State::Connecting => self.close_for_good(),
            None => {}
        }
    }

    /// The end: whatever still waits is told.
    pub(super) fn close_for_good(&self) {
        let mut lost = Vec::new();
        let mut live = self.lock();
        live.conn = None;
        live.away = true;
        live.queue.close(|waiter| lost.push(waiter));
        let error = live.closed();
        drop(live);
        self.state.send_replace(State::Closed);
        for waiter in lost {
            waiter.done(Err(error.clone()));
        }
    }

    pub(super) fn begin_link<T: Transport>(&self, runtime: &Handle, conn: &Conn, transport: T) -> JoinHandle<()> {
        {
            let mut live = self.lock();
            live.conn = Some(conn.clone());
            live.away = true;
        }
        self.hub.register(conn);
        let link = runtime.spawn(Link::new(conn.clone(), transport, None));
        if self.closing.is_cancelled() {
            conn.begin_close(1000, "", By::User);
        }
        link
    }

    /// One attempt.
    pub(super) async fn dial(&self) -> Result<(Conn, JoinHandle<()>), Failed> {
        let runtime = self.hub.runtime()?.clone();
        let failed =
            |what: &str, error: BoxError| Error::new(ErrorKind::ConnectFailed, what.to_owned()).with_source(error);
        let mut shown = String::new();
        let attempt = async {
            let url = (self.config.url)()
                .await
                .map_err(|error| failed("the function for the URL failed", error))?;
            let target = Target::parse(&url)?;
            shown = format!("dialling {}: ", target.shown());
            let token = match &self.config.auth {
                Some(auth) => Some(
                    auth()
                        .await
                        .map_err(|error| failed("the function of auth failed", error))?,
                ),
                None => None,
            };
            let dial = Dial {
                target: &target,
                headers: &self.config.headers,
                token,
                #[cfg(feature = "tls")]
                tls: &self.config.tls,
            };
            dial.dial().await
        };
        let attempt = async { tokio::time::timeout(self.config.dial_timeout, attempt).await };
        let dialled = match self.hub.within(attempt).await? {
            Ok(dialled) => dialled?,
            Err(_) => {
                let what = format!(
                    "{shown}no connection within dial_timeout ({:?})",
                    self.config.dial_timeout
                );
                return Err(Error::new(ErrorKind::ConnectFailed, what).into());
            }
        };
        let conn = Conn::new(self.hub.clone(), dialled.request, http::Extensions::new(), true);
        let transport = Stream::new(dialled.io, Role::Client, &self.hub.limits, &dialled.leftover);
        let link = self.begin_link(&runtime, &conn, transport);
        Ok((conn, link))
    }

    /// Lives with a connection to its end, and with the next.
    pub(super) async fn live_on(self: Arc<Self>, conn: Conn, link: JoinHandle<()>) {
        let reconnect = self.config.reconnect.unwrap_or_default();
        let mut backoff = Backoff::new(reconnect.base, reconnect.cap, reconnect.reset_after);
        let (mut conn, mut link) = (conn, link);
        loop {
            let began = Instant::now();
            // A link that panicked has ended its connection while it was dropped.
            tokio::select! {
                _ = link => {}
                never = self.keep_queue() => match never {},
            }
            backoff.alive(began.elapsed());
            let end = conn.inner().lock().ended.clone();
            let again = end.as_ref().is_some_and(|end| end.will_reconnect);
            self.lock().last = end.map(|end| (end.code, end.reason));
            if !again || self.closing.is_cancelled() {
                return self.close_for_good();
            }
            {
                let mut live = self.lock();
                live.conn = None;
                live.away = true;
            }
            self.state.send_replace(State::Reconnecting);
            match self.come_back(&mut backoff).await {
                Some(next) => (conn, link) = next,
                None => return self.close_for_good(),
            }
        }
    }

    /// Dials until there is a connection, or no hope.
    pub(super) async fn come_back(&self, backoff: &mut Backoff) -> Option<(Conn, JoinHandle<()>)> {
        loop {
            let delay = backoff.next_delay(rand::random());
            let attempt = async {
                tokio::time::sleep(delay).await;
                self.dial().await
            };
            let failed = tokio::select! {
                () = self.closing.cancelled() => return None,
                never = self.keep_queue() => match never {},
                outcome = attempt => match outcome {
                    Ok(next) => return Some(next),
                    Err(failed) => failed,
                },
            };
            let redial = Redial::after(failed.status);
            self.hub.report(None, failed.error);
            match redial {
                Redial::Rejected => return None,
                Redial::Busy => backoff.retry_after(failed.retry_after.unwrap_or_default().min(LONGEST_RETRY)),
                Redial::BackOff => {}
            }
        }
    }

    /// Ends queued acknowledgments at their deadlines, for as long as it is polled.
    pub(super) async fn keep_queue(&self) -> std::convert::Infallible {
        loop {
            let mut late = Vec::new();
            let next = {
                let mut live = self.lock();
                live.queue.expire(self.hub.now(), |waiter| late.push(waiter));
                live.queue.deadline()
            };
            for waiter in late {
                waiter.done(Err(Error::new(
                    ErrorKind::AckTimeout,
                    "no reply by the deadline: the client was away",
                )));
            }
            match next {
                Some(at) => {
                    let _ = tokio::time::timeout_at(self.hub.instant(at), self.queued.notified()).await;
                }
                None => self.queued.notified().await,
            }
        }
    }
}

impl Owner for Inner {
    fn opened(&self, conn: &Conn) -> bool {
        let limits = &self.hub.limits;
        loop {
            let mut late = Vec::new();
            let mut live = self.lock();
            live.queue.expire(self.hub.now(), |waiter| late.push(waiter));
            // One that ends takes nothing more: what still waits is for the next.
            let ending = !conn.is_open();
            let room = !ending && conn.room() >= limits.max_message_size + 64;
            let next = if room { live.queue.pop() } else { None };
            if let Some(queued) = next.as_ref().filter(|queued| queued.ack.is_some()) {
                live.sent.insert(queued.id, None);
            }
            let waits = next.is_none() && !live.queue.is_empty();
            let more = waits && !ending;
            let done = next.is_none() && !waits;
            if done {
                live.away = false;
            }
            drop(live);
            for waiter in late {
                waiter.done(Err(Error::new(
                    ErrorKind::AckTimeout,
                    "no reply by the deadline: the client was away",
                )));
            }
            let Some(queued) = next else {
                if done {
                    self.state.send_replace(State::Connected);
                }
                return more;
            };
            let payload = &queued.payload;
            match queued.ack {
                None => {
                    if let Err(error) = conn.push_event(&queued.name, &payload.bytes, payload.text) {
                        conn.report(error);
                    }
                }
                Some((waiter, deadline)) => {
                    match conn.push_acked_until(&queued.name, &payload.bytes, payload.text, deadline, waiter) {
                        Ok(ack_id) => {
                            let mut live = self.lock();
                            let waits = live.sent.get_mut(&queued.id);
                            let given_up = waits.map(|sent| *sent = Some((conn.clone(), ack_id))).is_none();
                            drop(live);
                            if given_up {
                                conn.forget_ack(ack_id);
                            }
                        }
                        Err((error, waiter)) => waiter.done(Err(error)),
                    }
                }
            }
        }
    }

    fn will_reconnect(&self, disconnect: &Disconnect) -> bool {
        if self.config.reconnect.is_none() || self.closing.is_cancelled() || *self.state.borrow() == State::Connecting {
            return false;
        }
        let usual = || should_reconnect(disconnect.code, &disconnect.reason, false);
        match &self.config.should_reconnect {
            // It is called while the connection ends, where a panic would abort the process.
            Some(f) => catch_unwind(AssertUnwindSafe(|| f(disconnect))).unwrap_or_else(|panic| {
                self.hub.report(None, panicked("should_reconnect", &*panic));
                usual()
            }),
            None => usual(),
        }
    }
}
