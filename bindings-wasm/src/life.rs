//! A client's life: the connection of the moment, what waits for the next, and whether there is one.

use alloc::vec::Vec;

use etp_ws::protocol::frame::{self, NameDefect};
use etp_ws::protocol::{Backoff, Defect, Limits, Queue, QueueId, Session, Time, session, should_reconnect};

/// The number under which JavaScript keeps what belongs to a call or to a queued event: payload, promise, signal. Never 0.
pub type Slot = u32;

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not begun, or ended for good.
    Closed,
    /// The first connection is not there yet.
    Connecting,
    /// Events go out.
    Connected,
    /// The connection is lost, another is sought.
    Reconnecting,
}

/// What a client is made with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many events may wait while away.
    pub queue: usize,
    /// How many calls may wait for their reply.
    pub max_pending_acks: usize,
    /// Whether it comes back at all.
    pub reconnect: bool,
    /// How it comes back.
    pub backoff: Backoff,
}

/// What becomes of an event that is emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Its head has been written: head and payload are to be sent now.
    Send,
    /// It waits for the next connection, under this id.
    Queued(QueueId),
    /// There is no connection, and no queue.
    Closed,
    /// The queue is full.
    Full,
    /// As many calls wait as may.
    TooManyAcks,
    /// The name can't be sent.
    Name(NameDefect),
}

/// How a call ends without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ended {
    /// No reply by the deadline.
    TimedOut = 1,
    /// The connection has ended, or there will be none.
    Lost,
    /// It waited in the queue, and then as many others waited for their reply as may.
    TooManyAcks,
}

/// Whether a client comes back from a lost connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Return {
    /// The application closed it, there was no connection before, or it is not to.
    Never,
    /// Not by the usual rule; the application may have another.
    Unusual,
    /// By the usual rule.
    Usual,
}

/// What a received frame turned out to be. Offsets count as the frame does: UTF-16 units of a text, bytes else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// More of the frame is needed.
    More,
    /// Nothing to be done.
    Nothing,
    /// An event.
    Event {
        /// Where its name ends.
        name: usize,
        /// Where its payload begins.
        payload: usize,
        /// The id to reply with, or 0.
        ack_id: u64,
    },
    /// The reply of a call.
    Reply {
        /// The call's.
        slot: Slot,
        /// Where its payload begins.
        payload: usize,
    },
    /// Outside the grammar; if too many were, the connection is to be closed.
    Malformed(Defect, bool),
}

/// One client, from `connect` to its end.
#[derive(Debug)]
pub struct Life {
    state: State,
    session: Session<Slot>,
    /// The connection is open, as far as is known.
    open: bool,
    /// The queue has been sent, or there was none: events go straight out.
    flushed: bool,
    began: Time,
    queue: Queue<Slot, Slot>,
    backoff: Backoff,
    reconnect: bool,
    queues: bool,
    limits: Limits,
    /// Calls whose outcome is known: to be fetched.
    ended: Vec<(Slot, Ended)>,
    fetched: usize,
    /// What the last call wrote.
    pub head: Vec<u8>,
}

/// A deadline. The clock's parts of a millisecond are cut off: one more, and nothing ends before its time.
fn after(now: Time, millis: u32) -> Time {
    Time::from_millis(now.as_millis() + u64::from(millis) + 1)
}

