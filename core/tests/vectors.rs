//! The protocol against `tests/vectors/*.json`, the files that every language's tests read; their README says what an entry means.

use std::{fs, path::Path, time::Duration};

use etp_ws::protocol::{
    Backoff, Limits, Received, Redial, Session, Time,
    frame::{self, Head},
    reconnect::should_reconnect,
};
use serde_json::Value;

const NOW: Time = Time::from_millis(0);

fn load(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/vectors")
        .join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Calls `check` with each entry of the list, and names the entry if it fails.
fn each(list: &Value, mut check: impl FnMut(&Value)) {
    /// Says which entry failed, while the panic goes on.
    struct Naming<'a>(&'a str);
    impl Drop for Naming<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("vector: {}", self.0);
            }
        }
    }
    let list = list.as_array().expect("a list of entries");
    assert!(!list.is_empty());
    for entry in list {
        let _naming = Naming(text(entry, "why"));
        check(entry);
    }
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key]
        .as_str()
        .unwrap_or_else(|| panic!("no text {key:?} in {entry}"))
}

fn hex(entry: &Value, key: &str) -> Vec<u8> {
    let digits = text(entry, key);
    assert!(
        digits.is_ascii() && digits.len().is_multiple_of(2),
        "{key} is hexadecimal"
    );
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal"))
        .collect()
}

fn id(entry: &Value) -> u64 {
    text(entry, "ack_id").parse().expect("an ack id")
}

/// `key`, or `key_hex`.
fn maybe_name(entry: &Value, key: &str) -> Option<String> {
    let key_hex = format!("{key}_hex");
    match (entry.get(key), entry.get(&key_hex)) {
        (Some(name), None) => Some(name.as_str().expect("a name").to_owned()),
        (None, Some(_)) => Some(String::from_utf8(hex(entry, &key_hex)).expect("names are UTF-8")),
        (None, None) => None,
        (Some(_), Some(_)) => panic!("two names in {entry}"),
    }
}

fn name(entry: &Value) -> String {
    maybe_name(entry, "name").expect("a name")
}

#[test]
fn frames_are_written_to_the_byte() {
    each(&load("frames-written.json"), |entry| {
        let (name, id, payload) = (name(entry), id(entry), hex(entry, "payload_hex"));
        let mut frame = b"behind ".to_vec();
        let before = frame.len();
        let head_len = match text(entry, "kind") {
            "event" => {
                assert_eq!(frame::check_name(&name), Ok(()));
                frame::write_event(&mut frame, &name, id);
                frame::Opening::event(&name, id).len()
            }
            "reply" => {
                frame::write_reply(&mut frame, &name, id, payload.is_empty());
                frame::Opening::reply(&name, id, payload.is_empty()).len()
            }
            kind => panic!("{kind}"),
        };
        assert_eq!(frame.len(), before + head_len);
        frame.extend_from_slice(&payload);
        assert_eq!(frame[before..], hex(entry, "frame_hex"));

        let kind = if std::str::from_utf8(&payload).is_ok() {
            "text"
        } else {
            "binary"
        };
        assert_eq!(text(entry, "message"), kind);
        assert!(
            frame::parse(&frame[before..], true).is_ok_and(|head| head.is_some()),
            "what is written can be read"
        );
    });
}

#[test]
fn frames_are_read_at_every_cut() {
    each(&load("frames-read.json"), |entry| {
        let frame = hex(entry, "frame_hex");
        let (name, payload) = (name(entry), hex(entry, "payload_hex"));
        let three_parts = match entry["parts"].as_u64() {
            Some(parts @ (2 | 3)) => parts == 3,
            _ => panic!("2 or 3 parts"),
        };
        let head_len = frame.len() - payload.len();
        let expected = Head {
            name: &name,
            ack_id: id(entry),
            payload: three_parts.then_some(head_len),
        };

        assert_eq!(frame::parse(&frame, true), Ok(Some(expected)));
        assert_eq!(frame[head_len..], payload);
        assert_eq!(expected.reply_to().map(str::to_owned), maybe_name(entry, "reply_to"));
        for cut in 0..=frame.len() {
            let ended = three_parts && cut >= head_len;
            assert_eq!(
                frame::parse(&frame[..cut], false),
                Ok(ended.then_some(expected)),
                "cut at {cut}"
            );
        }
        if text(entry, "message") == "text" {
            assert!(std::str::from_utf8(&frame).is_ok(), "text messages are UTF-8");
        }
    });
}

