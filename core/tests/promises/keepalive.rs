//! Silence is pinged, a dead peer is found, and a peer that plays with frames is closed with a reason.

use std::time::Duration;

use etp_ws::testing::Message;
use etp_ws::{Bytes, Client, Conn, Server};
use tokio::time::Instant;

use crate::support::*;

fn is_ping(message: &Message) -> bool {
    matches!(message, Message::Ping(_))
}

#[tokio::test(start_paused = true)]
async fn silence_is_pinged_and_a_peer_that_does_not_answer_is_closed() {
    let (gone, on_disconnect) = disconnects();
    let server = Server::builder().on_disconnect(on_disconnect).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let began = Instant::now();
    assert!(is_ping(&peer.next().await));
    assert_eq!(began.elapsed(), 25 * SEC);
    let call = conn.emit_with_ack("e", ()).timeout(60 * SEC);
    assert_eq!(err(call.await).code(), "connection_closed");
    assert_eq!(began.elapsed(), 35 * SEC);
    let why = gone.until(1).await.remove(0);
    assert_eq!((why.code, &*why.reason, why.clean), (1011, "ping timeout", false));
    assert_eq!(peer.frame().await, "e||1||");
    assert_eq!(peer.next().await, Message::Close(closed_with(1011, "ping timeout")));
    assert_eq!(server.stats().closes.get("ping timeout"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_pong_and_any_other_message_is_a_sign_of_life() {
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let mut began = Instant::now();
    for _ in 0..5 {
        let Message::Ping(data) = peer.next().await else {
            panic!("only pings are expected")
        };
        assert_eq!(began.elapsed(), 25 * SEC);
        tokio::time::sleep(9 * SEC).await;
        began = Instant::now();
        peer.0.send(Message::Pong(data)).await.unwrap();
    }
    for _ in 0..10 {
        tokio::time::sleep(24 * SEC).await;
        peer.send("__ack_stray||1||").await;
    }
    assert!(conn.is_open());
    let began = Instant::now();
    assert!(is_ping(&peer.next().await), "none came between the messages");
    assert_eq!(began.elapsed(), 25 * SEC);
}

#[tokio::test(start_paused = true)]
async fn the_time_for_the_pong_counts_from_when_the_ping_left() {
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let began = Instant::now();
    tokio::time::sleep(20 * SEC).await;
    // More than the pipe holds: the ping at 25 s lies behind it.
    for _ in 0..3 {
        conn.emit("fill", "x".repeat(64 * 1024)).unwrap();
    }
    tokio::time::sleep(25 * SEC).await;
    assert!(conn.is_open(), "45 s of silence, but the ping has not left");
    for _ in 0..3 {
        peer.frame().await;
    }
    assert!(is_ping(&peer.next().await));
    assert_eq!(began.elapsed(), 45 * SEC);
    conn.closed().await;
    assert_eq!(began.elapsed(), 55 * SEC);
}

#[tokio::test(start_paused = true)]
async fn the_intervals_are_options_and_none_means_no_pings() {
    let server = Server::builder()
        .ping_interval(3 * SEC)
        .ping_timeout(2 * SEC)
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let began = Instant::now();
    assert!(is_ping(&peer.next().await));
    assert_eq!(began.elapsed(), 3 * SEC);
    conn.closed().await;
    assert_eq!(began.elapsed(), 5 * SEC);

    let server = Server::builder().ping_interval(None).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    tokio::time::sleep(3600 * SEC).await;
    assert!(conn.is_open());
    conn.emit("e", ()).unwrap();
    assert_eq!(peer.frame().await, "e||0||");
}

#[tokio::test(start_paused = true)]
async fn two_of_ours_live_on_in_silence() {
    let pair = Pair::new(Server::builder(), Client::builder()).await;
    tokio::time::sleep(24 * 3600 * SEC).await;
    assert!(pair.conn.is_open() && pair.client.conn().is_some_and(|conn| conn.is_open()));
}

async fn ping(peer: &mut Peer, times: usize) {
    for _ in 0..times {
        peer.0.send(Message::Ping(Bytes::new())).await.unwrap();
    }
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn more_than_a_thousand_pings_in_ten_seconds_are_a_flood() {
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    ping(&mut peer, 500).await;
    tokio::time::sleep(9 * SEC).await;
    ping(&mut peer, 500).await;
    assert!(conn.is_open());
    ping(&mut peer, 1).await;
    assert!(!conn.is_open());
    assert_eq!(peer.close_frame().await, closed_with(1008, "ping flood"));
}

#[tokio::test(start_paused = true)]
async fn pings_beside_other_traffic_or_with_time_between_are_no_flood() {
    let server = Server::builder().on("e", |_: Conn, ()| ()).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for _ in 0..5 {
        ping(&mut peer, 1_000).await;
        peer.send("e||0||").await;
    }
    for _ in 0..5 {
        ping(&mut peer, 1_000).await;
        tokio::time::sleep(10 * SEC).await;
    }
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_started_message_that_stands_still_for_thirty_seconds_is_closed_with_1008() {
    let server = Server::builder().build().unwrap();
    let mut wire = Wire::join(&server).await;
    let frame = raw_frame(true, 1, b"e||0||123456");
    wire.bytes(&frame[..7]).await;
    settle().await;
    tokio::time::sleep(20 * SEC).await;
    wire.bytes(&frame[7..8]).await;
    let began = Instant::now();
    // Pings and pongs may come between, but are no progress of the message.
    tokio::time::sleep(20 * SEC).await;
    assert_eq!(server.conns().len(), 1);
    assert_eq!(wire.close_frame().await, (1008, "message stalled".to_owned()));
    assert_eq!(began.elapsed(), 30 * SEC);
}

#[tokio::test(start_paused = true)]
async fn control_frames_between_fragments_are_no_progress() {
    let server = Server::builder().build().unwrap();
    let mut wire = Wire::join(&server).await;
    wire.bytes(&raw_frame(false, 1, b"e||0||half")).await;
    settle().await;
    let began = Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(5 * SEC).await;
        wire.bytes(&raw_frame(true, 9, b"")).await;
    }
    assert_eq!(wire.close_frame().await, (1008, "message stalled".to_owned()));
    assert!(began.elapsed() <= 30 * SEC, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_byte_each_twenty_nine_seconds_is_progress() {
    let got = Log::new();
    let log = got.clone();
    let server = Server::builder().ping_interval(Duration::from_secs(3600));
    let server = server
        .on("e", move |_: Conn, data: String| log.push(data))
        .build()
        .unwrap();
    let mut wire = Wire::join(&server).await;
    for byte in raw_frame(true, 1, b"e||0||123") {
        wire.bytes(&[byte]).await;
        tokio::time::sleep(29 * SEC).await;
    }
    assert_eq!(got.all(), ["123"]);
}

#[tokio::test(start_paused = true)]
async fn the_timer_runs_also_where_a_callback_has_used_up_the_tasks_turn() {
    let server = Server::builder()
        .on_connect(async |_: Conn| {
            for _ in 0..1_000 {
                tokio::task::coop::consume_budget().await;
            }
        })
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    let ping = tokio::time::timeout(60 * SEC, peer.next()).await;
    assert!(is_ping(&ping.expect("silence is pinged")));
}
