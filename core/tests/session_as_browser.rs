//! The session driven as the browser's wasm module drives it: heads cut short and asked for again, payloads as slot numbers
//! that free their slot when dropped.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use etp_ws::protocol::{
    Limits, Queue, Received, Session, Time,
    frame::{self, MAX_HEAD},
};
use proptest::prelude::*;

/// The frames that JavaScript holds, by slot number.
#[derive(Clone, Default)]
struct Slots {
    held: Rc<RefCell<BTreeMap<u32, Vec<u8>>>>,
    next: u32,
}

/// A frame in JavaScript's hands. Dropped: JavaScript may let it go.
struct Slot {
    number: u32,
    held: Rc<RefCell<BTreeMap<u32, Vec<u8>>>>,
}

impl Slots {
    fn hold(&mut self, frame: &[u8]) -> Slot {
        self.next += 1;
        self.held.borrow_mut().insert(self.next, frame.to_vec());
        Slot {
            number: self.next,
            held: Rc::clone(&self.held),
        }
    }

    fn count(&self) -> usize {
        self.held.borrow().len()
    }
}

impl Slot {
    /// What JavaScript reads behind the head.
    fn payload(&self, offset: usize) -> Vec<u8> {
        self.held.borrow()[&self.number][offset..].to_vec()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        assert!(
            self.held.borrow_mut().remove(&self.number).is_some(),
            "a slot is freed once"
        );
    }
}

/// Passes the first `cut` bytes, then the whole frame if more is asked for. The same as native code, which always passes the
/// whole frame, must come of it.
fn receive_cut<'h, W>(
    session: &mut Session<W>,
    frame: &'h [u8],
    cut: usize,
    slot: Slot,
    now: Time,
) -> Received<'h, Slot, W> {
    let cut = cut.min(frame.len());
    match session.receive(&frame[..cut], cut == frame.len(), slot, now) {
        Received::More(slot) => {
            assert!(cut < frame.len() && cut < MAX_HEAD, "more was asked for in vain");
            session.receive(frame, true, slot, now)
        }
        received => received,
    }
}

const START: Time = Time::from_millis(0);

fn deadline() -> Time {
    START.after(Duration::from_secs(10))
}

#[test]
fn at_every_cut_the_same_comes_of_it_and_no_slot_is_lost() {
    let long = "n".repeat(256);
    let frames: [Vec<u8>; 12] = [
        b"hello||0||world".to_vec(),
        b"hello||5||a||b".to_vec(),
        b"hello||0".to_vec(),
        b"__ack_sum||1||3".to_vec(),
        b"__ack_sum||1".to_vec(),
        b"__ack_sum||2||3".to_vec(),
        b"__ack___etp||0||{}".to_vec(),
        "\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442}||7||x".into(),
        format!("__ack_{long}||9223372036854775807||x").into_bytes(),
        b"a||007||x".to_vec(),
        b"no frame at all".to_vec(),
        b"".to_vec(),
    ];
    for frame in &frames {
        let mut slots = Slots::default();
        let mut told = Vec::new();
        for cut in 0..=frame.len() {
            let mut session = Session::new(Limits::default());
            session.register("sum", deadline(), "waiter").unwrap();
            let slot = slots.hold(frame);
            told.push(match receive_cut(&mut session, frame, cut, slot, START) {
                Received::More(_) => unreachable!("the whole frame was passed"),
                Received::Event {
                    name,
                    ack_id,
                    payload,
                    offset,
                } => {
                    format!("event {name} {ack_id} {:?}", payload.payload(offset))
                }
                Received::Reply {
                    waiter,
                    ack_id,
                    payload,
                    offset,
                } => {
                    format!("reply {waiter} {ack_id} {:?}", payload.payload(offset))
                }
                Received::Stray => "stray".into(),
                Received::Extension => "extension".into(),
                Received::Malformed { defect, too_many } => {
                    format!("malformed {defect:?} {too_many}")
                }
            });
            assert_eq!(slots.count(), 0, "every slot is freed, at cut {cut}");
        }
        told.dedup();
        assert_eq!(told.len(), 1, "{told:?}");
    }
}

#[test]
fn a_payload_stays_until_its_event_is_handled() {
    let mut slots = Slots::default();
    let mut session: Session<()> = Session::new(Limits::default());
    let slot = slots.hold(b"hello||0||world");
    let Received::More(slot) = session.receive(b"hel", false, slot, START) else {
        panic!("more")
    };
    assert_eq!(slots.count(), 1);
    let Received::Event { payload, offset, .. } = session.receive(b"hello||0||", false, slot, START) else {
        panic!("an event")
    };
    assert_eq!(payload.payload(offset), b"world");
    assert_eq!(slots.count(), 1);
    drop(payload);
    assert_eq!(slots.count(), 0);
}

