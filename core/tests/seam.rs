//! The handler trait as a binding to another language uses it: every call from the core only queues, and plain threads that know
//! no async draw from the queue in batches and complete the tickets when, where and in what order they like.
#![cfg(feature = "net")]

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use etp_ws::handler::{BoxFuture, ConnectTicket, DisconnectTicket, Handler, Reply, Ticket, UpgradeTicket, Waiter};
use etp_ws::testing::{Message, Pipe, pipe};
use etp_ws::{
    Accept, Bytes, Client, Conn, ConnId, Disconnect, Error, ErrorKind, Incoming, Payload, Reject, Request, Server,
    ServerBuilder,
};
use tokio::runtime::{Builder, Runtime};

/// Far more than anything here takes: past it something hangs.
const HANG: Duration = Duration::from_secs(20);

/// What lies in the queue.
#[derive(Debug)]
enum Item {
    Upgrade(Request, UpgradeTicket),
    Connect(Conn, ConnectTicket),
    Event(Event),
    Disconnect(Conn, Disconnect),
    Error(Option<Conn>, Error),
    Acked(&'static str, Result<Payload, Error>),
    Ponged(Result<Duration, Error>),
    Drained(Result<(), Error>),
}

#[derive(Debug)]
struct Event {
    name: String,
    payload: Bytes,
    reply: Reply,
}

/// The queue between the core and the foreign threads; one wake-up for a whole batch.
#[derive(Default)]
struct Queue {
    items: Mutex<VecDeque<Item>>,
    filled: Condvar,
}

impl Queue {
    fn push(&self, item: Item) {
        let mut items = self.items.lock().unwrap();
        items.push_back(item);
        if items.len() == 1 {
            self.filled.notify_all();
        }
    }

    /// Waits for items and takes at most so many; none in the time given.
    fn batch_within(&self, most: usize, time: Duration) -> Vec<Item> {
        let items = self.items.lock().unwrap();
        let (mut items, _) = self
            .filled
            .wait_timeout_while(items, time, |items| items.is_empty())
            .unwrap();
        let count = most.min(items.len());
        items.drain(..count).collect()
    }

    fn batch(&self, most: usize) -> Vec<Item> {
        let batch = self.batch_within(most, HANG);
        assert!(
            !batch.is_empty(),
            "nothing came: a wake-up was lost, or something hangs"
        );
        batch
    }

    fn next(&self) -> Item {
        self.batch(1).pop().expect("a batch has items")
    }

    fn event(&self) -> Event {
        match self.next() {
            Item::Event(event) => event,
            other => panic!("an event should come, not {other:?}"),
        }
    }

    fn error(&self) -> Error {
        match self.next() {
            Item::Error(conn, error) => {
                assert_eq!(conn.is_none(), error.kind() == ErrorKind::HandshakeFailed);
                error
            }
            other => panic!("an error should come, not {other:?}"),
        }
    }

    fn disconnect(&self) -> Disconnect {
        match self.next() {
            Item::Disconnect(_, disconnect) => disconnect,
            other => panic!("a disconnect should come, not {other:?}"),
        }
    }

    fn len(&self) -> usize {
        self.items.lock().unwrap().len()
    }
}

/// The handler of a binding: it queues.
impl Handler for Queue {
    fn upgrade(&self, request: &Request, ticket: UpgradeTicket) -> Option<BoxFuture> {
        self.push(Item::Upgrade(request.clone(), ticket));
        None
    }

    fn connect(&self, conn: &Conn, ticket: ConnectTicket) -> Option<BoxFuture> {
        self.push(Item::Connect(conn.clone(), ticket));
        None
    }

    fn event(&self, _: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        let reply = ticket.into_reply();
        self.push(Item::Event(Event {
            name: event.name().to_owned(),
            payload: event.payload_bytes(),
            reply,
        }));
        None
    }

    fn disconnect(&self, conn: &Conn, disconnect: Disconnect, _: DisconnectTicket) -> Option<BoxFuture> {
        self.push(Item::Disconnect(conn.clone(), disconnect));
        None
    }

    fn error(&self, conn: Option<&Conn>, error: Error) -> Option<BoxFuture> {
        self.push(Item::Error(conn.cloned(), error));
        None
    }
}

/// A server of such a handler, on a runtime whose threads are not the test's.
struct Stage {
    server: Server,
    queue: Arc<Queue>,
    runtime: Runtime,
}

fn workers(count: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(count)
        .enable_all()
        .build()
        .unwrap()
}

fn stage(builder: ServerBuilder) -> Stage {
    stage_on(workers(2), builder)
}

fn stage_on(runtime: Runtime, builder: ServerBuilder) -> Stage {
    let queue = Arc::<Queue>::default();
    let server = builder
        .handler(queue.clone())
        .runtime(runtime.handle().clone())
        .build()
        .unwrap();
    Stage { server, queue, runtime }
}

impl Stage {
    /// A peer that asks to be let in, and what the server makes of it.
    fn knock(&self) -> (Peer<'_>, tokio::task::JoinHandle<Result<Conn, Error>>) {
        let (near, far) = pipe();
        let server = self.server.clone();
        let asked = self
            .runtime
            .spawn(async move { server.accept_pipe(http::Request::new(()), near).await });
        let peer = Peer {
            runtime: &self.runtime,
            pipe: far,
        };
        (peer, asked)
    }

    /// A peer that has been let in, up to the ticket of its `on_connect`.
    fn arrive(&self) -> (Peer<'_>, Conn, ConnectTicket) {
        let (peer, asked) = self.knock();
        match self.queue.next() {
            Item::Upgrade(_, ticket) => ticket.accept(Accept::new()),
            other => panic!("a handshake should come, not {other:?}"),
        }
        self.runtime.block_on(asked).unwrap().unwrap();
        match self.queue.next() {
            Item::Connect(conn, ticket) => (peer, conn, ticket),
            other => panic!("a connection should come, not {other:?}"),
        }
    }

    /// A peer that is connected.
    fn connect(&self) -> (Peer<'_>, Conn) {
        let (peer, conn, ticket) = self.arrive();
        ticket.complete();
        (peer, conn)
    }

