//! What bindings and hosts of another kind need beside the tickets: wake-ups held back, admission before the pipe, numbers and
//! causes that travel through the core, and acknowledgments that are given up.
#![cfg(feature = "net")]

use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use etp_ws::handler::{Waiter, Wakes};
use etp_ws::testing::{Message, Pipe, PipeReceiver, pipe};
use etp_ws::{Accept, Client, Conn, Error, ErrorKind, Payload, Reject, Request, Server, http, testing};
use tokio::runtime::{Builder, Runtime};

/// Far more than anything here takes: past it something hangs.
const HANG: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A connection of the server's, and the peer's end of it.
fn connect(runtime: &Runtime, server: &Server) -> (Conn, Pipe) {
    let (ours, theirs) = pipe();
    let conn = runtime
        .block_on(server.accept_pipe(http::Request::new(()), ours))
        .unwrap();
    (conn, theirs)
}

fn next(runtime: &Runtime, pipe: &mut Pipe) -> Message {
    let next = runtime.block_on(async { tokio::time::timeout(HANG, pipe.recv()).await });
    next.expect("nothing came: a wake-up was lost")
        .expect("the connection ended")
}

/// Lets the connection's task go to sleep: what it has to say first is its answer to a ping.
fn settle(runtime: &Runtime, pipe: &mut Pipe) {
    runtime.block_on(pipe.send(Message::Ping("settle".into()))).unwrap();
    assert_eq!(next(runtime, pipe), Message::Pong("settle".into()));
    // On a runtime of one thread another task runs when that one sleeps.
    runtime.block_on(async { tokio::spawn(async {}).await }).unwrap();
}

#[test]
fn what_is_emitted_while_wakes_are_held_is_sent_when_they_are_released() {
    let runtime = runtime();
    let server = Server::builder().runtime(runtime.handle().clone()).build().unwrap();
    let (conn, mut peer) = connect(&runtime, &server);
    settle(&runtime, &mut peer);
    let wakes = Wakes::default();
    {
        let _held = wakes.hold();
        conn.emit("one", "1").unwrap();
        conn.emit("two", "2").unwrap();
        assert!(!wakes.is_empty(), "the sleeping connection is to be woken");
    }
    wakes.release_on(runtime.handle());
    assert_eq!(next(&runtime, &mut peer), Message::Text("one||0||1".into()));
    assert_eq!(next(&runtime, &mut peer), Message::Text("two||0||2".into()));
    assert!(wakes.is_empty());
}

#[test]
fn a_hold_ends_with_its_guard_and_holds_no_other_thread() {
    let runtime = runtime();
    let server = Server::builder().runtime(runtime.handle().clone()).build().unwrap();
    let (conn, mut peer) = connect(&runtime, &server);
    settle(&runtime, &mut peer);
    let wakes = Wakes::default();
    let held = wakes.hold();
    thread::scope(|scope| {
        scope.spawn(|| conn.emit("elsewhere", "").unwrap());
    });
    assert_eq!(next(&runtime, &mut peer), Message::Text("elsewhere||0||".into()));
    drop(held);
    settle(&runtime, &mut peer);
    conn.emit("here", "").unwrap();
    assert_eq!(next(&runtime, &mut peer), Message::Text("here||0||".into()));
    assert!(wakes.is_empty());
}

#[test]
fn a_broadcast_from_outside_the_runtime_reaches_everybody_at_once() {
    let runtime = runtime();
    let server = Server::builder().runtime(runtime.handle().clone()).build().unwrap();
    let mut peers: Vec<_> = (0..50).map(|_| connect(&runtime, &server)).collect();
    for (conn, peer) in &mut peers {
        settle(&runtime, peer);
        conn.join("room");
    }
    assert_eq!(server.to("room").emit("news", "x").unwrap().count(), 50);
    for (_, peer) in &mut peers {
        assert_eq!(next(&runtime, peer), Message::Text("news||0||x".into()));
    }
}

fn request(headers: &[(&str, &str)]) -> http::Request<()> {
    let mut request = http::Request::builder().uri("/ws?a=b");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.extension(Session("ann")).body(()).unwrap()
}

