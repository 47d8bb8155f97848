//! The tickets of events that JavaScript has: small ones, beside the connection that those which came one after the other share.

use std::sync::Arc;

use etp_ws::Conn;
use etp_ws::handler::{Detached, Reply};
use slab::Slab;

use crate::dispatch::Routes;
use crate::queue::SiteId;

/// What the tickets of events that followed each other on a connection have in common; it goes with the last of them.
struct Owner {
    conn: Conn,
    site: SiteId,
    routes: Arc<Routes>,
    /// Its tickets, and one more for the run that is still in the batch.
    waiting: usize,
}

enum Ticket {
    /// With the handler's number, which is its event's.
    Of(usize, i32, Detached),
    /// Of an event without a handler, with its name.
    Unknown(usize, Box<str>, Detached),
    /// A shutdown gave it up: its handler may still come.
    GivenUp,
}

/// What a number stood for.
pub(crate) enum Taken {
    /// One to end together with others of this owner: [`Tickets::ended`] has to be told.
    Of(usize, i32, Detached),
    Whole(Reply),
}

/// By number, as JavaScript has them.
#[derive(Default)]
pub(crate) struct Tickets {
    tickets: Slab<Ticket>,
    owners: Slab<Owner>,
}

impl Tickets {
    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// A new owner, for a run of events. It stays until [`ended`](Self::ended) was told of the run itself as well.
    pub(crate) fn own(&mut self, conn: Conn, site: SiteId, routes: Arc<Routes>) -> usize {
        self.owners.insert(Owner {
            conn,
            site,
            routes,
            waiting: 1,
        })
    }

    /// Keeps a ticket; answers its number.
    pub(crate) fn add(&mut self, owner: usize, handler: i32, detached: Detached) -> usize {
        self.waits(owner);
        self.tickets.insert(Ticket::Of(owner, handler, detached))
    }

    /// As [`add`](Self::add), of an event that has no handler.
    pub(crate) fn add_unknown(&mut self, owner: usize, name: Box<str>, detached: Detached) -> usize {
        self.waits(owner);
        self.tickets.insert(Ticket::Unknown(owner, name, detached))
    }

    fn waits(&mut self, owner: usize) {
        if let Some(owner) = self.owners.get_mut(owner) {
            owner.waiting += 1;
        }
    }

    /// Takes a ticket; nothing if there is none of that number, or if it was given up.
    pub(crate) fn take(&mut self, number: usize) -> Option<Taken> {
        match self.tickets.try_remove(number)? {
            Ticket::Of(owner, handler, detached) => Some(Taken::Of(owner, handler, detached)),
            other => self.whole(other).map(Taken::Whole),
        }
    }

    /// Takes a ticket to end it by itself.
    pub(crate) fn take_whole(&mut self, number: usize) -> Option<Reply> {
        let ticket = self.tickets.try_remove(number)?;
        self.whole(ticket)
    }

    fn whole(&mut self, ticket: Ticket) -> Option<Reply> {
        let (owner, reply) = match ticket {
            Ticket::Of(owner, handler, detached) => {
                let found = self.owners.get(owner)?;
                (owner, found.conn.reply(&found.routes.name(handler), detached))
            }
            Ticket::Unknown(owner, name, detached) => (owner, self.owners.get(owner)?.conn.reply(&name, detached)),
            Ticket::GivenUp => return None,
        };
        // The reply has a handle of the connection: this is not the last.
        drop(self.ended(owner, 1));
        Some(reply)
    }

    /// The connection of an owner, and the names of its handlers.
    pub(crate) fn owner(&self, owner: usize) -> Option<(Conn, Arc<Routes>)> {
        let owner = self.owners.get(owner)?;
        Some((owner.conn.clone(), owner.routes.clone()))
    }

    /// So many tickets of an owner are no more. What it answers may be the last handle of a connection: drop it where nothing is borrowed.
    pub(crate) fn ended(&mut self, owner: usize, count: usize) -> Option<Conn> {
        let found = self.owners.get_mut(owner)?;
        found.waiting = found.waiting.saturating_sub(count);
        (found.waiting == 0).then(|| self.owners.remove(owner).conn)
    }

    /// Takes the tickets that a shutdown of this site does not wait for any more. They report it when they are dropped.
    pub(crate) fn give_up(&mut self, site: SiteId) -> Vec<Reply> {
        let mut given_up = Vec::new();
        for (_, place) in &mut self.tickets {
            let (Ticket::Of(owner, ..) | Ticket::Unknown(owner, ..)) = place else {
                continue;
            };
            if self.owners.get(*owner).is_some_and(|owner| owner.site == site) {
                given_up.push(std::mem::replace(place, Ticket::GivenUp));
            }
        }
        given_up.into_iter().filter_map(|ticket| self.whole(ticket)).collect()
    }
}

impl Drop for Tickets {
    /// What JavaScript has yet to end it never will.
    fn drop(&mut self) {
        for ticket in self.tickets.drain() {
            if let Ticket::Of(owner, _, detached) | Ticket::Unknown(owner, _, detached) = ticket
                && let Some(owner) = self.owners.get(owner)
            {
                owner.conn.let_go(detached);
            }
        }
    }
}
