//! An acknowledgment while it is awaited, and what giving it up does.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::handler::Waiter;
use crate::payload::Payload;

use super::Conn;

/// An acknowledged emit that has not been sent yet: await it. Where a `Future` is asked for, as by `join_all`, pass
/// [`into_future()`](IntoFuture::into_future).
#[derive(Debug)]
#[must_use = "the event is emitted when this is awaited"]
pub struct EmitWithAck {
    to: AckTarget,
    name: String,
    payload: Result<Payload, Error>,
    timeout: Option<Duration>,
}

#[derive(Debug)]
pub(crate) enum AckTarget {
    Conn(Conn),
    Client(crate::client::Client),
}

impl EmitWithAck {
    pub(super) fn from_conn(conn: Conn, name: String, payload: Result<Payload, Error>) -> Self {
        Self {
            to: AckTarget::Conn(conn),
            name,
            payload,
            timeout: None,
        }
    }

    pub(crate) fn from_client(client: crate::client::Client, name: String, payload: Result<Payload, Error>) -> Self {
        Self {
            to: AckTarget::Client(client),
            name,
            payload,
            timeout: None,
        }
    }

    /// The deadline of this acknowledgment, counted from when it is first awaited.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn send(self) -> Result<Bytes, Error> {
        let payload = self.payload?;
        let (waiter, outcome) = Waiter::future();
        let _giving_up = match &self.to {
            AckTarget::Conn(conn) => {
                let timeout = self.timeout.unwrap_or(conn.hub().limits.ack_timeout);
                let ack_id = conn.push_acked(&self.name, &payload.bytes, payload.text, timeout, waiter)?;
                GiveUp::Conn(conn.clone(), ack_id)
            }
            AckTarget::Client(client) => client.push_acked(&self.name, payload, self.timeout, waiter)?,
        };
        match outcome.await {
            Ok(outcome) => outcome.map(|payload| payload.bytes),
            Err(_) => Err(Error::closed(None)),
        }
    }
}

impl IntoFuture for EmitWithAck {
    type Output = Result<Bytes, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Gives an acknowledgment up when its caller's future is dropped.
pub(crate) enum GiveUp {
    Conn(Conn, u64),
    Queued(crate::client::Client, crate::protocol::queue::QueueId),
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        match self {
            Self::Conn(conn, ack_id) => conn.forget_ack(*ack_id),
            Self::Queued(client, id) => client.forget_queued(*id),
        }
    }
}
