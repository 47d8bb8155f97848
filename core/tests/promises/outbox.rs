//! What waits to be sent: emits are refused past `max_outbox`, room messages and replies are not, and a peer that does not take its
//! messages is closed with a named reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use etp_ws::testing::Message;
use etp_ws::{Bytes, Client, Conn, ErrorKind, Server, ServerBuilder};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::*;

const KIB: usize = 1024;

/// A server with small outboxes: 64 KiB, messages of at most 16 KiB.
fn small() -> ServerBuilder {
    Server::builder().max_message_size(16 * KIB).max_outbox(64 * KIB)
}

fn body(len: usize) -> String {
    "x".repeat(len)
}

#[tokio::test(start_paused = true)]
async fn a_direct_emit_past_max_outbox_is_refused_with_nothing_queued_and_drain_resolves_at_half() {
    const MOST: usize = 4 << 20;
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let mut sent = 0;
    let refusal = loop {
        match conn.emit("n", format!("{sent:06}{}", body(60 * KIB))) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.code(), "outbox_full");
    let queued = server.stats().bytes_queued;
    assert!(queued <= MOST && queued + 61 * KIB > MOST, "{queued} bytes are queued");
    assert_eq!(err(conn.emit_with_ack("n", body(60 * KIB)).await).code(), "outbox_full");
    assert_eq!((server.stats().bytes_queued, server.stats().acks_pending), (queued, 0));
    assert!(conn.is_open());

    let draining = conn.clone();
    let drain = tokio::spawn(async move { draining.drain().await });
    settle().await;
    let mut got = 0;
    while !drain.is_finished() {
        assert!(server.stats().bytes_queued > MOST / 2, "drain was late");
        assert!(peer.frame().await.starts_with(&format!("n||0||{got:06}")));
        got += 1;
        settle().await;
    }
    assert!(server.stats().bytes_queued <= MOST / 2, "drain was early");
    drain.await.unwrap().unwrap();
    conn.drain().await.unwrap();
    for n in got..sent {
        assert!(
            peer.frame().await.starts_with(&format!("n||0||{n:06}")),
            "in order, without a gap"
        );
    }
    conn.emit("end", ()).unwrap();
    assert_eq!(peer.frame().await, "end||0||", "nothing of what was refused");
}

#[tokio::test(start_paused = true)]
async fn an_empty_outbox_takes_a_message_of_any_allowed_size() {
    let server = Server::builder()
        .max_message_size(64 * KIB)
        .max_outbox(64 * KIB)
        .build()
        .unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    conn.emit("e", body(64 * KIB - 6)).unwrap();
    assert_eq!(peer.frame().await.len(), 64 * KIB);
}

