//! What is asked of one connection, by its slot and generation.

use std::sync::Arc;

use etp_ws::handler::{Waiter, is_text};
use etp_ws::{Conn, Error, ErrorKind, Payload, Stats};
use napi::Env;
use napi::bindgen_prelude::{JsObjectValue, Object, Unknown};
use napi_derive::napi;

use crate::dispatch::WATCHED;
use crate::error::Failure;
use crate::options::millis;
use crate::pump::{GiveUp, Pump, surrogate};
use crate::queue::{Item, Queue, Value};
use crate::text::{self, Kind};

/// The name of an event.
pub(crate) fn name_of(name: &text::Payload) -> Result<&str, Error> {
    match name.kind {
        Kind::Text => str::from_utf8(&name.bytes).map_err(|_| bad_name()),
        Kind::Broken => Err(bad_name()),
        Kind::Bytes | Kind::Odd => Err(Error::new(ErrorKind::InvalidEvent, "the name of an event is a string")),
    }
}

fn bad_name() -> Error {
    Error::new(ErrorKind::InvalidEvent, "the name can't be encoded as UTF-8")
}

/// Whether a payload is text, or the error that it can't be sent.
fn text_of(data: &text::Payload) -> Result<bool, Error> {
    match data.kind {
        Kind::Text => Ok(true),
        Kind::Broken => Err(surrogate()),
        Kind::Bytes => Ok(is_text(&data.bytes)),
        Kind::Odd => Err(Error::new(ErrorKind::InvalidPayload, "a payload is a string or bytes")),
    }
}

pub(crate) fn payload_of(data: text::Payload) -> Result<Payload, Error> {
    let text = text_of(&data)?;
    Ok(Payload::checked(data.bytes.into(), text))
}

/// How an outcome of an acknowledgment reaches its promise.
pub(crate) fn ack_waiter(queue: Arc<Queue>, id: u32, bytes: bool) -> Waiter<Payload> {
    Waiter::call(move |outcome| queue.push(Item::Acked { id, bytes, outcome }))
}

pub(crate) fn describe<'a>(env: &'a Env, stats: &Stats) -> napi::Result<Object<'a>> {
    let mut object = Object::new(env)?;
    let mut number = |name: &str, number: f64| object.set_named_property(name, number);
    number("connections", stats.connections as f64)?;
    number("connects", stats.connects as f64)?;
    number("eventsIn", stats.events_in as f64)?;
    number("messagesOut", stats.messages_out as f64)?;
    number("bytesIn", stats.bytes_in as f64)?;
    number("bytesOut", stats.bytes_out as f64)?;
    number("acksPending", stats.acks_pending as f64)?;
    number("acksTimedOut", stats.acks_timed_out as f64)?;
    number("strayReplies", stats.stray_replies as f64)?;
    number("malformedFrames", stats.malformed_frames as f64)?;
    number("handshakesFailed", stats.handshakes_failed as f64)?;
    number("handlersInFlight", stats.handlers_in_flight as f64)?;
    number("bytesQueued", stats.bytes_queued as f64)?;
    let mut closes = Object::new(env)?;
    for (reason, count) in &stats.closes {
        closes.set_named_property(reason, *count as f64)?;
    }
    object.set_named_property("closes", closes)?;
    Ok(object)
}

