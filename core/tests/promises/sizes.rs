//! `max_message_size` in both directions, and frames outside the grammar.

use etp_ws::handler::Waiter;
use etp_ws::testing::Message;
use etp_ws::{Bytes, Client, Conn, Server, testing};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_message_of_just_max_message_size_goes_out_and_one_byte_more_is_refused() {
    const MOST: usize = 1 << 20;
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    conn.join("room");
    let body = |len: usize| "x".repeat(len);
    // "e||0||" and "e||1||" take six bytes.
    conn.emit("e", body(MOST - 6)).unwrap();
    assert_eq!(peer.frame().await.len(), MOST);
    assert_eq!(server.to("room").emit("e", body(MOST - 6)).unwrap().count(), 1);
    assert_eq!(peer.frame().await.len(), MOST);
    conn.emit_with_ack_to("e", body(MOST - 6).as_bytes(), true, None, Waiter::call(|_| ()))
        .unwrap();
    assert_eq!(peer.frame().await.len(), MOST);

    let queued = server.stats().bytes_queued;
    assert_eq!(err(conn.emit("e", body(MOST - 5))).code(), "message_too_large");
    assert_eq!(
        err(conn.emit_with_ack("e", body(MOST - 5)).await).code(),
        "message_too_large"
    );
    assert_eq!(
        err(server.to("room").emit("e", body(MOST - 5))).code(),
        "message_too_large"
    );
    assert_eq!((server.stats().bytes_queued, server.stats().acks_pending), (queued, 1));
    assert!(conn.is_open());

    let client = testing::connect(&server, Client::builder()).await.unwrap();
    assert_eq!(err(client.emit("e", body(MOST - 5))).code(), "message_too_large");
    assert_eq!(
        err(client.emit_with_ack("e", body(MOST - 5)).await).code(),
        "message_too_large"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_too_large_is_told_to_on_error() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .max_message_size(1024)
        .on_error(on_error)
        .on("get", |_: Conn, len: String| "x".repeat(len.parse().unwrap()))
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    // "__ack_get||1||" takes fourteen bytes.
    peer.send("get||1||1011").await;
    peer.send("get||2||1010").await;
    assert_eq!(
        peer.frame().await.len(),
        1024,
        "the second reply; the first is not sent"
    );
    assert_eq!(codes(&log), ["message_too_large"]);
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_received_message_of_just_max_message_size_is_handled_and_one_byte_more_closes_with_1009() {
    let got = Log::new();
    let log = got.clone();
    let server = Server::builder()
        .max_message_size(4096)
        .on("e", move |_: Conn, data: Bytes| log.push(data.len()));
    let server = server.build().unwrap();
    let body = |len: usize| format!("e||0||{}", "x".repeat(len - 6));

    let (mut peer, _) = Peer::join(&server).await;
    peer.send(body(4096)).await;
    peer.send(body(4097)).await;
    assert_eq!(peer.close_frame().await.map(|(code, _)| code), Some(1009));

    let mut wire = Wire::join(&server).await;
    wire.bytes(&raw_frame(true, 1, body(4096).as_bytes())).await;
    // The head alone tells that the message is too large.
    wire.bytes(&raw_frame(true, 1, body(4097).as_bytes())[..8]).await;
    assert_eq!(wire.close_frame().await.0, 1009);

    let mut wire = Wire::join(&server).await;
    let (first, second) = (
        body(4097).split_at(2048).0.to_owned(),
        body(4097).split_at(2048).1.to_owned(),
    );
    wire.bytes(&raw_frame(false, 1, first.as_bytes())).await;
    wire.bytes(&raw_frame(true, 0, second.as_bytes())).await;
    assert_eq!(wire.close_frame().await.0, 1009, "fragments count together");
    assert_eq!(got.all(), [4090, 4090]);
}

#[tokio::test(start_paused = true)]
async fn the_default_is_a_mebibyte() {
    let got = Log::new();
    let log = got.clone();
    let server = Server::builder()
        .on("e", move |_: Conn, data: Bytes| log.push(data.len()))
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    peer.send(format!("e||0||{}", "x".repeat((1 << 20) - 6))).await;
    got.until(1).await;
    peer.send(format!("e||0||{}", "x".repeat((1 << 20) - 5))).await;
    assert_eq!(peer.close_frame().await.map(|(code, _)| code), Some(1009));
}

#[tokio::test(start_paused = true)]
async fn a_messages_raw_bytes_are_bounded_however_it_is_fragmented() {
    let got = Log::new();
    let log = got.clone();
    let server = Server::builder()
        .max_message_size(1024)
        .on("e", move |_: Conn, data: Bytes| log.push(data.len()));
    let server = server.build().unwrap();
    let mut wire = Wire::join(&server).await;
    // Each message takes seven raw bytes for one of its own; together they pass the limit of one message many times.
    let mut message = raw_frame(false, 1, b"e||0||");
    for _ in 0..1017 {
        message.extend(raw_frame(false, 0, b"x"));
    }
    message.extend(raw_frame(true, 0, b"x"));
    for _ in 0..20 {
        wire.bytes(&message).await;
    }
    assert_eq!(got.until(20).await, vec![1018; 20]);

    // Empty fragments: no byte of payload, but too many on the wire.
    let mut message = raw_frame(false, 1, b"e||0||");
    for _ in 0..(1024 + 64 * 1024) / 6 {
        message.extend(raw_frame(false, 0, b""));
    }
    wire.bytes(&message).await;
    assert_eq!(wire.close_frame().await.0, 1009);
}

#[tokio::test(start_paused = true)]
async fn malformed_frames_are_told_without_their_content_and_the_connection_lives() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .on_error(on_error)
        .on("e", |_: Conn, ()| "ok")
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let frames = [
        "secret",
        "secret||x||",
        "secret||007||",
        "secret||+5||",
        "secret||-1||",
        "||1||secret",
        "secret||9223372036854775808||",
    ];
    for frame in frames {
        peer.send(frame).await;
    }
    peer.send("e||1||").await;
    assert_eq!(peer.frame().await, "__ack_e||1||ok");
    let told = log.all();
    assert_eq!(codes(&log), [("malformed_frame"); 7]);
    for (error, frame) in told.iter().zip(frames) {
        let said = error.to_string();
        assert!(
            said.contains(&format!("{} bytes", frame.len())) && !said.contains("secret"),
            "{said}"
        );
    }
    assert!(conn.is_open());
    assert_eq!(server.stats().malformed_frames, 7);
}

#[tokio::test(start_paused = true)]
async fn more_than_sixteen_malformed_frames_in_a_minute_close_with_1008() {
    let server = Server::builder()
        .ping_interval(None)
        .on_error(|_, _| ())
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for _ in 0..3 {
        for _ in 0..16 {
            peer.send("malformed").await;
        }
        tokio::time::sleep(61 * SEC).await;
        assert!(conn.is_open());
    }
    for _ in 0..16 {
        peer.send("malformed").await;
    }
    tokio::time::sleep(20 * SEC).await;
    assert!(conn.is_open());
    peer.send("malformed").await;
    settle().await;
    assert!(!conn.is_open());
    assert_eq!(peer.close_frame().await, closed_with(1008, "malformed frames"));
}

#[tokio::test(start_paused = true)]
async fn the_extension_channel_is_read_and_never_reported() {
    let (log, on_error) = errors();
    let server = Server::builder().on_error(on_error).build().unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    for _ in 0..100 {
        peer.send("__ack___etp||0||whatever").await;
    }
    peer.is_read().await;
    assert_eq!((codes(&log), server.stats().stray_replies), (vec![], 0));
}

#[tokio::test(start_paused = true)]
async fn text_goes_out_as_text_other_bytes_as_binary_and_an_empty_reply_in_two_parts() {
    let server = Server::builder()
        .on("nothing", |_: Conn, ()| ())
        .on("none", |_: Conn, ()| None::<&str>)
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    conn.emit("e", "text").unwrap();
    conn.emit("e", b"\xff\xfe").unwrap();
    conn.emit("e", ()).unwrap();
    assert_eq!(peer.next().await, text("e||0||text"));
    assert_eq!(
        peer.next().await,
        Message::Binary(Bytes::from_static(b"e||0||\xff\xfe"))
    );
    assert_eq!(peer.next().await, text("e||0||"));
    peer.send("nothing||1||").await;
    peer.send("none||2||").await;
    assert_eq!(
        (peer.frame().await, peer.frame().await),
        ("__ack_nothing||1".into(), "__ack_none||2".into())
    );
}