#[tokio::test(start_paused = true)]
async fn room_messages_may_go_up_to_four_times_past_it_then_it_is_a_slow_consumer() {
    let (gone, on_disconnect) = disconnects();
    let server = small().on_disconnect(on_disconnect).build().unwrap();
    let (_peer, conn) = Peer::join(&server).await;
    let mut reached = 0;
    while server.emit("n", body(8 * KIB)).unwrap().count() == 1 {
        reached += 1;
        assert!(server.stats().bytes_queued <= 4 * 64 * KIB);
    }
    assert_eq!(reached, 4 * 64 / 8 - 1, "31 frames of 8 KiB and a head each");
    let began = Instant::now();
    conn.closed().await;
    assert_eq!(began.elapsed().as_millis(), 0, "at once");
    let why = gone.until(1).await.remove(0);
    assert_eq!((why.code, &*why.reason, why.clean), (1013, "slow consumer", false));
    assert_eq!(server.stats().closes.get("slow consumer"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_room_message_past_it_does_not_close_a_peer_that_takes_it_in_time() {
    let server = small().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for n in 0..30 {
        assert_eq!(server.emit("n", format!("{n:02}{}", body(8 * KIB))).unwrap().count(), 1);
    }
    assert_eq!(err(conn.emit("direct", ())).code(), "outbox_full", "an emit may not");
    tokio::time::sleep(9 * SEC).await;
    for n in 0..30 {
        assert!(peer.frame().await.starts_with(&format!("n||0||{n:02}")));
    }
    tokio::time::sleep(9 * SEC).await;
    assert!(conn.is_open());
}

/// Holds replies of 8 KiB back until they all may go.
async fn replies_at_once(count: usize) -> (Server, Peer, Conn) {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let server = small().on("get", async move |_: Conn, ()| {
        held.acquire().await.expect("the gate is never closed").forget();
        body(8 * KIB)
    });
    let server = server.build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for n in 1..=count {
        peer.send(format!("get||{n}||")).await;
    }
    peer.is_read().await;
    gate.add_permits(count);
    (server, peer, conn)
}

#[tokio::test(start_paused = true)]
async fn replies_may_go_up_to_four_times_past_it() {
    let (_server, mut peer, conn) = replies_at_once(30).await;
    settle().await;
    for n in 1..=30 {
        assert!(peer.frame().await.starts_with(&format!("__ack_get||{n}||")));
    }
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn more_replies_are_a_slow_consumer() {
    let (_server, mut peer, conn) = replies_at_once(60).await;
    let began = Instant::now();
    conn.closed().await;
    assert_eq!(began.elapsed().as_millis(), 0);
    assert_eq!(peer.close_frame().await, closed_with(1013, "slow consumer"));
}

#[tokio::test(start_paused = true)]
async fn over_the_limit_for_ten_seconds_is_a_slow_consumer_though_it_reads() {
    let server = small().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for _ in 0..18 {
        server.emit("n", body(8 * KIB)).unwrap();
    }
    settle().await;
    let began = Instant::now();
    for second in 0..10 {
        assert!(conn.is_open(), "after {second} s");
        // One is read, one comes: bytes leave, but never enough of them.
        peer.frame().await;
        server.emit("n", body(8 * KIB)).unwrap();
        tokio::time::sleep(SEC).await;
    }
    let late = began.elapsed() - 10 * SEC;
    assert!(!conn.is_open() && late.is_zero());
    assert_eq!(peer.close_frame().await, closed_with(1013, "slow consumer"));
}

#[tokio::test(start_paused = true)]
async fn not_a_byte_sent_for_thirty_seconds_is_a_slow_consumer() {
    let server = small().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    // The pipe takes four of them; then one message alone is stuck.
    for _ in 0..5 {
        conn.emit("n", body(16 * KIB - 6)).unwrap();
        settle().await;
    }
    let began = Instant::now();
    assert_eq!(server.stats().bytes_queued, 16 * KIB + 4);
    for _ in 0..29 {
        tokio::time::sleep(SEC).await;
        // It lives and talks, but takes nothing.
        peer.send("__ack_x||1||").await;
        assert!(conn.is_open());
    }
    conn.closed().await;
    let took = began.elapsed();
    assert!(
        took <= 30 * SEC && took >= 30 * SEC - std::time::Duration::from_millis(2),
        "{took:?}"
    );
    assert_eq!(peer.close_frame().await, closed_with(1013, "slow consumer"));
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_is_enough() {
    let server = small().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for _ in 0..7 {
        conn.emit("n", body(16 * KIB - 10)).unwrap();
        settle().await;
    }
    for _ in 0..3 {
        tokio::time::sleep(29 * SEC).await;
        peer.send("__ack_x||1||").await;
        peer.frame().await;
        assert!(conn.is_open());
    }
}

#[tokio::test(start_paused = true)]
async fn reading_pauses_while_replies_exceed_half_of_it() {
    let handled = Log::new();
    let log = handled.clone();
    let server = small().on("get", move |_: Conn, ()| {
        log.push(());
        body(8 * KIB)
    });
    let server = server.build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for n in 1..=40 {
        peer.send(format!("get||{n}||")).await;
    }
    settle().await;
    // Eight fill the pipe, four and a bit the half.
    let first = handled.len();
    assert!((8..=14).contains(&first), "{first} were handled");
    for n in 1..=40 {
        assert!(peer.frame().await.starts_with(&format!("__ack_get||{n}||")));
    }
    assert_eq!(handled.len(), 40);
    assert!(conn.is_open());
}

#[tokio::test(start_paused = true)]
async fn emits_and_room_messages_never_pause_reading() {
    let handled = Log::new();
    let log = handled.clone();
    let server = small().on("e", move |_: Conn, ()| log.push(())).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    while conn.emit("n", body(8 * KIB)).is_ok() {
        settle().await;
    }
    server.emit("n", body(8 * KIB)).unwrap();
    assert!(server.stats().bytes_queued > 60 * KIB);
    for _ in 0..100 {
        peer.send("e||0||").await;
    }
    settle().await;
    assert_eq!(handled.len(), 100);
}

/// A listener whose connections hold little in the kernel.
fn tight_listener() -> tokio::net::TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_send_buffer_size(64 * KIB).unwrap();
    socket.set_recv_buffer_size(64 * KIB).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(8).unwrap();
    tokio::net::TcpListener::from_std(socket.into()).unwrap()
}

/// Emits so many bytes, waiting whenever the outbox is full.
async fn pour(conn: Conn, bytes: usize) {
    let chunk = Bytes::from(vec![b'x'; 16 * KIB]);
    let mut left = bytes;
    while left > 0 {
        match conn.emit("data", &chunk) {
            Ok(()) => left -= chunk.len(),
            Err(error) if error.kind() == ErrorKind::OutboxFull => conn.drain().await.expect("it lives"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_peers_that_pour_at_each_other_through_small_buffers_both_get_everything() {
    const ALL: usize = 8 << 20;
    let (up, down) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let done = Log::new();
    let count = |counter: &Arc<AtomicUsize>| {
        let (counter, done) = (counter.clone(), done.clone());
        move |_: Conn, data: Bytes| {
            if counter.fetch_add(data.len(), Ordering::SeqCst) + data.len() == ALL {
                done.push(());
            }
        }
    };
    let server = Server::builder()
        .max_message_size(64 * KIB)
        .max_outbox(256 * KIB)
        .on_connect(|conn: Conn| drop(tokio::spawn(pour(conn, ALL))))
        .on("data", count(&up))
        .build()
        .unwrap();
    let bound = server.bind_listener(tight_listener()).unwrap();
    let url = bound.url();
    let serving = tokio::spawn(bound.serve());
    let client = Client::builder()
        .max_message_size(64 * KIB)
        .max_outbox(256 * KIB)
        .on("data", count(&down))
        .connect(url)
        .await
        .unwrap();
    pour(client.conn().unwrap(), ALL).await;
    done.until(2).await;
    assert_eq!((up.load(Ordering::SeqCst), down.load(Ordering::SeqCst)), (ALL, ALL));
    client.close().await;
    server.shutdown().await;
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_emitted_comes_whole_and_in_order_to_a_peer_that_stalls_now_and_then() {
    let server = small().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let emitter = tokio::spawn(async move {
        for n in 0..500 {
            let payload = format!("{n}||{}", body(n * 16));
            while let Err(error) = conn.emit("n", payload.clone()) {
                assert_eq!(error.code(), "outbox_full");
                conn.drain().await.unwrap();
            }
        }
    });
    for n in 0..500 {
        if n % 100 == 99 {
            tokio::time::sleep(5 * SEC).await;
        }
        assert_eq!(peer.next().await, text(format!("n||0||{n}||{}", body(n * 16))));
    }
    emitter.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pongs_that_nobody_takes_close_a_peer_that_never_stops_sending() {
    let (gone, on_disconnect) = disconnects();
    let server = small().on_disconnect(on_disconnect).build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    // A task of its own, so that it has its turn after each of the connection's: there is always something to read.
    let flood = tokio::spawn(async move {
        let ping = Message::Ping(Bytes::from(body(125)));
        let mut most = 0;
        // 16 MiB of pings, with an event among them now and then, so that they are no flood.
        for n in 0..128 * KIB {
            let event = n % 900 == 0;
            let message = if event { text("__ack_x||1||") } else { ping.clone() };
            if !conn.is_open() || peer.0.send(message).await.is_err() {
                break;
            }
            most = most.max(server.stats().bytes_queued);
        }
        (peer, most)
    });
    let (_peer, most) = flood.await.unwrap();
    assert!(most < 5 * 64 * KIB, "{most} bytes have waited");
    let why = gone.until(1).await.remove(0);
    assert_eq!((why.code, &*why.reason), (1013, "slow consumer"));
}