#[napi]
impl Pump {
    #[napi]
    pub fn conn_emit(
        &self,
        env: Env,
        slot: i32,
        generation: u32,
        name: text::Payload,
        data: text::Payload,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let (conn, _) = self.open(slot, generation)?;
            let text = text_of(&data)?;
            let _held = self.writing();
            conn.emit_payload(name_of(&name)?, &data.bytes, text)?;
            Ok(())
        })
    }

    /// The outcome comes in a batch under `id`; only one that is `cancellable` can be given up.
    #[napi]
    pub fn conn_ask(
        &self,
        env: Env,
        slot: i32,
        generation: u32,
        id: u32,
        name: text::Payload,
        data: text::Payload,
        timeout: Option<f64>,
        cancellable: bool,
    ) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let (conn, bytes) = self.open(slot, generation)?;
            let timeout = millis("timeout", timeout)?;
            let text = text_of(&data)?;
            let waiter = ack_waiter(self.require()?, id, bytes);
            let held = self.writing();
            let ack = conn.emit_with_ack_to(name_of(&name)?, &data.bytes, text, timeout, waiter)?;
            drop(held);
            if cancellable {
                self.state().asked.insert(id, GiveUp::Conn(conn, ack));
            }
            Ok(())
        })
    }

    #[napi]
    pub fn conn_ping(&self, env: Env, slot: i32, generation: u32, id: u32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let (conn, _) = self.open(slot, generation)?;
            let queue = self.require()?;
            let _held = self.writing();
            conn.ping_to(Waiter::call(move |outcome: Result<std::time::Duration, Error>| {
                let outcome = outcome.map(|time| Value::Number(time.as_secs_f64() * 1000.0));
                queue.push(Item::Settled { id, outcome });
            }));
            Ok(())
        })
    }

    #[napi]
    pub fn conn_drain(&self, env: Env, slot: i32, generation: u32, id: u32) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let (conn, _) = self.open(slot, generation)?;
            let queue = self.require()?;
            let _held = self.writing();
            conn.drain_to(Waiter::call(move |outcome: Result<(), Error>| {
                let outcome = outcome.map(|()| Value::None);
                queue.push(Item::Settled { id, outcome });
            }));
            Ok(())
        })
    }

    /// From now on the beginning of its end comes in a batch; false: it has begun.
    #[napi]
    pub fn conn_watch(&self, slot: i32, generation: u32) -> bool {
        let Some((conn, _)) = self.conn(slot, generation) else {
            return false;
        };
        conn.set_slot(conn.slot() | WATCHED);
        conn.is_open()
    }

    #[napi]
    pub fn conn_is_open(&self, slot: i32, generation: u32) -> bool {
        self.conn(slot, generation).is_some_and(|(conn, _)| conn.is_open())
    }

    #[napi]
    pub fn conn_id(&self, slot: i32, generation: u32) -> String {
        let conn = self.conn(slot, generation);
        conn.map(|(conn, _)| conn.id().to_string()).unwrap_or_default()
    }

    #[napi]
    pub fn conn_request<'a>(&self, env: &'a Env, slot: i32, generation: u32) -> napi::Result<Option<Unknown<'a>>> {
        self.errors.guard(env, || {
            let Some((conn, _)) = self.conn(slot, generation) else {
                return Ok(None);
            };
            let object = crate::request::object(env, conn.request())?;
            // SAFETY: the object was made in this call.
            #[expect(unsafe_code, reason = "the generic form of a value")]
            Ok(Some(unsafe { Unknown::from_raw_unchecked(env.raw(), object) }))
        })
    }

    #[napi]
    pub fn conn_join(&self, env: Env, slot: i32, generation: u32, room: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            if let Some((conn, _)) = self.conn(slot, generation) {
                conn.join(&room);
            }
            Ok(())
        })
    }

    #[napi]
    pub fn conn_leave(&self, env: Env, slot: i32, generation: u32, room: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            if let Some((conn, _)) = self.conn(slot, generation) {
                conn.leave(&room);
            }
            Ok(())
        })
    }

    #[napi]
    pub fn conn_rooms(&self, slot: i32, generation: u32) -> Vec<String> {
        self.conn(slot, generation)
            .map(|(conn, _)| conn.rooms())
            .unwrap_or_default()
    }

    #[napi]
    pub fn conn_close(&self, env: Env, slot: i32, generation: u32, code: f64, reason: String) -> napi::Result<()> {
        self.errors.guard(&env, || {
            let code = close_code(code)?;
            if let Some((conn, _)) = self.conn(slot, generation) {
                let _held = self.writing();
                conn.close_with(code, &reason)?;
            }
            Ok(())
        })
    }
}

/// A number that may be a close code; whether it can be sent is the core's to say.
pub(crate) fn close_code(code: f64) -> Result<u16, Failure> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was looked at"
    )]
    if code.fract() == 0.0 && (0.0..=65535.0).contains(&code) {
        return Ok(code as u16);
    }
    Err(crate::error::invalid_option(format!("{code} is no close code")))
}

impl Pump {
    /// The connection, or the error that JavaScript knows it no more.
    fn open(&self, slot: i32, generation: u32) -> Result<(Conn, bool), Failure> {
        self.conn(slot, generation)
            .ok_or_else(|| Error::new(ErrorKind::ConnectionClosed, "the connection is closed").into())
    }
}
