//! Unix sockets.

use etp_ws::{Client, Request, Server};
use tokio::net::{UnixListener, UnixStream};

use crate::support::{Dir, Peer, echo, says, shown, text, upgrade};

async fn run(server: &Server, path: &std::path::Path) -> tokio::task::JoinHandle<Result<(), etp_ws::Error>> {
    let bound = server.bind_unix(path).await.unwrap();
    assert_eq!(bound.url(), format!("unix:{}", shown(path)));
    assert_eq!(bound.local_addr(), None);
    tokio::spawn(bound.serve())
}

#[tokio::test]
async fn events_travel_over_a_socket_whose_file_goes_with_the_server() {
    let dir = Dir::new();
    let path = dir.path("socket");
    let server = echo()
        .on_upgrade(|request: Request| {
            assert_eq!((request.peer_addr(), request.client_ip()), (None, None));
        })
        .build()
        .unwrap();
    let serving = run(&server, &path).await;
    let client = Client::builder()
        .connect(format!("unix:{}", shown(&path)))
        .await
        .unwrap();
    assert_eq!(client.emit_with_ack("echo", "hi").await.unwrap(), "hi");

    // The rules of the handshake hold here as well.
    let mut peer = Peer::new(UnixStream::connect(&path).await.unwrap());
    peer.send("GET /other HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(peer.answer().await.status, 404);
    let mut peer = Peer::new(UnixStream::connect(&path).await.unwrap());
    peer.send([upgrade(&[]).into_bytes(), text("echo||1||x")].concat())
        .await;
    assert_eq!(peer.answer().await.status, 101);
    assert_eq!(peer.text().await, "__ack_echo||1||x");
    drop(peer);

    server.shutdown().await;
    serving.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_a_dead_server_left_is_replaced() {
    let dir = Dir::new();
    let path = dir.path("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = echo().build().unwrap();
    let serving = run(&server, &path).await;
    let client = Client::builder()
        .connect(format!("unix:{}", shown(&path)))
        .await
        .unwrap();
    assert_eq!(client.emit_with_ack("echo", "hi").await.unwrap(), "hi");
    server.shutdown().await;
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_live_socket_and_a_file_that_is_none_are_left_alone() {
    let dir = Dir::new();
    let path = dir.path("socket");
    let alive = echo().build().unwrap();
    let serving = run(&alive, &path).await;
    let error = echo().build().unwrap().bind_unix(&path).await.unwrap_err();
    assert_eq!(error.code(), "listen_failed");
    says(&error, &[shown(&path)]);
    let client = Client::builder()
        .connect(format!("unix:{}", shown(&path)))
        .await
        .unwrap();
    assert_eq!(client.emit_with_ack("echo", "hi").await.unwrap(), "hi");
    alive.shutdown().await;
    serving.await.unwrap().unwrap();

    let file = dir.write("notes", "precious");
    let error = echo().build().unwrap().bind_unix(&file).await.unwrap_err();
    assert_eq!(error.code(), "listen_failed");
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}

#[tokio::test]
async fn the_successor_of_a_server_keeps_its_file() {
    let dir = Dir::new();
    let path = dir.path("socket");
    let old = echo().build().unwrap();
    let old_serving = run(&old, &path).await;
    // Somebody moved the old file away and started a new server in its place.
    std::fs::remove_file(&path).unwrap();
    let new = echo().build().unwrap();
    let new_serving = run(&new, &path).await;
    old.shutdown().await;
    old_serving.await.unwrap().unwrap();
    let client = Client::builder()
        .connect(format!("unix:{}", shown(&path)))
        .await
        .unwrap();
    assert_eq!(client.emit_with_ack("echo", "hi").await.unwrap(), "hi");
    new.shutdown().await;
    new_serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named() {
    let dir = Dir::new();
    let path = dir.path("nobody");
    let error = Client::builder()
        .connect(format!("unix:{}", shown(&path)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "connect_failed");
    says(&error, &[shown(&path)]);
}
