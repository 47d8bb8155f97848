//! Tickets in their three forms: borrowed by a handler that ends at once, whole, and detached for a dispatcher that ends many together.
#![cfg(feature = "net")]

use std::sync::{Arc, Mutex};

use etp_ws::handler::{BoxFuture, Detached, DisconnectTicket, Handler, Ticket};
use etp_ws::testing::{Message, Pipe, pipe};
use etp_ws::{Bytes, Conn, Disconnect, Error, Incoming, Payload, Server, ServerBuilder, http};

/// An event that was taken apart.
struct Taken {
    conn: Conn,
    name: String,
    ticket: Detached,
}

/// Ends events by their name; those of other names it takes apart and keeps.
#[derive(Default)]
struct Apart {
    taken: Mutex<Vec<Taken>>,
    errors: Mutex<Vec<String>>,
}

impl Handler for Apart {
    fn event(&self, conn: &Conn, event: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        assert_eq!(ticket.conn(), conn);
        assert_eq!(ticket.wants_reply(), event.wants_reply());
        match event.name() {
            "now" => ticket.send_payload(event.payload(), true),
            "bytes" => ticket.finish(Ok(Payload::from_bytes(Bytes::from_static(b"\xff")))),
            "error" => ticket.finish(Err("it broke".into())),
            "dropped" => drop(ticket),
            name => self.taken.lock().unwrap().push(Taken {
                conn: conn.clone(),
                name: name.to_owned(),
                ticket: ticket.detach(),
            }),
        }
        None
    }

    fn disconnect(&self, _: &Conn, _: Disconnect, _: DisconnectTicket) -> Option<BoxFuture> {
        None
    }

    fn error(&self, _: Option<&Conn>, error: Error) -> Option<BoxFuture> {
        self.errors.lock().unwrap().push(error.to_string());
        None
    }
}

struct Stage {
    server: Server,
    apart: Arc<Apart>,
    peer: Pipe,
}

impl Stage {
    async fn new(builder: ServerBuilder) -> Self {
        let apart = Arc::<Apart>::default();
        let server = builder.handler(apart.clone()).build().unwrap();
        let (near, peer) = pipe();
        server.accept_pipe(http::Request::new(()), near).await.unwrap();
        Self { server, apart, peer }
    }

    /// Sends events; answers when the server has handled them.
    async fn send(&mut self, events: impl IntoIterator<Item = String>) {
        for event in events {
            self.peer.send(Message::Text(event.into())).await.unwrap();
        }
        self.peer.send(Message::Ping("all".into())).await.unwrap();
    }

    /// What has come from the server, up to the answer of the last [`send`](Self::send).
    async fn replies(&mut self) -> Vec<String> {
        let mut replies = Vec::new();
        loop {
            match self.peer.recv().await {
                Some(Message::Text(text)) => replies.push(String::from_utf8(text.into()).unwrap()),
                Some(Message::Binary(bytes)) => replies.push(format!("{bytes:?}")),
                Some(Message::Pong(_)) => return replies,
                other => panic!("{other:?}"),
            }
        }
    }

    fn taken(&self) -> Vec<Taken> {
        std::mem::take(&mut self.apart.taken.lock().unwrap())
    }

    fn errors(&self) -> Vec<String> {
        std::mem::take(&mut self.apart.errors.lock().unwrap())
    }

    fn in_flight(&self) -> usize {
        self.server.stats().handlers_in_flight
    }
}

/// Ends all of them together, each with the payload that `answer` has for its place.
fn complete(taken: Vec<Taken>, answer: impl Fn(usize) -> String) {
    let conn = taken[0].conn.clone();
    let (names, tickets): (Vec<_>, Vec<_>) = taken.into_iter().map(|one| (one.name, one.ticket)).unzip();
    let payloads: Vec<_> = (0..names.len()).map(answer).collect();
    let mut rest = names.iter().zip(&payloads).zip(tickets);
    Detached::complete(&conn, || {
        let ((name, payload), ticket) = rest.next()?;
        Some((name.as_str(), ticket, payload.as_bytes(), true))
    });
}

