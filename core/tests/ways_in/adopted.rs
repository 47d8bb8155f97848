//! A stream whose HTTP head somebody else has read, and a listener of one's own.

use std::net::SocketAddr;

use etp_ws::{Client, Reject, Request, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::support::{ACCEPT, KEY, Message, Peer, close, echo, says, text, upgrade, with_ends, with_errors};

/// A handshake as somebody else's HTTP parser hands it over.
pub(crate) fn request(headers: &[(&str, &str)]) -> http::Request<()> {
    let mut request = http::Request::builder()
        .uri("/any/path?x=1")
        .header("host", "localhost")
        .header("upgrade", "websocket")
        .header("connection", "keep-alive, Upgrade")
        .header("sec-websocket-key", KEY)
        .header("sec-websocket-version", "13");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[tokio::test]
async fn a_head_read_by_hand_and_what_came_behind_it_make_a_connection() {
    let server = echo().build().unwrap();
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let mut peer = Peer::new(ours);
    let sent = [upgrade(&[]).into_bytes(), text("echo||1||early"), text("echo||2||bird")].concat();
    // The last frame is cut in two by the read.
    peer.send(&sent[..sent.len() - 5]).await;

    let mut head = Vec::new();
    let end = loop {
        theirs.read_buf(&mut head).await.unwrap();
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    server.accept(request(&[]), theirs, &head[end..]).await.unwrap();

    let answer = peer.answer().await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert_eq!(peer.text().await, "__ack_echo||1||early");
    peer.send(&sent[sent.len() - 5..]).await;
    assert_eq!(peer.text().await, "__ack_echo||2||bird");
}

#[tokio::test]
async fn a_close_frame_behind_the_head_is_answered() {
    let (builder, mut ends) = with_ends(echo());
    let server = builder.build().unwrap();
    let (ours, theirs) = tokio::io::duplex(4096);
    server
        .accept(request(&[]), theirs, [text("echo||1||x"), close(4000, "bye")].concat())
        .await
        .unwrap();
    let mut peer = Peer::new(ours);
    peer.answer().await;
    assert_eq!(peer.text().await, "__ack_echo||1||x");
    assert_eq!(peer.next().await, Message::Close(4000, "bye".into()));
    let end = ends.recv().await.unwrap();
    assert_eq!((end.code, &*end.reason, end.clean), (4000, "bye", true));
}

#[tokio::test]
async fn a_refusal_is_written_whole_and_told_to_the_caller() {
    let (builder, mut errors) = with_errors(echo().on_upgrade(async |request: Request| {
        match request.token() {
            Some(_) => Ok(()),
            None => Err(Reject::new(401)
                .body("no token")
                .header(http::header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"))),
        }
    }));
    let server = builder.build().unwrap();
    for (headers, status, body) in [
        (&[][..], 401, "no token\n"),
        (&[("origin", "https://evil.example")], 403, "the setting `origins`"),
        (
            &[("sec-websocket-key", "second")],
            400,
            "a WebSocket handshake has one Sec-WebSocket-Key\n",
        ),
    ] {
        let (ours, theirs) = tokio::io::duplex(4096);
        let error = server.accept(request(headers), theirs, []).await.unwrap_err();
        assert_eq!((error.code(), error.status()), ("handshake_failed", Some(status)));
        assert_eq!(errors.next().await.status(), Some(status));
        let mut peer = Peer::new(ours);
        let answer = peer.answer().await;
        assert_eq!(answer.status, status);
        assert!(answer.body.starts_with(body), "{answer:?}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
        peer.ended().await;
    }
    assert_eq!(server.stats().handshakes_failed, 3);
    assert_eq!(server.stats().connects, 0);
}

#[tokio::test]
async fn a_head_past_the_limits_of_our_own_listener_is_refused() {
    let server = echo().build().unwrap();
    let large = "x".repeat(16 * 1024);
    let many = vec![("x-more", "1"); 96];
    for headers in [&many[..], &[("x-large", &*large)]] {
        let (ours, theirs) = tokio::io::duplex(4096);
        let error = server.accept(request(headers), theirs, []).await.unwrap_err();
        assert_eq!((error.code(), error.status()), ("handshake_failed", Some(431)));
        assert_eq!(Peer::new(ours).answer().await.status, 431);
    }
    // One line less is one hundred.
    let (ours, theirs) = tokio::io::duplex(4096);
    server.accept(request(&many[1..]), theirs, []).await.unwrap();
    assert_eq!(Peer::new(ours).answer().await.status, 101);
}

#[tokio::test]
async fn a_stream_that_has_gone_is_an_error() {
    let server = echo().build().unwrap();
    let (ours, theirs) = tokio::io::duplex(4096);
    drop(ours);
    let error = server.accept(request(&[]), theirs, []).await.unwrap_err();
    assert_eq!(error.code(), "handshake_failed");
    assert_eq!(server.stats().connections, 0);
}

#[tokio::test]
async fn the_peer_address_is_the_one_among_the_extensions() {
    let (sender, mut peers) = mpsc::unbounded_channel();
    let server = Server::builder()
        .on_upgrade(move |request: Request| {
            let _ = sender.send((request.peer_addr(), request.client_ip(), request.uri().to_owned()));
        })
        .build()
        .unwrap();
    let addr: SocketAddr = "192.0.2.7:1234".parse().unwrap();
    let mut told = request(&[]);
    told.extensions_mut().insert(addr);
    let (_ours, theirs) = tokio::io::duplex(4096);
    server.accept(told, theirs, []).await.unwrap();
    assert_eq!(
        peers.recv().await.unwrap(),
        (Some(addr), Some(addr.ip()), "/any/path?x=1".to_owned())
    );
    let (_ours, theirs) = tokio::io::duplex(4096);
    server.accept(request(&[]), theirs, []).await.unwrap();
    assert_eq!(peers.recv().await.unwrap(), (None, None, "/any/path?x=1".to_owned()));
}

#[tokio::test]
async fn a_listener_of_ones_own_is_served() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = echo().path("/events").build().unwrap();
    let bound = server
        .bind_listener(tokio::net::TcpListener::from_std(listener).unwrap())
        .unwrap();
    let port = bound.local_addr().unwrap().port();
    assert_eq!(bound.url(), format!("ws://127.0.0.1:{port}/events"));
    let url = bound.url();
    let serving = tokio::spawn(bound.serve());
    let client = Client::builder().connect(url).await.unwrap();
    assert_eq!(client.emit_with_ack("echo", "x").await.unwrap(), "x");
    server.shutdown().await;
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_address_that_can_not_be_is_an_option_and_one_that_is_taken_a_failure() {
    let server = echo().build().unwrap();
    for wrong in [
        "",
        "localhost",
        "8080",
        ":8080",
        "127.0.0.1:http",
        "127.0.0.1:99999",
        "ws://127.0.0.1:1",
    ] {
        let error = server.bind(wrong).await.unwrap_err();
        assert_eq!(error.code(), "invalid_option", "{wrong}");
        says(&error, &["127.0.0.1:8080"]);
    }
    let taken = server.bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = server.bind(&address).await.unwrap_err();
    assert_eq!(error.code(), "listen_failed");
    says(&error, &[&address]);
}

#[tokio::test]
async fn a_stream_that_answers_slowly_is_written_to_the_end() {
    let server = echo().build().unwrap();
    // A pipe of seven bytes: nothing fits in one write.
    let (ours, theirs) = tokio::io::duplex(7);
    let accepting = tokio::spawn(async move { server.accept(request(&[]), theirs, []).await });
    let mut peer = Peer::new(ours);
    assert_eq!(peer.answer().await.status, 101);
    accepting.await.unwrap().unwrap();
    let payload = "x".repeat(10_000);
    let (sent, received) = {
        let bytes = text(&format!("echo||1||{payload}"));
        let (mut read, mut write) = tokio::io::split(peer.io);
        let sending = tokio::spawn(async move {
            write.write_all(&bytes).await.unwrap();
            write
        });
        let mut received = vec![0; 10_000 + 4 + "__ack_echo||1||".len()];
        read.read_exact(&mut received).await.unwrap();
        (sending.await.unwrap(), received)
    };
    assert!(received.ends_with(payload.as_bytes()));
    drop(sent);
}
