//! `close`: what was emitted before it arrives, then the handshake, `close_timeout` in all; and who is told.

use etp_ws::testing::Message;
use etp_ws::{Client, Conn, Server, testing};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn close_sends_what_was_emitted_before_it() {
    let (gone, on_disconnect) = disconnects();
    let server = Server::builder().on_disconnect(on_disconnect).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    settle().await;
    for n in 0..300 {
        conn.emit("n", format!("{n}{}", "x".repeat(1024))).unwrap();
    }
    conn.close_with(4000, "enough").unwrap();
    assert_eq!(err(conn.emit("late", ())).code(), "connection_closed");
    for n in 0..300 {
        assert!(peer.frame().await.starts_with(&format!("n||0||{n}x")));
    }
    let close = peer.next().await;
    assert_eq!(close, Message::Close(closed_with(4000, "enough")));
    peer.0.send(close).await.unwrap();
    let why = gone.until(1).await.remove(0);
    assert_eq!(
        (why.code, &*why.reason, why.clean, why.normal),
        (4000, "enough", true, false)
    );
}

#[tokio::test(start_paused = true)]
async fn without_arguments_it_closes_with_1000() {
    let (gone, on_disconnect) = disconnects();
    let server = Server::builder().on_disconnect(on_disconnect).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    settle().await;
    conn.close();
    // What is called again, or with another code, comes too late.
    conn.close_with(4000, "late").unwrap();
    let close = peer.next().await;
    assert_eq!(close, Message::Close(closed_with(1000, "")));
    peer.0.send(close).await.unwrap();
    let why = gone.until(1).await.remove(0);
    assert_eq!((why.code, why.clean, why.normal), (1000, true, true));
}

#[tokio::test(start_paused = true)]
async fn close_timeout_cuts_a_peer_that_does_not_answer_or_does_not_read() {
    for fills in [false, true] {
        for (server, limit) in [
            (Server::builder(), 5 * SEC),
            (Server::builder().close_timeout(2 * SEC), 2 * SEC),
        ] {
            let (gone, on_disconnect) = disconnects();
            let server = server.on_disconnect(on_disconnect).build().unwrap();
            let (mut peer, conn) = Peer::join(&server).await;
            if fills {
                conn.emit("fill", "x".repeat(1_000_000)).unwrap();
                conn.emit("fill", "x".repeat(1_000_000)).unwrap();
            }
            settle().await;
            let began = Instant::now();
            conn.close_with(4000, "bye").unwrap();
            for _ in 0..20 {
                // Talking on does not put it off.
                tokio::time::sleep(SEC / 10).await;
                peer.send("__ack_x||1||").await;
            }
            if gone.len() == 0 {
                assert_eq!(gone.until(1).await.len(), 1);
            }
            assert_eq!(began.elapsed(), limit, "fills: {fills}");
            let why = gone.all().remove(0);
            assert_eq!((why.code, &*why.reason, why.clean), (4000, "bye", false));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn codes_that_no_endpoint_may_send_and_long_reasons_are_refused() {
    let server = Server::builder().build().unwrap();
    let (_peer, conn) = Peer::join(&server).await;
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        let error = err(conn.close_with(code, ""));
        assert_eq!(error.code(), "invalid_option", "{code}");
        assert!(
            error.to_string().contains("1000") && error.to_string().contains("4999"),
            "{error}"
        );
        assert_eq!(
            err(client.close_with(code, "").await).code(),
            "invalid_option",
            "{code}"
        );
    }
    let error = err(conn.close_with(1000, &"r".repeat(124)));
    assert!(
        error.code() == "invalid_option" && error.to_string().contains("123"),
        "{error}"
    );
    assert_eq!(
        err(conn.close_with(1000, &"é".repeat(62))).code(),
        "invalid_option",
        "bytes count"
    );
    assert!(conn.is_open() && client.conn().is_some_and(|conn| conn.is_open()));
    for code in [1000, 1001, 1008, 1011, 1013, 3000, 4999] {
        let (mut peer, conn) = Peer::join(&server).await;
        let reason = "r".repeat(123);
        conn.close_with(code, &reason).unwrap();
        assert_eq!(peer.close_frame().await, closed_with(code, &reason));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_close_of_a_client_is_told_to_both_ends() {
    let (at_server, on_server) = disconnects();
    let (at_client, on_client) = disconnects();
    let server = Server::builder().on_disconnect(on_server);
    let pair = Pair::new(server, Client::builder().on_disconnect(on_client)).await;
    pair.client.emit("last", ()).unwrap();
    pair.client.close_with(4001, "done").await.unwrap();
    for why in [at_server.until(1).await.remove(0), at_client.until(1).await.remove(0)] {
        assert_eq!(
            (why.code, &*why.reason, why.clean, why.will_reconnect),
            (4001, "done", true, false)
        );
    }
    assert_eq!(pair.client.state(), etp_ws::State::Closed);
    assert_eq!(pair.server.stats().events_in, 1);
}

#[tokio::test(start_paused = true)]
async fn closed_resolves_as_soon_as_closing_begins() {
    let server = Server::builder()
        .on("hold", async |conn: Conn, ()| conn.closed().await)
        .build()
        .unwrap();
    for way in 0..4 {
        let (mut peer, conn) = Peer::join(&server).await;
        peer.send("hold||0||").await;
        settle().await;
        let began = Instant::now();
        let before = conn.closed();
        let mut before = Box::pin(before);
        assert!(futures_util::FutureExt::now_or_never(&mut before).is_none());
        match way {
            0 => conn.close(),
            1 => drop(peer),
            2 => peer.0.send(Message::Close(None)).await.unwrap(),
            _ => {
                let server = server.clone();
                tokio::spawn(async move { server.shutdown().await });
            }
        }
        before.await;
        conn.closed().await;
        assert_eq!(began.elapsed().as_millis(), 0, "way {way}");
        settle().await;
        assert_eq!(server.stats().handlers_in_flight, 0, "way {way}");
    }
}

#[tokio::test(start_paused = true)]
async fn close_timeout_cuts_a_peer_that_never_stops_sending() {
    let (gone, on_disconnect) = disconnects();
    let server = Server::builder().on_disconnect(on_disconnect).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    settle().await;
    conn.close();
    let began = Instant::now();
    // A task of its own, so that it has its turn after each of the connection's: there is always something to read.
    tokio::spawn(async move { while peer.0.send(text("__ack_x||1||")).await.is_ok() {} });
    while gone.len() == 0 {
        assert!(began.elapsed() < 6 * SEC, "close_timeout is over");
        tokio::time::advance(SEC / 10).await;
    }
    assert!(began.elapsed() >= 5 * SEC, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_the_close_frames_a_peer_that_never_stops_sending_holds_nothing() {
    let server = Server::builder().build().unwrap();
    let mut wire = Wire::join(&server).await;
    wire.bytes(&raw_frame(true, 8, &1000u16.to_be_bytes())).await;
    assert_eq!(wire.close_frame().await.0, 1000);
    let flood = tokio::spawn(async move { while wire.0.write_all(&[0; 64 * 1024]).await.is_ok() {} });
    for _ in 0..100 {
        tokio::time::advance(SEC / 10).await;
        if flood.is_finished() {
            return;
        }
    }
    panic!("the stream is still held after 10 s");
}
