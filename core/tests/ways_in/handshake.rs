//! What a handshake on our own listener may not be, how long it may take, and how accepting goes on when descriptors run out.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use etp_ws::{Client, Conn, Error, ErrorKind, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::sleep;

use crate::support::{
    ACCEPT, Dir, KEY, Peer, child, echo, handshake, run, run_at, says, shown, text, upgrade, with_errors,
};

#[tokio::test]
async fn a_handshake_as_browsers_send_it_is_answered() {
    let running = run(echo()).await;
    let answer = running
        .ask(&upgrade(&[
            "Connection: keep-alive, Upgrade",
            "Upgrade: WebSocket",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            "Cookie: a=b; c=d",
        ]))
        .await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(answer.header("sec-websocket-extensions"), None);
    assert_eq!(answer.header("sec-websocket-protocol"), None);
    running.shutdown().await;
}

#[tokio::test]
async fn what_is_no_handshake_is_told_what_is_wrong() {
    let running = run(echo()).await;
    let many = "x".repeat(15 * 1024);
    let long = format!("Cookie: {many}");
    let longer = format!("Cookie: {many}{many}");
    let rows: Vec<(String, u16)> = vec![
        (upgrade(&[]), 101),
        (handshake("GET /ws?token=x HTTP/1.1", &[]), 101),
        (handshake("GET / HTTP/1.1", &[]), 404),
        (handshake("GET /ws/ HTTP/1.1", &[]), 404),
        (handshake("POST / HTTP/1.1", &[]), 404),
        (handshake("POST /ws HTTP/1.1", &[]), 405),
        (handshake("PUT /ws HTTP/1.1", &[]), 405),
        ("GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 426),
        (handshake("GET /ws HTTP/1.0", &[]), 426),
        (upgrade(&["Upgrade: h2c"]), 426),
        (upgrade(&["Connection: keep-alive"]), 426),
        (upgrade(&["Sec-WebSocket-Version: 8"]), 426),
        (upgrade(&["Sec-WebSocket-Version: "]), 426),
        (upgrade(&["Sec-WebSocket-Key: "]), 400),
        (upgrade(&["Sec-WebSocket-Key: c2hvcnQ="]), 400),
        (upgrade(&["Sec-WebSocket-Key: not base64!"]), 400),
        (
            upgrade(&[
                &format!("Sec-WebSocket-Key: {KEY}"),
                &format!("Sec-WebSocket-Key: {KEY}"),
            ]),
            400,
        ),
        (upgrade(&["Host: localhost", "Host: evil.example"]), 400),
        ("HELLO\r\n\r\n".into(), 400),
        (upgrade(&[&long]), 101),
        (upgrade(&[&longer]), 431),
        (upgrade(&["X-Line: x"; 90]), 101),
        (upgrade(&["X-Line: x"; 101]), 431),
    ];
    for (request, status) in rows {
        let answer = running.ask(&request).await;
        let first = request.lines().next().unwrap();
        assert_eq!(answer.status, status, "{first}: {answer:?}");
        match status {
            405 => assert_eq!(answer.header("allow"), Some("GET")),
            426 => {
                assert_eq!(answer.header("sec-websocket-version"), Some("13"));
                assert_eq!(answer.header("upgrade"), Some("websocket"));
            }
            _ => {}
        }
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_refusal_reaches_a_peer_that_sent_more_than_a_request() {
    let (builder, mut errors) = with_errors(echo());
    let running = run(builder).await;
    // What lies unread when a socket is closed turns the close into a reset, under which an answer is lost.
    let flood = text(&"x".repeat(60_000));
    let requests = [
        (handshake("GET /nowhere HTTP/1.1", &[]), 404),
        (upgrade(&[&format!("Cookie: {}", "x".repeat(40_000))]), 431),
        ("\r\n\r\nHELLO HELLO\r\n\r\n".to_owned(), 400),
    ];
    for (request, status) in requests {
        let mut peer = running.dial().await;
        peer.send([request.into_bytes(), flood.clone()].concat()).await;
        assert_eq!(peer.answer().await.status, status);
        peer.ended().await;
        assert_eq!(errors.next().await.code(), "handshake_failed");
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_refused_handshake_is_reported_once_with_its_status() {
    let (builder, mut errors) = with_errors(echo());
    let running = run(builder).await;
    running.ask(&handshake("GET /nowhere HTTP/1.1", &[])).await;
    let error = errors.next().await;
    assert_eq!((error.kind(), error.status()), (ErrorKind::HandshakeFailed, Some(404)));
    running.ask(&upgrade(&["Sec-WebSocket-Version: 8"])).await;
    assert_eq!(errors.next().await.status(), Some(426));
    assert_eq!(running.server.stats().handshakes_failed, 2);
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn headers_that_do_not_end_are_cut_at_the_handshake_timeout() {
    let (builder, mut errors) = with_errors(echo());
    let running = run(builder).await;
    let mut peer = running.dial().await;
    peer.send("GET /ws HTTP/1.1\r\nHost: localhost\r\n").await;
    peer.ended().await;
    let error = errors.next().await;
    assert_eq!(error.code(), "handshake_failed");
    says(&error, &["handshake_timeout", "10s"]);

    // A peer that says nothing at all.
    let mut silent = running.dial().await;
    silent.ended().await;
    says(&errors.next().await, &["handshake_timeout"]);
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn dripping_headers_do_not_prolong_a_handshake() {
    let (builder, mut errors) = with_errors(echo().handshake_timeout(Duration::from_secs(3)));
    let running = run(builder).await;
    let mut peer = running.dial().await;
    peer.send("GET /ws HTTP/1.1\r\n").await;
    let mut lines = 0;
    let error = loop {
        tokio::select! {
            biased;
            error = errors.next() => break error,
            () = sleep(Duration::from_secs(1)) => {
                lines += 1;
                assert!(lines <= 3, "the handshake outlives its time");
                peer.send("X-Drip: x\r\n").await;
            }
        }
    };
    says(&error, &["handshake_timeout", "3s"]);
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_unix_socket_has_the_same_timeout() {
    let dir = Dir::new();
    let (builder, mut errors) = with_errors(echo());
    let server = builder.build().unwrap();
    let bound = server.bind_unix(dir.path("s")).await.unwrap();
    let serving = tokio::spawn(bound.serve());
    let mut peer = Peer::new(tokio::net::UnixStream::connect(dir.path("s")).await.unwrap());
    peer.send("GET /ws").await;
    peer.ended().await;
    says(&errors.next().await, &["handshake_timeout"]);
    server.shutdown().await;
    serving.await.unwrap().unwrap();
    assert!(!std::path::Path::new(shown(&dir.path("s"))).exists());
}

#[tokio::test]
async fn an_upgrade_that_takes_too_long_is_unavailable() {
    let running = run(echo()
        .upgrade_timeout(Duration::from_millis(1))
        .on_upgrade(async |_: etp_ws::Request| {
            std::future::pending::<()>().await;
        }))
    .await;
    let answer = running.ask(&upgrade(&[])).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.body.contains("upgrade_timeout"));
    running.shutdown().await;
}

#[tokio::test]
async fn a_connection_of_a_full_server_is_unavailable_until_another_has_left() {
    let (builder, mut ends) = crate::support::with_ends(echo().max_connections(1));
    let running = run(builder).await;
    let mut first = running.dial().await;
    first.upgrade().await;
    let answer = running.ask(&upgrade(&[])).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("max_connections"));
    // A refused request holds no place, whatever it was refused for.
    assert_eq!(running.ask(&handshake("GET /x HTTP/1.1", &[])).await.status, 404);
    first.send(crate::support::close(1000, "")).await;
    ends.recv().await.unwrap();
    // The place is given back as the connection ends.
    let mut second = running.dial().await;
    second.upgrade().await;
    drop((first, second));
    running.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_leaves_in_the_middle_of_a_handshake_is_nobodys_harm() {
    let (builder, mut errors) = with_errors(echo());
    let running = run(builder).await;
    let mut peer = running.dial().await;
    peer.send("GET /ws HTTP/1.1\r\nHost: loc").await;
    drop(peer);
    assert_eq!(errors.next().await.code(), "handshake_failed");
    let client = Client::builder().connect(&running.url).await.unwrap();
    assert_eq!(client.emit_with_ack("echo", "x").await.unwrap(), "x");
    running.shutdown().await;
}

#[tokio::test]
async fn frames_in_the_packet_of_the_request_are_not_lost() {
    let running = run(echo()).await;
    let mut peer = running.dial().await;
    peer.send([upgrade(&[]).into_bytes(), text("echo||1||a"), text("echo||2||b")].concat())
        .await;
    assert_eq!(peer.answer().await.status, 101);
    assert_eq!(peer.text().await, "__ack_echo||1||a");
    assert_eq!(peer.text().await, "__ack_echo||2||b");
    drop(peer);
    running.shutdown().await;
}

/// The child of the next test: a server that tells when accepting pauses.
#[test]
#[ignore = "runs as a child of running_out_of_descriptors_pauses_accepting"]
fn serve_with_few_descriptors() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = echo()
            .on_error(|_: Option<Conn>, error: Error| {
                // One write a line: libtest writes to the other stream.
                let _ = std::io::stderr().write_all(format!("ERROR {error}\n").as_bytes());
            })
            .build()
            .unwrap();
        let bound = server.bind("127.0.0.1:0").await.unwrap();
        let line = format!("LISTENING {}\n", bound.url());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        bound.serve().await.unwrap();
    });
}

#[tokio::test]
async fn running_out_of_descriptors_pauses_accepting_and_never_ends_it() {
    let program = child("handshake::serve_with_few_descriptors");
    let mut serving = Command::new("sh")
        .args(["-c", "ulimit -n 24; exec \"$@\"", "sh"])
        .args(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(serving.stderr.take().unwrap()).lines();
    let url = loop {
        let line = lines.next_line().await.unwrap().expect("it listens");
        if let Some(url) = line.strip_prefix("LISTENING ") {
            break url.to_owned();
        }
    };
    let address = url
        .strip_prefix("ws://")
        .unwrap()
        .strip_suffix("/ws")
        .unwrap()
        .to_owned();

    let mut first = Peer::new(TcpStream::connect(&address).await.unwrap());
    first.upgrade().await;
    // More than it has descriptors; the system accepts them on its behalf.
    let mut rest = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(upgrade(&[]).as_bytes()).await.unwrap();
        rest.push(stream);
    }
    loop {
        let line = lines.next_line().await.unwrap().expect("it lives");
        if line.starts_with("ERROR accepting pauses") {
            break;
        }
    }
    // Those who are connected stay.
    first.send(text("echo||1||still here")).await;
    assert_eq!(first.text().await, "__ack_echo||1||still here");
    // When some leave, the others come in.
    let last = rest.pop().unwrap();
    drop(rest);
    let mut last = Peer::new(last);
    assert_eq!(last.answer().await.status, 101);
    last.send(text("echo||1||at last")).await;
    assert_eq!(last.text().await, "__ack_echo||1||at last");
    let client = Client::builder().connect(&url).await.unwrap();
    assert_eq!(client.emit_with_ack("echo", "x").await.unwrap(), "x");
    serving.kill().await.unwrap();
}

#[tokio::test]
async fn every_address_can_be_listened_on() {
    let running = run_at(echo(), "0.0.0.0:0").await;
    // A URL to dial, not the wildcard that was bound.
    assert!(running.url.starts_with("ws://127.0.0.1:"), "{}", running.url);
    let client = Client::builder().connect(&running.url).await.unwrap();
    assert_eq!(client.emit_with_ack("echo", "x").await.unwrap(), "x");
    running.shutdown().await;
    let named = run_at(echo(), "localhost:0").await;
    let client = Client::builder().connect(&named.url).await.unwrap();
    assert_eq!(client.emit_with_ack("echo", "x").await.unwrap(), "x");
    named.shutdown().await;
}

#[tokio::test]
async fn paths_hosts_and_proxies_that_can_not_be_are_options() {
    for (builder, name) in [
        (Server::builder().path("ws"), "path"),
        (Server::builder().path("/ws?x"), "path"),
        (Server::builder().path("/a b"), "path"),
        (Server::builder().origins(["example.org"]), "origin"),
        (Server::builder().origins(Vec::<String>::new()), "origins"),
        (Server::builder().hosts(["example.org:80"]), "host"),
        (Server::builder().trusted_proxies(["proxy"]), "trusted prox"),
        (Server::builder().max_connections(0), "max_connections"),
        (Server::builder().handshake_timeout(Duration::ZERO), "handshake_timeout"),
        (Server::builder().upgrade_timeout(Duration::MAX), "upgrade_timeout"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.code(), "invalid_option");
        says(&error, &[name]);
    }
}
