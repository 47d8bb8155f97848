//! Mounted in a server that is not ours: axum beside other routes, and plain hyper.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use etp_ws::{Client, Reject, Request, Server, testing};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower_service::Service;

use crate::support::{Peer, echo, handshake, says, text, upgrade, with_errors};

/// axum with the server at `/ws`; answers its address.
async fn axum(server: &Server) -> String {
    let app = Router::new()
        .route("/health", get(|| async { "fine" }))
        .route_service("/ws", server.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// hyper with the server alone; it tells the peer's address.
async fn hyper(server: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.clone();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let server = server.clone();
            let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(peer);
                server.clone().call(request)
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades(),
            );
        }
    });
    address
}

async fn dial(address: &str) -> Peer<TcpStream> {
    Peer::new(TcpStream::connect(address).await.unwrap())
}

async fn ask(address: &str, request: &str) -> crate::support::Answer {
    let mut peer = dial(address).await;
    peer.send(request).await;
    peer.answer().await
}

#[tokio::test]
async fn axum_serves_events_and_other_routes_on_one_port() {
    let server = echo().build().unwrap();
    let address = axum(&server).await;
    let plain = ask(&address, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((plain.status, &*plain.body), (200, "fine"));
    let client = Client::builder().connect(format!("ws://{address}/ws")).await.unwrap();
    let large = "x".repeat(1_000_000);
    assert_eq!(client.emit_with_ack("echo", large.clone()).await.unwrap(), large);

    // A connection that was asked other things first may still turn into one of events.
    let mut peer = dial(&address).await;
    peer.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(peer.answer().await.status, 200);
    peer.upgrade().await;
    peer.send(text("echo||1||later")).await;
    assert_eq!(peer.text().await, "__ack_echo||1||later");

    drop(peer);
    server.shutdown().await;
    assert_eq!(server.stats().connections, 0);
    // The port is not ours: what is mounted says that it is over, the rest goes on.
    let answer = ask(&address, &upgrade(&[])).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("shutting down"));
    assert_eq!(
        ask(&address, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.status,
        200
    );
}

#[tokio::test]
async fn frames_sent_along_with_the_request_are_not_lost() {
    let server = echo().build().unwrap();
    for address in [axum(&server).await, hyper(&server).await] {
        let mut peer = dial(&address).await;
        peer.send([upgrade(&[]).into_bytes(), text("echo||1||a"), text("echo||2||b")].concat())
            .await;
        assert_eq!(peer.answer().await.status, 101);
        assert_eq!(peer.text().await, "__ack_echo||1||a");
        assert_eq!(peer.text().await, "__ack_echo||2||b");
    }
}

#[tokio::test]
async fn rejections_come_through() {
    let (builder, mut errors) = with_errors(echo().on_upgrade(async |request: Request| match request.query() {
        Some("fail") => Err(std::io::Error::other("the database is away"))?,
        Some(_) => Ok(()),
        None => Err(Reject::new(401).body("who are you?")),
    }));
    let server = builder.build().unwrap();
    for address in [axum(&server).await, hyper(&server).await] {
        let answer = ask(&address, &upgrade(&[])).await;
        assert_eq!((answer.status, answer.body.trim()), (401, "who are you?"));
        assert_eq!(errors.next().await.status(), Some(401));

        let answer = ask(&address, &handshake("GET /ws?fail HTTP/1.1", &[])).await;
        assert_eq!((answer.status, answer.body.trim()), (500, "Internal Server Error"));
        says(&errors.next().await, &["the database is away"]);

        let answer = ask(&address, "GET /ws HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(
            (answer.status, answer.header("sec-websocket-version")),
            (426, Some("13"))
        );
        errors.next().await;
        assert_eq!(ask(&address, &handshake("POST /ws HTTP/1.1", &[])).await.status, 405);
        errors.next().await;

        let error = Client::builder()
            .connect(format!("ws://{address}/ws"))
            .await
            .unwrap_err();
        assert_eq!((error.code(), error.status()), ("rejected", Some(401)));
        errors.next().await;
        Client::builder()
            .connect(format!("ws://{address}/ws?name=ann"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_rule_for_origins_holds_and_that_for_hosts_is_the_host_servers() {
    let (builder, mut errors) = with_errors(echo());
    let server = builder.build().unwrap();
    let address = axum(&server).await;
    for (origin, host, status) in [
        ("https://example.org", "example.org", 101),
        (&*format!("http://{address}"), &*address, 101),
        ("https://evil.example", "example.org", 403),
        ("null", "example.org", 403),
    ] {
        let answer = ask(
            &address,
            &upgrade(&[&format!("Origin: {origin}"), &format!("Host: {host}")]),
        )
        .await;
        assert_eq!(answer.status, status, "{origin}");
        if status == 403 {
            assert!(
                answer.body.contains(&format!("origins([{origin:?}])")),
                "{}",
                answer.body
            );
            says(&errors.next().await, &["the setting `origins`"]);
        }
    }
}

#[tokio::test]
async fn the_peer_address_is_the_one_among_the_extensions() {
    let (sender, mut peers) = mpsc::unbounded_channel();
    let server = Server::builder()
        .on_upgrade(move |request: Request| {
            let _ = sender.send(request.peer_addr());
        })
        .build()
        .unwrap();
    let stream = TcpStream::connect(hyper(&server).await).await.unwrap();
    let own: SocketAddr = stream.local_addr().unwrap();
    Peer::new(stream).upgrade().await;
    assert_eq!(peers.recv().await.unwrap(), Some(own));
    dial(&axum(&server).await).await.upgrade().await;
    assert_eq!(peers.recv().await.unwrap(), None);
}

#[tokio::test]
async fn a_host_that_can_not_hand_over_the_connection_is_reported() {
    let (builder, mut errors) = with_errors(echo());
    let mut server = builder.build().unwrap();
    // No HTTP server stands behind this request.
    let response = server.call(crate::adopted::request(&[])).await.unwrap();
    assert_eq!(response.status(), 101);
    let error = errors.next().await;
    assert_eq!(error.code(), "handshake_failed");
    says(&error, &["did not hand over"]);
    assert_eq!(server.stats().connections, 0);
}

/// Polls a future that has nothing to wait for.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..1_000_000 {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
        std::thread::yield_now();
    }
    panic!("it waits");
}

#[test]
fn outside_of_a_runtime_the_error_says_what_is_missing() {
    let (builder, mut errors) = with_errors(echo());
    let mut server = builder.build().unwrap();
    let missing = |error: etp_ws::Error| {
        assert_eq!(error.code(), "invalid_option");
        says(&error, &["no tokio runtime", "runtime(handle)"]);
    };
    missing(now(server.bind("127.0.0.1:0")).unwrap_err());
    missing(now(server.bind("localhost:0")).unwrap_err());
    missing(now(server.listen("127.0.0.1:0")).unwrap_err());
    missing(now(server.bind_unix("/nowhere/at/all")).unwrap_err());
    missing(now(server.accept(crate::adopted::request(&[]), tokio::io::duplex(64).0, [])).unwrap_err());
    missing(now(server.accept_pipe(crate::adopted::request(&[]), testing::pipe().0)).unwrap_err());
    missing(now(Client::builder().connect("ws://127.0.0.1:1/ws")).unwrap_err());
    missing(now(Client::builder().connect_pipe(testing::pipe().0)).unwrap_err());

    let response = now(server.call(crate::adopted::request(&[]))).unwrap();
    assert_eq!(response.status(), 500);
    says(&now(errors.next()), &["no tokio runtime"]);
    // There is nothing to end, and that is no error.
    now(server.shutdown());
}

#[test]
fn with_a_runtime_of_their_own_server_and_client_are_used_from_any_thread() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = echo().runtime(runtime.handle().clone()).build().unwrap();
    // Neither of these is inside the runtime.
    let bound = now(server.bind("127.0.0.1:0")).unwrap();
    let named = now(server.bind("localhost:0")).unwrap();
    drop(named);
    let (url, dialled) = (bound.url(), bound.url());
    let serving = std::thread::spawn(move || now_and_then(bound.serve()));
    let (ours, theirs) = testing::pipe();
    now(server.accept_pipe(crate::adopted::request(&[]), ours)).unwrap();
    drop(theirs);
    let (peer, theirs) = tokio::io::duplex(4096);
    now(server.accept(crate::adopted::request(&[]), theirs, [])).unwrap();
    runtime.block_on(async {
        let client = Client::builder().connect(url).await.unwrap();
        assert_eq!(client.emit_with_ack("echo", "x").await.unwrap(), "x");
    });
    let client = now_and_then(Client::builder().runtime(runtime.handle().clone()).connect(&dialled)).unwrap();
    assert_eq!(
        now_and_then(client.emit_with_ack("echo", "y").into_future()).unwrap(),
        "y"
    );
    now_and_then(client.close());
    drop(peer);
    now_and_then(server.shutdown());
    serving.join().unwrap().unwrap();
}

/// A runtime of another kind: blocks its thread on one future.
fn now_and_then<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = std::pin::pin!(future);
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
