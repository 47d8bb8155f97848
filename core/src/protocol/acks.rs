//! `Acks`: the calls of one connection that wait for their reply, found by id.
//!
//! Ids are counted from 1, so the calls stand in a row in order of id. An answered one leaves a hole, and a call that finds more
//! holes than calls (and `SLACK` more) draws the row together before it joins. So the row never grows past twice the calls,
//! even if one old call outlives a million later ones, and each call pays for its own moves: amortised constant time.

use alloc::{boxed::Box, vec::Vec};

use super::{Time, scan::Scan};

/// Holes that are never worth drawing the row together, and slots that a row without calls may keep.
const SLACK: usize = 32;

/// Calls that wait for their reply; `W` is whatever the caller wakes when the outcome is known.
#[derive(Debug)]
pub struct Acks<W> {
    /// In order of id.
    slots: Vec<Slot<W>>,
    live: usize,
    last_id: u64,
    scan: Scan,
}

#[derive(Debug)]
struct Slot<W> {
    id: u64,
    /// `None` is a hole.
    call: Option<Call<W>>,
}

#[derive(Debug)]
struct Call<W> {
    name: Name,
    deadline: Time,
    waiter: W,
}

impl<W> Default for Acks<W> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W> Acks<W> {
    /// No calls; allocates nothing.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            live: 0,
            last_id: 0,
            scan: Scan::new(),
        }
    }

    /// The id that the next call gets.
    pub fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Adds a call and answers its id.
    pub fn register(&mut self, name: &str, deadline: Time, waiter: W) -> u64 {
        if self.slots.len() > 2 * self.live + SLACK {
            self.draw_together();
        }
        // 2^63 ids at one each nanosecond last three centuries.
        self.last_id += 1;
        self.slots.push(Slot {
            id: self.last_id,
            call: Some(Call {
                name: Name::new(name),
                deadline,
                waiter,
            }),
        });
        self.live += 1;
        self.scan.add(deadline);
        self.last_id
    }

    /// Ends the call that a reply answers: one with this id, and of this event.
    pub fn answer(&mut self, id: u64, name: &str) -> Option<W> {
        let index = self.find(id)?;
        let call = self.slots[index].call.take_if(|call| call.name.is(name))?;
        self.removed();
        Some(call.waiter)
    }

    /// Ends a call whose caller has given up; `None` if its outcome has been decided.
    pub fn cancel(&mut self, id: u64) -> Option<W> {
        let index = self.find(id)?;
        let call = self.slots[index].call.take()?;
        self.removed();
        Some(call.waiter)
    }

    /// Ends every call whose deadline has come, in order of id, and answers how many there were.
    ///
    /// Looks through the calls only from [`deadline`](Self::deadline) on, so it may be called at every occasion.
    pub fn expire(&mut self, now: Time, mut timed_out: impl FnMut(W)) -> usize {
        if self.scan.wake().is_none_or(|wake| now < wake) {
            return 0;
        }
        self.scan.begin(now);
        let before = self.live;
        for slot in &mut self.slots {
            if let Some(call) = slot.call.take_if(|call| call.deadline <= now) {
                self.live -= 1;
                timed_out(call.waiter);
            } else if let Some(call) = &slot.call {
                self.scan.add(call.deadline);
            }
        }
        self.tidy();
        before - self.live
    }

    /// When [`expire`](Self::expire) is due: never more than 50 ms after the soonest deadline, never more than every 50 ms.
    /// It may turn out that the call has been answered meanwhile. `None` while no call waits.
    pub fn deadline(&self) -> Option<Time> {
        self.scan.wake()
    }

    /// Ends all calls, in order of id.
    pub fn drain(&mut self, mut ended: impl FnMut(W)) {
        self.live = 0;
        self.scan.forget();
        for slot in &mut self.slots {
            if let Some(call) = slot.call.take() {
                ended(call.waiter);
            }
        }
        self.slots = Vec::new();
    }

    /// How many calls wait.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no call waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    fn find(&self, id: u64) -> Option<usize> {
        // The newest ids stand without gaps, counted from the back; only what has outlived a drawing together does not.
        let behind = usize::try_from(self.slots.last()?.id.checked_sub(id)?).ok();
        behind
            .and_then(|behind| (self.slots.len() - 1).checked_sub(behind))
            .filter(|index| self.slots[*index].id == id)
            .or_else(|| self.slots.binary_search_by_key(&id, |slot| slot.id).ok())
    }

    fn removed(&mut self) {
        self.live -= 1;
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.live == 0 {
            self.scan.forget();
            self.slots.clear();
            if self.slots.capacity() > 2 * SLACK {
                self.slots = Vec::new();
            }
        }
    }

    fn draw_together(&mut self) {
        self.slots.retain(|slot| slot.call.is_some());
        let enough = 2 * self.live + 2 * SLACK;
        if self.slots.capacity() > 2 * enough {
            self.slots.shrink_to(enough);
        }
    }
}

/// An event name that is kept only to be compared; short ones without an allocation.
#[derive(Debug)]
enum Name {
    Short(u8, [u8; Name::SHORT]),
    Long(Box<str>),
}

impl Name {
    /// What fits beside length and tag into the 24 bytes that the long form takes anyway.
    const SHORT: usize = 22;

