//! A client's life as JavaScript drives it, without JavaScript.

use etp_ws::protocol::{Backoff, Defect, Time};
use etp_ws_wasm::{Ended, Life, Options, Push, Received, Return, State};

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn life(queue: usize) -> Life {
    Life::new(Options {
        queue,
        max_pending_acks: 2,
        reconnect: true,
        backoff: Backoff::default(),
    })
}

fn connected(queue: usize) -> Life {
    let mut life = life(queue);
    life.opened(at(0));
    assert_eq!(life.next(at(0)), None);
    life
}

fn head(life: &Life) -> &str {
    core::str::from_utf8(&life.head).unwrap()
}

fn ended(life: &mut Life) -> Vec<(u32, Ended)> {
    core::iter::from_fn(|| life.next_ended()).collect()
}

#[test]
fn an_event_goes_out_and_a_call_comes_back() {
    let mut life = connected(0);
    assert_eq!(life.state(), State::Connected);
    assert_eq!(life.emit("say", 1, false), Push::Send);
    assert_eq!(head(&life), "say||0||");
    assert_eq!(life.ask("sum", 2, 1_000, false, at(0)), Push::Send);
    assert_eq!((head(&life), life.last_ack_id()), ("sum||1||", 1));
    let reply = Received::Reply { slot: 2, payload: 14 };
    assert_eq!(life.receive(b"__ack_sum||1||3", true, true, at(1)), reply);
    assert_eq!(life.receive(b"__ack_sum||1||3", true, true, at(1)), Received::Nothing);
    assert_eq!(life.deadline(), None);
}

#[test]
fn offsets_count_utf_16_units_of_a_text_and_bytes_of_anything_else() {
    let mut life = connected(0);
    let frame = "z\u{e4}\u{1f600}||7||".as_bytes();
    let of = |name, payload| Received::Event {
        name,
        payload,
        ack_id: 7,
    };
    assert_eq!(life.receive(frame, true, true, at(0)), of(4, 9));
    assert_eq!(life.receive(frame, true, false, at(0)), of(7, 12));
    assert_eq!(life.receive(&frame[..5], false, true, at(0)), Received::More);
}

#[test]
fn what_waits_goes_out_in_order_before_the_client_is_connected() {
    let mut life = life(4);
    assert_eq!(life.state(), State::Connecting);
    assert!(matches!(life.emit("a", 1, false), Push::Queued(_)));
    let Push::Queued(given_up) = life.ask("b", 2, 1_000, false, at(0)) else {
        panic!("it waits")
    };
    assert!(matches!(life.ask("c", 3, 1_000, false, at(0)), Push::Queued(_)));
    assert!(matches!(life.ask("d", 4, 10, false, at(0)), Push::Queued(_)));
    assert_eq!(life.emit("e", 5, false), Push::Full);
    life.cancel_queued(given_up);
    life.opened(at(100));
    assert_eq!(life.emit("login", 6, true), Push::Send, "ahead of what waits");
    assert!(matches!(life.emit("f", 7, false), Push::Queued(_)), "behind it");
    assert_eq!(life.next(at(100)), Some((1, None)));
    assert_eq!(head(&life), "a||0||");
    assert_eq!(life.next(at(100)), Some((3, Some(1))));
    assert_eq!(head(&life), "c||1||");
    assert_eq!(life.next(at(100)), Some((7, None)));
    assert_eq!(life.state(), State::Connecting);
    assert_eq!(life.next(at(100)), None);
    assert_eq!(life.state(), State::Connected);
    assert_eq!(ended(&mut life), [(4, Ended::TimedOut)]);
}

#[test]
fn a_call_that_waited_finds_as_many_others_as_may_be() {
    let mut life = life(8);
    for slot in 1..=3 {
        assert!(matches!(life.ask("e", slot, 1_000, false, at(0)), Push::Queued(_)));
    }
    life.opened(at(0));
    while life.next(at(0)).is_some() {}
    assert_eq!(ended(&mut life), [(3, Ended::TooManyAcks)]);
    assert_eq!(life.ask("e", 4, 1_000, false, at(0)), Push::TooManyAcks);
}

#[test]
fn nothing_ends_before_its_time_and_nothing_waits_past_it() {
    let mut life = connected(0);
    life.ask("e", 1, 100, false, at(7));
    let deadline = life.deadline().unwrap();
    assert!(deadline >= at(107) && deadline <= at(157));
    life.expire(at(107));
    assert_eq!(ended(&mut life), []);
    life.expire(deadline);
    assert_eq!(ended(&mut life), [(1, Ended::TimedOut)]);
}

#[test]
fn the_end_of_a_connection_ends_its_calls_and_not_those_that_wait() {
    let mut life = connected(4);
    life.ask("e", 1, 1_000, false, at(0));
    life.closing();
    assert!(matches!(life.ask("e", 2, 1_000, false, at(0)), Push::Queued(_)));
    assert_eq!(life.lost(1006, "", false, at(10)), Return::Usual);
    life.comes_back();
    assert_eq!(life.state(), State::Reconnecting);
    assert_eq!(ended(&mut life), [(1, Ended::Lost)]);
    assert!(life.delay(u64::MAX / 2) <= 500);
    life.end();
    assert_eq!(ended(&mut life), [(2, Ended::Lost)]);
    assert_eq!(life.emit("e", 3, false), Push::Closed);
    assert_eq!(life.state(), State::Closed);
}

#[test]
fn it_comes_back_by_the_rule_but_not_from_a_first_dial() {
    assert_eq!(life(0).lost(1006, "", false, at(0)), Return::Never);
    for (code, reason, own, again) in [
        (1006, "", false, Return::Usual),
        (1000, "", false, Return::Usual),
        (1000, "server shutdown", false, Return::Usual),
        (1000, "kicked", false, Return::Unusual),
        (1008, "", false, Return::Unusual),
        (1000, "", true, Return::Never),
    ] {
        assert_eq!(connected(0).lost(code, reason, own, at(0)), again, "{code} {reason}");
    }
}

#[test]
fn ids_of_any_size_are_echoed() {
    let mut life = connected(0);
    for id in [1, 9_007_199_254_740_993, i64::MAX as u64] {
        let frame = format!("e||{id}||");
        let Received::Event { ack_id, .. } = life.receive(frame.as_bytes(), true, true, at(0)) else {
            panic!("an event")
        };
        life.reply("e", ack_id, false);
        assert_eq!(head(&life), format!("__ack_e||{id}||"));
        life.reply("e", ack_id, true);
        assert_eq!(head(&life), format!("__ack_e||{id}"));
    }
}

#[test]
fn the_seventeenth_malformed_frame_is_one_too_many() {
    let mut life = connected(0);
    for number in 0..17 {
        let expected = Received::Malformed(Defect::NoAckId, number == 16);
        assert_eq!(life.receive(b"nonsense", true, true, at(number)), expected);
    }
}
