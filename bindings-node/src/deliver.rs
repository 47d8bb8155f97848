//! Items of the queue as numbers and values for JavaScript: `drain` fills an `Int32Array` with records of four numbers, and answers an
//! array with the values that belong to them, in the same order. `lib/environment.js` reads them.

use std::ptr;

use etp_ws::handler::is_text;
use etp_ws::{Conn, Error, ErrorKind, Payload};
use napi::bindgen_prelude::{Int32ArraySlice, JsValue, Uint8ArraySlice, Unknown};
use napi::{Env, check_status, sys};
use napi_derive::napi;

use crate::dispatch::GONE;
use crate::error::Failure;
use crate::kept::Data;
use crate::pump::{Pump, State, slot_of};
use crate::queue::{Batch, Event, Item, Run, Value};
use crate::server::Attached;
use crate::{request, text};

/// Numbers before the records: how many records there are, what remains, how many connections are met; and one to spare.
const HEAD: usize = 4;
/// Payloads up to this size lie in the chunk, where they are wanted as bytes; larger ones get a buffer of their own.
const SMALL: usize = 1024;
/// Numbers of a record.
const RECORD: usize = 4;
/// Bytes of payloads in one batch; more wait for the next, so that others get their turn.
const BUDGET: usize = 64 * 1024;

/// Connections that were not known come from the array's end backwards: slot, site, generation, the number of the data or -1. JavaScript
/// looks at them before anything else, since any handler may be told of them.
///
/// What a record says. The handler's number, 0 and up, is an event: its slot, its ticket, the length of its payload where that lies in
/// the chunk, else -1.
mod kind {
    // -1, an event without a handler: slot, ticket, length; its name.
    /// A handshake: site, ticket; the request, and the number of its `IncomingMessage` or -1.
    pub(super) const UPGRADE: i32 = -3;
    /// slot, ticket.
    pub(super) const CONNECT: i32 = -4;
    /// slot or -1, ticket, site, whether it was attached; code, reason, clean, normal, will reconnect, id, rooms.
    pub(super) const DISCONNECT: i32 = -5;
    /// slot.
    pub(super) const CLOSING: i32 = -6;
    /// slot or -1, site; the error, and of a connection that is known no more its id and request, else undefined twice.
    pub(super) const ERROR: i32 = -7;
    /// site, question, what.
    pub(super) const ASK: i32 = -8;
    /// promise, whether it is an error; the payload or error.
    pub(super) const ACKED: i32 = -9;
    /// promise, whether it is an error; the value or error.
    pub(super) const SETTLED: i32 = -10;
    /// bridge; the bytes.
    pub(super) const BRIDGED: i32 = -11;
    /// bridge.
    pub(super) const RESUME: i32 = -12;
    /// bridge.
    pub(super) const ENDED: i32 = -13;
    /// number of a kept value.
    pub(super) const FORGET: i32 = -14;
    /// site.
    pub(super) const DETACH: i32 = -15;
}

/// Added to the ticket of an event that asks for no acknowledgment: what its handler returns is nobody's.
const UNWANTED: i32 = 1 << 30;

/// What is left when a batch has ended.
mod left {
    pub(super) const NOTHING: i32 = 0;
    /// Others first.
    pub(super) const MORE: i32 = 1;
    /// More at once: the chunk was full, or only the rest of a batch was taken.
    pub(super) const AGAIN: i32 = 2;
}

/// The records and values of one batch.
struct Page<'a> {
    env: Env,
    ints: &'a mut [i32],
    at: usize,
    /// Where the connections that are met begin.
    met: usize,
    values: sys::napi_value,
    len: u32,
    chunk: &'a mut [u8],
    used: usize,
}

/// Where a page was before something was put on it.
#[derive(Clone, Copy)]
struct Mark {
    at: usize,
    len: u32,
    used: usize,
}

