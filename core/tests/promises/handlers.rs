//! Handlers: started in the order of arrival, concurrent up to the limits, never in each other's way, failures told and survived.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use etp_ws::testing::Message;
use etp_ws::{Bytes, Client, Conn, Event, Server, ServerBuilder, blocking, spawned, testing};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::*;

/// A server whose handler of `work` says that it has started, and ends when it is let.
fn working() -> (ServerBuilder, Log<String>, Arc<Semaphore>) {
    let (started, gate) = (Log::new(), Arc::new(Semaphore::new(0)));
    let (log, held) = (started.clone(), gate.clone());
    let server = Server::builder().on("work", async move |_: Conn, what: String| {
        log.push(what.chars().take(8).collect());
        held.acquire().await.expect("the gate is never closed").forget();
    });
    (server, started, gate)
}

#[tokio::test(start_paused = true)]
async fn a_failed_handler_sends_no_reply_and_its_connection_lives() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .on_error(on_error)
        .on("err", |_: Conn, ()| Err::<&str, _>("broken"))
        .on("late_err", async |_: Conn, ()| {
            tokio::task::yield_now().await;
            Err::<&str, _>("broken later")
        })
        .on("panic", |_: Conn, ()| -> &str { panic!("at once") })
        .on("late_panic", async |_: Conn, ()| -> &str {
            tokio::task::yield_now().await;
            panic!("later")
        })
        .on(
            "spawned_panic",
            spawned(async |_: Conn, ()| -> &str { panic!("in its task") }),
        )
        .on(
            "blocking_panic",
            blocking(|_: Conn, ()| -> &str { panic!("in its thread") }),
        )
        .on("number", |_: Conn, n: String| n.parse::<u8>().map(|n| n.to_string()))
        .on("utf8", |_: Conn, _: String| "is")
        .on("ok", |_: Conn, ()| "ok")
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let cases = [
        ("err", "broken"),
        ("late_err", "broken later"),
        ("panic", "at once"),
        ("late_panic", "later"),
        ("spawned_panic", "in its task"),
        ("blocking_panic", "in its thread"),
        ("number", "invalid digit"),
    ];
    for (n, (name, cause)) in cases.iter().enumerate() {
        peer.send(format!("{name}||7||many")).await;
        let told = log.until(n + 1).await;
        assert_eq!(told[n].code(), "handler_failed", "{name}");
        assert!(
            told[n].to_string().contains(cause) && told[n].to_string().contains(name),
            "{}",
            told[n]
        );
    }
    peer.0
        .send(Message::Binary(Bytes::from_static(b"utf8||7||\xff")))
        .await
        .unwrap();
    assert_eq!(log.until(cases.len() + 1).await[cases.len()].code(), "invalid_payload");
    peer.send("ok||8||").await;
    assert_eq!(
        peer.frame().await,
        "__ack_ok||8||ok",
        "the first message that is sent at all"
    );
    assert!(conn.is_open());
    assert_eq!(server.stats().handlers_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn errors_carry_no_payload() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .on_error(on_error)
        .on("json", |_: Conn, _: etp_ws::Json<u8>| ())
        .on("text", |_: Conn, _: String| ())
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    peer.send("json||1||\"secret\"").await;
    peer.0
        .send(Message::Binary(Bytes::from_static(b"text||1||secret\xff")))
        .await
        .unwrap();
    peer.send("secret").await;
    peer.send("unknown||1||secret").await;
    for error in log.until(4).await {
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    assert_eq!(
        codes(&log),
        ["invalid_payload", "invalid_payload", "malformed_frame", "no_handler"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_event_is_told_to_on_error_and_gets_no_reply() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .on_error(on_error)
        .on("ok", |_: Conn, ()| ())
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    peer.send("what||3||").await;
    peer.send("ok||4||").await;
    assert_eq!(peer.frame().await, "__ack_ok||4");
    assert_eq!(codes(&log), ["no_handler"]);
    assert!(log.all()[0].to_string().contains("what"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_event_gets_what_on_unknown_event_returns() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .on_error(on_error)
        .on("known", |_: Conn, ()| "known")
        .on_unknown_event(|_: Conn, event: Event| format!("no {}: {:?}", event.name(), event.payload()))
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    peer.send("what||3||x").await;
    peer.send("known||4||").await;
    assert_eq!(peer.frame().await, "__ack_what||3||no what: b\"x\"");
    assert_eq!(peer.frame().await, "__ack_known||4||known");
    assert_eq!(codes(&log), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn no_callback_is_required() {
    let server = Server::builder()
        .on("panic", |_: Conn, ()| -> () { panic!("nobody listens") })
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for frame in ["panic||1||", "unknown||1||", "malformed", "__ack___etp||0||later"] {
        peer.send(frame).await;
    }
    peer.is_read().await;
    assert!(conn.is_open());
    drop(peer);
    conn.closed().await;
    let began = Instant::now();
    server.shutdown().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_holds_up_neither_others_nor_replies_nor_pings() {
    let (server, started, gate) = working();
    let server = server.on("fast", |_: Conn, ()| "done").build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let began = Instant::now();
    peer.send("work||1||slow").await;
    started.until(1).await;
    peer.send("fast||2||").await;
    assert_eq!(peer.frame().await, "__ack_fast||2||done");
    peer.is_read().await;
    let call = tokio::spawn(conn.emit_with_ack("ask", ()).into_future());
    assert_eq!(peer.frame().await, "ask||1||");
    peer.send("__ack_ask||1||answer").await;
    assert_eq!(call.await.unwrap().unwrap(), "answer");
    assert_eq!(began.elapsed(), Duration::ZERO);
    gate.add_permits(1);
    assert_eq!(peer.frame().await, "__ack_work||1");
}

#[tokio::test(start_paused = true)]
async fn they_start_in_order_and_run_at_once_up_to_max_inflight() {
    let (server, started, gate) = working();
    let server = server.max_inflight(3).build().unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    for n in 0..10 {
        peer.send(format!("work||{}||{n}", n + 1)).await;
    }
    for running in 3..=10 {
        settle().await;
        let order: Vec<_> = (0..running).map(|n| n.to_string()).collect();
        assert_eq!(started.all(), order);
        assert_eq!(server.stats().handlers_in_flight, 3);
        gate.add_permits(1);
    }
    gate.add_permits(2);
    for _ in 0..10 {
        assert!(peer.frame().await.starts_with("__ack_work||"));
    }
    assert_eq!(server.stats().handlers_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_and_fifty_six_run_at_once_by_default() {
    let (server, started, _gate) = working();
    let server = server.build().unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    for n in 0..300 {
        peer.send(format!("work||0||{n}")).await;
    }
    settle().await;
    assert_eq!((started.len(), server.stats().handlers_in_flight), (256, 256));
}

/// Sends events of 16 KiB until no more are read; answers how many there were.
async fn fill(peer: &mut Peer) -> usize {
    let frame = format!("work||0||{}", "x".repeat(16 * 1024));
    let mut sent = 0;
    while peer.has_room(frame.clone()).await {
        sent += 1;
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn past_max_inflight_a_mebibyte_waits_then_reading_pauses_then_it_is_overload() {
    let (server, started, gate) = working();
    let (gone, on_disconnect) = disconnects();
    let server = server.max_inflight(1).on_disconnect(on_disconnect).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for _ in 0..60 {
        peer.send(format!("work||0||{}", "x".repeat(16 * 1024))).await;
    }
    peer.is_read().await;
    let call = tokio::spawn(conn.emit_with_ack("ask", ()).into_future());
    assert_eq!(peer.frame().await, "ask||1||");
    peer.send("__ack_ask||1||answer").await;
    assert_eq!(
        call.await.unwrap().unwrap(),
        "answer",
        "replies are read while events wait"
    );

    // One runs, 1 MiB waits, and the pipe itself holds 64 KiB.
    let sent = 60 + fill(&mut peer).await;
    let most = (1024 + 64) / 16 + 3;
    assert!((64..=most).contains(&sent), "{sent} events were taken");
    assert_eq!(started.len(), 1);

    tokio::time::sleep(20 * SEC).await;
    gate.add_permits(1);
    started.until(2).await;
    let began = Instant::now();
    // Keepalive pauses with reading: the next message is the close frame, no ping.
    let close = peer.next().await;
    assert_eq!(close, Message::Close(closed_with(1013, "overloaded")));
    assert_eq!(began.elapsed(), 30 * SEC, "counted from when the last handler ended");
    drop(peer);
    let why = gone.until(1).await.remove(0);
    assert_eq!((why.code, &*why.reason), (1013, "overloaded"));
    assert_eq!(server.stats().closes.get("overloaded"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_when_handlers_end() {
    let (server, started, gate) = working();
    let server = server.max_inflight(1).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let sent = fill(&mut peer).await;
    gate.add_permits(sent);
    started.until(sent).await;
    peer.is_read().await;
    tokio::time::sleep(24 * SEC).await;
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn those_that_all_wait_for_an_ack_on_their_own_connection_end() {
    let noise = Log::new();
    let counted = noise.clone();
    let server = Server::builder()
        .on("ask", async |conn: Conn, ()| conn.emit_with_ack("question", ()).await)
        .on("noise", move |_: Conn, _: Bytes| counted.push(()))
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    let began = Instant::now();
    for n in 1..=256 {
        peer.send(format!("ask||{n}||")).await;
    }
    for n in 1..=256 {
        assert_eq!(peer.frame().await, format!("question||{n}||"));
    }
    // Everything that may wait does, and only then the replies come.
    let frame = format!("noise||0||{}", "x".repeat(16 * 1024));
    for _ in 0..63 {
        peer.send(frame.clone()).await;
    }
    peer.is_read().await;
    assert_eq!(noise.len(), 0, "as many as may run already");
    for n in 1..=256 {
        peer.send(format!("__ack_question||{n}||{n}")).await;
    }
    for n in 1..=256 {
        assert_eq!(peer.frame().await, format!("__ack_ask||{n}||{n}"));
    }
    noise.until(63).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_none_in_flight_starts_one_past_max_inflight_total() {
    let (server, started, gate) = working();
    let server = server.max_inflight_total(2).build().unwrap();
    let (mut ann, _) = Peer::join(&server).await;
    let (mut bob, _) = Peer::join(&server).await;
    for n in 1..=3 {
        ann.send(format!("work||{n}||ann{n}")).await;
    }
    settle().await;
    assert_eq!(started.all(), ["ann1", "ann2"]);
    for n in 1..=2 {
        bob.send(format!("work||{n}||bob{n}")).await;
    }
    settle().await;
    assert_eq!(started.all(), ["ann1", "ann2", "bob1"]);
    // The third one's end leaves the total full, the next end makes room.
    gate.add_permits(2);
    settle().await;
    assert_eq!(server.stats().handlers_in_flight, 2);
    assert_eq!(started.len(), 4, "{:?}", started.all());
    gate.add_permits(3);
    assert_eq!(started.until(5).await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn sixty_five_thousand_handlers_run_at_once_on_a_server_by_default() {
    let (server, started, _gate) = working();
    let server = server.build().unwrap();
    let mut peers = Vec::new();
    for n in 1..=256 {
        let (mut peer, _) = Peer::join(&server).await;
        for _ in 0..(if n == 256 { 255 } else { 256 }) {
            peer.send("work||0||").await;
        }
        peers.push(peer);
    }
    settle().await;
    assert_eq!(started.len(), 65_535);
    let (mut late, _) = Peer::join(&server).await;
    late.send("work||0||").await;
    late.send("work||0||").await;
    settle().await;
    assert_eq!((started.len(), server.stats().handlers_in_flight), (65_536, 65_536));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_a_dead_connection_stood_in_line_for_goes_to_the_next() {
    let started = Log::new();
    let log = started.clone();
    let (free, held) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let gates = (free.clone(), held.clone());
    let server = Server::builder()
        .max_inflight_total(3)
        .on("work", async move |_: Conn, what: String| {
            let gate = if what.ends_with('1') { gates.0 } else { gates.1 };
            log.push(what);
            gate.acquire().await.expect("the gate is never closed").forget();
        })
        .build()
        .unwrap();
    let (mut cy, _) = Peer::join(&server).await;
    let (mut ann, at_ann) = Peer::join(&server).await;
    let (mut bob, _) = Peer::join(&server).await;
    // The first waiter at the gate is the first to be let through.
    cy.send("work||0||cy1").await;
    settle().await;
    for what in ["2", "3"] {
        ann.send(format!("work||0||ann{what}")).await;
        bob.send(format!("work||0||bob{what}")).await;
        settle().await;
    }
    assert_eq!(started.all(), ["cy1", "ann2", "bob2"]);
    at_ann.close();
    drop(ann);
    settle().await;
    assert_eq!((server.conns().len(), server.stats().handlers_in_flight), (2, 3));
    free.add_permits(1);
    settle().await;
    assert_eq!(started.all(), ["cy1", "ann2", "bob2", "bob3"]);
}

#[tokio::test(start_paused = true)]
async fn they_run_to_their_end_when_the_peer_leaves_and_closed_tells_them() {
    let (log, on_error) = errors();
    let ends = Log::new();
    let (told, worked) = (ends.clone(), ends.clone());
    let server = Server::builder()
        .on_error(on_error)
        .on("wait", async move |conn: Conn, ()| {
            conn.closed().await;
            told.push("told");
            "a reply that nobody gets"
        })
        .on("work", async move |_: Conn, ()| {
            tokio::time::sleep(60 * SEC).await;
            worked.push("worked");
        })
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    peer.send("wait||1||").await;
    peer.send("work||2||").await;
    peer.is_read().await;
    let began = Instant::now();
    drop(peer);
    assert_eq!(ends.until(1).await, ["told"]);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(ends.until(2).await, ["told", "worked"]);
    assert_eq!(began.elapsed(), 60 * SEC);
    assert_eq!(server.stats().handlers_in_flight, 0);
    assert_eq!(codes(&log), [""; 0]);
    conn.closed().await;
}

#[tokio::test(start_paused = true)]
async fn events_that_arrived_before_the_end_are_still_handled() {
    let (server, started, gate) = working();
    let server = server.max_inflight(1).build().unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    for n in 0..5 {
        peer.send(format!("work||0||{n}")).await;
    }
    peer.0.send(Message::Close(closed_with(1000, ""))).await.unwrap();
    started.until(1).await;
    gate.add_permits(5);
    assert_eq!(started.until(5).await, ["0", "1", "2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn spawned_ones_keep_to_the_same_limits() {
    let (started, gate) = (Log::new(), Arc::new(Semaphore::new(0)));
    let (log, held) = (started.clone(), gate.clone());
    let server = Server::builder()
        .max_inflight(2)
        .on(
            "work",
            spawned(async move |_: Conn, what: String| {
                log.push(what.clone());
                held.acquire().await.expect("the gate is never closed").forget();
                what
            }),
        )
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    for n in 1..=3 {
        peer.send(format!("work||{n}||{n}")).await;
    }
    settle().await;
    assert_eq!((started.len(), server.stats().handlers_in_flight), (2, 2));
    gate.add_permits(3);
    let mut replies = [peer.frame().await, peer.frame().await, peer.frame().await];
    replies.sort();
    assert_eq!(replies, [1, 2, 3].map(|n| format!("__ack_work||{n}||{n}")));
}

#[tokio::test]
async fn blocking_ones_keep_to_the_same_limits_and_hold_nobody_up() {
    let started = Log::new();
    let log = started.clone();
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let server = Server::builder()
        .max_inflight(2)
        .on(
            "work",
            blocking(move |_: Conn, what: String| {
                log.push(what.clone());
                held.lock()
                    .expect("no panic")
                    .recv()
                    .expect("the test holds the sender");
                what
            }),
        )
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    for n in 1..=3 {
        peer.send(format!("work||{n}||{n}")).await;
    }
    started.until(2).await;
    peer.is_read().await;
    assert_eq!((started.len(), server.stats().handlers_in_flight), (2, 2));
    for _ in 0..3 {
        release.send(()).unwrap();
    }
    let mut replies = [peer.frame().await, peer.frame().await, peer.frame().await];
    replies.sort();
    assert_eq!(replies, [1, 2, 3].map(|n| format!("__ack_work||{n}||{n}")));
}

#[tokio::test(start_paused = true)]
async fn a_clients_handlers_keep_to_the_same_rules() {
    let (log, on_error) = errors();
    let (started, gate) = (Log::new(), Arc::new(Semaphore::new(0)));
    let (begun, held) = (started.clone(), gate.clone());
    let server = Server::builder().build().unwrap();
    let client = Client::builder()
        .max_inflight(1)
        .on_error(on_error)
        .on("work", async move |_: Conn, what: String| {
            begun.push(what);
            held.acquire().await.expect("the gate is never closed").forget();
        })
        .on("panic", |_: Conn, ()| -> () { panic!("in a client") });
    let _client = testing::connect(&server, client).await.unwrap();
    let conn = server.conns().remove(0);
    for n in ["1", "2"] {
        conn.emit("work", n).unwrap();
    }
    settle().await;
    assert_eq!(started.all(), ["1"]);
    gate.add_permits(2);
    started.until(2).await;
    settle().await;
    let call = conn.emit_with_ack("panic", ()).timeout(SEC).await;
    assert_eq!(err(call).code(), "ack_timeout", "no reply, as of any failed handler");
    assert_eq!(codes(&log), ["handler_failed"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_on_of_the_same_name_replaces_the_first() {
    let server = Server::builder()
        .on("e", |_: Conn, ()| "first")
        .on("e", |_: Conn, ()| "second")
        .build()
        .unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    assert_eq!(client.emit_with_ack("e", ()).await.unwrap(), "second");
}

#[tokio::test(start_paused = true)]
async fn plain_events_arrive_at_most_once_and_in_order() {
    let got = Log::new();
    let log = got.clone();
    let server = Server::builder()
        .on("n", move |_: Conn, n: String| log.push(n))
        .build()
        .unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    for n in 0..2_000 {
        client.emit("n", n.to_string()).unwrap();
    }
    got.until(2_000).await;
    settle().await;
    let order: Vec<_> = (0..2_000).map(|n| n.to_string()).collect();
    assert_eq!(got.all(), order);
}

#[tokio::test(start_paused = true)]
async fn names_outside_the_grammar_are_refused_and_nothing_is_sent() {
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let long = "n".repeat(257);
    for name in ["", "a||b", "a|", "__ack_a", "__etp", "__etp_x", &long] {
        assert_eq!(err(conn.emit(name, ())).code(), "invalid_event", "{name}");
        assert_eq!(
            err(conn.emit_with_ack(name, ()).await).code(),
            "invalid_event",
            "{name}"
        );
        assert_eq!(err(server.emit(name, ())).code(), "invalid_event", "{name}");
    }
    conn.emit(&"n".repeat(256), ()).unwrap();
    assert_eq!(peer.frame().await, format!("{}||0||", "n".repeat(256)));
    let wrong = Server::builder().on("a||b", |_: Conn, ()| ()).build();
    assert_eq!(wrong.unwrap_err().code(), "invalid_event");
}
