//! How a connection ends: when both directions are done with, what its end is called, and who is told.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::task::unconstrained;

use super::{PeerEnd, Stage, State};
use crate::conn::{By, Phase, Shared, panicked};
use crate::disconnect::Disconnect;
use crate::error::Error;
use crate::net::outbox::Writing;
use crate::net::transport::Transport;

impl State {
    /// Whether the connection has ended: both directions are done with, or nothing can be.
    pub(super) fn is_over(&self) -> bool {
        if self.calm && self.peer_end.is_none() {
            return false;
        }
        let shared = self.conn.inner().lock();
        if shared.cut {
            return true;
        }
        let sent = shared.outbox.queued() == 0;
        let phase = shared.phase;
        if self.is_drained(&shared) {
            drop(shared);
            self.conn.begin_close(1000, "server shutdown", By::User);
            return false;
        }
        match &self.peer_end {
            // Events that arrived before the end are still handled.
            Some(_) if phase == Phase::Closing => sent && self.waiting.is_empty(),
            Some(_) => self.waiting.is_empty(),
            None => false,
        }
    }

    /// Whether a shutdown has nothing left to wait for here.
    pub(super) fn is_drained(&self, shared: &Shared) -> bool {
        let idle = || self.stage == Stage::Open && self.waiting.is_empty() && self.running() == 0;
        shared.phase == Phase::Draining && (shared.drop_handlers || idle())
    }

    /// Ends the connection: rooms, waiters, callbacks; handlers that still run go on in a task of their own.
    pub(super) fn finish(&mut self) {
        self.exchange();
        self.count_rest();
        let disconnect = self.disconnect();
        let conn = self.conn.clone();
        let hub = conn.hub().clone();
        let (lost, connect_ended) = conn.end(&disconnect);
        conn.closing_began();
        hub.rooms.remove(&conn);
        lost.tell();
        if !self.waiting.is_empty() {
            let dropped = self.waiting.len();
            conn.report(
                Error::closed(Some((disconnect.code, &disconnect.reason)))
                    .with_source(format!("{dropped} events were waiting for a handler and are dropped")),
            );
            self.waiting.clear();
        }
        conn.inner().starved.store(false, Ordering::SeqCst);
        if connect_ended {
            conn.call_disconnect(disconnect);
        }
        self.leave_handlers();
        self.permit = None;
        self.timer = None;
        self.armed = None;
        self.writing = Writing::default();
        self.stage = Stage::Finishing;
        if hub.rooms.len() == 0 {
            hub.emptied.notify_waiters();
        }
    }

    pub(super) fn bound_farewell(&mut self) {
        let hub = self.conn.hub();
        let until = self.now.after(hub.limits.close_timeout.min(Duration::from_secs(2)));
        self.timer = Some(Box::pin(tokio::time::sleep_until(hub.instant(until))));
    }

    /// How it ended, from both sides' close frames or their absence.
    pub(super) fn disconnect(&mut self) -> Disconnect {
        let close = self.conn.inner().lock().close.clone();
        let mut disconnect = match (self.peer_end.take(), &close) {
            (Some(PeerEnd::Close(code, reason)), Some(ours)) if ours.by == By::Peer => {
                Disconnect::new(code, reason, true)
            }
            (Some(PeerEnd::Close(..)), Some(ours)) => Disconnect::new(ours.code, ours.reason.clone(), true),
            (Some(PeerEnd::Close(code, reason)), None) => Disconnect::new(code, reason, false),
            (_, Some(ours)) => Disconnect::new(ours.code, ours.reason.clone(), false),
            (_, None) => Disconnect::new(1006, "", false),
        };
        let hub = self.conn.hub();
        let own = close.as_ref().is_some_and(|close| close.by == By::User);
        disconnect.will_reconnect = !own && hub.owner().is_some_and(|owner| owner.will_reconnect(&disconnect));
        hub.count_close(match close {
            Some(ours) if ours.by == By::Core => ours.reason,
            _ => disconnect.code.to_string(),
        });
        disconnect
    }

    pub(super) fn leave_handlers(&mut self) {
        let connecting = self.connecting.take();
        let handlers = self.handlers.take();
        if connecting.is_none() && handlers.is_none() {
            return;
        }
        let conn = self.conn.clone();
        let dropping = conn.hub().dropping.clone();
        let rest = async move {
            let all = async {
                if let Some(future) = connecting
                    && let Err(panic) = AssertUnwindSafe(future).catch_unwind().await
                {
                    conn.report(panicked("on_connect", &*panic));
                }
                let mut handlers = handlers.map(|handlers| *handlers).unwrap_or_default();
                while let Some(error) = handlers.next().await {
                    if let Some(error) = error {
                        conn.report(error);
                    }
                }
            };
            tokio::select! {
                () = dropping.cancelled() => {}
                () = all => {}
            }
        };
        self.conn.hub().spawn(rest);
    }

    /// Waits for the transport to say goodbye, for a short time.
    pub(super) fn farewell<T: Transport>(&mut self, transport: &mut T, cx: &mut Context<'_>) -> Poll<()> {
        // First, and outside the task's share of the turn: a peer that sends on uses that up.
        let over = match &mut self.timer {
            Some(timer) => pin!(unconstrained(timer.as_mut())).poll(cx).is_ready(),
            None => true,
        };
        if over {
            return Poll::Ready(());
        }
        transport.poll_finish(cx)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A runtime that goes away drops its tasks: those who wait still get their outcome, and rooms are left.
        if self.stage != Stage::Finishing {
            self.finish();
        }
    }
}