    fn new(name: &str) -> Self {
        let mut bytes = [0; Self::SHORT];
        match bytes.get_mut(..name.len()) {
            Some(short) => {
                short.copy_from_slice(name.as_bytes());
                // At most `SHORT`.
                Self::Short(name.len() as u8, bytes)
            }
            None => Self::Long(name.into()),
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len)] == name.as_bytes(),
            Self::Long(long) => **long == *name,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, string::String, vec, vec::Vec};
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NEVER: Time = Time::from_millis(u64::MAX);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn a_name_takes_24_bytes_and_is_compared_whole() {
        assert_eq!(size_of::<Name>(), 24);
        for len in [0, 1, 21, 22, 23, 256] {
            let name: String = "n".repeat(len);
            assert!(Name::new(&name).is(&name));
            assert!(!Name::new(&name).is("m"));
            assert!(!Name::new(&name).is(&(name + "n")));
        }
    }

    #[test]
    fn one_old_call_does_not_hold_the_memory_of_a_million_later_ones() {
        let mut acks = Acks::new();
        let old = acks.register("old", NEVER, 0);
        for _ in 0..1_000_000 {
            let id = acks.register("new", NEVER, 1);
            assert_eq!(acks.answer(id, "new"), Some(1));
        }
        assert!(acks.slots.len() <= 2 + SLACK + 1);
        assert!(acks.slots.capacity() <= 4 * SLACK);
        assert_eq!(acks.answer(old, "old"), Some(0));
        assert!(acks.is_empty());
    }

    #[test]
    fn a_burst_gives_its_memory_back() {
        let mut acks = Acks::new();
        let ids: Vec<u64> = (0..10_000).map(|n| acks.register("e", NEVER, n)).collect();
        for id in ids {
            acks.cancel(id);
        }
        assert!(acks.slots.capacity() <= 2 * SLACK);
    }

    #[test]
    fn mixed_deadlines_are_scanned_at_most_every_50_ms_and_decided_within_50_ms() {
        let mut acks = Acks::new();
        for millis in 1..=1_000 {
            acks.register("e", at(millis), millis);
        }
        let mut wakes = 0;
        while let Some(now) = acks.deadline() {
            wakes += 1;
            acks.expire(now, |deadline| {
                assert!(now.as_millis() >= deadline && now.as_millis() <= deadline + 50);
            });
        }
        assert!(wakes <= 21, "{wakes} scans in a second");
    }

    #[test]
    fn a_deadline_set_right_after_a_scan_waits_for_the_next_one() {
        let mut acks = Acks::new();
        acks.register("e", at(100), 'a');
        acks.register("e", NEVER, 'b');
        assert_eq!(acks.expire(at(100), |_| {}), 1);
        acks.register("e", at(101), 'c');
        assert_eq!(acks.deadline(), Some(at(150)));
        assert_eq!(acks.expire(at(149), |_| {}), 0);
        let mut timed_out = vec![];
        assert_eq!(acks.expire(at(150), |waiter| timed_out.push(waiter)), 1);
        assert_eq!(timed_out, ['c']);
        assert_eq!(acks.deadline(), Some(NEVER));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Register { name: u8, timeout: u64 },
        Answer { id: u64, name: u8 },
        Cancel { id: u64 },
        Pass { millis: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3u8, prop_oneof![0..200u64, Just(10_000)]).prop_map(|(name, timeout)| Step::Register { name, timeout }),
            4 => (0..60u64, 0..3u8).prop_map(|(id, name)| Step::Answer { id, name }),
            1 => (0..60u64).prop_map(|id| Step::Cancel { id }),
            2 => (0..120u64).prop_map(|millis| Step::Pass { millis }),
        ]
    }

    proptest! {
        /// Against a map: every call gets one outcome, no other, and none later than 50 ms after its deadline.
        #[test]
        fn every_call_ends_once(steps in proptest::collection::vec(step(), 0..400)) {
            let names = ["a", "bb", "a name of more than twenty-two bytes"];
            let mut acks = Acks::new();
            let mut model = BTreeMap::new();
            let mut now = at(0);
            for step in steps {
                match step {
                    Step::Register { name, timeout } => {
                        let deadline = now.after(Duration::from_millis(timeout));
                        let id = acks.register(names[usize::from(name)], deadline, (name, deadline));
                        prop_assert!(model.insert(id, (name, deadline)).is_none());
                    }
                    Step::Answer { id, name } => {
                        let id = acks.last_id.saturating_sub(id);
                        let expected = if model.get(&id).is_some_and(|call| call.0 == name) { model.remove(&id) } else { None };
                        prop_assert_eq!(acks.answer(id, names[usize::from(name)]), expected);
                    }
                    Step::Cancel { id } => {
                        let id = acks.last_id.saturating_sub(id);
                        prop_assert_eq!(acks.cancel(id), model.remove(&id));
                    }
                    Step::Pass { millis } => {
                        // A timer that fires to the millisecond, as often as it is asked to.
                        let end = now.after(Duration::from_millis(millis));
                        while let Some(wake) = acks.deadline().filter(|wake| *wake <= end) {
                            now = wake.max(now);
                            acks.expire(now, |call| assert!(call.1 <= now));
                            model.retain(|_, call| call.1 > now);
                            prop_assert_eq!(acks.len(), model.len());
                        }
                        now = end;
                        prop_assert!(model.values().all(|call| call.1.after(Duration::from_millis(50)) >= now));
                    }
                }
                prop_assert_eq!(acks.len(), model.len());
                prop_assert!(acks.slots.len() <= 2 * acks.len() + SLACK + 60);
                prop_assert_eq!(acks.deadline().is_some(), !model.is_empty());
            }
            let mut ended = 0;
            acks.drain(|_| ended += 1);
            prop_assert_eq!(ended, model.len());
        }
    }
}
