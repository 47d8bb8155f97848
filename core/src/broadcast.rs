//! A message to many: whom it reaches, and sending it.

use std::sync::Arc;

use crate::conn::{Conn, ConnId, check_name, too_large};
use crate::error::Error;
use crate::hub::Hub;
use crate::net::outbox::{Encoded, Heading};
use crate::net::wire;
use crate::payload::{IntoPayload, Payload};
use crate::rooms::Selection;

/// A broadcast in the making: `server.to(["a", "b"]).except(&conn).emit("say", "hi")`.
///
/// Rooms are a union: a connection in several of them gets the message once.
#[derive(Clone)]
#[must_use = "nothing is sent before `emit`"]
pub struct Broadcast {
    hub: Arc<Hub>,
    selection: Selection,
}

impl Broadcast {
    pub(crate) fn all(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            selection: Selection::default(),
        }
    }

    pub(crate) fn to(hub: Arc<Hub>, rooms: impl IntoRooms) -> Self {
        let mut broadcast = Self::all(hub);
        broadcast.selection.rooms = Some(rooms.into_rooms());
        broadcast
    }

    /// Leaves out connections (`&conn`, an id) or the members of rooms (`"room"`).
    pub fn except(mut self, whom: impl IntoExcept) -> Self {
        whom.add_to(&mut self);
        self
    }

    /// Sends to every connection that is selected at this moment. The message is encoded once.
    ///
    /// # Errors
    /// `invalid_event`, `invalid_payload`, `message_too_large`; nothing is sent then. A single slow connection is no error: it is
    /// closed with 1013 once its outbox passes its limits.
    pub fn emit(&self, name: &str, payload: impl IntoPayload) -> Result<Reached, Error> {
        check_name(name)?;
        let payload = payload.into_payload()?;
        let heading = Heading::Event { name, ack_id: 0 };
        let len = heading.frame_len(payload.bytes.len());
        let most = self.hub.limits.max_message_size;
        if len > most {
            return Err(too_large(heading, len, most));
        }
        if self.hub.limits.wire_log {
            self.conns()
                .iter()
                .for_each(|conn| wire::sent(conn, heading, &payload.bytes));
        }
        let encoded = Encoded::event(name, &payload.bytes, payload.text);
        Ok(Reached(self.hub.broadcast(&self.selection, &encoded)))
    }

    /// The connections that it would reach now.
    pub fn conns(&self) -> Vec<Conn> {
        self.hub.rooms.select(&self.selection)
    }
}

impl std::fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.selection.fmt(f)
    }
}

/// How many connections a broadcast was queued for. As a handler's return value it is an empty reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached(usize);

impl Reached {
    /// The number of connections.
    pub fn count(self) -> usize {
        self.0
    }
}

impl IntoPayload for Reached {
    fn into_payload(self) -> Result<Payload, Error> {
        Ok(Payload::empty())
    }
}

/// One room or several.
pub trait IntoRooms {
    /// The rooms' names.
    fn into_rooms(self) -> Vec<String>;
}

impl IntoRooms for &str {
    fn into_rooms(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl IntoRooms for String {
    fn into_rooms(self) -> Vec<String> {
        vec![self]
    }
}

impl IntoRooms for &String {
    fn into_rooms(self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl<T: AsRef<str>> IntoRooms for Vec<T> {
    fn into_rooms(self) -> Vec<String> {
        self.iter().map(|room| room.as_ref().to_owned()).collect()
    }
}

impl<T: AsRef<str>> IntoRooms for &[T] {
    fn into_rooms(self) -> Vec<String> {
        self.iter().map(|room| room.as_ref().to_owned()).collect()
    }
}

impl<T: AsRef<str>, const N: usize> IntoRooms for [T; N] {
    fn into_rooms(self) -> Vec<String> {
        self.as_slice().into_rooms()
    }
}

/// Connections or rooms that a broadcast leaves out.
pub trait IntoExcept: sealed::Sealed {
    #[doc(hidden)]
    fn add_to(self, broadcast: &mut Broadcast);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for &crate::conn::Conn {}
    impl Sealed for crate::conn::ConnId {}
    impl Sealed for &[crate::conn::Conn] {}
    impl Sealed for &str {}
    impl Sealed for &String {}
    impl Sealed for String {}
    impl<T: AsRef<str>, const N: usize> Sealed for [T; N] {}
}

impl IntoExcept for &Conn {
    fn add_to(self, broadcast: &mut Broadcast) {
        broadcast.selection.except_conns.push(self.id_bits());
    }
}

impl IntoExcept for &[Conn] {
    fn add_to(self, broadcast: &mut Broadcast) {
        let ids = self.iter().map(Conn::id_bits);
        broadcast.selection.except_conns.extend(ids);
    }
}

impl IntoExcept for ConnId {
    fn add_to(self, broadcast: &mut Broadcast) {
        broadcast.selection.except_conns.push(self.0);
    }
}

impl IntoExcept for &str {
    fn add_to(self, broadcast: &mut Broadcast) {
        broadcast.selection.except_rooms.push(self.to_owned());
    }
}

impl IntoExcept for &String {
    fn add_to(self, broadcast: &mut Broadcast) {
        self.as_str().add_to(broadcast);
    }
}

impl IntoExcept for String {
    fn add_to(self, broadcast: &mut Broadcast) {
        broadcast.selection.except_rooms.push(self);
    }
}

impl<T: AsRef<str>, const N: usize> IntoExcept for [T; N] {
    fn add_to(self, broadcast: &mut Broadcast) {
        for room in &self {
            room.as_ref().add_to(broadcast);
        }
    }
}
