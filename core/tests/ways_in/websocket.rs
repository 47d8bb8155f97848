//! WebSockets that the application upgraded or dialled by itself, through tokio-tungstenite, in both roles.

use etp_ws::{Bytes, Client, Conn, Disconnect, State};
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::support::{echo, says, with_ends, with_errors};

type Ws = WebSocketStream<DuplexStream>;

/// Two ends of one WebSocket: a server's and a client's.
async fn pair() -> (Ws, Ws) {
    let (a, b) = tokio::io::duplex(64 * 1024);
    (
        WebSocketStream::from_raw_socket(a, Role::Server, None).await,
        WebSocketStream::from_raw_socket(b, Role::Client, None).await,
    )
}

async fn next(ws: &mut Ws) -> Message {
    ws.next().await.expect("it is open").unwrap()
}

fn closing(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame {
        code: code.into(),
        reason: reason.into(),
    }))
}

fn request() -> http::Request<()> {
    crate::adopted::request(&[])
}

/// What `on_disconnect` of a client was told.
fn client_with_ends() -> (etp_ws::ClientBuilder, mpsc::UnboundedReceiver<Disconnect>) {
    let (sender, ends) = mpsc::unbounded_channel();
    let builder = Client::builder()
        .on("echo", async |_: Conn, data: Bytes| data)
        .on_disconnect(move |_: Conn, end: Disconnect| {
            let _ = sender.send(end);
        });
    (builder, ends)
}

#[tokio::test]
async fn a_server_serves_events_acks_and_pings_over_a_websocket_of_the_applications() {
    let server = echo().build().unwrap();
    let (ours, mut peer) = pair().await;
    let conn = server.accept_websocket(request(), ours).await.unwrap();
    assert_eq!(conn.request().path(), "/any/path");

    peer.send(Message::text("echo||1||hällo")).await.unwrap();
    assert_eq!(next(&mut peer).await, Message::text("__ack_echo||1||hällo"));
    peer.send(Message::binary(b"echo||2||\xFF\x00".to_vec())).await.unwrap();
    assert_eq!(
        next(&mut peer).await,
        Message::binary(b"__ack_echo||2||\xFF\x00".to_vec())
    );
    // Valid UTF-8 goes out as text, however it came.
    peer.send(Message::binary(b"echo||3||x".to_vec())).await.unwrap();
    assert_eq!(next(&mut peer).await, Message::text("__ack_echo||3||x"));

    conn.emit("news", "hi").unwrap();
    assert_eq!(next(&mut peer).await, Message::text("news||0||hi"));
    let asking = conn.clone();
    let answer = tokio::spawn(async move { asking.emit_with_ack("question", "?").await });
    assert_eq!(next(&mut peer).await, Message::text("question||1||?"));
    peer.send(Message::text("__ack_question||1||!")).await.unwrap();
    assert_eq!(answer.await.unwrap().unwrap(), "!");

    peer.send(Message::Ping("abc".into())).await.unwrap();
    assert_eq!(next(&mut peer).await, Message::Pong("abc".into()));
    let pinging = tokio::spawn(async move { conn.ping().await });
    assert!(matches!(next(&mut peer).await, Message::Ping(_)));
    // Their side answers by itself as it reads on.
    peer.send(Message::text("echo||4||x")).await.unwrap();
    assert_eq!(next(&mut peer).await, Message::text("__ack_echo||4||x"));
    pinging.await.unwrap().unwrap();
}

#[tokio::test]
async fn both_ends_may_be_ours() {
    let server = echo()
        .on("ask back", async |conn: Conn, data: Bytes| {
            conn.emit_with_ack("echo", data).await
        })
        .build()
        .unwrap();
    let (a, b) = pair().await;
    server.accept_websocket(request(), a).await.unwrap();
    let (builder, mut ends) = client_with_ends();
    let client = builder.connect_websocket(b).await.unwrap();
    let large = "ü".repeat(400_000);
    assert_eq!(client.emit_with_ack("echo", large.clone()).await.unwrap(), large);
    assert_eq!(client.emit_with_ack("ask back", "x").await.unwrap(), "x");
    client.ping().await.unwrap();
    let replies =
        futures_util::future::join_all((0..1_000).map(|n| client.emit_with_ack("echo", n.to_string()).into_future()))
            .await;
    for (n, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply.unwrap(), n.to_string());
    }
    server.shutdown().await;
    let end = ends.recv().await.unwrap();
    assert_eq!(
        (end.code, &*end.reason, end.clean, end.will_reconnect),
        (1000, "server shutdown", true, false)
    );
    assert_eq!(client.wait_for(State::Closed).await, State::Closed);
}

