//! A connection that lives long is never punished for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use etp_ws::websocket::Opcode;
use etp_ws::{Bytes, Conn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::adopted::request;
use crate::support::{Peer, echo, frame, text};

#[tokio::test]
async fn a_connection_that_received_a_million_messages_and_100_000_fragments_lives() {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let server = echo()
        .on("tick", move |_: Conn, _: Bytes| {
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .on("len", |_: Conn, data: Bytes| data.len().to_string())
        .build()
        .unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    server.accept(request(&[]), theirs, []).await.unwrap();
    let mut peer = Peer::new(ours);
    peer.answer().await;

    let thousand = text("tick||0||").repeat(1_000);
    for _ in 0..1_000 {
        peer.send(&thousand).await;
    }
    peer.send(text("echo||1||messages")).await;
    assert_eq!(peer.text().await, "__ack_echo||1||messages");
    assert_eq!(count.load(Ordering::Relaxed), 1_000_000);

    // A thousand messages of fifty fragments, then one of fifty thousand.
    let mut fifty = frame(false, Opcode::Text, b"tick||0||");
    for _ in 0..48 {
        fifty.extend(frame(false, Opcode::Continuation, b"x"));
    }
    fifty.extend(frame(true, Opcode::Continuation, b"x"));
    for _ in 0..1_000 {
        peer.send(&fifty).await;
    }
    peer.send(frame(false, Opcode::Binary, b"len||2||")).await;
    let fragments = frame(false, Opcode::Continuation, b"x").repeat(1_000);
    for _ in 0..50 {
        peer.send(&fragments).await;
    }
    peer.send(frame(true, Opcode::Continuation, b"")).await;
    assert_eq!(peer.text().await, "__ack_len||2||50000");
    assert_eq!(count.load(Ordering::Relaxed), 1_001_000);

    let conn = server.conns().remove(0);
    assert!(conn.is_open());
    peer.send(text("echo||3||alive")).await;
    assert_eq!(peer.text().await, "__ack_echo||3||alive");
}

#[tokio::test]
async fn what_one_thread_of_a_socket_writes_byte_by_byte_arrives_whole() {
    let running = crate::support::run(echo()).await;
    let mut peer = running.dial().await;
    let bytes = [crate::support::upgrade(&[]).into_bytes(), text("echo||1||slowly")].concat();
    for byte in bytes {
        peer.io.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(peer.answer().await.status, 101);
    assert_eq!(peer.text().await, "__ack_echo||1||slowly");
    // Nothing follows.
    peer.send(crate::support::close(1000, "")).await;
    assert_eq!(peer.next().await, crate::support::Message::Close(1000, String::new()));
    let mut rest = Vec::new();
    peer.io.shutdown().await.unwrap();
    peer.io.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}
