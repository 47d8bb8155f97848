//! `Session`: what one connection has to know of ETP, on either side and in every language.
//!
//! It sorts received frames into events, replies and the rest, and keeps the calls that wait for a reply. It never reads,
//! copies or owns payload bytes: a payload `P` is handed in and out, natively a range or `Bytes`, in the browser the number of
//! a slot. Dropping `P` is how an unwanted payload is let go. Names are checked with
//! [`check_name`](frame::check_name) and heads written with [`frame`] by whoever sends.

use alloc::boxed::Box;
use core::time::Duration;

use super::{
    Acks, Time,
    frame::{self, Defect},
    time::millis,
};

/// How many malformed frames a peer may send within [`MALFORMED_WINDOW`].
pub const MAX_MALFORMED: usize = 16;

/// The time within which [`MAX_MALFORMED`] counts: a minute.
pub const MALFORMED_WINDOW: Duration = Duration::from_millis(60_000);

/// What a session holds back from its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many calls may wait for their reply at once.
    pub max_pending_acks: usize,
}

impl Default for Limits {
    /// 16 384 pending acks.
    fn default() -> Self {
        Self {
            max_pending_acks: 16_384,
        }
    }
}

/// What a received frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'h, P, W> {
    /// The head has not ended within the bytes given: call again with more of the frame. Nothing has been counted.
    More(P),
    /// An event for the application.
    Event {
        /// Its name.
        name: &'h str,
        /// The id to reply with; 0 if no reply is wanted.
        ack_id: u64,
        /// What was passed in.
        payload: P,
        /// Where the payload begins in the frame; the frame's length if it has two parts.
        offset: usize,
    },
    /// The reply that a call has waited for; the call has ended.
    Reply {
        /// What was passed to [`Session::register`].
        waiter: W,
        /// The id of the call.
        ack_id: u64,
        /// What was passed in.
        payload: P,
        /// Where the payload begins in the frame; the frame's length if it has two parts.
        offset: usize,
    },
    /// A reply that nobody waits for: too late, answered before, or of another event. Dropped and counted.
    Stray,
    /// The extension channel, `__ack___etp` with id 0: ignored, never reported.
    Extension,
    /// A frame outside the grammar: dropped and counted, to be reported.
    Malformed {
        /// What is wrong with it.
        defect: Defect,
        /// More than [`MAX_MALFORMED`] within [`MALFORMED_WINDOW`]: close with 1008 `malformed frames`.
        too_many: bool,
    },
}

/// The ETP side of one connection, from its first frame to its end. `W` is whatever the caller wakes when the outcome of a
/// call is known.
///
/// ```
/// use core::time::Duration;
/// use etp_ws::protocol::{Limits, Received, Session, Time};
///
/// let now = Time::from_millis(0);
/// let mut session = Session::new(Limits::default());
/// let id = session.register("sum", now.after(Duration::from_secs(10)), "waiter").unwrap();
/// assert_eq!(id, 1);
/// let frame = b"__ack_sum||1||3";
/// let received = session.receive(frame, true, (), now);
/// assert_eq!(received, Received::Reply { waiter: "waiter", ack_id: 1, payload: (), offset: 14 });
/// ```
#[derive(Debug)]
pub struct Session<W> {
    acks: Acks<W>,
    limits: Limits,
    closed: bool,
    /// When the last [`MAX_MALFORMED`] malformed frames came, each at its number's remainder; `None` while there are none.
    malformed_at: Option<Box<[Time; MAX_MALFORMED]>>,
    malformed: u64,
    stray_replies: u64,
    timed_out: u64,
}

impl<W> Session<W> {
    /// A session for a new connection; allocates nothing.
    pub const fn new(limits: Limits) -> Self {
        Self {
            acks: Acks::new(),
            limits,
            closed: false,
            malformed_at: None,
            malformed: 0,
            stray_replies: 0,
            timed_out: 0,
        }
    }

