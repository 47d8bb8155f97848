//! An acknowledged event: exactly one outcome, decided at most 100 ms after the deadline, at once when the connection ends.

use std::future::{IntoFuture, pending};
use std::time::Duration;

use etp_ws::handler::Waiter;
use etp_ws::testing::Message;
use etp_ws::{Client, ClientBuilder, Conn, Error, Server, ServerBuilder, testing};
use tokio::time::Instant;

use crate::support::*;

/// Never answers, but ends with its connection.
fn silent_server() -> ServerBuilder {
    Server::builder()
        .on_error(|_, _| ())
        .on("void", async |conn: Conn, ()| {
            conn.closed().await;
            Err::<(), _>("nobody is there any more")
        })
}

fn silent_client() -> ClientBuilder {
    Client::builder().on("void", async |_: Conn, ()| pending::<()>().await)
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_the_outcome_in_both_directions() {
    let server = Server::builder().on("up", |_: Conn, name: String| format!("hi {name}"));
    let client = Client::builder().on("down", |_: Conn, ()| ());
    let pair = Pair::new(server, client).await;
    assert_eq!(pair.client.emit_with_ack("up", "ann").await.unwrap(), "hi ann");
    assert_eq!(pair.conn.emit_with_ack("down", ()).await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn without_a_reply_it_times_out_within_a_tenth_of_a_second_of_its_deadline() {
    let pair = Pair::new(silent_server(), silent_client()).await;
    let limits = [None, Some(1), Some(999), Some(1_000), Some(60_000)];
    for millis in limits {
        let deadline = Duration::from_millis(millis.unwrap_or(10_000));
        let began = Instant::now();
        let mut call = pair.client.emit_with_ack("void", ());
        if millis.is_some() {
            call = call.timeout(deadline);
        }
        assert_eq!(err(call.await).code(), "ack_timeout");
        let took = began.elapsed();
        assert!(
            took >= deadline && took <= deadline + Duration::from_millis(100),
            "{deadline:?}: {took:?}"
        );
    }
    assert_eq!(pair.client.stats().acks_timed_out, limits.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn deadlines_that_lie_close_together_are_all_kept() {
    let pair = Pair::new(silent_server(), silent_client()).await;
    let began = Instant::now();
    let calls = (1..=200).map(|n| {
        let deadline = Duration::from_millis(n * 7 % 500 + 1);
        let call = pair.conn.emit_with_ack("void", ()).timeout(deadline).into_future();
        async move {
            assert_eq!(err(call.await).code(), "ack_timeout");
            let late = began.elapsed().checked_sub(deadline).expect("not early");
            assert!(late <= Duration::from_millis(100), "{late:?}");
        }
    });
    futures_util::future::join_all(calls).await;
}

/// The ways in which a connection ends while both sides wait for an acknowledgment on it.
#[derive(Clone, Copy, Debug)]
enum Death {
    ServerCloses,
    ClientCloses,
    ServerKicks,
    WireIsCut,
    Shutdown,
}

#[tokio::test(start_paused = true)]
async fn it_ends_at_once_at_both_ends_when_the_connection_dies() {
    for death in [
        Death::ServerCloses,
        Death::ClientCloses,
        Death::ServerKicks,
        Death::WireIsCut,
        Death::Shutdown,
    ] {
        let pair = Pair::new(silent_server(), silent_client()).await;
        let down = tokio::spawn(pair.conn.emit_with_ack("void", ()).into_future());
        let up = tokio::spawn(pair.client.emit_with_ack("void", ()).into_future());
        settle().await;
        assert_eq!(
            (pair.server.stats().acks_pending, pair.client.stats().acks_pending),
            (1, 1)
        );

        let began = Instant::now();
        let (server, client) = (pair.server.clone(), pair.client.clone());
        match death {
            Death::ServerCloses => pair.conn.close(),
            Death::ServerKicks => pair.conn.close_with(4000, "kicked").unwrap(),
            Death::ClientCloses => drop(tokio::spawn(async move { client.close().await })),
            Death::WireIsCut => pair.wire.abort(),
            Death::Shutdown => drop(tokio::spawn(async move { server.shutdown().await })),
        }
        let (down, up) = (err(down.await.unwrap()), err(up.await.unwrap()));
        assert_eq!(began.elapsed(), Duration::ZERO, "{death:?}");
        assert_eq!(
            (down.code(), up.code()),
            ("connection_closed", "connection_closed"),
            "{death:?}"
        );
        let told = |error: &Error| (error.close_code(), error.close_reason().map(str::to_owned));
        let expected = match death {
            Death::ServerCloses | Death::ClientCloses => (1000, ""),
            Death::ServerKicks => (4000, "kicked"),
            Death::WireIsCut => (1006, ""),
            Death::Shutdown => (1000, "server shutdown"),
        };
        let expected = (Some(expected.0), Some(expected.1.to_owned()));
        assert_eq!((told(&down), told(&up)), (expected.clone(), expected), "{death:?}");
        let later = [
            err(pair.conn.emit_with_ack("void", ()).await),
            err(pair.client.emit_with_ack("void", ()).await),
        ];
        assert!(
            later.iter().all(|error| error.code() == "connection_closed"),
            "{death:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pings_and_drains_that_wait_end_with_the_connection_too() {
    let server = Server::builder()
        .max_message_size(100_000)
        .max_outbox(100_000)
        .build()
        .unwrap();
    let (peer, conn) = Peer::join(&server).await;
    while conn.emit("fill", "x".repeat(30_000)).is_ok() {}
    settle().await;
    while conn.emit("fill", "x".repeat(30_000)).is_ok() {}
    let (pinging, draining) = (conn.clone(), conn.clone());
    let ping = tokio::spawn(async move { pinging.ping().await });
    let drain = tokio::spawn(async move { draining.drain().await });
    settle().await;
    let began = Instant::now();
    drop(peer);
    assert_eq!(err(ping.await.unwrap()).code(), "connection_closed");
    assert_eq!(err(drain.await.unwrap()).code(), "connection_closed");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn there_is_exactly_one_outcome_whatever_comes_together() {
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let outcomes = Log::new();
    let ask = |timeout| {
        let log = outcomes.clone();
        let waiter = Waiter::call(move |outcome: Result<etp_ws::Payload, Error>| {
            log.push(outcome.map_or_else(|error| error.code(), |_| "reply"));
        });
        conn.emit_with_ack_to("q", b"", true, Some(timeout), waiter).unwrap()
    };
    ask(SEC);
    ask(SEC);
    ask(60 * SEC);
    settle().await;
    peer.send("__ack_q||1||first").await;
    peer.send("__ack_q||1||second").await;
    tokio::time::sleep(2 * SEC).await;
    peer.send("__ack_q||2||late").await;
    peer.is_read().await;
    drop(peer);
    settle().await;
    server.shutdown().await;
    assert_eq!(outcomes.all(), ["reply", "ack_timeout", "connection_closed"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_reply_wins_and_others_are_counted() {
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let call = tokio::spawn(conn.emit_with_ack("q", ()).into_future());
    assert_eq!(peer.frame().await, "q||1||");
    // Another event's name, an id that was never given out, an id of zero: none is a reply to this call.
    for stray in ["__ack_other||1||no", "__ack_q||2||no", "__ack_q||0||no"] {
        peer.send(stray).await;
    }
    peer.send("__ack_q||1||yes").await;
    peer.send("__ack_q||1||again").await;
    peer.is_read().await;
    assert_eq!(call.await.unwrap().unwrap(), "yes");
    assert_eq!(server.stats().stray_replies, 4);
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_gives_it_up() {
    let (log, on_error) = errors();
    let server = Server::builder().on_error(on_error).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let call = tokio::spawn(conn.emit_with_ack("q", ()).into_future());
    assert_eq!(peer.frame().await, "q||1||");
    assert_eq!(server.stats().acks_pending, 1);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(server.stats().acks_pending, 0);
    peer.send("__ack_q||1||late").await;
    peer.is_read().await;
    assert_eq!(server.stats().stray_replies, 1);
    tokio::time::sleep(11 * SEC).await;
    assert_eq!(server.stats().acks_timed_out, 0, "nobody waits, so nothing times out");
    assert_eq!(codes(&log), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn no_more_may_be_awaited_than_max_pending_acks() {
    let server = Server::builder().max_pending_acks(2).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let calls = [(); 2].map(|()| tokio::spawn(conn.emit_with_ack("q", ()).into_future()));
    assert_eq!(
        (peer.frame().await, peer.frame().await),
        ("q||1||".into(), "q||2||".into())
    );
    assert_eq!(err(conn.emit_with_ack("q", ()).await).code(), "too_many_acks");
    peer.send("__ack_q||1||").await;
    peer.is_read().await;
    let third = tokio::spawn(conn.emit_with_ack("q", ()).into_future());
    assert_eq!(peer.frame().await, "q||3||", "the refused one was not sent");
    drop(peer);
    for (call, ok) in calls.into_iter().chain([third]).zip([true, false, false]) {
        assert_eq!(call.await.unwrap().is_ok(), ok);
    }
}

#[tokio::test(start_paused = true)]
async fn sixteen_thousand_acks_may_be_awaited_by_default() {
    let server = Server::builder().build().unwrap();
    let (_peer, conn) = Peer::join(&server).await;
    let waiter = || Waiter::call(|_| ());
    for _ in 0..16_384 {
        conn.emit_with_ack_to("q", b"", true, None, waiter()).unwrap();
    }
    assert_eq!(
        err(conn.emit_with_ack_to("q", b"", true, None, waiter())).code(),
        "too_many_acks"
    );
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_or_times_out() {
    let server = Server::builder().build().unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    assert_eq!(client.ping().await.unwrap(), Duration::ZERO);

    let (mut peer, conn) = Peer::join(&server).await;
    let began = Instant::now();
    let ping = tokio::spawn(async move { conn.ping().await });
    assert!(matches!(peer.next().await, Message::Ping(_)));
    assert_eq!(err(ping.await.unwrap()).code(), "ack_timeout");
    assert_eq!(began.elapsed(), 10 * SEC);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_race_the_end_of_their_connection_have_one_outcome_each() {
    const RACES: usize = 500;
    const CALLS: usize = 20;
    let server = Server::builder().build().unwrap();
    let outcomes = Log::new();
    let mut racers = Vec::new();
    for race in 0..RACES {
        let (peer, conn) = Peer::join(&server).await;
        let (caller, log) = (conn.clone(), outcomes.clone());
        racers.push(tokio::spawn(async move {
            for _ in 0..CALLS {
                let told = log.clone();
                let waiter =
                    Waiter::call(move |outcome: Result<etp_ws::Payload, Error>| told.push(err(outcome).code()));
                if let Err(error) = caller.emit_with_ack_to("q", b"", true, None, waiter) {
                    log.push(error.code());
                }
            }
        }));
        if race % 2 == 0 {
            conn.close();
        }
        drop(peer);
    }
    for racer in racers {
        racer.await.unwrap();
    }
    let told = outcomes.until(RACES * CALLS).await;
    assert!(told.iter().all(|code| *code == "connection_closed"));
    server.shutdown().await;
    assert_eq!(outcomes.len(), RACES * CALLS);
}