#[tokio::test]
async fn a_client_lives_over_a_websocket_that_the_application_dialled() {
    let (mut peer, ours) = pair().await;
    let (builder, mut ends) = client_with_ends();
    let client = builder.connect_websocket(ours).await.unwrap();
    client.emit("news", "hi").unwrap();
    assert_eq!(next(&mut peer).await, Message::text("news||0||hi"));
    peer.send(Message::text("echo||7||x")).await.unwrap();
    assert_eq!(next(&mut peer).await, Message::text("__ack_echo||7||x"));
    let asking = client.clone();
    let answer = tokio::spawn(async move { asking.emit_with_ack("question", "?").await });
    assert_eq!(next(&mut peer).await, Message::text("question||1||?"));
    peer.send(Message::text("__ack_question||1")).await.unwrap();
    assert_eq!(answer.await.unwrap().unwrap(), "");

    client.emit("last", "word").unwrap();
    let closing_client = client.clone();
    let closed = tokio::spawn(async move { closing_client.close_with(4003, "enough").await });
    assert_eq!(next(&mut peer).await, Message::text("last||0||word"));
    assert_eq!(next(&mut peer).await, closing(4003, "enough"));
    assert!(peer.next().await.is_none());
    drop(peer);
    closed.await.unwrap().unwrap();
    let end = ends.recv().await.unwrap();
    assert_eq!((end.code, &*end.reason, end.clean), (4003, "enough", true));
}

#[tokio::test]
async fn close_codes_travel_both_ways() {
    let (builder, mut ends) = with_ends(echo());
    let server = builder.build().unwrap();
    // Ours.
    let (ours, mut peer) = pair().await;
    let conn = server.accept_websocket(request(), ours).await.unwrap();
    peer.send(Message::text("echo||1||x")).await.unwrap();
    assert_eq!(next(&mut peer).await, Message::text("__ack_echo||1||x"));
    conn.emit("last", "word").unwrap();
    conn.close_with(4001, "bye").unwrap();
    assert_eq!(next(&mut peer).await, Message::text("last||0||word"));
    assert_eq!(next(&mut peer).await, closing(4001, "bye"));
    assert!(peer.next().await.is_none());
    drop(peer);
    let end = ends.recv().await.unwrap();
    assert_eq!(
        (end.code, &*end.reason, end.clean, end.normal),
        (4001, "bye", true, false)
    );

    // The peer's, with and without a code.
    for (message, code, reason) in [
        (closing(4002, "ciao"), 4002, "ciao"),
        (closing(1000, ""), 1000, ""),
        (Message::Close(None), 1005, ""),
    ] {
        let (ours, mut peer) = pair().await;
        let conn = server.accept_websocket(request(), ours).await.unwrap();
        peer.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut peer).await, message);
        assert!(peer.next().await.is_none());
        drop(peer);
        let end = ends.recv().await.unwrap();
        assert_eq!((end.code, &*end.reason, end.clean), (code, reason, true));
        conn.closed().await;
    }

    // As a client.
    let (mut peer, ours) = pair().await;
    let (builder, mut ends) = client_with_ends();
    let client = builder.connect_websocket(ours).await.unwrap();
    peer.send(closing(4002, "ciao")).await.unwrap();
    assert_eq!(next(&mut peer).await, closing(4002, "ciao"));
    drop(peer);
    let end = ends.recv().await.unwrap();
    assert_eq!(
        (end.code, &*end.reason, end.clean, end.will_reconnect),
        (4002, "ciao", true, false)
    );
    assert_eq!(client.wait_for(State::Closed).await, State::Closed);
}