    /// Sorts out a received frame. `head` is its first bytes, `complete` says that it is the whole frame, and `payload`
    /// stands for what follows the head; it comes back in the answer or is dropped.
    ///
    /// [`frame::MAX_HEAD`] bytes are always enough to get an answer other than [`Received::More`].
    pub fn receive<'h, P>(&mut self, head: &'h [u8], complete: bool, payload: P, now: Time) -> Received<'h, P, W> {
        let parsed = match frame::parse(head, complete) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Received::More(payload),
            Err(defect) => {
                return Received::Malformed {
                    defect,
                    too_many: self.count_malformed(now),
                };
            }
        };
        let ack_id = parsed.ack_id;
        let offset = parsed.payload.unwrap_or(head.len());
        match parsed.reply_to() {
            None => Received::Event {
                name: parsed.name,
                ack_id,
                payload,
                offset,
            },
            Some(frame::EXTENSION) if ack_id == 0 => Received::Extension,
            Some(event) => match self.acks.answer(ack_id, event) {
                Some(waiter) => Received::Reply {
                    waiter,
                    ack_id,
                    payload,
                    offset,
                },
                None => {
                    self.stray_replies += 1;
                    Received::Stray
                }
            },
        }
    }

    /// Adds a call that waits for its reply until `deadline`, and answers the ack id to send. Ids are counted from 1.
    ///
    /// # Errors
    /// The waiter comes back if as many calls as [`Limits`] allows wait already, or if the session
    /// [is closed](Self::is_closed).
    pub fn register(&mut self, name: &str, deadline: Time, waiter: W) -> Result<u64, W> {
        if self.closed || self.acks.len() >= self.limits.max_pending_acks {
            return Err(waiter);
        }
        Ok(self.acks.register(name, deadline, waiter))
    }

    /// The caller of this id has given up: its call ends without an outcome, and a reply will be a stray one. `None` if the
    /// outcome has been decided.
    pub fn cancel(&mut self, ack_id: u64) -> Option<W> {
        self.acks.cancel(ack_id)
    }

    /// Ends the calls whose deadline has come. Cheap before [`deadline`](Self::deadline), so it may be called at every
    /// occasion. `timed_out` must not panic.
    pub fn expire(&mut self, now: Time, timed_out: impl FnMut(W)) {
        self.timed_out += self.acks.expire(now, timed_out) as u64;
    }

    /// When [`expire`](Self::expire) is to be called: at most 50 ms after the soonest deadline, which leaves 50 ms of the
    /// promised 100 to the caller's timer; a reply that comes in between is still one. It may come to nothing, as the call may
    /// have been answered. `None` while no call waits.
    pub fn deadline(&self) -> Option<Time> {
        self.acks.deadline()
    }

    /// The connection has ended: all calls end now, and none is taken any more.
    pub fn close(&mut self, lost: impl FnMut(W)) {
        self.closed = true;
        self.acks.drain(lost);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The id that the next call gets: with it the length of its frame is known.
    pub fn next_ack_id(&self) -> u64 {
        self.acks.next_id()
    }

    /// How many calls wait for their reply.
    pub fn pending(&self) -> usize {
        self.acks.len()
    }

    /// How many replies came that nobody waited for.
    pub fn stray_replies(&self) -> u64 {
        self.stray_replies
    }

    /// How many calls had no reply by their deadline.
    pub fn timed_out(&self) -> u64 {
        self.timed_out
    }

    /// How many malformed frames came.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    #[cold]
    fn count_malformed(&mut self, now: Time) -> bool {
        let at = self.malformed_at.get_or_insert_default();
        // What is overwritten is the frame `MAX_MALFORMED` before this one: if it came within the window, this is one too many.
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of 16")]
        let earlier = core::mem::replace(&mut at[(self.malformed % MAX_MALFORMED as u64) as usize], now);
        self.malformed += 1;
        let since = now.as_millis().saturating_sub(earlier.as_millis());
        self.malformed > MAX_MALFORMED as u64 && since < millis(MALFORMED_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    const START: Time = Time::from_millis(1_000);
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn session() -> Session<char> {
        Session::new(Limits::default())
    }

    fn malformed(session: &mut Session<char>, now: Time) -> bool {
        match session.receive(b"a||007", true, (), now) {
            Received::Malformed {
                defect: Defect::AckIdLeadingZero,
                too_many,
            } => too_many,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reply_needs_its_id_and_its_name_and_the_first_wins() {
        let mut session = session();
        assert_eq!(session.register("sum", START.after(TIMEOUT), 's'), Ok(1));
        assert_eq!(session.register("avg", START.after(TIMEOUT), 'a'), Ok(2));
        assert_eq!(session.receive(b"__ack_sum||2||", true, (), START), Received::Stray);
        assert_eq!(session.receive(b"__ack_sum||3||", true, (), START), Received::Stray);
        assert_eq!(session.receive(b"__ack_sum||0||", true, (), START), Received::Stray);
        let reply = Received::Reply {
            waiter: 's',
            ack_id: 1,
            payload: (),
            offset: 12,
        };
        assert_eq!(session.receive(b"__ack_sum||1", true, (), START), reply);
        assert_eq!(session.receive(b"__ack_sum||1", true, (), START), Received::Stray);
        assert_eq!(session.stray_replies(), 4);
        assert_eq!(session.pending(), 1);
    }

    #[test]
    fn ids_go_on_where_calls_were_refused() {
        let mut session = Session::new(Limits { max_pending_acks: 1 });
        assert_eq!(session.register("e", START, 'a'), Ok(1));
        assert_eq!(session.register("e", START, 'b'), Err('b'));
        assert_eq!(session.cancel(1), Some('a'));
        assert_eq!(session.cancel(1), None);
        assert_eq!(session.register("e", START, 'c'), Ok(2));
    }

    #[test]
    fn a_call_without_a_reply_times_out_and_the_late_reply_is_a_stray_one() {
        let mut session = session();
        let deadline = START.after(TIMEOUT);
        session.register("e", deadline, 'a').unwrap();
        assert_eq!(session.deadline(), Some(deadline));
        let mut ended = vec![];
        session.expire(START, |waiter| ended.push(waiter));
        assert_eq!(ended, []);
        session.expire(deadline, |waiter| ended.push(waiter));
        assert_eq!(ended, ['a']);
        assert_eq!((session.timed_out(), session.deadline()), (1, None));
        assert_eq!(session.receive(b"__ack_e||1||", true, (), deadline), Received::Stray);
    }

    #[test]
    fn the_end_of_the_connection_ends_every_call_in_order() {
        let mut session = session();
        for waiter in ['a', 'b', 'c'] {
            session.register("e", START.after(TIMEOUT), waiter).unwrap();
        }
        session.cancel(2);
        let mut ended = Vec::new();
        session.close(|waiter| ended.push(waiter));
        assert_eq!(ended, ['a', 'c']);
        assert_eq!(session.register("e", START, 'd'), Err('d'));
        assert!(session.is_closed());
        assert_eq!(
            (session.pending(), session.deadline(), session.timed_out()),
            (0, None, 0)
        );
    }

    #[test]
    fn the_seventeenth_malformed_frame_within_a_minute_is_one_too_many() {
        let mut session = session();
        for n in 0..16 {
            assert!(!malformed(&mut session, Time::from_millis(n * 1_000)));
        }
        assert!(malformed(&mut session, Time::from_millis(59_999)));
        assert_eq!(session.malformed(), 17);
    }

    #[test]
    fn sixteen_malformed_frames_every_minute_are_borne() {
        let mut session = session();
        for minute in 0..10 {
            for _ in 0..16 {
                assert!(!malformed(&mut session, Time::from_millis(minute * 60_000)));
            }
        }
        assert!(malformed(&mut session, Time::from_millis(9 * 60_000)));
    }

    #[test]
    fn the_extension_channel_is_silent_only_with_id_0() {
        let mut session = session();
        assert_eq!(
            session.receive(b"__ack___etp||0||{}", true, (), START),
            Received::Extension
        );
        assert_eq!(session.receive(b"__ack___etp||0", true, (), START), Received::Extension);
        assert_eq!(session.receive(b"__ack___etp||1||{}", true, (), START), Received::Stray);
    }

    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<Session<u64>>() <= 160, "{}", size_of::<Session<u64>>());
    }
}
