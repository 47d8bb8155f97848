//! `shutdown`: accepting stops, outcomes are told, handlers get four fifths of the time, and all is over at the end of it.

use std::future::{IntoFuture, pending};
use std::sync::Arc;

use etp_ws::handler::{BoxFuture, Handler, Reply, Ticket};
use etp_ws::testing::Message;
use etp_ws::{Client, Conn, Disconnect, Incoming, Server, spawned};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn with_a_thousand_connections_some_of_them_stalled_it_ends_by_its_deadline_and_all_is_told() {
    const CONNS: usize = 1_000;
    let told = Log::new();
    let log = told.clone();
    let server = Server::builder()
        .on_error(|_, _| ())
        .on_connect(async |conn: Conn| {
            conn.join("all");
            if conn.request().header("kind") == Some("never connects") {
                pending::<()>().await;
            }
        })
        .on_disconnect(move |conn: Conn, why: Disconnect| log.push((conn.id(), why)))
        .on("never", async |_: Conn, ()| pending::<()>().await)
        .on("never_spawned", spawned(async |_: Conn, ()| pending::<()>().await))
        .build()
        .unwrap();
    let mut held = Vec::new();
    let mut calls = Vec::new();
    let good = Log::new();
    for n in 0..CONNS {
        let (ours, theirs) = etp_ws::testing::pipe();
        let kind = if n % 7 == 6 { "never connects" } else { "connects" };
        let request = http::Request::builder().header("kind", kind).body(()).unwrap();
        let conn = server.accept_pipe(request, ours).await.unwrap();
        let mut peer = Peer(theirs);
        calls.push(tokio::spawn(
            conn.emit_with_ack("q", ()).timeout(600 * SEC).into_future(),
        ));
        match n % 7 {
            // Well behaved.
            0 | 1 => {
                let good = good.clone();
                tokio::spawn(async move {
                    let frame = peer.close_frame().await;
                    good.push((Instant::now(), frame.clone()));
                    // It may be cut before the echo.
                    let _ = peer.0.send(Message::Close(frame)).await;
                });
                continue;
            }
            // Reads nothing, and much is queued for it.
            2 => {
                for _ in 0..3 {
                    conn.emit("fill", "x".repeat(64 * 1024)).unwrap();
                }
            }
            3 => peer.send("never||1||").await,
            4 => peer.send("never_spawned||1||").await,
            // All at once.
            5 => {
                peer.send("never||1||").await;
                for _ in 0..3 {
                    conn.emit("fill", "x".repeat(64 * 1024)).unwrap();
                }
            }
            _ => {}
        }
        held.push(peer);
    }
    settle().await;
    assert_eq!(server.stats().acks_pending, CONNS);
    let began = Instant::now();
    server.shutdown().await;
    let took = began.elapsed();
    assert!(took <= 10 * SEC, "{took:?}");
    for call in calls {
        assert_eq!(err(call.await.unwrap()).code(), "connection_closed");
    }
    settle().await;
    let stats = server.stats();
    assert_eq!(
        (
            stats.connections,
            stats.acks_pending,
            stats.bytes_queued,
            stats.handlers_in_flight
        ),
        (0, 0, 0, 0)
    );
    assert_eq!(server.rooms(), Vec::<String>::new());
    let ids: std::collections::HashSet<_> = told.all().into_iter().map(|(id, _)| id).collect();
    assert_eq!((told.len(), ids.len()), (CONNS, CONNS), "each once");
    for (_, why) in told.all() {
        assert_eq!((why.code, &*why.reason), (1000, "server shutdown"));
    }
    for (at, frame) in good.until(2 * CONNS / 7).await {
        assert_eq!(
            (at, frame),
            (began, closed_with(1000, "server shutdown")),
            "without waiting for the stalled"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn handlers_get_four_fifths_of_the_time_and_their_replies_are_still_sent() {
    let ends = Log::new();
    let log = ends.clone();
    let server = Server::builder()
        .on("take", async move |_: Conn, seconds: String| {
            tokio::time::sleep(seconds.parse::<u32>().unwrap() * SEC).await;
            log.push(seconds.clone());
            seconds
        })
        .build()
        .unwrap();
    let (mut quick, _) = Peer::join(&server).await;
    let (mut slow, _) = Peer::join(&server).await;
    quick.send("take||1||7").await;
    slow.send("take||1||9").await;
    settle().await;
    let began = Instant::now();
    let down = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown().await }
    });
    settle().await;
    quick.send("take||2||0").await;
    assert_eq!(quick.frame().await, "__ack_take||1||7");
    let close = quick.next().await;
    assert_eq!(close, Message::Close(closed_with(1000, "server shutdown")));
    quick.0.send(close).await.unwrap();
    assert!(began.elapsed() < 7 * SEC);
    let close = slow.next().await;
    assert_eq!(
        (&close, began.elapsed()),
        (&Message::Close(closed_with(1000, "server shutdown")), 8 * SEC)
    );
    slow.0.send(close).await.unwrap();
    down.await.unwrap();
    assert_eq!(began.elapsed(), 8 * SEC);
    tokio::time::sleep(60 * SEC).await;
    assert_eq!(
        ends.all(),
        ["7"],
        "events received meanwhile are dropped, and so is the slow one"
    );
}