impl Page<'_> {
    fn mark(&self) -> Mark {
        Mark {
            at: self.at,
            len: self.len,
            used: self.used,
        }
    }

    /// Takes back what was put on it since, as it could not be said in full, and the exception that came of that, if any.
    fn back_to(&mut self, mark: Mark) {
        (self.at, self.len, self.used) = (mark.at, mark.len, mark.used);
        let mut thrown = ptr::null_mut();
        // SAFETY: the environment is that of this call. If nothing was thrown this answers undefined.
        #[expect(unsafe_code, reason = "the Node API as it is")]
        unsafe {
            sys::napi_get_and_clear_last_exception(self.env.raw(), &raw mut thrown);
        }
    }

    /// Whether a record, and a connection that is met by the way, have room.
    fn has_room(&self) -> bool {
        self.at + 2 * RECORD <= self.met
    }

    fn record(&mut self, record: [i32; RECORD]) {
        if let Some(place) = self.ints.get_mut(self.at..self.at + RECORD) {
            place.copy_from_slice(&record);
            self.at += RECORD;
        }
    }

    fn value(&mut self, value: sys::napi_value) -> napi::Result<()> {
        // SAFETY: both values are of this call.
        #[expect(unsafe_code, reason = "the Node API as it is: this is on the path of each event")]
        check_status!(unsafe { sys::napi_set_element(self.env.raw(), self.values, self.len, value) })?;
        self.len += 1;
        Ok(())
    }

    fn text(&mut self, value: &str) -> napi::Result<()> {
        // SAFETY: the environment is that of this call.
        #[expect(unsafe_code, reason = "the Node API as it is")]
        let value = unsafe { text::write(self.env.raw(), value.as_bytes()) }?;
        self.value(value)
    }

    fn buffer(&mut self, bytes: &[u8]) -> napi::Result<()> {
        // SAFETY: the environment is that of this call.
        #[expect(unsafe_code, reason = "the Node API as it is")]
        let value = unsafe { text::write_buffer(self.env.raw(), bytes) }?;
        self.value(value)
    }

    fn number(&mut self, number: f64) -> napi::Result<()> {
        let value = self.env.create_double(number)?.raw();
        self.value(value)
    }

    fn bool(&mut self, value: bool) -> napi::Result<()> {
        self.number(if value { 1.0 } else { 0.0 })
    }

    fn undefined(&mut self) -> napi::Result<()> {
        let mut value = ptr::null_mut();
        // SAFETY: the environment is that of this call.
        #[expect(unsafe_code, reason = "the Node API as it is")]
        check_status!(unsafe { sys::napi_get_undefined(self.env.raw(), &raw mut value) })?;
        self.value(value)
    }

    fn texts(&mut self, texts: &[String]) -> napi::Result<()> {
        self.number(texts.len() as f64)?;
        texts.iter().try_for_each(|one| self.text(one))
    }
}

fn int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(-1)
}

#[napi]
impl Pump {
    /// Takes a batch. `ints` gets the number of records, what is left (0 nothing, 1 more when others have had their turn, 2 more at once), then the
    /// records; payloads that are wanted as bytes lie in `chunk` from `used` on.
    #[napi]
    pub fn drain<'a>(
        &self,
        env: &'a Env,
        mut ints: Int32ArraySlice<'_>,
        mut chunk: Uint8ArraySlice<'_>,
        used: u32,
    ) -> napi::Result<Unknown<'a>> {
        let mut values = ptr::null_mut();
        // SAFETY: the environment is that of this call.
        #[expect(unsafe_code, reason = "the Node API as it is: this is on the path of each event")]
        check_status!(unsafe { sys::napi_create_array(env.raw(), &raw mut values) })?;
        // SAFETY: nobody else looks at either array before the call has ended.
        #[expect(unsafe_code, reason = "JavaScript's own arrays are filled in place")]
        let (ints, chunk) = unsafe { (ints.as_mut(), chunk.as_mut()) };
        let met = ints.len();
        self.errors.guard(env, || {
            let mut page = Page {
                env: Env::from_raw(env.raw()),
                ints,
                at: HEAD,
                met,
                values,
                len: 0,
                chunk,
                used: used as usize,
            };
            let left = self.fill(&mut page)?;
            let records = int((page.at - HEAD) / RECORD);
            let met = int((page.ints.len() - page.met) / RECORD);
            if let [count, what, conns, ..] = page.ints {
                (*count, *what, *conns) = (records, left, met);
            }
            Ok(())
        })?;
        // SAFETY: the array was made in this call.
        #[expect(unsafe_code, reason = "the generic form of a value")]
        Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), values) })
    }
}

/// A run that is being worked on: what is left of it goes back to the front of its batch, whatever happens.
struct Front<'a> {
    batch: &'a mut Batch,
    run: Option<Run>,
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            self.batch.items.push_front(Item::Events(run));
        }
    }
}

