//! Each connection joins one room as soon as it is open.

use anyhow::{Result, ensure};

use crate::dialect::{Dialect, Numbered};
use crate::pool::{Load, Outgoing};
use crate::wire::{self, Request};

pub(crate) struct Joins {
    join: Request,
    reply: Numbered,
    asked: usize,
    joined: usize,
    /// The highest member count that a reply told.
    members: u64,
}

impl Joins {
    pub(crate) fn new(dialect: Dialect, room: &str) -> Self {
        Self {
            join: Request::new(dialect, "join", room, ""),
            reply: dialect.reply("join"),
            asked: 0,
            joined: 0,
            members: 0,
        }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.asked - self.joined
    }

    /// Whether the room has all who joined it: the last of them saw all others.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.members == self.joined as u64,
            "{} joined, and the room has {}",
            self.joined,
            self.members
        );
        Ok(())
    }
}

impl Load for Joins {
    fn opened(&mut self, conn: usize, out: &mut Outgoing) {
        self.asked += 1;
        self.join.append(1, out.queue(conn));
    }

    fn message(&mut self, _conn: usize, message: &[u8], _now: u64) -> Result<()> {
        let (id, members) = wire::reply_number(&self.reply, message)?;
        ensure!(id == 1, "a reply with ack id {id}, which is not in flight there");
        self.members = self.members.max(members);
        self.joined += 1;
        Ok(())
    }
}