#[tokio::test(start_paused = true)]
async fn it_takes_no_time_when_nobody_stalls() {
    let pair = Pair::new(Server::builder(), Client::builder()).await;
    let began = Instant::now();
    pair.server.shutdown().await;
    assert_eq!(began.elapsed().as_millis(), 0);
    assert_eq!(pair.client.wait_for(etp_ws::State::Closed).await, etp_ws::State::Closed);
    pair.server.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_flushed_first() {
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    for n in 0..200 {
        conn.emit("n", format!("{n}{}", "x".repeat(2048))).unwrap();
    }
    let down = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown().await }
    });
    for n in 0..200 {
        assert!(peer.frame().await.starts_with(&format!("n||0||{n}x")));
    }
    let close = peer.next().await;
    assert_eq!(close, Message::Close(closed_with(1000, "server shutdown")));
    peer.0.send(close).await.unwrap();
    down.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shorter_time_is_kept_as_well_and_callbacks_that_hang_do_not_prolong_it() {
    let server = Server::builder()
        .on_disconnect(async |_: Conn, _: Disconnect| pending::<()>().await)
        .build()
        .unwrap();
    let (peer, conn) = Peer::join(&server).await;
    settle().await;
    drop(peer);
    conn.closed().await;
    let (_stalled, conn) = Peer::join(&server).await;
    conn.emit("fill", "x".repeat(1_000_000)).unwrap();
    settle().await;
    let began = Instant::now();
    server.shutdown_within(SEC).await;
    assert!(began.elapsed() <= SEC + SEC / 10, "{:?}", began.elapsed());
    assert_eq!(server.conns().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_any_more() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let server = Server::builder()
        .on_error(|_, _| ())
        .on("hold", async move |_: Conn, ()| {
            held.acquire().await.expect("never closed").forget()
        })
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    peer.send("hold||0||").await;
    settle().await;
    let down = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown().await }
    });
    settle().await;
    let (ours, _theirs) = etp_ws::testing::pipe();
    assert_eq!(
        err(server.accept_pipe(http::Request::new(()), ours).await).status(),
        Some(503)
    );
    gate.add_permits(1);
    drop(peer);
    down.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn serve_returns_when_it_has_ended_and_the_port_is_closed_at_once() {
    let server = Server::builder()
        .on("hold", async |_: Conn, ()| pending::<()>().await)
        .build()
        .unwrap();
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let addr = bound.local_addr().unwrap();
    let url = bound.url();
    let serving = tokio::spawn(bound.serve());
    let client = Client::builder().reconnect(None).connect(url).await.unwrap();
    client.emit("hold", ()).unwrap();
    settle().await;
    let began = Instant::now();
    let down = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown().await }
    });
    settle().await;
    assert!(!serving.is_finished());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    serving.await.unwrap().unwrap();
    assert!(began.elapsed() >= 8 * SEC, "{:?}", began.elapsed());
    down.await.unwrap();
}