impl Pump {
    fn fill(&self, page: &mut Page<'_>) -> Result<i32, Failure> {
        let Some(queue) = self.queue() else {
            return Ok(left::NOTHING);
        };
        if let Some(failure) = self.state().failed.take() {
            return Err(failure);
        }
        let mut batch = std::mem::take(&mut self.state().batch);
        // The rest of a batch that was begun: what has gathered since has called already, and will not again.
        let rest = !batch.items.is_empty();
        if !rest {
            queue.swap(&mut batch);
            self.state().tickets.trim();
        }
        self.delivering();
        let left = self.take(page, &mut batch);
        batch.forget_last();
        // What is left of it waits, whatever happened.
        self.state().batch = batch;
        match left {
            Ok(left::NOTHING) if rest => Ok(left::AGAIN),
            // What was said before is heard first.
            Err(failure) if page.at > HEAD => {
                self.state().failed = Some(failure);
                Ok(left::AGAIN)
            }
            left => left,
        }
    }

    /// Takes what has room; answers what is left.
    fn take(&self, page: &mut Page<'_>, batch: &mut Batch) -> Result<i32, Failure> {
        let mut spent = 0;
        while let Some(item) = batch.items.pop_front() {
            if !page.has_room() || spent >= BUDGET {
                batch.items.push_front(item);
                return Ok(left::MORE);
            }
            match item {
                Item::Events(run) => {
                    let mut front = Front { batch, run: Some(run) };
                    let left = self.run(page, &mut front, &mut spent)?;
                    if left != left::NOTHING {
                        return Ok(left);
                    }
                    let owner = front.run.take().and_then(|run| run.owner);
                    let last = owner.and_then(|owner| self.state().tickets.ended(owner, 1));
                    drop(last);
                }
                item => {
                    let mark = page.mark();
                    if let Err(failure) = self.other(page, item) {
                        page.back_to(mark);
                        return Err(failure);
                    }
                }
            }
        }
        Ok(left::NOTHING)
    }

    /// Takes events of one connection; answers what is left if not all had room.
    fn run(&self, page: &mut Page<'_>, front: &mut Front<'_>, spent: &mut usize) -> Result<i32, Failure> {
        let Front { batch, run: Some(run) } = front else {
            return Ok(left::NOTHING);
        };
        let bytes = self.wants_bytes(&run.conn, run.site);
        let slot = self.known(page, &run.conn, run.site, bytes)?;
        // Nothing of a connection comes after its end.
        if slot >= 0 && run.owner.is_none() {
            let mut state = self.state();
            let State { tickets, sites, .. } = &mut *state;
            let site = sites.get(&run.site);
            run.owner = site.map(|site| tickets.own(run.conn.clone(), run.site, site.routes.clone()));
        }
        while run.count > 0 {
            if !page.has_room() || *spent >= BUDGET {
                return Ok(left::MORE);
            }
            let len = batch.next_len();
            if bytes && len <= SMALL && page.used + len > page.chunk.len() {
                return Ok(left::AGAIN);
            }
            *spent += len;
            run.count -= 1;
            let Some(event) = batch.next() else { break };
            let name = batch.name(&event);
            let payload = batch.payload(&event);
            match run.owner {
                Some(owner) if slot >= 0 => self.event(page, owner, event, name, payload, slot, bytes),
                _ => event.ticket.let_go(&run.conn),
            }
        }
        Ok(left::NOTHING)
    }