    fn wait_until(&self, what: &str, is: impl Fn(&Server) -> bool) {
        let began = Instant::now();
        while !is(&self.server) {
            assert!(began.elapsed() < HANG, "{what} never came");
            thread::yield_now();
        }
    }
}

/// The raw end of a connection.
struct Peer<'a> {
    runtime: &'a Runtime,
    pipe: Pipe,
}

impl Peer<'_> {
    fn send(&mut self, frame: impl Into<String>) {
        let message = Message::Text(frame.into().into());
        self.runtime.block_on(self.pipe.send(message)).unwrap();
    }

    fn recv(&mut self) -> Option<Message> {
        let recv = async { tokio::time::timeout(HANG, self.pipe.recv()).await };
        self.runtime
            .block_on(recv)
            .expect("nothing came: a wake-up was lost, or something hangs")
    }

    fn frame(&mut self) -> String {
        match self.recv() {
            Some(Message::Text(bytes)) => String::from_utf8(bytes.into()).unwrap(),
            other => panic!("a text message should come, not {other:?}"),
        }
    }

    /// Returns when the server has taken everything that was sent before, and has nothing to say.
    fn settle(&mut self) {
        self.runtime
            .block_on(self.pipe.send(Message::Ping("settle".into())))
            .unwrap();
        assert_eq!(self.recv(), Some(Message::Pong("settle".into())));
    }

    fn close(&mut self, code: u16) {
        self.runtime
            .block_on(self.pipe.send(Message::Close(Some((code, String::new())))))
            .unwrap();
    }
}

#[test]
fn tickets_are_completed_out_of_order_from_two_threads() {
    let stage = stage(Server::builder());
    let (mut peer, _) = stage.connect();
    for n in 1..=100 {
        peer.send(format!("work||{n}||{n}"));
    }
    let mut events = Vec::new();
    while events.len() < 100 {
        events.extend(stage.queue.batch(16));
    }
    let (mut odd, mut even) = (Vec::new(), Vec::new());
    for (n, item) in (1..).zip(events) {
        let Item::Event(event) = item else { panic!("{item:?}") };
        assert_eq!(
            (event.name.as_str(), &event.payload[..]),
            ("work", n.to_string().as_bytes()),
            "events come in order"
        );
        assert!(event.reply.wants_reply());
        if n % 2 == 0 { even.push(event) } else { odd.push(event) }
    }
    assert_eq!(stage.server.stats().handlers_in_flight, 100);
    thread::scope(|scope| {
        for events in [odd, even] {
            scope.spawn(move || {
                for event in events.into_iter().rev() {
                    match &event.payload[..] {
                        b"50" => drop(event.reply),
                        b"51" => event.reply.fail("it broke"),
                        payload => event.reply.send_payload(payload, true),
                    }
                }
            });
        }
    });
    let mut replies: Vec<_> = (0..98).map(|_| peer.frame()).collect();
    replies.sort();
    let mut expected: Vec<_> = (1..=100)
        .filter(|n| ![50, 51].contains(n))
        .map(|n| format!("__ack_work||{n}||{n}"))
        .collect();
    expected.sort();
    assert_eq!(replies, expected);
    peer.settle();

    let mut errors = [stage.queue.error().to_string(), stage.queue.error().to_string()];
    errors.sort();
    assert_eq!(
        errors,
        [
            r#"the handler of event "work" ended without an outcome"#,
            r#"the handler of event "work" failed: it broke"#,
        ]
    );
    assert_eq!(stage.server.stats().handlers_in_flight, 0);
    assert_eq!(stage.queue.len(), 0);
}

#[test]
fn an_event_that_wants_no_reply_has_a_ticket_and_gets_none() {
    let stage = stage(Server::builder());
    let (mut peer, _) = stage.connect();
    peer.send("tell||0||x");
    let event = stage.queue.event();
    assert!(!event.reply.wants_reply());
    assert_eq!(event.reply.event_name(), "tell");
    assert_eq!(stage.server.stats().handlers_in_flight, 1);
    event.reply.send("a reply");
    assert_eq!(stage.server.stats().handlers_in_flight, 0);
    peer.settle();
}

#[test]
fn tickets_that_outlive_their_connection_are_harmless() {
    let stage = stage(Server::builder());
    let (mut peer, conn) = stage.connect();
    for n in 1..=4 {
        peer.send(format!("work||{n}"));
    }
    let mut events: Vec<_> = (0..4).map(|_| stage.queue.event()).collect();
    peer.close(4000);
    assert_eq!(stage.queue.disconnect().code, 4000);
    assert!(!conn.is_open());
    assert_eq!(stage.server.stats().handlers_in_flight, 4);
    events.pop().unwrap().reply.send("too late");
    drop(events.pop());
    thread::spawn(move || events.pop().unwrap().reply.send("x".repeat(100)))
        .join()
        .unwrap();
    assert_eq!(stage.server.stats().handlers_in_flight, 0);
    assert_eq!(stage.queue.len(), 0, "a peer that has left is no error");
}

#[test]
fn a_handshake_waits_for_its_ticket() {
    let stage = stage(Server::builder());
    let (_first, asked) = stage.knock();
    let Item::Upgrade(request, ticket) = stage.queue.next() else {
        panic!()
    };
    assert_eq!(request.uri(), "/");
    assert!(!asked.is_finished() && stage.server.conns().is_empty());
    thread::spawn(|| ticket.accept(Accept::new().data(7_u32)))
        .join()
        .unwrap();
    let conn = stage.runtime.block_on(asked).unwrap().unwrap();
    assert_eq!(conn.data().get::<u32>(), Some(7));
    let Item::Connect(_, ticket) = stage.queue.next() else {
        panic!()
    };
    ticket.complete();

    let answer = |decide: fn(UpgradeTicket)| {
        let (_peer, asked) = stage.knock();
        let Item::Upgrade(_, ticket) = stage.queue.next() else {
            panic!()
        };
        thread::spawn(move || decide(ticket)).join().unwrap();
        let status = stage.runtime.block_on(asked).unwrap().unwrap_err().status();
        assert_eq!(stage.queue.error().status(), status);
        status
    };
    assert_eq!(answer(|ticket| ticket.reject(Reject::new(401))), Some(401));
    assert_eq!(answer(drop), Some(500));
}