#[test]
fn a_runtime_that_goes_away_ends_everything_without_a_hang_or_a_panic() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (theirs, ours) = (runtime(), runtime());
    let server = Server::builder()
        .runtime(theirs.handle().clone())
        .on_connect(|conn: Conn| conn.join("room"))
        .on_disconnect(async |_: Conn, _: Disconnect| ())
        .on_error(|_, _| ())
        .on("void", async |_: Conn, ()| pending::<()>().await)
        .build()
        .unwrap();
    let handed = server.clone();
    let (client, conn) = ours.block_on(async move {
        let (a, b) = etp_ws::testing::pipe();
        let conn = handed.accept_pipe(http::Request::new(()), a).await.unwrap();
        let client = Client::builder().on("void", async |_: Conn, ()| pending::<()>().await);
        (client.connect_pipe(b).await.unwrap(), conn)
    });
    let up = ours.spawn(client.emit_with_ack("void", ()).into_future());
    let down = ours.spawn(conn.emit_with_ack("void", ()).into_future());
    ours.block_on(async {
        // Both are under way once the answers to a ping have passed them.
        while server.stats().acks_pending + client.stats().acks_pending < 2 {
            tokio::task::yield_now().await;
        }
        client.ping().await.unwrap();
    });
    drop(theirs);
    let (up, down) = ours.block_on(async { (up.await.unwrap(), down.await.unwrap()) });
    assert_eq!(
        (err(up).code(), err(down).code()),
        ("connection_closed", "connection_closed")
    );
    assert_eq!(err(conn.emit("e", ())).code(), "connection_closed");
    assert_eq!((server.conns().len(), server.rooms().len()), (0, 0));
    ours.block_on(async {
        conn.closed().await;
        server.shutdown().await;
        client.close().await;
    });
}

/// A binding that keeps its tickets.
struct Keeps(std::sync::Mutex<Vec<Reply>>);

impl Handler for Keeps {
    fn event(&self, _: &Conn, _: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        let reply = ticket.into_reply();
        self.0.lock().unwrap().push(reply);
        None
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_as_soon_as_the_last_ticket_is_done_wherever_that_is() {
    // One whose reply wakes the connection, and one that sends none.
    for frame in ["e||1||", "e||0||"] {
        let keeps = Arc::new(Keeps(std::sync::Mutex::default()));
        let server = Server::builder().handler(keeps.clone()).build().unwrap();
        let (mut peer, _) = Peer::join(&server).await;
        peer.send(frame).await;
        peer.is_read().await;
        let began = Instant::now();
        let ends = tokio::spawn({
            let server = server.clone();
            async move { server.shutdown().await }
        });
        tokio::time::sleep(SEC).await;
        let reply = keeps.0.lock().unwrap().pop().unwrap();
        reply.send("done");
        let close = peer.close_frame().await;
        assert_eq!(close, closed_with(1000, "server shutdown"));
        peer.0.send(Message::Close(close)).await.unwrap();
        ends.await.unwrap();
        assert_eq!(began.elapsed(), SEC, "{frame}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_time_is_too_long() {
    let server = Server::builder().build().unwrap();
    let (mut peer, conn) = Peer::join(&server).await;
    let call = tokio::spawn(
        conn.emit_with_ack("e", ())
            .timeout(std::time::Duration::MAX)
            .into_future(),
    );
    assert_eq!(peer.frame().await, "e||1||");
    let ends = tokio::spawn(async move { server.shutdown_within(std::time::Duration::MAX).await });
    let close = peer.close_frame().await;
    peer.0.send(Message::Close(close)).await.unwrap();
    ends.await.unwrap();
    assert_eq!(err(call.await.unwrap()).code(), "connection_closed");
}