#[test]
fn what_was_queued_while_away_is_sent_or_freed() {
    let mut slots = Slots::default();
    let mut queue = Queue::new(4);
    queue.push("plain", slots.hold(b"1"), None).ok().unwrap();
    let cancelled = queue.push("cancelled", slots.hold(b"2"), None).ok().unwrap();
    queue
        .push(
            "expired",
            slots.hold(b"3"),
            Some(("expired", START.after(Duration::from_secs(1)))),
        )
        .ok()
        .unwrap();
    queue
        .push("call", slots.hold(b"4"), Some(("call", deadline())))
        .ok()
        .unwrap();
    assert!(queue.push("too many", slots.hold(b"5"), None).is_err());
    assert_eq!(slots.count(), 4);
    queue.cancel(cancelled);
    assert_eq!(slots.count(), 3);

    let back = START.after(Duration::from_secs(2));
    let mut ended = Vec::new();
    queue.expire(back, |waiter| ended.push(waiter));
    assert_eq!((ended.as_slice(), slots.count()), (["expired"].as_slice(), 2));

    let mut session = Session::new(Limits::default());
    let mut sent = Vec::new();
    while let Some(event) = queue.pop() {
        let id = event.ack.map_or(0, |(waiter, deadline)| {
            session.register(&event.name, deadline, waiter).unwrap()
        });
        let mut frame = Vec::new();
        frame::write_event(&mut frame, &event.name, id);
        frame.extend(event.payload.payload(0));
        sent.push(String::from_utf8(frame).unwrap());
    }
    assert_eq!(sent, ["plain||0||1", "call||1||4"]);
    assert_eq!((slots.count(), session.deadline()), (0, Some(deadline())));
}

#[derive(Clone, Debug)]
enum Step {
    Emit { name: usize },
    Cancel { id: u64 },
    Receive { frame: Vec<u8>, cut: usize },
    Reply { name: usize, id: u64, cut: usize },
    Pass { millis: u64 },
}

const NAMES: [&str; 3] = ["a", "chat message", "an event name that is too long to be kept inline"];

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        "[a|]{0,3}(\\|\\|)?[0-9+]{0,20}(\\|\\|)?[x|]{0,5}".prop_map(String::into_bytes),
        "(__ack_)?[a-c]{1,3}\\|\\|[0-9]{1,3}(\\|\\|x)?".prop_map(String::into_bytes),
    ];
    prop_oneof![
        3 => (0..3usize).prop_map(|name| Step::Emit { name }),
        1 => (1..40u64).prop_map(|id| Step::Cancel { id }),
        3 => (bytes, 0..64usize).prop_map(|(frame, cut)| Step::Receive { frame, cut }),
        3 => (0..3usize, 1..40u64, 0..64usize).prop_map(|(name, id, cut)| Step::Reply { name, id, cut }),
        1 => (0..5_000u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

proptest! {
    /// Whatever a peer sends: nothing panics, every slot is freed, every call has one outcome.
    #[test]
    fn any_conversation_leaves_nothing_behind(steps in proptest::collection::vec(step(), 0..120)) {
        let mut slots = Slots::default();
        let mut session = Session::new(Limits { max_pending_acks: 20 });
        let mut outcomes = BTreeMap::new();
        let mut emitted = 0u64;
        let mut now = START;
        for step in steps {
            match step {
                Step::Emit { name } => {
                    let full = session.pending() == 20;
                    match session.register(NAMES[name], now.after(Duration::from_secs(10)), emitted + 1) {
                        Ok(id) => {
                            emitted += 1;
                            prop_assert_eq!(id, emitted);
                        }
                        Err(_) => prop_assert!(full),
                    }
                }
                Step::Cancel { id } => {
                    if let Some(waiter) = session.cancel(id) {
                        prop_assert_eq!(waiter, id);
                        prop_assert!(outcomes.insert(id, "cancelled").is_none());
                    }
                }
                Step::Receive { frame, cut } => {
                    let slot = slots.hold(&frame);
                    if let Received::Reply { waiter, ack_id, .. } = receive_cut(&mut session, &frame, cut, slot, now) {
                        prop_assert_eq!(waiter, ack_id);
                        prop_assert!(outcomes.insert(waiter, "replied").is_none());
                    }
                }
                Step::Reply { name, id, cut } => {
                    let mut frame = Vec::new();
                    frame::write_reply(&mut frame, NAMES[name], id, false);
                    let slot = slots.hold(&frame);
                    match receive_cut(&mut session, &frame, cut, slot, now) {
                        Received::Reply { waiter, .. } => prop_assert!(outcomes.insert(waiter, "replied").is_none()),
                        received => prop_assert!(matches!(received, Received::Stray)),
                    }
                }
                Step::Pass { millis } => {
                    now = now.after(Duration::from_millis(millis));
                    session.expire(now, |waiter| assert!(outcomes.insert(waiter, "timed out").is_none()));
                }
            }
            prop_assert_eq!(slots.count(), 0);
            prop_assert_eq!(session.pending() + outcomes.len(), usize::try_from(emitted).unwrap());
        }
        session.close(|waiter| assert!(outcomes.insert(waiter, "lost").is_none()));
        prop_assert!(outcomes.keys().copied().eq(1..=emitted));
        prop_assert_eq!(session.deadline(), None);
    }
}