#[test]
fn a_handshake_whose_ticket_is_forgotten_ends_by_upgrade_timeout() {
    let stage = stage(Server::builder().upgrade_timeout(Duration::from_millis(50)));
    let (_peer, asked) = stage.knock();
    let Item::Upgrade(_, ticket) = stage.queue.next() else {
        panic!()
    };
    assert_eq!(stage.runtime.block_on(asked).unwrap().unwrap_err().status(), Some(503));
    ticket.accept(Accept::new());
    assert_eq!(stage.queue.error().kind(), ErrorKind::HandshakeFailed);
    assert!(stage.server.conns().is_empty());
}

#[test]
fn events_wait_until_the_ticket_of_on_connect_is_completed() {
    let stage = stage(Server::builder());
    let (mut peer, conn, ticket) = stage.arrive();
    for n in 1..=3 {
        peer.send(format!("work||{n}||{n}"));
    }
    conn.emit("welcome", "hi").unwrap();
    assert_eq!(peer.frame(), "welcome||0||hi");
    peer.settle();
    assert_eq!(stage.queue.len(), 0);
    thread::spawn(|| ticket.complete()).join().unwrap();
    for n in ["1", "2", "3"] {
        let event = stage.queue.event();
        assert_eq!(event.payload, n);
        event.reply.send(());
        assert_eq!(peer.frame(), format!("__ack_work||{n}"));
    }
}

#[test]
fn a_ticket_of_on_connect_that_is_failed_or_dropped_closes_with_1011() {
    let stage = stage(Server::builder());
    type End = fn(ConnectTicket);
    let cases: [(End, &str); 2] = [
        (|ticket| ticket.fail("no"), "on_connect failed: no"),
        (drop, "on_connect ended without an outcome"),
    ];
    for (end, told) in cases {
        let (mut peer, _, ticket) = stage.arrive();
        peer.send("work||1");
        peer.settle();
        thread::spawn(move || end(ticket)).join().unwrap();
        assert_eq!(
            peer.recv(),
            Some(Message::Close(Some((1011, "on_connect failed".into()))))
        );
        peer.close(1011);
        assert_eq!(stage.queue.error().to_string(), told);
        assert_eq!(stage.queue.disconnect().code, 1011);
        assert_eq!(stage.queue.len(), 0);
    }
}

#[test]
fn on_disconnect_comes_once_and_after_a_late_ticket_of_on_connect() {
    let stage = stage(Server::builder());
    for complete in [true, false] {
        let (peer, conn, ticket) = stage.arrive();
        drop(peer);
        stage.wait_until("the end", |server| server.conns().is_empty());
        assert!(!conn.is_open());
        assert_eq!(stage.queue.len(), 0, "on_connect has not ended");
        if complete {
            ticket.complete()
        } else {
            drop(ticket)
        }
        assert_eq!(stage.queue.disconnect().code, 1006);
        assert_eq!(stage.queue.len(), 0);
    }
}