#[tokio::test]
async fn a_message_over_our_limit_closes_with_1009() {
    let (builder, mut ends) = with_ends(echo().max_message_size(2_000));
    let server = builder.build().unwrap();
    let (ours, mut peer) = pair().await;
    server.accept_websocket(request(), ours).await.unwrap();
    let fits = format!("echo||1||{}", "x".repeat(1_980));
    peer.send(Message::text(fits)).await.unwrap();
    assert!(matches!(next(&mut peer).await, Message::Text(_)));
    peer.send(Message::text(format!("echo||2||{}", "x".repeat(2_000))))
        .await
        .unwrap();
    assert!(matches!(next(&mut peer).await, Message::Close(Some(frame)) if frame.code == 1009.into()));
    drop(peer);
    assert_eq!(ends.recv().await.unwrap().code, 1009);

    let (mut peer, ours) = pair().await;
    let (builder, mut ends) = client_with_ends();
    let _client = builder.max_message_size(2_000).connect_websocket(ours).await.unwrap();
    peer.send(Message::binary(vec![b'x'; 2_001])).await.unwrap();
    assert!(matches!(next(&mut peer).await, Message::Close(Some(frame)) if frame.code == 1009.into()));
    drop(peer);
    assert_eq!(ends.recv().await.unwrap().code, 1009);
}

#[tokio::test]
async fn a_protocol_error_closes_with_its_code() {
    for (bytes, code) in [
        (&b"\x81\x80\0\0\0\0\xF3"[..], 1002),
        (b"\x81\x81\0\0\0\0\xFF", 1007),
        (b"\xC1\x80\0\0\0\0", 1002),
    ] {
        let (builder, mut ends) = with_ends(echo());
        let server = builder.build().unwrap();
        let (a, b) = tokio::io::duplex(4096);
        let ours = WebSocketStream::from_raw_socket(a, Role::Server, None).await;
        server.accept_websocket(request(), ours).await.unwrap();
        let mut peer = crate::support::Peer::new(b);
        peer.send([bytes, &[0x80, 0, 0, 0, 0, 0]].concat()).await;
        match peer.next().await {
            crate::support::Message::Close(sent, _) => assert_eq!(sent, code, "{bytes:x?}"),
            other => panic!("{bytes:x?}: {other:?}"),
        }
        drop(peer);
        assert_eq!(ends.recv().await.unwrap().code, code);
    }
}

#[tokio::test]
async fn an_abrupt_end_is_1006_and_ends_what_is_pending() {
    let (builder, mut ends) = with_ends(echo());
    let server = builder.build().unwrap();
    let (ours, mut peer) = pair().await;
    let conn = server.accept_websocket(request(), ours).await.unwrap();
    let asking = conn.clone();
    let answer = tokio::spawn(async move { asking.emit_with_ack("question", "?").await });
    next(&mut peer).await;
    drop(peer);
    let end = ends.recv().await.unwrap();
    assert_eq!((end.code, end.clean), (1006, false));
    assert_eq!(answer.await.unwrap().unwrap_err().code(), "connection_closed");

    let (peer, ours) = pair().await;
    let (builder, mut ends) = client_with_ends();
    let client = builder.connect_websocket(ours).await.unwrap();
    drop(peer);
    let end = ends.recv().await.unwrap();
    assert_eq!((end.code, end.clean, end.will_reconnect), (1006, false, false));
    assert_eq!(client.wait_for(State::Closed).await, State::Closed);
    assert_eq!(client.emit("x", "y").unwrap_err().code(), "connection_closed");
}

#[tokio::test]
async fn the_rules_for_pages_and_the_application_still_decide() {
    let (builder, mut errors) = with_errors(echo().max_connections(1));
    let server = builder.build().unwrap();
    let (ours, mut peer) = pair().await;
    let request = crate::adopted::request(&[("origin", "https://evil.example")]);
    let error = server.accept_websocket(request, ours).await.unwrap_err();
    assert_eq!((error.code(), error.status()), ("handshake_failed", Some(403)));
    says(&error, &["origins([\"https://evil.example\"])"]);
    assert_eq!(errors.next().await.status(), Some(403));
    // The WebSocket was dropped.
    assert!(!matches!(peer.next().await, Some(Ok(_))));

    let (ours, _peer) = pair().await;
    server.accept_websocket(self::request(), ours).await.unwrap();
    let (ours, _second) = pair().await;
    let error = server.accept_websocket(self::request(), ours).await.unwrap_err();
    assert_eq!(error.status(), Some(503));
}

#[tokio::test]
async fn a_real_dial_of_theirs_meets_our_listener() {
    let running = crate::support::run(echo()).await;
    let (ws, response) = tokio_tungstenite::connect_async(&running.url).await.unwrap();
    assert_eq!(response.status(), 101);
    let client = Client::builder().connect_websocket(ws).await.unwrap();
    assert_eq!(client.emit_with_ack("echo", "x").await.unwrap(), "x");
    running.shutdown().await;
}
