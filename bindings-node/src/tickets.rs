//! The tickets of events that JavaScript has: small ones, beside the connection that those which came one after the other share.

use std::sync::Arc;

use etp_ws::Conn;
use etp_ws::handler::{Detached, Reply};
use rustc_hash::FxHashMap;
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

/// Places that are kept for the next batch.
const KEPT: usize = 16 * 1024;

/// Instead of an owner: the number is free.
const FREE: u32 = u32::MAX;
/// Instead of an owner: a shutdown gave the ticket up, and its handler may still come.
const GIVEN_UP: u32 = u32::MAX - 1;

/// What a number stands for.
struct Place {
    owner: u32,
    /// The handler's number, which is its event's; -1 if there is none.
    handler: i32,
    /// Nothing where there is no owner.
    ticket: Option<Detached>,
}

/// By number, as JavaScript has them. (No slab: that one moves a ticket through memory once more, for which a processor waits.)
#[derive(Default)]
pub(crate) struct Tickets {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Names of events that have no handler.
    names: FxHashMap<u32, Box<str>>,
    owners: Slab<Owner>,
}

impl Tickets {
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
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

    /// Keeps a ticket; answers its number. An event that has no handler has a name.
    pub(crate) fn add(&mut self, owner: usize, handler: i32, name: Option<&str>, ticket: Detached) -> u32 {
        if let Some(owner) = self.owners.get_mut(owner) {
            owner.waiting += 1;
        }
        let owner = u32::try_from(owner).unwrap_or(FREE);
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.places.push(Place {
                    owner,
                    handler,
                    ticket: None,
                });
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.places.get_mut(number as usize) {
            place.owner = owner;
            place.handler = handler;
            place.ticket = Some(ticket);
        }
        if let Some(name) = name {
            self.names.insert(number, name.into());
        }
        number
    }

    /// The owner of a ticket whose event has a handler.
    pub(crate) fn owner_of(&self, number: u32) -> Option<usize> {
        let place = self.places.get(number as usize)?;
        (place.ticket.is_some() && place.handler >= 0).then_some(place.owner as usize)
    }

    /// Takes a ticket of this owner whose event has a handler, to end it together with others: [`ended`](Self::ended) has to be told.
    #[inline]
    pub(crate) fn take_of(&mut self, owner: usize, number: u32) -> Option<(i32, Detached)> {
        let place = self.places.get_mut(number as usize)?;
        if place.owner as usize != owner || place.handler < 0 {
            return None;
        }
        let ticket = place.ticket.take()?;
        place.owner = FREE;
        self.free.push(number);
        Some((place.handler, ticket))
    }

    /// Takes a ticket to end it by itself; nothing if there is none of that number, or if it was given up.
    pub(crate) fn take(&mut self, number: u32) -> Option<Reply> {
        let place = self.places.get_mut(number as usize)?;
        let owner = std::mem::replace(&mut place.owner, FREE);
        if owner == FREE {
            return None;
        }
        let (owner, handler, ticket) = (owner as usize, place.handler, place.ticket.take());
        let name = self.names.remove(&number);
        self.free.push(number);
        let found = self.owners.get(owner)?;
        let reply = match name {
            Some(name) => ticket?.into_reply(&found.conn, &name),
            None => ticket?.into_reply(&found.conn, &found.routes.name(handler)),
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

    /// Lets go of the tickets that a shutdown of this site does not wait for any more; their numbers are free when their handlers have come.
    /// What it answers may be the last handles of connections: drop them where nothing is borrowed.
    pub(crate) fn give_up(&mut self, site: SiteId) -> Vec<Conn> {
        let mut last = Vec::new();
        for at in 0..self.places.len() {
            let Some(place) = self.places.get_mut(at) else { break };
            let owner = place.owner as usize;
            let Some(found) = self.owners.get(owner).filter(|owner| owner.site == site) else {
                continue;
            };
            if let Some(ticket) = place.ticket.take() {
                ticket.let_go(&found.conn);
                place.owner = GIVEN_UP;
                last.extend(self.ended(owner, 1));
            }
        }
        last
    }

    /// Gives back what a burst has left, when no number is in use.
    pub(crate) fn trim(&mut self) {
        if self.places.capacity() > KEPT && self.len() == 0 {
            *self = Self::default();
        }
    }
}

impl Drop for Tickets {
    /// What JavaScript has yet to end it never will.
    fn drop(&mut self) {
        for place in &mut self.places {
            if let Some(ticket) = place.ticket.take()
                && let Some(owner) = self.owners.get(place.owner as usize)
            {
                ticket.let_go(&owner.conn);
            }
        }
    }
}
