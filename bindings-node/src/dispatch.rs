//! The core's handler trait: each call only queues for JavaScript, or answers at once where there is no callback.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use etp_ws::handler::{BoxFuture, ConnectTicket, DisconnectTicket, Handler, Names, Ticket, UpgradeTicket};
use etp_ws::{Accept, Conn, Disconnect, Error, Incoming, Reject, Request};

use crate::queue::{Item, Queue, SiteId};

/// In the `slot` of a connection: somebody waits for the beginning of its end.
pub(crate) const WATCHED: u64 = 1 << 63;
/// In the `slot` of a connection: JavaScript knows it no more.
pub(crate) const GONE: u64 = 1 << 62;

/// What the core's thread must know of the callbacks and handlers of one server or client.
#[derive(Default)]
pub(crate) struct Routes {
    pub(crate) upgrade: AtomicBool,
    pub(crate) connect: AtomicBool,
    /// Ends are for JavaScript also of connections that it has not met.
    pub(crate) disconnect: AtomicBool,
    handlers: RwLock<Names<i32>>,
    /// The names by number, also of handlers that were taken off: their events may be on the way.
    names: RwLock<Vec<Arc<str>>>,
    /// A copy of them that is read without a lock, made with the first event: most servers have all handlers by then.
    first: OnceLock<Names<i32>>,
    /// The copy is being made, or was.
    copied: AtomicBool,
    /// They have changed since.
    changed: AtomicBool,
}

impl Routes {
    pub(crate) fn set(&self, name: &str, handler: i32) {
        if let Ok(at) = usize::try_from(handler) {
            let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
            if names.len() <= at {
                names.resize(at + 1, Arc::default());
            }
            names[at] = name.into();
        }
        let mut handlers = self.handlers.write().unwrap_or_else(PoisonError::into_inner);
        handlers.insert(name, handler);
        self.note();
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut handlers = self.handlers.write().unwrap_or_else(PoisonError::into_inner);
        handlers.remove(name);
        self.note();
    }

    /// The names by number.
    pub(crate) fn names(&self) -> RwLockReadGuard<'_, Vec<Arc<str>>> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name that a handler is for.
    pub(crate) fn name(&self, handler: i32) -> Arc<str> {
        let name = usize::try_from(handler)
            .ok()
            .and_then(|at| self.names().get(at).cloned());
        name.unwrap_or_default()
    }

    /// Under the lock for writing: whoever copies either sees the change, or has said before that it copies.
    fn note(&self) {
        if self.copied.load(Ordering::SeqCst) {
            self.changed.store(true, Ordering::SeqCst);
        }
    }

    fn find(&self, name: &str) -> Option<i32> {
        if !self.changed.load(Ordering::SeqCst) {
            let handlers = self.first.get_or_init(|| {
                self.copied.store(true, Ordering::SeqCst);
                self.handlers.read().unwrap_or_else(PoisonError::into_inner).clone()
            });
            return handlers.get(name).copied();
        }
        let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
        handlers.get(name).copied()
    }
}

pub(crate) struct Dispatch {
    pub(crate) queue: Arc<Queue>,
    pub(crate) site: SiteId,
    pub(crate) routes: Arc<Routes>,
}

impl Handler for Dispatch {
    fn upgrade(&self, request: &Request, ticket: UpgradeTicket) -> Option<BoxFuture> {
        if self.queue.is_closed() {
            ticket.reject(Reject::new(503));
        } else if self.routes.upgrade.load(Ordering::Relaxed) {
            self.queue.push(Item::Upgrade {
                site: self.site,
                request: request.clone(),
                ticket,
            });
        } else {
            ticket.accept(Accept::new());
        }
        None
    }

    fn connect(&self, conn: &Conn, ticket: ConnectTicket) -> Option<BoxFuture> {
        if self.routes.connect.load(Ordering::Relaxed) {
            self.queue.push(Item::Connect {
                site: self.site,
                conn: conn.clone(),
                ticket,
            });
        } else {
            ticket.complete();
        }
        None
    }

    fn event(&self, _: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        match self.routes.find(event.name()) {
            Some(handler) => self.queue.push_event(self.site, handler, &event, ticket),
            // Also where nobody will handle it: until JavaScript has said so it counts as a handler in flight, which bounds them.
            None => self.queue.push_event(self.site, -1, &event, ticket),
        }
        None
    }

    fn closing(&self, conn: &Conn) {
        if conn.slot() & WATCHED != 0 {
            self.queue.push(Item::Closing(conn.clone()));
        }
    }

    fn disconnect(&self, conn: &Conn, disconnect: Disconnect, ticket: DisconnectTicket) -> Option<BoxFuture> {
        self.queue.push(Item::Disconnect {
            site: self.site,
            conn: conn.clone(),
            disconnect,
            ticket,
        });
        None
    }

    fn abandon(&self) {
        self.queue.push(Item::Abandon(self.site));
    }

    fn error(&self, conn: Option<&Conn>, error: Error) -> Option<BoxFuture> {
        self.queue.push(Item::Error {
            site: self.site,
            conn: conn.cloned(),
            error,
        });
        None
    }
}