#[test]
fn malformed_frames_are_refused_as_early_as_they_show() {
    each(&load("frames-refused.json"), |entry| {
        let frame = hex(entry, "frame_hex");
        let defect = text(entry, "defect");
        assert_eq!(frame::parse(&frame, true).map_err(|defect| defect.code()), Err(defect));
        let after = entry["after"]
            .as_u64()
            .map(|after| usize::try_from(after).expect("an offset"));
        assert!(after.is_some() || entry["after"].is_null());
        for cut in 0..=frame.len() {
            let expected = if after.is_some_and(|after| cut >= after) {
                Err(defect)
            } else {
                Ok(None)
            };
            assert_eq!(
                frame::parse(&frame[..cut], false).map_err(|defect| defect.code()),
                expected,
                "cut at {cut}"
            );
        }
    });
}

#[test]
fn names_outside_the_grammar_are_refused() {
    each(&load("names-refused.json"), |entry| {
        let refused = frame::check_name(&name(entry));
        assert_eq!(refused.map_err(|defect| defect.code()), Err(text(entry, "defect")));
    });
}

#[test]
fn replies_find_their_calls() {
    each(&load("replies.json"), |entry| {
        let mut session = Session::new(Limits::default());
        for call in entry["pending"].as_array().expect("a list of calls") {
            let registered = session.register(&name(call), NOW.after(Duration::from_secs(10)), id(call));
            assert_eq!(registered, Ok(id(call)));
        }
        let mut strays = 0;
        let mut malformed = 0;
        for step in entry["received"].as_array().expect("a list of frames") {
            let frame = hex(step, "frame_hex");
            let pending = session.pending();
            match (session.receive(&frame, true, (), NOW), text(step, "outcome")) {
                (
                    Received::Reply {
                        waiter,
                        ack_id,
                        payload: (),
                        offset,
                    },
                    "reply",
                ) => {
                    assert_eq!((waiter, ack_id), (id(step), id(step)));
                    assert_eq!(frame[offset..], hex(step, "payload_hex"));
                    assert_eq!(session.pending(), pending - 1);
                    continue;
                }
                (
                    Received::Event {
                        name: event,
                        ack_id,
                        payload: (),
                        offset,
                    },
                    "event",
                ) => {
                    assert_eq!((event, ack_id), (name(step).as_str(), id(step)));
                    assert_eq!(frame[offset..], hex(step, "payload_hex"));
                }
                (Received::Stray, "stray") => strays += 1,
                (Received::Extension, "extension") => {}
                (
                    Received::Malformed {
                        defect,
                        too_many: false,
                    },
                    "malformed",
                ) => {
                    assert_eq!(defect.code(), text(step, "defect"));
                    malformed += 1;
                }
                (received, outcome) => panic!("{outcome} expected, but {received:?}"),
            }
            assert_eq!(session.pending(), pending);
        }
        assert_eq!((session.stray_replies(), session.malformed()), (strays, malformed));
    });
}

#[test]
fn clients_dial_again_when_they_should() {
    let vectors = load("reconnect.json");
    each(&vectors["disconnects"], |entry| {
        let code = entry["code"]
            .as_u64()
            .and_then(|code| u16::try_from(code).ok())
            .expect("a close code");
        let own_close = entry["own_close"].as_bool().expect("own_close");
        let again = should_reconnect(code, text(entry, "reason"), own_close);
        assert_eq!(Some(again), entry["reconnect"].as_bool());
    });
    each(&vectors["dials"], |entry| {
        let status = entry["status"]
            .as_u64()
            .map(|status| u16::try_from(status).expect("an HTTP status"));
        let outcome = match Redial::after(status) {
            Redial::Rejected => "rejected",
            Redial::Busy => "busy",
            Redial::BackOff => "back_off",
        };
        assert_eq!(outcome, text(entry, "outcome"));
    });
}

#[test]
fn clients_dial_again_when_it_is_time() {
    each(&load("reconnect.json")["delays"], |entry| {
        let mut backoff = Backoff::default();
        for step in entry["steps"].as_array().expect("a list of steps") {
            let millis = |key: &str| step[key].as_u64().map(Duration::from_millis);
            if let Some(lifetime) = millis("alive_ms") {
                backoff.alive(lifetime);
            } else if let Some(at_least) = millis("retry_after_ms") {
                backoff.retry_after(at_least);
            } else {
                let next = &step["next"];
                let random = text(next, "random").parse().expect("a random number");
                let delay = next["delay_ms"].as_u64().map(Duration::from_millis);
                assert_eq!(Some(backoff.next_delay(random)), delay);
            }
        }
    });
}
