//! Who is connected and who is in which room. One table under one lock, held for look-ups and fan-out only, never across a call to
//! somebody else's code.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use indexmap::IndexMap;

use crate::conn::Conn;

type ById<T> = IndexMap<u128, T, BuildHasherDefault<IdHasher>>;

#[derive(Default)]
pub(crate) struct Rooms(RwLock<Table>);

#[derive(Default)]
struct Table {
    conns: ById<Member>,
    rooms: HashMap<Arc<str>, ById<Conn>>,
}

struct Member {
    conn: Conn,
    rooms: Vec<Arc<str>>,
}

impl Member {
    /// Takes a room off the list, which holds the very name that the table does: no text is compared, however many there are.
    fn forget(&mut self, name: &Arc<str>) {
        if let Some(at) = self.rooms.iter().position(|joined| Arc::ptr_eq(joined, name)) {
            self.rooms.remove(at);
        }
    }
}

/// Connection ids are random and our own: they need no hashing.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half of a random id")]
    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

/// Whom a broadcast reaches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// The union of these rooms; everybody if `None`.
    pub(crate) rooms: Option<Vec<String>>,
    pub(crate) except_rooms: Vec<String>,
    pub(crate) except_conns: Vec<u128>,
}

impl Rooms {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, conn: Conn) {
        let member = Member {
            conn: conn.clone(),
            rooms: Vec::new(),
        };
        self.write().conns.insert(conn.id_bits(), member);
    }

    /// Takes the connection out of everything; it keeps the rooms it was in, from the same moment on. A join after this finds no
    /// member and does nothing.
    pub(crate) fn remove(&self, conn: &Conn) {
        let id = conn.id_bits();
        let mut table = self.write();
        let Some(member) = table.conns.swap_remove(&id) else {
            return;
        };
        for room in &member.rooms {
            table.take_out(room, id);
        }
        table.shrink();
        conn.keep_rooms(member.rooms);
    }

    pub(crate) fn join(&self, conn: &Conn, room: &str) {
        let id = conn.id_bits();
        let mut table = self.write();
        let table = &mut *table;
        let Some(member) = table.conns.get_mut(&id) else {
            return;
        };
        let name = match table.rooms.get_key_value(room) {
            Some((_, members)) if members.contains_key(&id) => return,
            Some((name, _)) => name.clone(),
            None => Arc::from(room),
        };
        if member.rooms.is_empty() {
            member.rooms.reserve_exact(1);
        }
        member.rooms.push(name.clone());
        table.rooms.entry(name).or_default().insert(id, conn.clone());
    }

    pub(crate) fn leave(&self, conn: &Conn, room: &str) {
        let id = conn.id_bits();
        let mut table = self.write();
        let table = &mut *table;
        let (Some(member), Some((name, _))) = (table.conns.get_mut(&id), table.rooms.get_key_value(room)) else {
            return;
        };
        member.forget(name);
        table.take_out(room, id);
    }

    /// Everybody leaves the room.
    pub(crate) fn clear(&self, room: &str) {
        let mut table = self.write();
        let table = &mut *table;
        let Some((name, members)) = table.rooms.remove_entry(room) else {
            return;
        };
        for id in members.keys() {
            if let Some(member) = table.conns.get_mut(id) {
                member.forget(&name);
            }
        }
    }

    /// The rooms of a connection; `None` if it is not (or no more) a member of anything.
    pub(crate) fn of(&self, id: u128) -> Option<Vec<String>> {
        let table = self.read();
        let member = table.conns.get(&id)?;
        Some(member.rooms.iter().map(ToString::to_string).collect())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.read().rooms.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn count(&self, room: &str) -> usize {
        self.read().rooms.get(room).map_or(0, IndexMap::len)
    }

    pub(crate) fn conn(&self, id: u128) -> Option<Conn> {
        self.read().conns.get(&id).map(|member| member.conn.clone())
    }

    pub(crate) fn conns(&self) -> Vec<Conn> {
        let table = self.read();
        table.conns.values().map(|m| m.conn.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.read().conns.len()
    }

    pub(crate) fn select(&self, selection: &Selection) -> Vec<Conn> {
        let mut conns = Vec::new();
        self.each(selection, |conn| conns.push(conn.clone()));
        conns
    }

    /// Calls `f` once for each selected connection, under the read lock: `f` may append to outboxes, not call out.
    pub(crate) fn each(&self, selection: &Selection, mut f: impl FnMut(&Conn)) {
        let table = self.read();
        let excepted = |id: u128| {
            selection.except_conns.contains(&id) || selection.except_rooms.iter().any(|room| in_room(&table, room, id))
        };
        let no_exceptions = selection.except_conns.is_empty() && selection.except_rooms.is_empty();
        let Some(rooms) = &selection.rooms else {
            for (id, member) in &table.conns {
                if no_exceptions || !excepted(*id) {
                    f(&member.conn);
                }
            }
            return;
        };
        let mut seen: HashSet<u128, BuildHasherDefault<IdHasher>> = HashSet::default();
        let several = rooms.len() > 1;
        for members in rooms.iter().filter_map(|room| table.rooms.get(&**room)) {
            for (id, conn) in members {
                if (no_exceptions || !excepted(*id)) && (!several || seen.insert(*id)) {
                    f(conn);
                }
            }
        }
    }
}

fn in_room(table: &Table, room: &str, id: u128) -> bool {
    table.rooms.get(room).is_some_and(|members| members.contains_key(&id))
}

impl Table {
    fn take_out(&mut self, room: &str, id: u128) {
        let Some(members) = self.rooms.get_mut(room) else {
            return;
        };
        members.swap_remove(&id);
        if members.is_empty() {
            self.rooms.remove(room);
        } else if members.capacity() > 64 && members.len() < members.capacity() / 4 {
            members.shrink_to(members.len() * 2);
        }
    }

    /// Gives memory back after many have left.
    fn shrink(&mut self) {
        if self.conns.capacity() > 64 && self.conns.len() < self.conns.capacity() / 4 {
            self.conns.shrink_to(self.conns.len() * 2);
        }
        if self.rooms.capacity() > 64 && self.rooms.len() < self.rooms.capacity() / 4 {
            self.rooms.shrink_to(self.rooms.len() * 2);
        }
    }
}