impl Life {
    /// A client that has begun to dial.
    pub fn new(options: Options) -> Self {
        let limits = Limits {
            max_pending_acks: options.max_pending_acks,
        };
        Self {
            state: State::Connecting,
            session: Session::new(limits),
            open: false,
            flushed: false,
            began: Time::default(),
            queue: Queue::new(options.queue),
            backoff: options.backoff,
            reconnect: options.reconnect,
            queues: options.queue > 0,
            limits,
            ended: Vec::new(),
            fetched: 0,
            head: Vec::with_capacity(frame::MAX_HEAD),
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    // --- The connection --------------------------------------------------------------------------------------------

    /// A connection is there. What waits is not sent before [`next`](Self::next) is called.
    pub fn opened(&mut self, now: Time) {
        self.session = Session::new(self.limits);
        self.open = true;
        self.flushed = false;
        self.began = now;
    }

    /// The next event that waited: its slot, whether it is a call, and the head written. `None`: all are sent, the client is
    /// connected.
    pub fn next(&mut self, now: Time) -> Option<(Slot, Option<u64>)> {
        self.expire(now);
        while let Some(queued) = self.queue.pop() {
            let Some((slot, deadline)) = queued.ack else {
                self.write_event(&queued.name, 0);
                return Some((queued.payload, None));
            };
            match self.session.register(&queued.name, deadline, slot) {
                Ok(id) => {
                    self.write_event(&queued.name, id);
                    return Some((slot, Some(id)));
                }
                Err(slot) => self.ended.push((slot, Ended::TooManyAcks)),
            }
        }
        self.flushed = true;
        self.state = State::Connected;
        None
    }

    /// The connection takes nothing any more: closing has begun, whoever began it. Events wait for the next one.
    pub fn closing(&mut self) {
        self.open = false;
    }

    /// The connection has ended: its calls end.
    pub fn lost(&mut self, code: u16, reason: &str, own: bool, now: Time) -> Return {
        self.open = false;
        self.end_calls();
        self.backoff
            .alive_millis(now.as_millis().saturating_sub(self.began.as_millis()));
        if !self.reconnect || own || self.state == State::Connecting {
            Return::Never
        } else if should_reconnect(code, reason, own) {
            Return::Usual
        } else {
            Return::Unusual
        }
    }

    /// It comes back, after [`delay`](Self::delay).
    pub fn comes_back(&mut self) {
        self.state = State::Reconnecting;
    }

    /// The end: what still waits is told.
    pub fn end(&mut self) {
        self.state = State::Closed;
        self.open = false;
        self.end_calls();
        let ended = &mut self.ended;
        self.queue.close(|slot| ended.push((slot, Ended::Lost)));
    }

    /// How many milliseconds to wait until the next dial; counts it as an attempt.
    pub fn delay(&mut self, random: u64) -> u64 {
        self.backoff.next_delay_millis(random)
    }

    // --- Events ----------------------------------------------------------------------------------------------------

    /// Emits an event. `first`: ahead of the queue, which is not sent yet.
    pub fn emit(&mut self, name: &str, slot: Slot, first: bool) -> Push {
        match frame::check_name(name) {
            Err(defect) => Push::Name(defect),
            Ok(()) if self.takes(first) => {
                self.write_event(name, 0);
                Push::Send
            }
            Ok(()) => self.enqueue(name, slot, None),
        }
    }

    /// Emits an event that is to be acknowledged within so many milliseconds.
    pub fn ask(&mut self, name: &str, slot: Slot, timeout: u32, first: bool, now: Time) -> Push {
        if let Err(defect) = frame::check_name(name) {
            return Push::Name(defect);
        }
        let deadline = after(now, timeout);
        if !self.takes(first) {
            return self.enqueue(name, slot, Some((slot, deadline)));
        }
        match self.session.register(name, deadline, slot) {
            Ok(id) => {
                self.write_event(name, id);
                Push::Send
            }
            Err(_) => Push::TooManyAcks,
        }
    }

    /// The id of the call that was registered last.
    pub fn last_ack_id(&self) -> u64 {
        self.session.next_ack_id() - 1
    }

    /// The caller of a sent call has given up.
    pub fn cancel(&mut self, ack_id: u64) {
        self.session.cancel(ack_id);
    }

    /// The caller of a call that waits in the queue has given up: it is not sent.
    pub fn cancel_queued(&mut self, id: QueueId) {
        self.queue.cancel(id);
    }

    /// Writes the head of a reply, or all of an empty one.
    pub fn reply(&mut self, name: &str, ack_id: u64, empty: bool) {
        self.head.clear();
        frame::write_reply(&mut self.head, name, ack_id, empty);
    }

    /// Sorts out a received frame by its first bytes; `complete`: these are all. `text`: it is one.
    pub fn receive(&mut self, head: &[u8], complete: bool, text: bool, now: Time) -> Received {
        let offset = |bytes: usize| if text { units(&head[..bytes]) } else { bytes };
        match self.session.receive(head, complete, (), now) {
            session::Received::More(()) => Received::More,
            session::Received::Event {
                name,
                ack_id,
                offset: at,
                ..
            } => Received::Event {
                name: offset(name.len()),
                payload: offset(at),
                ack_id,
            },
            session::Received::Reply { waiter, offset: at, .. } => Received::Reply {
                slot: waiter,
                payload: offset(at),
            },
            session::Received::Stray | session::Received::Extension => Received::Nothing,
            session::Received::Malformed { defect, too_many } => Received::Malformed(defect, too_many),
        }
    }

    // --- Time ------------------------------------------------------------------------------------------------------

    /// Ends the calls whose deadline has come.
    pub fn expire(&mut self, now: Time) {
        let ended = &mut self.ended;
        let mut late = |slot| ended.push((slot, Ended::TimedOut));
        self.session.expire(now, &mut late);
        self.queue.expire(now, late);
    }

    /// When [`expire`](Self::expire) is to be called.
    pub fn deadline(&self) -> Option<Time> {
        match (self.session.deadline(), self.queue.deadline()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// A call that has ended without a reply, and how.
    pub fn next_ended(&mut self) -> Option<(Slot, Ended)> {
        let next = self.ended.get(self.fetched).copied();
        self.fetched += 1;
        if next.is_none() {
            self.ended = Vec::new();
            self.fetched = 0;
        }
        next
    }

    // --- Within ----------------------------------------------------------------------------------------------------

    /// One function, as size is what counts here.
    #[inline(never)]
    fn end_calls(&mut self) {
        let ended = &mut self.ended;
        self.session.close(|slot| ended.push((slot, Ended::Lost)));
    }

    fn takes(&self, first: bool) -> bool {
        self.open && (self.flushed || first || !self.queues)
    }

    fn enqueue(&mut self, name: &str, slot: Slot, ack: Option<(Slot, Time)>) -> Push {
        if !self.queues || self.state == State::Closed {
            return Push::Closed;
        }
        match self.queue.push(name, slot, ack) {
            Ok(id) => Push::Queued(id),
            Err(_) => Push::Full,
        }
    }

    fn write_event(&mut self, name: &str, ack_id: u64) {
        self.head.clear();
        frame::write_event(&mut self.head, name, ack_id);
    }
}

/// How many UTF-16 units these bytes of valid UTF-8 are.
fn units(bytes: &[u8]) -> usize {
    let unit = |byte: &u8| usize::from(byte & 0xc0 != 0x80) + usize::from(*byte >= 0xf0);
    bytes.iter().map(unit).sum()
}
