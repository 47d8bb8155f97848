//! The way in: places, paths, pages, slow and large handshakes; and the numbers that a server tells.

use etp_ws::testing::Message;
use etp_ws::{Bytes, Client, Conn, Server, ServerBuilder, testing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn past_max_connections_a_handshake_gets_503_until_one_has_left() {
    let server = Server::builder()
        .max_connections(2)
        .on_error(|_, _| ())
        .build()
        .unwrap();
    let (first, conn) = Peer::join(&server).await;
    let (_second, _) = Peer::join(&server).await;
    for _ in 0..3 {
        assert_eq!(
            err(testing::connect(&server, Client::builder()).await).status(),
            Some(503)
        );
    }
    drop(first);
    conn.closed().await;
    settle().await;
    let third = testing::connect(&server, Client::builder()).await.unwrap();
    assert_eq!(
        err(testing::connect(&server, Client::builder()).await).status(),
        Some(503)
    );
    third.ping().await.unwrap();
}

/// A server on a port of its own.
async fn listening(server: ServerBuilder) -> (Server, std::net::SocketAddr, Log<etp_ws::Error>) {
    let (log, on_error) = errors();
    let server = server.on_error(on_error).build().unwrap();
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let addr = bound.local_addr().unwrap();
    tokio::spawn(bound.serve());
    (server, addr, log)
}

/// What a request is answered: status, head and body.
async fn answer(addr: std::net::SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may answer and close before it has read all of a large request.
    let _ = stream.write_all(request.as_bytes()).await;
    let head = http_head(&mut stream).await;
    let mut body = String::new();
    if status(&head) != 101 {
        let _ = stream.read_to_string(&mut body).await;
    }
    (status(&head), head + &body)
}

#[tokio::test(start_paused = true)]
async fn the_path_is_ws_and_a_plain_get_there_is_told_to_upgrade() {
    let (_server, addr, _) = listening(Server::builder()).await;
    assert_eq!(answer(addr, &handshake_bytes("/ws", "")).await.0, 101);
    assert_eq!(answer(addr, &handshake_bytes("/ws?query=x", "")).await.0, 101);
    for path in ["/", "/ws/", "/other", "/wss"] {
        assert_eq!(answer(addr, &handshake_bytes(path, "")).await.0, 404, "{path}");
    }
    assert_eq!(answer(addr, "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n").await.0, 426);
    assert_eq!(
        answer(addr, "POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            .await
            .0,
        405
    );

    let (_server, addr, _) = listening(Server::builder().path("/events")).await;
    assert_eq!(answer(addr, &handshake_bytes("/events", "")).await.0, 101);
    assert_eq!(answer(addr, &handshake_bytes("/ws", "")).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_another_origin_gets_403_that_names_the_setting() {
    let page = |origin: &str| handshake_bytes("/ws", &format!("Origin: {origin}\r\n"));
    let (_server, addr, log) = listening(Server::builder()).await;
    assert_eq!(answer(addr, &page("http://127.0.0.1")).await.0, 101, "the same origin");
    assert_eq!(
        answer(addr, &page("https://127.0.0.1")).await.0,
        101,
        "a Host without a port fits any scheme's default"
    );
    for origin in [
        "http://example.org",
        "http://127.0.0.1:81",
        "null",
        "http://127.0.0.1.example.org",
    ] {
        let (status, text) = answer(addr, &page(origin)).await;
        assert_eq!(status, 403, "{origin}");
        assert!(text.contains("`origins`") && text.contains(origin), "{text}");
        let told = log.all().pop().unwrap();
        assert!(
            told.code() == "handshake_failed" && told.to_string().contains("`origins`"),
            "{told}"
        );
    }

    let (_server, addr, _) =
        listening(Server::builder().origins(["https://example.org", "https://*.example.com", "null"])).await;
    for (origin, expected) in [
        ("https://example.org", 101),
        ("https://EXAMPLE.org", 101),
        ("http://example.org", 403),
        ("https://example.org:444", 403),
        ("https://a.example.com", 101),
        ("https://a.b.example.com", 101),
        ("https://example.com", 403),
        ("https://example.com.evil.net", 403),
        ("https://evilexample.com", 403),
        ("null", 101),
    ] {
        assert_eq!(answer(addr, &page(origin)).await.0, expected, "{origin}");
    }
    let (_server, addr, _) = listening(Server::builder().origins(["*"])).await;
    assert_eq!(answer(addr, &page("https://anything.example")).await.0, 101);
}

#[tokio::test(start_paused = true)]
async fn the_origin_rule_holds_on_every_way_in() {
    let server = Server::builder().on_error(|_, _| ()).build().unwrap();
    let mut request = handshake();
    request
        .headers_mut()
        .insert("origin", http::HeaderValue::from_static("https://evil.example"));
    let (ours, _theirs) = testing::pipe();
    assert_eq!(err(server.accept_pipe(request.clone(), ours).await).status(), Some(403));
    let (ours, mut theirs) = tokio::io::duplex(4096);
    assert_eq!(err(server.accept(request, ours, []).await).status(), Some(403));
    assert_eq!(status(&http_head(&mut theirs).await), 403);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_reaches_a_loopback_listener_by_another_name_gets_403() {
    let rebound = |origin: &str| {
        format!("{}\r\n", handshake_bytes("/ws", origin).trim_end()).replace("Host: 127.0.0.1", "Host: evil.example")
            + "\r\n"
    };
    let (_server, addr, _) = listening(Server::builder().origins(["*"])).await;
    let (status, text) = answer(addr, &rebound("Origin: http://evil.example\r\n")).await;
    assert!(
        status == 403 && text.contains("`hosts`") && text.contains("evil.example"),
        "{text}"
    );
    assert_eq!(answer(addr, &rebound("")).await.0, 101, "only pages are asked");
    let (_server, addr, _) = listening(Server::builder().hosts(["evil.example"])).await;
    assert_eq!(answer(addr, &rebound("Origin: http://evil.example\r\n")).await.0, 101);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_complete_in_time_is_cut() {
    for (server, limit) in [
        (Server::builder(), 10),
        (Server::builder().handshake_timeout(2 * SEC), 2),
    ] {
        let (server, addr, log) = listening(server).await;
        for begun in ["", "GET /ws HTTP/1.1\r\nHost: a\r\n"] {
            let began = Instant::now();
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert_eq!((began.elapsed(), rest.len()), (limit * SEC, 0));
        }
        assert_eq!(codes(&log), ["handshake_failed"; 2]);
        assert!(log.all()[0].to_string().contains("handshake_timeout"));
        assert_eq!(server.stats().handshakes_failed, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn headers_that_are_too_large_or_too_many_get_431() {
    let (server, addr, _) = listening(Server::builder()).await;
    let fits = format!("X-Big: {}\r\n", "x".repeat(15 * 1024));
    assert_eq!(answer(addr, &handshake_bytes("/ws", &fits)).await.0, 101);
    let large = format!("X-Big: {}\r\n", "x".repeat(17 * 1024));
    assert_eq!(answer(addr, &handshake_bytes("/ws", &large)).await.0, 431);
    // The handshake itself has five.
    let lines = |count: usize| (5..count).map(|n| format!("X-{n}: x\r\n")).collect::<String>();
    assert_eq!(answer(addr, &handshake_bytes("/ws", &lines(100))).await.0, 101);
    assert_eq!(answer(addr, &handshake_bytes("/ws", &lines(101))).await.0, 431);
    assert_eq!(server.stats().handshakes_failed, 2);
}

#[tokio::test(start_paused = true)]
async fn at_most_ten_failed_handshakes_a_second_are_told_and_the_rest_is_counted() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .on_error(on_error)
        .on_upgrade(|_: etp_ws::Request| Err::<(), _>(etp_ws::Reject::new(401)));
    let server = server.build().unwrap();
    for second in 1..=2 {
        for _ in 0..25 {
            err(testing::connect(&server, Client::builder()).await);
        }
        settle().await;
        assert_eq!(log.len(), 10 * second);
        tokio::time::sleep(SEC).await;
    }
    assert_eq!(server.stats().handshakes_failed, 50);
}

#[tokio::test(start_paused = true)]
async fn stats_tell_what_a_server_has_done_and_holds() {
    let server = Server::builder()
        .on_error(|_, _| ())
        .on("hold", async |conn: Conn, ()| conn.closed().await)
        .on("echo", |_: Conn, data: Bytes| data)
        .build()
        .unwrap();
    assert_eq!(server.stats(), etp_ws::Stats::default());

    let (mut peer, conn) = Peer::join(&server).await;
    let (_other, _) = Peer::join(&server).await;
    peer.send("hold||0||").await;
    peer.send("echo||1||hi").await;
    peer.send("malformed").await;
    peer.send("__ack_x||9||").await;
    assert_eq!(peer.frame().await, "__ack_echo||1||hi");
    let call = tokio::spawn(std::future::IntoFuture::into_future(
        conn.emit_with_ack("q", "?").timeout(60 * SEC),
    ));
    assert_eq!(peer.frame().await, "q||1||?");
    assert_eq!(
        err(conn.emit_with_ack("q", ()).timeout(SEC).await).code(),
        "ack_timeout"
    );
    let stats = server.stats();
    assert_eq!((stats.connections, stats.connects), (2, 2));
    assert_eq!(
        (stats.events_in, stats.stray_replies, stats.malformed_frames),
        (2, 1, 1)
    );
    assert_eq!(
        (stats.acks_pending, stats.acks_timed_out, stats.handlers_in_flight),
        (1, 1, 1)
    );
    assert_eq!(stats.messages_out, 3);
    // Two bytes of head each: "__ack_echo||1||hi", "q||1||?", "q||2||".
    assert_eq!((stats.bytes_out, stats.bytes_queued), (2 + 17 + 2 + 7 + 2 + 6, 0));
    assert_eq!(stats.bytes_in, 9 + 11 + 9 + 12);

    conn.emit("fill", "x".repeat(100_000)).unwrap();
    conn.emit("fill", "x".repeat(100_000)).unwrap();
    settle().await;
    assert_eq!(server.stats().bytes_queued, 100_000 + 9 + 10);
    drop(peer);
    call.await.unwrap().unwrap_err();
    settle().await;
    let stats = server.stats();
    assert_eq!(
        (
            stats.connections,
            stats.connects,
            stats.handlers_in_flight,
            stats.bytes_queued
        ),
        (1, 2, 0, 0)
    );
    assert_eq!(stats.closes.into_iter().collect::<Vec<_>>(), [("1006".to_owned(), 1)]);
    server.shutdown().await;
    assert_eq!(server.stats().closes.get("1000"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_follow_the_handshake_at_once_are_not_lost() {
    let got = Log::new();
    let log = got.clone();
    let server = Server::builder()
        .on("e", move |_: Conn, data: String| log.push(data))
        .build()
        .unwrap();
    let (ours, _theirs) = tokio::io::duplex(4096);
    server
        .accept(handshake(), ours, raw_frame(true, 1, b"e||0||early"))
        .await
        .unwrap();
    assert_eq!(got.until(1).await, ["early"]);

    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(bound.local_addr().unwrap()).await.unwrap();
    let mut bytes = handshake_bytes("/ws", "").into_bytes();
    bytes.extend(raw_frame(true, 1, b"e||0||too"));
    stream.write_all(&bytes).await.unwrap();
    tokio::spawn(bound.serve());
    assert_eq!(got.until(2).await, ["early", "too"]);
}

#[tokio::test(start_paused = true)]
async fn no_bytes_from_a_peer_end_the_server() {
    let server = Server::builder().on_error(|_, _| ()).build().unwrap();
    let mut state = 7_u32;
    for _ in 0..200 {
        let mut wire = Wire::join(&server).await;
        let noise: Vec<u8> = (0..300)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        // It may be cut off in the middle.
        let _ = wire.0.write_all(&noise).await;
    }
    let (mut peer, _) = Peer::join(&server).await;
    peer.0.send(Message::Ping(Bytes::new())).await.unwrap();
    assert_eq!(peer.next().await, Message::Pong(Bytes::new()));
}
