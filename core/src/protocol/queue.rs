//! `Queue`: the events that a client emits while it is away, in order and bounded.
//!
//! A call's deadline counts the time in here: one that expires is never sent. What remains goes out when the connection is
//! back; only then is the ack id known, so heads are written on the way out.

use alloc::{boxed::Box, vec::Vec};

use super::{Time, scan::Scan};

/// Places of those that have left which are never worth drawing the queue together.
const SLACK: usize = 32;

/// Names an event in a [`Queue`], to [cancel](Queue::cancel) it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u64);

impl QueueId {
    /// The id as a number, counted from 1: what crosses into another language.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The id that [`get`](Self::get) gave.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// An event that waits, or has waited, in a [`Queue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued<P, W> {
    /// What [`Queue::push`] answered.
    pub id: QueueId,
    /// The event's name.
    pub name: Box<str>,
    /// The event's payload.
    pub payload: P,
    /// The waiter of a call and its deadline; `None` for a plain event.
    pub ack: Option<(W, Time)>,
}

/// Events that wait for a connection, at most `capacity`.
///
/// ```
/// use etp_ws::protocol::Queue;
///
/// let mut queue: Queue<&str, ()> = Queue::new(1);
/// queue.push("hello", "world", None).unwrap();
/// assert_eq!(queue.push("hello", "again", None), Err(("again", None)));
/// assert_eq!(queue.pop().unwrap().payload, "world");
/// ```
#[derive(Debug)]
pub struct Queue<P, W> {
    /// In order of id; `None` where one has left. Those are drawn together like [`Acks`](super::Acks)' are.
    events: Vec<(QueueId, Option<Queued<P, W>>)>,
    live: usize,
    /// How many at the front have left.
    gone: usize,
    capacity: usize,
    last_id: u64,
    scan: Scan,
}

impl<P, W> Queue<P, W> {
    /// An empty queue for at most `capacity` events; 0 refuses all. Allocates nothing.
    pub const fn new(capacity: usize) -> Self {
        Self {
            events: Vec::new(),
            live: 0,
            gone: 0,
            capacity,
            last_id: 0,
            scan: Scan::new(),
        }
    }

    /// Adds an event, with waiter and deadline if it is a call.
    ///
    /// # Errors
    /// Payload and ack come back if the queue is full or closed.
    #[allow(clippy::type_complexity, reason = "what was passed in comes back as it was")]
    pub fn push(&mut self, name: &str, payload: P, ack: Option<(W, Time)>) -> Result<QueueId, (P, Option<W>)> {
        if self.live >= self.capacity {
            return Err((payload, ack.map(|(waiter, _)| waiter)));
        }
        if self.events.len() > 2 * self.live + SLACK {
            self.events.retain(|(_, event)| event.is_some());
            self.gone = 0;
        }
        if let Some((_, deadline)) = &ack {
            self.scan.add(*deadline);
        }
        self.last_id += 1;
        let id = QueueId(self.last_id);
        let event = Queued {
            id,
            name: name.into(),
            payload,
            ack,
        };
        self.events.push((id, Some(event)));
        self.live += 1;
        Ok(id)
    }

    /// Takes an event out of the queue, unsent; `None` if it has left already.
    pub fn cancel(&mut self, id: QueueId) -> Option<Queued<P, W>> {
        let index = self.events.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let event = self.events[index].1.take()?;
        self.left();
        Some(event)
    }

    /// Drops every call whose deadline has come, in order. To be called at [`deadline`](Self::deadline), and before the
    /// queue is emptied into a connection, so that no expired call is sent.
    pub fn expire(&mut self, now: Time, mut timed_out: impl FnMut(W)) {
        if self.scan.soonest().is_none_or(|soonest| now < soonest) {
            return;
        }
        self.scan.begin(now);
        for (_, event) in &mut self.events {
            if let Some(Queued {
                ack: Some((_, deadline)),
                ..
            }) = event
            {
                if *deadline > now {
                    self.scan.add(*deadline);
                } else if let Some((waiter, _)) = event.take().and_then(|event| event.ack) {
                    self.live -= 1;
                    timed_out(waiter);
                }
            }
        }
        self.tidy();
    }

    /// When [`expire`](Self::expire) is due: at most 50 ms after the soonest deadline, as in
    /// [`Session::deadline`](super::Session::deadline). It may come to nothing.
    pub fn deadline(&self) -> Option<Time> {
        self.scan.wake()
    }

