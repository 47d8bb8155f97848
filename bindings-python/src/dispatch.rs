//! The core's handler trait: each call only queues for the event loop, or answers at once where there is no callback.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use etp_ws::handler::{BoxFuture, ConnectTicket, DisconnectTicket, Handler, Ticket, UpgradeTicket};
use etp_ws::{Accept, Conn, Disconnect, Error, Incoming, Reject, Request};

use crate::queue::{Item, Queue, SiteId};
use crate::routes::Flags;

pub(crate) struct Dispatch {
    pub(crate) queue: Arc<Queue>,
    pub(crate) site: SiteId,
    pub(crate) flags: Arc<Flags>,
}

impl Handler for Dispatch {
    fn upgrade(&self, request: &Request, ticket: UpgradeTicket) -> Option<BoxFuture> {
        if self.queue.is_closed() {
            ticket.reject(Reject::new(503));
        } else if self.flags.upgrade.load(Ordering::Relaxed) {
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
        if self.flags.connect.load(Ordering::Relaxed) {
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
        let reply = ticket.into_reply();
        self.queue.push_event(self.site, &event, reply);
        None
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