#[derive(Clone)]
struct Session(&'static str);

#[tokio::test]
async fn a_host_learns_the_answer_before_the_connection_begins() {
    let server = Server::builder()
        .on_upgrade(|request: Request| {
            let name = http::HeaderValue::from_static(request.extensions().get::<Session>().unwrap().0);
            Accept::new().header(http::HeaderName::from_static("x-name"), name)
        })
        .on("echo", |_: Conn, data: String| data)
        .build()
        .unwrap();
    let admitted = server
        .admit(request(&[("sec-websocket-protocol", "etp, other")]))
        .await
        .unwrap();
    assert_eq!(admitted.headers()["x-name"], "ann");
    assert_eq!(admitted.headers()["sec-websocket-protocol"], "etp");
    assert_eq!(server.stats().connects, 0);

    let (ours, theirs) = pipe();
    admitted.serve_pipe(ours);
    let (sender, receiver) = theirs.split();
    sender.send(Message::Text("echo||1||hi".into())).unwrap();
    assert_eq!(one(&receiver).await, Message::Text("__ack_echo||1||hi".into()));
}

async fn one(receiver: &PipeReceiver) -> Message {
    receiver.recv().await.unwrap().remove(0)
}

#[tokio::test]
async fn a_host_gets_the_whole_answer_of_a_refusal() {
    let server = Server::builder()
        .on_upgrade(|_: Request| {
            let retry = http::HeaderValue::from_static("7");
            Err::<(), _>(Reject::new(503).body("later").header(http::header::RETRY_AFTER, retry))
        })
        .build()
        .unwrap();
    let refused = server.admit(request(&[])).await.unwrap_err();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "7");
    assert_eq!(refused.body(), "later\n");

    let foreign = request(&[("host", "example.org"), ("origin", "https://evil.example")]);
    assert_eq!(server.admit(foreign).await.unwrap_err().status(), 403);
}

#[tokio::test]
async fn one_direction_of_a_split_pipe_ends_without_the_other() {
    let (here, there) = pipe();
    let (sender, receiver) = here.split();
    let (their_sender, their_receiver) = there.split();
    drop(sender);
    assert_eq!(their_receiver.recv().await, None);
    their_sender.send(Message::Text("still".into())).unwrap();
    assert_eq!(one(&receiver).await, Message::Text("still".into()));
    drop(receiver);
    their_sender.ready().await.unwrap_err();
}

#[derive(Debug)]
struct Foreign(u32);

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "foreign {}", self.0)
    }
}

impl std::error::Error for Foreign {}

#[tokio::test]
async fn the_cause_of_an_error_is_found_again_behind_the_seam() {
    let (errors, told) = mpsc::channel();
    let server = Server::builder()
        .on("break", |_: Conn, (): ()| Err::<(), _>(Foreign(7)))
        .on_error(move |_: Option<Conn>, error: Error| errors.send(error).unwrap())
        .build()
        .unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    client.emit("break", ()).unwrap();
    client.ping().await.unwrap();
    client.close().await;
    let error = told.try_recv().unwrap();
    assert_eq!(error.to_string(), "the handler of event \"break\" failed: foreign 7");
    assert_eq!(error.cause().unwrap().downcast_ref::<Foreign>().unwrap().0, 7);
}

#[tokio::test]
async fn a_dispatchers_number_stays_with_its_connection() {
    let server = Server::builder().build().unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    let conn = server.conns().remove(0);
    assert_eq!(conn.slot(), 0);
    conn.set_slot(42);
    assert_eq!(server.conn(conn.id()).unwrap().slot(), 42);
    client.close().await;
}

#[tokio::test]
async fn a_clients_acknowledgment_is_given_up_by_dropping_it() {
    let server = Server::builder().on("never", async |_: Conn, (): ()| std::future::pending::<()>().await);
    let server = server.build().unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    let waiter = Waiter::call(|_: Result<Payload, Error>| panic!("nobody waits any more"));
    let awaited = client
        .emit_with_ack_to("never", Payload::empty(), None, waiter)
        .unwrap();
    assert_eq!(client.stats().acks_pending, 1);
    drop(awaited);
    assert_eq!(client.stats().acks_pending, 0);

    let waiter = Waiter::call(|_: Result<Payload, Error>| panic!("the call itself fails"));
    let error = client
        .emit_with_ack_to("a||b", Payload::empty(), None, waiter)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidEvent);
}

#[tokio::test]
async fn the_end_of_a_client_is_awaited_without_keeping_it() {
    let server = Server::builder().build().unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    let closed = client.closed();
    drop(client);
    tokio::time::timeout(HANG, closed)
        .await
        .expect("the last handle was dropped");
}