#[test]
fn on_disconnect_comes_once_however_ticket_and_end_race() {
    const CONNS: usize = 300;
    let stage = stage(Server::builder());
    let seen = Mutex::new(HashMap::<ConnId, (bool, usize)>::new());
    let ended = AtomicUsize::new(0);
    let (tickets, to_complete) = mpsc::channel::<(usize, Conn, ConnectTicket)>();
    let (seen, ended, stage) = (&seen, &ended, &stage);
    thread::scope(|scope| {
        // One thread draws, another one completes: late, in their own time.
        scope.spawn(move || {
            let mut count = 0;
            while ended.load(Ordering::SeqCst) < CONNS {
                for item in stage.queue.batch(7) {
                    match item {
                        Item::Upgrade(_, ticket) => ticket.accept(Accept::new()),
                        Item::Connect(conn, ticket) => {
                            count += 1;
                            seen.lock().unwrap().insert(conn.id(), (false, 0));
                            tickets.send((count, conn, ticket)).unwrap();
                        }
                        Item::Disconnect(conn, _) => {
                            let mut seen = seen.lock().unwrap();
                            let (completing, times) = seen.get_mut(&conn.id()).expect("on_connect came first");
                            assert!(*completing, "on_disconnect comes after on_connect has ended");
                            *times += 1;
                            ended.fetch_add(1, Ordering::SeqCst);
                        }
                        Item::Error(..) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
        });
        scope.spawn(move || {
            for (n, conn, ticket) in to_complete {
                seen.lock().unwrap().get_mut(&conn.id()).unwrap().0 = true;
                match n % 4 {
                    0 => ticket.fail("no"),
                    1 => drop(ticket),
                    2 => {
                        conn.close();
                        ticket.complete();
                    }
                    _ => ticket.complete(),
                }
            }
        });
        scope.spawn(move || {
            for n in 0..CONNS {
                let (mut peer, asked) = stage.knock();
                stage.runtime.block_on(asked).unwrap().unwrap();
                if n % 3 == 0 {
                    peer.close(1000);
                }
                if n % 7 == 0 {
                    thread::yield_now();
                }
            }
        });
    });
    assert_eq!(stage.queue.batch_within(1, Duration::from_millis(20)).len(), 0);
    assert!(seen.lock().unwrap().values().all(|seen| *seen == (true, 1)));
}

/// A waiter whose outcome goes into the queue, as everything does.
fn acked(queue: &Arc<Queue>, what: &'static str) -> Waiter<Payload> {
    let queue = queue.clone();
    Waiter::call(move |outcome| queue.push(Item::Acked(what, outcome)))
}

fn ponged(queue: &Arc<Queue>) -> Waiter<Duration> {
    let queue = queue.clone();
    Waiter::call(move |outcome| queue.push(Item::Ponged(outcome)))
}

fn drained(queue: &Arc<Queue>) -> Waiter<()> {
    let queue = queue.clone();
    Waiter::call(move |outcome| queue.push(Item::Drained(outcome)))
}

#[test]
fn outcomes_travel_in_the_batches() {
    let stage = stage(Server::builder().max_message_size(1024).max_outbox(300_000));
    let (mut peer, conn) = stage.connect();
    let queue = &stage.queue;

    conn.emit_with_ack_to("ask", b"you", true, None, acked(queue, "first"))
        .unwrap();
    assert_eq!(peer.frame(), "ask||1||you");
    peer.send("__ack_ask||1||me");
    let Item::Acked("first", Ok(reply)) = queue.next() else {
        panic!()
    };
    assert_eq!(reply.as_bytes(), "me");

    conn.emit_with_ack_to("ask", b"", true, Some(Duration::from_millis(20)), acked(queue, "late"))
        .unwrap();
    assert_eq!(peer.frame(), "ask||2||");
    let Item::Acked("late", Err(error)) = queue.next() else {
        panic!()
    };
    assert_eq!(error.code(), "ack_timeout");
    peer.send("__ack_ask||2||too late");

    conn.ping_to(ponged(queue));
    let Some(Message::Ping(data)) = peer.recv() else {
        panic!()
    };
    stage.runtime.block_on(peer.pipe.send(Message::Pong(data))).unwrap();
    let Item::Ponged(Ok(_)) = queue.next() else { panic!() };

    // The pipe holds 64 KiB and the peer does not read.
    conn.drain_to(drained(queue));
    let Item::Drained(Ok(())) = queue.next() else {
        panic!("an empty outbox is drained at once")
    };
    let mut emitted = 0;
    let full = loop {
        match conn.emit_payload("fill", &[b'x'; 1000], true) {
            Ok(()) => emitted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.code(), "outbox_full");
    conn.drain_to(drained(queue));
    assert_eq!(queue.len(), 0);
    for _ in 0..emitted {
        peer.frame();
    }
    let Item::Drained(Ok(())) = queue.next() else { panic!() };
    peer.settle();
    assert_eq!(queue.len(), 0, "each outcome comes once");
    assert_eq!(stage.server.stats().stray_replies, 1);
}

#[test]
fn everything_awaited_ends_when_the_connection_does() {
    let builder = Server::builder().max_message_size(1024).max_outbox(300_000);
    // The peer does not answer the close frame.
    let stage = stage(builder.close_timeout(Duration::from_millis(20)));
    for by_peer in [true, false] {
        let (peer, conn) = stage.connect();
        let queue = &stage.queue;
        for _ in 0..10 {
            conn.emit_with_ack_to("ask", b"", true, None, acked(queue, "lost"))
                .unwrap();
            conn.ping_to(ponged(queue));
        }
        while conn.emit_payload("fill", &[b'x'; 1000], true).is_ok() {}
        conn.drain_to(drained(queue));
        assert_eq!(queue.len(), 0);
        if by_peer {
            drop(peer)
        } else {
            conn.close_with(4000, "enough").unwrap()
        }
        let code = if by_peer { 1006 } else { 4000 };
        let mut told = [0; 3];
        for _ in 0..21 {
            let (at, error) = match queue.next() {
                Item::Acked(_, Err(error)) => (0, error),
                Item::Ponged(Err(error)) => (1, error),
                Item::Drained(Err(error)) => (2, error),
                other => panic!("{other:?}"),
            };
            told[at] += 1;
            assert_eq!(
                (error.kind(), error.close_code()),
                (ErrorKind::ConnectionClosed, Some(code))
            );
        }
        assert_eq!(told, [10, 10, 1]);
        // What begins after the end ends at once.
        let error = conn
            .emit_with_ack_to("ask", b"", true, None, acked(queue, "never"))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
        assert_eq!(queue.disconnect().code, code);
        conn.ping_to(ponged(queue));
        conn.drain_to(drained(queue));
        let Item::Ponged(Err(_)) = queue.next() else { panic!() };
        let Item::Drained(Err(_)) = queue.next() else { panic!() };
        assert_eq!(queue.len(), 0);
    }
}

#[test]
fn an_acknowledgment_that_is_given_up_has_no_outcome() {
    let stage = stage(Server::builder().max_pending_acks(2));
    let (mut peer, conn) = stage.connect();
    let held = Arc::new(());
    let waiter = || {
        let held = held.clone();
        Waiter::call(move |_| unreachable!("it was given up, and {held:?} dropped"))
    };
    let ack = conn.emit_with_ack_to("ask", b"", true, None, waiter()).unwrap();
    assert_eq!(peer.frame(), "ask||1||");
    let kept = conn
        .emit_with_ack_to("ask", b"", true, None, acked(&stage.queue, "kept"))
        .unwrap();
    assert_eq!(peer.frame(), "ask||2||");
    let error = conn.emit_with_ack_to("ask", b"", true, None, waiter()).unwrap_err();
    assert_eq!(error.code(), "too_many_acks");
    assert_eq!(Arc::strong_count(&held), 2, "the waiter of a refused call is dropped");

    conn.cancel_ack(ack);
    assert_eq!(Arc::strong_count(&held), 1, "the waiter of a cancelled one as well");
    assert_eq!(stage.server.stats().acks_pending, 1);
    peer.send("__ack_ask||1||nobody hears it");
    peer.send("__ack_ask||2||somebody does");
    let Item::Acked("kept", Ok(_)) = stage.queue.next() else {
        panic!()
    };
    conn.cancel_ack(kept);
    conn.cancel_ack(ack);
    assert_eq!(stage.server.stats().stray_replies, 1);
    assert_eq!(stage.queue.len(), 0);
}

/// A handler that panics wherever it is asked to, and notes the errors.
#[derive(Default)]
struct Panics {
    queue: Queue,
}

impl Handler for Panics {
    fn upgrade(&self, request: &Request, ticket: UpgradeTicket) -> Option<BoxFuture> {
        assert!(request.path() != "/upgrade", "in upgrade");
        ticket.accept(Accept::new());
        None
    }

    fn connect(&self, conn: &Conn, ticket: ConnectTicket) -> Option<BoxFuture> {
        assert!(conn.request().path() != "/connect", "in connect");
        ticket.complete();
        None
    }

    fn event(&self, _: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        let reply = ticket.into_reply();
        match event.name() {
            "panic" => panic!("in event"),
            "panic in a future" => return Some(Box::pin(async move { assert!(!reply.wants_reply(), "in a future") })),
            "panic when polled again" => {
                return Some(Box::pin(async move {
                    tokio::task::yield_now().await;
                    assert!(!reply.wants_reply(), "polled again");
                }));
            }
            "panic after the ticket" => {
                reply.send("done");
                panic!("after the ticket");
            }
            name => reply.send(name),
        }
        None
    }

    fn disconnect(&self, _: &Conn, _: Disconnect, _: DisconnectTicket) -> Option<BoxFuture> {
        panic!("in disconnect");
    }

    fn error(&self, conn: Option<&Conn>, error: Error) -> Option<BoxFuture> {
        self.queue.push(Item::Error(conn.cloned(), error));
        panic!("in error");
    }
}

#[test]
fn a_panic_in_the_trait_costs_one_event_or_one_connection() {
    let runtime = workers(2);
    let panics = Arc::<Panics>::default();
    let server = Server::builder()
        .handler(panics.clone())
        .runtime(runtime.handle().clone())
        .build()
        .unwrap();
    let knock = |path: &str| {
        let (near, pipe) = pipe();
        let request = http::Request::get(path).body(()).unwrap();
        let accepted = runtime.block_on(server.accept_pipe(request, near));
        (
            accepted,
            Peer {
                runtime: &runtime,
                pipe,
            },
        )
    };
    let told = || panics.queue.error().to_string();

    let error = knock("/upgrade").0.unwrap_err();
    assert_eq!(error.status(), Some(500));
    assert!(told().ends_with("on_upgrade panicked: in upgrade"));

    let (_, mut peer) = knock("/connect");
    assert_eq!(
        peer.recv(),
        Some(Message::Close(Some((1011, "on_connect failed".into()))))
    );
    peer.close(1011);
    assert_eq!(told(), "on_connect panicked: in connect");
    assert_eq!(told(), "on_disconnect panicked: in disconnect");

    let (_, mut peer) = knock("/");
    for (n, (event, text)) in [
        ("panic", "in event"),
        ("panic in a future", "in a future"),
        ("panic when polled again", "polled again"),
        ("panic after the ticket", "after the ticket"),
    ]
    .into_iter()
    .enumerate()
    {
        peer.send(format!("{event}||{}", n + 1));
        assert_eq!(told(), format!("the handler of event {event:?} panicked: {text}"));
    }
    assert_eq!(peer.frame(), "__ack_panic after the ticket||4||done");
    peer.send("alive||5");
    assert_eq!(peer.frame(), "__ack_alive||5||alive");
    assert_eq!(server.stats().handlers_in_flight, 0);
    assert_eq!(panics.queue.len(), 0);
    peer.close(1000);
    assert_eq!(told(), "on_disconnect panicked: in disconnect");
}

#[test]
fn a_waiter_that_panics_costs_itself_only() {
    let stage = stage(Server::builder());
    let (mut peer, conn) = stage.connect();
    let wait = |what| {
        conn.emit_with_ack_to("ask", b"", true, None, acked(&stage.queue, what))
            .unwrap()
    };
    let panic = || {
        conn.emit_with_ack_to("ask", b"", true, None, Waiter::call(|_| panic!("in a waiter")))
            .unwrap()
    };
    // By a reply, by a deadline, by the end of the connection.
    panic();
    wait("second");
    peer.frame();
    peer.frame();
    peer.send("__ack_ask||1");
    peer.send("__ack_ask||2");
    let Item::Acked("second", Ok(_)) = stage.queue.next() else {
        panic!()
    };
    conn.emit_with_ack_to(
        "ask",
        b"",
        true,
        Some(Duration::from_millis(1)),
        Waiter::call(|_| panic!("late")),
    )
    .unwrap();
    peer.frame();
    stage.wait_until("the deadline", |server| server.stats().acks_timed_out == 1);
    peer.settle();
    panic();
    wait("lost");
    panic();
    conn.ping_to(Waiter::call(|_| panic!("in a ping's waiter")));
    wait("lost");
    drop(peer);
    for _ in 0..2 {
        let Item::Acked("lost", Err(_)) = stage.queue.next() else {
            panic!()
        };
    }
    assert_eq!(stage.queue.disconnect().code, 1006);
}

#[test]
fn a_foreign_thread_that_panics_gives_its_tickets_back() {
    let stage = stage(Server::builder().max_inflight(4));
    let (mut peer, _) = stage.connect();
    for n in 1..=6 {
        peer.send(format!("work||{n}"));
    }
    let events: Vec<_> = (0..4).map(|_| stage.queue.event()).collect();
    let died = thread::spawn(move || assert!(events.is_empty(), "a foreign loop dies"));
    assert!(died.join().is_err());
    for n in 5..=6 {
        stage.queue.event().reply.send(());
        assert_eq!(peer.frame(), format!("__ack_work||{n}"));
    }
}

#[test]
fn a_batch_that_nobody_draws_fills_max_inflight_and_goes_on_when_drawn() {
    let stage = stage(Server::builder().max_inflight(8));
    let (mut peer, conn) = stage.connect();
    for n in 1..=50 {
        peer.send(format!("work||{n}||{n}"));
    }
    // Replies and pings are read while events wait.
    conn.emit_with_ack_to("ask", b"", true, None, acked(&Arc::default(), "elsewhere"))
        .unwrap();
    assert_eq!(peer.frame(), "ask||1||");
    peer.send("__ack_ask||1||");
    peer.settle();
    assert_eq!(stage.server.stats().acks_pending, 0);
    assert_eq!((stage.queue.len(), stage.server.stats().handlers_in_flight), (8, 8));
    for n in 1..=50 {
        let event = stage.queue.event();
        assert_eq!(event.payload, n.to_string());
        event.reply.send(());
        assert_eq!(peer.frame(), format!("__ack_work||{n}"));
    }
    assert_eq!(stage.queue.len(), 0);
}

#[test]
fn reading_pauses_when_events_fill_their_memory_and_goes_on() {
    let stage = stage(Server::builder().max_inflight(1).ping_interval(None));
    let (peer, _) = stage.connect();
    let Peer { mut pipe, .. } = peer;
    let payload = "x".repeat(10_000);
    let sending = stage.runtime.spawn(async move {
        for n in 1..=300 {
            pipe.send(Message::Text(format!("work||{n}||{payload}").into()))
                .await
                .unwrap();
        }
        pipe
    });
    // One mebibyte waits, and the pipe holds a little more: the sender can't have finished.
    stage.wait_until("a pause", |server| {
        server.stats().bytes_in > 1 << 20 || server.stats().events_in > 104
    });
    thread::sleep(Duration::from_millis(20));
    assert!(!sending.is_finished());
    assert_eq!(stage.queue.len(), 1);
    for _ in 1..=300 {
        stage.queue.event().reply.send(());
    }
    let pipe = stage.runtime.block_on(sending).unwrap();
    let mut peer = Peer {
        runtime: &stage.runtime,
        pipe,
    };
    for n in 1..=300 {
        assert_eq!(peer.frame(), format!("__ack_work||{n}"));
    }
}

/// Does everything that may be done with a connection and its server, as code that is called back may.
fn do_everything(server: &Server, conn: &Conn) {
    let _ = conn.emit("note", "x");
    conn.join("room");
    let _ = conn.rooms();
    let _ = conn.to("room").emit("note", "y");
    conn.leave("room");
    conn.join("room");
    conn.data().insert(7_u8);
    let _ = conn
        .emit_with_ack_to("ask", b"", true, None, Waiter::call(drop))
        .map(|ack| conn.cancel_ack(ack));
    conn.ping_to(Waiter::call(drop));
    conn.drain_to(Waiter::call(drop));
    drop(conn.closed());
    let _ = (
        server.stats(),
        server.conns(),
        server.rooms(),
        server.members("room"),
        server.conn(conn.id()),
    );
    let _ = server.emit("note", "z");
}

/// A handler that does everything in every call, from whatever thread it comes.
#[derive(Default)]
struct Busy {
    server: OnceLock<Server>,
    queue: Queue,
}

impl Busy {
    fn act(&self, conn: &Conn) {
        do_everything(self.server.get().expect("the server was built"), conn);
    }
}

impl Handler for Busy {
    fn connect(&self, conn: &Conn, ticket: ConnectTicket) -> Option<BoxFuture> {
        self.act(conn);
        ticket.complete();
        self.act(conn);
        self.queue.push(Item::Acked("connected", Ok(Payload::empty())));
        None
    }

    fn event(&self, conn: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        let reply = ticket.into_reply();
        self.act(conn);
        match event.name() {
            "fail" => reply.fail("no"),
            "close" => conn.close(),
            "kick" => conn.close_with(4000, "kicked").unwrap(),
            "keep" => self.queue.push(Item::Event(Event {
                name: event.name().to_owned(),
                payload: event.payload_bytes(),
                reply,
            })),
            _ => reply.send("done"),
        }
        self.act(conn);
        None
    }

    fn disconnect(&self, conn: &Conn, disconnect: Disconnect, _: DisconnectTicket) -> Option<BoxFuture> {
        self.act(conn);
        conn.close();
        self.queue.push(Item::Disconnect(conn.clone(), disconnect));
        None
    }

    fn error(&self, conn: Option<&Conn>, error: Error) -> Option<BoxFuture> {
        let conn = conn.expect("every error here has a connection");
        self.act(conn);
        if error.kind() == ErrorKind::MalformedFrame {
            conn.close();
        }
        self.queue.push(Item::Error(Some(conn.clone()), error));
        None
    }
}

/// Acts when it is dropped.
struct ActsOnDrop(Arc<Busy>, Conn);

impl Drop for ActsOnDrop {
    fn drop(&mut self) {
        self.0.act(&self.1);
    }
}

#[test]
fn nothing_is_called_with_a_lock_held() {
    let runtime = workers(2);
    let busy = Arc::<Busy>::default();
    let server = Server::builder()
        .handler(busy.clone())
        .runtime(runtime.handle().clone())
        .max_message_size(2_000)
        .max_outbox(4_000)
        .max_pending_acks(64)
        // Nobody here answers a close frame.
        .close_timeout(Duration::from_millis(20))
        .build()
        .unwrap();
    busy.server.set(server.clone()).unwrap();
    let (done, finished) = mpsc::channel();
    // A deadlock must not hang the test run: the test's own thread watches.
    let (watched, handle) = (busy.clone(), runtime.handle().clone());
    thread::spawn(move || {
        let busy = watched;
        let connect = || {
            let (near, far) = pipe();
            let conn = handle
                .block_on(server.accept_pipe(http::Request::new(()), near))
                .unwrap();
            // A connection that is closed before it has begun is none that the handler hears of.
            assert!(matches!(busy.queue.next(), Item::Acked("connected", _)));
            (conn, far)
        };
        let send = |pipe: &mut Pipe, frame: &str| {
            handle
                .block_on(pipe.send(Message::Text(frame.to_owned().into())))
                .unwrap()
        };
        let disconnected = || loop {
            if let Item::Disconnect(_, disconnect) = busy.queue.next() {
                return disconnect;
            }
        };
        let told = |conn: &Conn| {
            let (tx, rx) = mpsc::channel();
            let acting = {
                let (busy, conn) = (busy.clone(), conn.clone());
                move || {
                    busy.act(&conn);
                    conn.close();
                    busy.act(&conn);
                    tx.send(()).unwrap();
                }
            };
            (acting, rx)
        };

        // The handler's own calls; errors of handlers and frames; closing from within.
        for last in ["close||0", "kick||0", "no frame"] {
            let (_, mut pipe) = connect();
            for frame in ["hello||1", "fail||2", "hello||0", last] {
                send(&mut pipe, frame);
            }
            drop(handle.spawn(async move { while pipe.recv().await.is_some() {} }));
            disconnected();
        }
        // A ticket completed, failed and dropped on this thread.
        for end in [
            |reply: Reply| reply.send("x".repeat(3_000)),
            |reply: Reply| reply.fail("no"),
            |reply: Reply| drop(reply),
        ] {
            let (_, mut pipe) = connect();
            send(&mut pipe, "keep||1");
            end(busy.queue.event().reply);
            assert!(matches!(busy.queue.next(), Item::Error(..)));
            drop(pipe);
            disconnected();
        }
        // Waiters told by a reply, a deadline, a pong, room in the outbox, this side's close and the peer's.
        let (conn, mut pipe) = connect();
        let (acting, rx) = told(&conn);
        conn.emit_with_ack_to("mine", b"", true, None, Waiter::call(move |_| acting()))
            .unwrap();
        let id = loop {
            let Some(Message::Text(frame)) = handle.block_on(pipe.recv()) else {
                continue;
            };
            let frame = String::from_utf8(frame.into()).unwrap();
            if let Some(id) = frame.strip_prefix("mine||") {
                break id.trim_end_matches('|').to_owned();
            }
        };
        send(&mut pipe, &format!("__ack_mine||{id}"));
        rx.recv().unwrap();
        drop(pipe);
        disconnected();

        let (conn, pipe) = connect();
        let (acting, rx) = told(&conn);
        conn.emit_with_ack_to(
            "mine",
            b"",
            true,
            Some(Duration::from_millis(1)),
            Waiter::call(move |_| acting()),
        )
        .unwrap();
        rx.recv().unwrap();
        drop(pipe);
        disconnected();

        let (conn, mut pipe) = connect();
        let (acting, rx) = told(&conn);
        conn.ping_to(Waiter::call(move |_| acting()));
        while rx.try_recv().is_err() {
            if let Some(Message::Ping(data)) = handle.block_on(pipe.recv()) {
                handle.block_on(pipe.send(Message::Pong(data))).unwrap();
            }
        }
        drop(pipe);
        disconnected();

        let (conn, mut pipe) = connect();
        let (acting, rx) = told(&conn);
        let mut emitted = 0;
        while conn.emit_payload("fill", &[b'x'; 1_500], true).is_ok() {
            emitted += 1;
        }
        conn.drain_to(Waiter::call(move |_| acting()));
        drop(handle.spawn(async move { while pipe.recv().await.is_some() {} }));
        rx.recv().unwrap();
        assert!(emitted > 0);
        disconnected();

        for by_peer in [false, true] {
            let (conn, pipe) = connect();
            let mut told_all = Vec::new();
            for _ in 0..3 {
                let (acting, rx) = told(&conn);
                conn.emit_with_ack_to("mine", b"", true, None, Waiter::call(move |_| acting()))
                    .unwrap();
                told_all.push(rx);
                let (acting, rx) = told(&conn);
                conn.ping_to(Waiter::call(move |_| acting()));
                told_all.push(rx);
            }
            if by_peer {
                drop(pipe)
            } else {
                conn.close()
            }
            for rx in told_all {
                rx.recv().unwrap();
            }
            disconnected();
        }
        // Waiters dropped: given up, refused.
        let (conn, _pipe) = connect();
        let waiter = || {
            let acts = ActsOnDrop(busy.clone(), conn.clone());
            Waiter::call(move |_| drop(acts))
        };
        let ack = conn.emit_with_ack_to("mine", b"", true, None, waiter()).unwrap();
        conn.cancel_ack(ack);
        conn.emit_with_ack_to("no||name", b"", true, None, waiter())
            .unwrap_err();
        conn.emit_with_ack_to("mine", &[b'x'; 4_000], true, None, waiter())
            .unwrap_err();
        handle.block_on(server.shutdown_within(Duration::from_millis(200)));
        disconnected();
        conn.emit_with_ack_to("mine", b"", true, None, waiter()).unwrap_err();
        done.send(()).unwrap();
    });
    finished
        .recv_timeout(HANG)
        .expect("a deadlock, or a failed assertion above");
}

/// Two foreign loops answer whatever comes, until they are told to end; each loses its own share of wake-ups, if any are lost.
fn loops<T>(queue: &Queue, work: impl FnOnce() -> T) -> T {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Also when the work panics: a failure must not hang.
        let _over = Over(&over);
        for n in 0..2 {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    for item in queue.batch_within(1 + 15 * n, Duration::from_millis(5)) {
                        match item {
                            Item::Upgrade(_, ticket) => ticket.accept(Accept::new()),
                            Item::Connect(_, ticket) => ticket.complete(),
                            Item::Event(Event { payload, reply, .. }) => reply.send_payload(&payload, true),
                            Item::Disconnect(..) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                }
            });
        }
        work()
    })
}

/// So many peers send so many events each, one after the other's reply or several at once.
async fn ping_pong(server: Server, peers: usize, events: usize, at_once: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..peers {
        let server = server.clone();
        tasks.spawn(async move {
            let (near, mut far) = pipe();
            server.accept_pipe(http::Request::new(()), near).await.unwrap();
            for round in 0..events / at_once {
                for n in 1..=at_once {
                    far.send(Message::Text(format!("ball||{}||{n}", round * at_once + n).into()))
                        .await
                        .unwrap();
                }
                for _ in 0..at_once {
                    let reply = tokio::time::timeout(HANG, far.recv()).await;
                    let Ok(Some(Message::Text(reply))) = reply else {
                        panic!("in round {round}: {reply:?}")
                    };
                    assert!(reply.starts_with(b"__ack_ball||"));
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // The last reply may arrive before its ticket has been dropped.
    let dropped = async {
        while server.stats().handlers_in_flight > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, dropped)
        .await
        .expect("a ticket is in flight for ever");
}

#[test]
fn a_ticket_completed_while_its_link_sleeps_wakes_it() {
    let stage = stage(Server::builder());
    loops(&stage.queue, || {
        stage.runtime.block_on(ping_pong(stage.server.clone(), 1, 20_000, 1));
        stage.runtime.block_on(ping_pong(stage.server.clone(), 8, 5_000, 2));
    });
}

#[test]
fn a_ticket_completed_while_events_wait_wakes_their_link() {
    let stage = stage(Server::builder().max_inflight(1));
    loops(&stage.queue, || {
        stage.runtime.block_on(ping_pong(stage.server.clone(), 2, 20_000, 5))
    });
}

#[test]
fn a_ticket_completed_while_other_connections_wait_wakes_one_of_them() {
    let stage = stage(Server::builder().max_inflight_total(2).max_inflight(3));
    loops(&stage.queue, || {
        stage.runtime.block_on(ping_pong(stage.server.clone(), 6, 5_000, 5))
    });
}

#[test]
fn one_runtime_thread_is_woken_as_well() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let queue = Arc::<Queue>::default();
    let server = Server::builder()
        .handler(queue.clone())
        .max_inflight(2)
        .build()
        .unwrap();
    loops(&queue, || runtime.block_on(ping_pong(server, 2, 10_000, 4)));
}

#[test]
fn a_place_among_all_handlers_goes_to_one_who_can_use_it() {
    // One worker: of two links that were woken, the first runs first, and a new task runs when theirs sleep.
    let stage = stage_on(workers(1), Server::builder().max_inflight_total(3));
    let [mut a, mut b, mut c] = [0; 3].map(|_| stage.connect().0);
    let settle = |peer: &mut Peer<'_>| {
        peer.settle();
        stage.runtime.block_on(stage.runtime.spawn(async {})).unwrap();
    };
    let begin = |peer: &mut Peer<'_>, frame: &str| {
        peer.send(frame);
        settle(peer);
    };
    begin(&mut c, "c||1");
    begin(&mut a, "a||1");
    begin(&mut b, "b||1");
    begin(&mut a, "a||2");
    begin(&mut b, "b||2");
    let [c1, a1, b1] = [0; 3].map(|_| stage.queue.event());
    assert_eq!(stage.queue.len(), 0, "`a` is the first in line, `b` the second");
    // `b` has no handler left and may always start one; it takes the place before `a`, which lines up again behind it.
    b1.reply.send(());
    let b2 = stage.queue.event();
    assert_eq!(b2.name, "b");
    settle(&mut a);
    // Now `b` has nothing to start, though it stands in line before `a`.
    b2.reply.send(());
    let a2 = stage.queue.event();
    assert_eq!(a2.name, "a");
    for event in [a2, a1, c1] {
        event.reply.send(());
    }
    assert_eq!(
        (a.frame(), a.frame(), c.frame()),
        ("__ack_a||2".into(), "__ack_a||1".into(), "__ack_c||1".into())
    );
}

#[test]
fn a_shutdown_does_not_wait_for_ever_for_foreign_tickets() {
    let stage = stage(Server::builder());
    let (mut peer, conn) = stage.connect();
    peer.send("work||1");
    peer.send("work||2");
    let (first, second) = (stage.queue.event(), stage.queue.event());
    let (closing, told) = mpsc::channel();
    let closed = conn.closed();
    stage.runtime.spawn(async move {
        closed.await;
        closing.send(()).unwrap();
    });
    let server = stage.server.clone();
    let shutdown = stage
        .runtime
        .spawn(async move { server.shutdown_within(Duration::from_millis(500)).await });
    told.recv_timeout(HANG).expect("closing has begun");
    first.reply.send("in time");
    assert_eq!(peer.frame(), "__ack_work||1||in time");
    assert_eq!(
        peer.recv(),
        Some(Message::Close(Some((1000, "server shutdown".into()))))
    );
    peer.close(1000);
    assert_eq!(stage.queue.disconnect().reason, "server shutdown");
    stage.runtime.block_on(shutdown).unwrap();
    second.reply.send("too late");
    assert_eq!(stage.server.stats().handlers_in_flight, 0);
    assert_eq!(stage.queue.len(), 0);
}

#[test]
fn a_runtime_that_goes_away_ends_what_is_awaited() {
    let stage = stage(Server::builder());
    let (mut peer, conn) = stage.connect();
    peer.send("work||1");
    let event = stage.queue.event();
    let Peer { pipe: _pipe, .. } = peer;
    let Stage { server, queue, runtime } = stage;
    conn.emit_with_ack_to("ask", b"", true, None, acked(&queue, "lost"))
        .unwrap();
    conn.ping_to(ponged(&queue));
    runtime.shutdown_timeout(HANG);
    let Item::Acked("lost", Err(error)) = queue.next() else {
        panic!()
    };
    assert_eq!(error.code(), "connection_closed");
    let Item::Ponged(Err(_)) = queue.next() else { panic!() };
    assert_eq!(queue.disconnect().code, 1006);
    event.reply.send("too late");
    assert_eq!(
        (server.conns().len(), server.stats().handlers_in_flight, queue.len()),
        (0, 0, 0)
    );
    assert_eq!(conn.emit("news", ()).unwrap_err().code(), "connection_closed");
}

#[test]
fn a_client_waits_for_its_ticket_of_on_connect_and_queues_its_events() {
    let runtime = workers(2);
    let queue = Arc::<Queue>::default();
    let server = Server::builder().runtime(runtime.handle().clone()).build().unwrap();
    let (near, far) = pipe();
    let conn = runtime
        .block_on(server.accept_pipe(http::Request::new(()), near))
        .unwrap();
    conn.emit("news", "first").unwrap();
    let builder = Client::builder().handler(queue.clone());
    let connecting = runtime.spawn(builder.connect_pipe(far));
    let Item::Connect(_, ticket) = queue.next() else {
        panic!()
    };
    assert!(!connecting.is_finished());
    assert_eq!(queue.len(), 0);
    ticket.complete();
    let client = runtime.block_on(connecting).unwrap().unwrap();
    let event = queue.event();
    assert_eq!(event.payload, "first");
    event.reply.send(());
    runtime.block_on(client.close());
    assert_eq!(queue.disconnect().code, 1000);
}