    /// The oldest event, to be sent.
    pub fn pop(&mut self) -> Option<Queued<P, W>> {
        loop {
            let event = self.events.get_mut(self.gone)?.1.take();
            self.gone += 1;
            if event.is_some() {
                self.left();
                return event;
            }
        }
    }

    /// No connection will come any more: all calls end, in order, all events are dropped and no more are taken.
    pub fn close(&mut self, mut lost: impl FnMut(W)) {
        self.capacity = 0;
        self.live = 0;
        for (_, event) in &mut self.events {
            if let Some((waiter, _)) = event.take().and_then(|event| event.ack) {
                lost(waiter);
            }
        }
        self.tidy();
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    fn left(&mut self) {
        self.live -= 1;
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.live == 0 {
            self.scan.forget();
            self.events = Vec::new();
            self.gone = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};
    use core::time::Duration;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn payloads(mut queue: Queue<u32, char>) -> Vec<u32> {
        core::iter::from_fn(|| queue.pop()).map(|event| event.payload).collect()
    }

    #[test]
    fn events_leave_in_order_with_what_they_brought() {
        let mut queue = Queue::new(10);
        queue.push("plain", 1, None).unwrap();
        let id = queue.push("call", 2, Some(('w', at(500)))).unwrap();
        assert_eq!(queue.pop().map(|event| event.payload), Some(1));
        assert_eq!(
            queue.pop(),
            Some(Queued {
                id,
                name: "call".into(),
                payload: 2,
                ack: Some(('w', at(500)))
            })
        );
        assert_eq!((queue.pop(), queue.deadline()), (None, None));
    }

    #[test]
    fn a_full_queue_gives_back_what_it_refuses() {
        let mut queue = Queue::new(1);
        queue.push("e", 1, None).unwrap();
        assert_eq!(queue.push("e", 2, Some(('w', at(1)))), Err((2, Some('w'))));
        assert_eq!(queue.deadline(), None);
        assert_eq!(Queue::<_, ()>::new(0).push("e", 1, None), Err((1, None)));
    }

    #[test]
    fn an_expired_call_is_dropped_unsent_and_frees_its_place() {
        let mut queue = Queue::new(3);
        queue.push("e", 1, Some(('a', at(100)))).unwrap();
        queue.push("e", 2, None).unwrap();
        queue.push("e", 3, Some(('b', at(200)))).unwrap();
        let mut ended = vec![];
        queue.expire(at(99), |waiter| ended.push(waiter));
        assert_eq!(ended, []);
        queue.expire(at(100), |waiter| ended.push(waiter));
        assert_eq!(ended, ['a']);
        assert_eq!(queue.deadline(), Some(at(200)));
        queue.push("e", 4, Some(('c', at(110)))).unwrap();
        assert_eq!(queue.deadline(), Some(at(150)), "wakes are 50 ms apart");
        queue.expire(at(120), |waiter| ended.push(waiter));
        assert_eq!(ended, ['a', 'c'], "but what is asked for is decided to the millisecond");
        assert_eq!(payloads(queue), [2, 3]);
    }

    #[test]
    fn a_cancelled_event_is_not_sent() {
        let mut queue = Queue::new(3);
        queue.push("e", 1, None).unwrap();
        let id = queue
            .push("e", 2, Some(('w', at(9).after(Duration::from_secs(1)))))
            .unwrap();
        queue.push("e", 3, None).unwrap();
        assert_eq!(
            queue.cancel(QueueId::from_number(id.get())).map(|event| event.payload),
            Some(2)
        );
        assert_eq!(queue.cancel(id), None);
        assert_eq!(payloads(queue), [1, 3]);
    }

    #[test]
    fn closing_ends_every_call_and_takes_no_more() {
        let mut queue = Queue::new(3);
        queue.push("e", 1, Some(('a', at(1)))).unwrap();
        queue.push("e", 2, None).unwrap();
        queue.push("e", 3, Some(('b', at(1)))).unwrap();
        let mut ended = vec![];
        queue.close(|waiter| ended.push(waiter));
        assert_eq!(ended, ['a', 'b']);
        assert!(queue.is_empty());
        assert_eq!(queue.push("e", 4, None), Err((4, None)));
    }
}