    fn wants_bytes(&self, conn: &Conn, site: u32) -> bool {
        let state = self.state();
        match slot_of(conn).and_then(|slot| state.conns.get(slot)) {
            Some(entry) => entry.bytes,
            None => state.sites.get(&site).is_some_and(|site| site.bytes),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they stay in registers")]
    #[inline]
    fn event(
        &self,
        page: &mut Page<'_>,
        owner: usize,
        event: Event,
        name: Option<Box<str>>,
        payload: &[u8],
        slot: i32,
        bytes: bool,
    ) {
        let wanted = if event.ticket.wants_reply() { 0 } else { UNWANTED };
        let Event { handler, ticket, .. } = event;
        let number = self.state().tickets.add(owner, handler, name.as_deref(), ticket);
        if !bytes && !is_text(payload) {
            self.no_payload(
                number,
                Error::new(ErrorKind::InvalidPayload, "the payload is not UTF-8"),
            );
            return;
        }
        let mark = page.mark();
        let small = bytes && payload.len() <= SMALL;
        let len = if small { int(payload.len()) } else { -1 };
        page.record([handler, slot, number.cast_signed() | wanted, len]);
        if let Err(error) = Self::data(page, name.as_deref(), payload, bytes, small) {
            page.back_to(mark);
            let message = format!(
                "a payload of {} bytes can't be a value of JavaScript's: {error}",
                payload.len()
            );
            self.no_payload(number, Error::new(ErrorKind::InvalidPayload, message));
        }
    }

    /// Ends a handler of which JavaScript will not hear.
    fn no_payload(&self, number: u32, error: Error) {
        let reply = self.state().tickets.take(number);
        if let Some(reply) = reply {
            reply.fail(error);
        }
    }

    /// What belongs to an event's record.
    #[inline]
    fn data(page: &mut Page<'_>, name: Option<&str>, payload: &[u8], bytes: bool, small: bool) -> napi::Result<()> {
        if let Some(name) = name {
            page.text(name)?;
        }
        if small {
            let end = page.used + payload.len();
            if let Some(place) = page.chunk.get_mut(page.used..end) {
                place.copy_from_slice(payload);
            }
            page.used = end;
        } else if bytes {
            page.buffer(payload)?;
        } else {
            // SAFETY: the environment is that of this call; the payload is UTF-8.
            #[expect(unsafe_code, reason = "the Node API as it is: this is on the path of each event")]
            let value = unsafe { text::write(page.env.raw(), payload) }?;
            page.value(value)?;
        }
        Ok(())
    }

    /// The slot of a connection, which JavaScript is told of if it is new.
    fn known(&self, page: &mut Page<'_>, conn: &Conn, site: u32, bytes: bool) -> Result<i32, Failure> {
        let (slot, new) = self.meet(conn, bytes);
        if let Some(generation) = new {
            let data = conn.data().remove::<Data>().and_then(|data| data.0.take());
            page.met -= RECORD;
            if let Some(place) = page.ints.get_mut(page.met..page.met + RECORD) {
                let data = data.map_or(-1, |data| i32::try_from(data).unwrap_or(-1));
                place.copy_from_slice(&[slot, site.cast_signed(), generation.cast_signed(), data]);
            }
        }
        Ok(slot)
    }

    fn other(&self, page: &mut Page<'_>, item: Item) -> Result<(), Failure> {
        match item {
            // Those go another way.
            Item::Events(_) => {}
            Item::Upgrade { site, request, ticket } => {
                let attached = request.extensions().get::<Attached>();
                let incoming = attached.map_or(-1.0, |attached| f64::from(attached.0));
                let object = request::object(&page.env, &request)?;
                let ticket = int(self.state().upgrades.insert(Some((site, ticket))));
                page.record([kind::UPGRADE, site.cast_signed(), ticket, 0]);
                page.value(object)?;
                page.number(incoming)?;
            }
            Item::Connect { site, conn, ticket } => {
                let bytes = self.wants_bytes(&conn, site);
                let slot = self.known(page, &conn, site, bytes)?;
                let ticket = int(self.state().connects.insert(ticket));
                page.record([kind::CONNECT, slot, ticket, 0]);
            }
            Item::Disconnect {
                site,
                conn,
                disconnect,
                ticket,
            } => {
                let bytes = self.wants_bytes(&conn, site);
                let wanted = self
                    .state()
                    .sites
                    .get(&site)
                    .is_some_and(|site| site.routes.disconnect.load(std::sync::atomic::Ordering::Relaxed));
                let unknown = slot_of(&conn).is_none();
                let attached = conn.request().extensions().get::<Attached>().is_some();
                let last = (site.cast_signed() << 1) | i32::from(attached);
                if conn.slot() & GONE != 0 || (unknown && !wanted) {
                    conn.set_slot(GONE);
                    drop(ticket);
                    if attached {
                        page.record([kind::DISCONNECT, -1, -1, last]);
                    }
                } else {
                    let slot = self.known(page, &conn, site, bytes)?;
                    let ticket = int(self.state().ends.insert(ticket));
                    page.record([kind::DISCONNECT, slot, ticket, last]);
                    page.number(f64::from(disconnect.code))?;
                    page.text(&disconnect.reason)?;
                    page.bool(disconnect.clean)?;
                    page.bool(disconnect.normal)?;
                    page.bool(disconnect.will_reconnect)?;
                    page.text(&conn.id().to_string())?;
                    page.texts(&conn.rooms())?;
                }
            }
            Item::Closing(conn) => {
                let slot = self.slot(&conn);
                page.record([kind::CLOSING, slot, 0, 0]);
            }
            Item::Error { site, conn, error } => {
                // One that is open will end, and its object with it; of one that has ended there may be none any more.
                let slot = match &conn {
                    Some(conn) if conn.is_open() => {
                        let bytes = self.wants_bytes(conn, site);
                        self.known(page, conn, site, bytes)?
                    }
                    Some(conn) => self.slot(conn),
                    None => -1,
                };
                page.record([kind::ERROR, slot, site.cast_signed(), 0]);
                let object = self.errors.object(&page.env, &error)?;
                page.value(object)?;
                match conn.filter(|_| slot < 0) {
                    Some(conn) => {
                        page.text(&conn.id().to_string())?;
                        let request = request::object(&page.env, conn.request())?;
                        page.value(request)?;
                    }
                    None => {
                        page.undefined()?;
                        page.undefined()?;
                    }
                }
            }
            Item::Ask { site, what, answer } => {
                let question = int(self.state().questions.insert(answer));
                page.record([kind::ASK, site.cast_signed(), question, what as i32]);
            }
            Item::Acked { id, bytes, outcome } => {
                self.state().asked.remove(&id);
                match outcome {
                    Ok(payload) => self.acked(page, id, bytes, &payload)?,
                    Err(error) => self.failed(page, kind::ACKED, id, &error)?,
                }
            }
            Item::Settled { id, outcome } => {
                self.state().tasks.remove(&id);
                match outcome {
                    Ok(value) => {
                        page.record([kind::SETTLED, id.cast_signed(), 0, 0]);
                        match value {
                            Value::None => page.undefined()?,
                            Value::Bool(value) => page.bool(value)?,
                            Value::Number(number) => page.number(number)?,
                            Value::Bound(url, addr) => {
                                let object = crate::server::address(&page.env, &url, addr)?;
                                page.value(object)?;
                            }
                        }
                    }
                    Err(error) => self.failed(page, kind::SETTLED, id, &error)?,
                }
            }
            Item::Bridged { id, bytes } => {
                page.record([kind::BRIDGED, id.cast_signed(), 0, 0]);
                page.buffer(&bytes)?;
            }
            Item::Resume(id) => page.record([kind::RESUME, id.cast_signed(), 0, 0]),
            Item::Ended(id) => page.record([kind::ENDED, id.cast_signed(), 0, 0]),
            Item::Forget(key) => page.record([kind::FORGET, key.cast_signed(), 0, 0]),
            Item::Abandon(site) => self.abandon_all(site),
            Item::Detach(site) => {
                page.record([kind::DETACH, site.cast_signed(), 0, 0]);
            }
        }
        Ok(())
    }

    /// The slot of a connection that JavaScript knows, else -1.
    fn slot(&self, conn: &Conn) -> i32 {
        slot_of(conn).map_or(-1, int)
    }

    fn acked(&self, page: &mut Page<'_>, id: u32, bytes: bool, payload: &Payload) -> Result<(), Failure> {
        if !bytes && !payload.is_text() {
            let error = Error::new(ErrorKind::InvalidPayload, "the acknowledgment is not UTF-8");
            return self.failed(page, kind::ACKED, id, &error);
        }
        let mark = page.mark();
        page.record([kind::ACKED, id.cast_signed(), 0, 0]);
        if let Err(error) = Self::data(page, None, payload.as_bytes(), bytes, false) {
            page.back_to(mark);
            let message = format!(
                "an acknowledgment of {} bytes can't be a value of JavaScript's: {error}",
                payload.as_bytes().len()
            );
            return self.failed(page, kind::ACKED, id, &Error::new(ErrorKind::InvalidPayload, message));
        }
        Ok(())
    }

    fn failed(&self, page: &mut Page<'_>, what: i32, id: u32, error: &Error) -> Result<(), Failure> {
        page.record([what, id.cast_signed(), 1, 0]);
        let object = self.errors.object(&page.env, error)?;
        page.value(object)?;
        Ok(())
    }
}