#[tokio::test]
async fn a_handler_that_ends_at_once_needs_no_ticket_of_its_own() {
    let mut stage = Stage::new(Server::builder()).await;
    let events = [
        "now||1||a",
        "bytes||2||",
        "error||3||",
        "dropped||4||",
        "now||0||unheard",
        "now||5||",
    ];
    stage.send(events.map(str::to_owned)).await;
    let bytes = format!("{:?}", Bytes::from_static(b"__ack_bytes||2||\xff"));
    assert_eq!(stage.replies().await, ["__ack_now||1||a", &bytes, "__ack_now||5"]);
    assert_eq!(
        stage.errors(),
        [
            r#"the handler of event "error" failed: it broke"#,
            r#"the handler of event "dropped" ended without an outcome"#,
        ]
    );
    assert_eq!(stage.in_flight(), 0);
}

#[tokio::test]
async fn detached_tickets_end_together_in_order() {
    for wire_log in [false, true] {
        let mut stage = Stage::new(Server::builder().max_message_size(1024).wire_log(wire_log)).await;
        let names = ["a", "b", "c"];
        stage
            .send((1..=30).map(|id| format!("{}||{}||x", names[id % 3], id * usize::from(id % 10 != 0))))
            .await;
        assert_eq!(stage.replies().await, [""; 0]);
        assert_eq!(stage.in_flight(), 30);
        let taken = stage.taken();
        assert_eq!(taken.iter().filter(|one| !one.ticket.wants_reply()).count(), 3);
        // One is too large, which costs its own reply.
        complete(taken, |at| if at == 6 { "x".repeat(1024) } else { at.to_string() });
        assert_eq!(stage.in_flight(), 0);
        stage.send([]).await;
        let expected: Vec<_> = (1..=30)
            .filter(|id| id % 10 != 0 && *id != 7)
            .map(|id| format!("__ack_{}||{id}||{}", names[id % 3], id - 1))
            .collect();
        assert_eq!(stage.replies().await, expected);
        let errors = stage.errors();
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains("max_message_size"), "{errors:?}");
    }
}

#[tokio::test]
async fn a_detached_ticket_becomes_whole_or_is_let_go() {
    let mut stage = Stage::new(Server::builder()).await;
    stage.send(["a", "b", "c"].map(|name| format!("{name}||7||"))).await;
    stage.replies().await;
    for one in stage.taken() {
        match one.name.as_str() {
            "a" => one.ticket.into_reply(&one.conn, &one.name).send("whole"),
            "b" => one.ticket.let_go(&one.conn),
            _ => one.ticket.into_reply(&one.conn, &one.name).no_handler(),
        }
    }
    assert_eq!(stage.in_flight(), 0);
    stage.send([]).await;
    assert_eq!(stage.replies().await, ["__ack_a||7||whole"]);
    assert_eq!(stage.errors(), [r#"no handler for event "c""#]);
}

#[tokio::test]
async fn what_ends_after_its_connection_is_counted_and_not_reported() {
    let mut stage = Stage::new(Server::builder()).await;
    stage.send((1..=3).map(|id| format!("a||{id}||"))).await;
    stage.replies().await;
    let taken = stage.taken();
    drop(stage.peer);
    taken[0].conn.closed().await;
    complete(taken, |_| "late".to_owned());
    assert_eq!(stage.server.stats().handlers_in_flight, 0);
    assert_eq!(*stage.apart.errors.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn large_events_count_until_their_tickets_come_back() {
    // Twice `max_outbox` of large events may be in flight.
    let builder = || Server::builder().max_message_size(20_000).max_outbox(20_000);
    type Way = fn(Vec<Taken>);
    let ways: [Way; 3] = [
        |taken| complete(taken, |_| String::new()),
        |taken| taken.into_iter().for_each(|one| one.ticket.let_go(&one.conn)),
        |taken| {
            for one in taken {
                one.ticket.into_reply(&one.conn, &one.name).send("");
            }
        },
    ];
    for end in ways {
        let mut stage = Stage::new(builder()).await;
        stage
            .send((1..=12).map(|id| format!("a||{id}||{}", "x".repeat(10_000))))
            .await;
        for _ in 0..3 {
            let began = tokio::time::Instant::now();
            while stage.apart.taken.lock().unwrap().len() < 4 {
                assert!(
                    began.elapsed().as_secs() < 20,
                    "four of 10 000 bytes are never in flight"
                );
                tokio::task::yield_now().await;
            }
            stage.server.emit("settled", "").unwrap();
            while stage.peer.recv().await != Some(Message::Text("settled||0||".into())) {}
            let taken = stage.taken();
            assert_eq!(taken.len(), 4);
            end(taken);
        }
        assert_eq!(stage.in_flight(), 0);
    }
}
