//! What a shutdown tells the handler trait, and what it waits for: in paused time.
#![cfg(feature = "net")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etp_ws::handler::{BoxFuture, DisconnectTicket, Handler, Reply, Ticket};
use etp_ws::testing::{Message, Pipe, pipe};
use etp_ws::{Conn, Disconnect, Incoming, Server, http};
use tokio::time::Instant;

/// Keeps every ticket and writes down what it is told.
#[derive(Default)]
struct Keeper {
    log: Mutex<Vec<(&'static str, Duration)>>,
    replies: Mutex<Vec<Reply>>,
    ends: Mutex<Vec<DisconnectTicket>>,
    began: Mutex<Option<Instant>>,
}

impl Keeper {
    fn note(&self, what: &'static str) {
        let began = self
            .began
            .lock()
            .unwrap()
            .map_or(Duration::ZERO, |began| began.elapsed());
        self.log.lock().unwrap().push((what, began));
    }

    fn told(&self) -> Vec<(&'static str, Duration)> {
        self.log.lock().unwrap().clone()
    }
}

impl Handler for Keeper {
    fn event(&self, _: &Conn, _: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        let reply = ticket.into_reply();
        self.note("event");
        self.replies.lock().unwrap().push(reply);
        None
    }

    fn closing(&self, _: &Conn) {
        self.note("closing");
    }

    fn disconnect(&self, _: &Conn, _: Disconnect, ticket: DisconnectTicket) -> Option<BoxFuture> {
        self.note("disconnect");
        self.ends.lock().unwrap().push(ticket);
        None
    }

    fn abandon(&self) {
        self.note("abandon");
    }
}

/// A connection with one event in flight.
async fn busy(server: &Server, keeper: &Keeper) -> Pipe {
    let (near, mut far) = pipe();
    server.accept_pipe(http::Request::new(()), near).await.unwrap();
    far.send(Message::Text("work||1||".into())).await.unwrap();
    while keeper.replies.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    far
}

fn start(keeper: &Arc<Keeper>) -> Server {
    Server::builder().handler(keeper.clone()).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn closing_comes_once_and_handlers_are_abandoned_at_four_fifths_of_the_time() {
    let keeper = Arc::<Keeper>::default();
    let server = start(&keeper);
    let mut peer = busy(&server, &keeper).await;
    let answering = tokio::spawn(async move {
        while let Some(message) = peer.recv().await {
            if let Message::Close(close) = message {
                // The peer may be cut before its answer is taken.
                let _ = peer.send(Message::Close(close)).await;
            }
        }
    });
    *keeper.began.lock().unwrap() = Some(Instant::now());
    let releasing = keeper.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(9)).await;
        releasing.ends.lock().unwrap().clear();
    });
    server.shutdown_within(Duration::from_secs(10)).await;
    // The ticket of the disconnect was waited for, to its end at nine seconds; the reply was not.
    assert_eq!(keeper.began.lock().unwrap().unwrap().elapsed().as_secs(), 9);
    let told: Vec<_> = keeper.told().iter().map(|(what, at)| (*what, at.as_secs())).collect();
    assert_eq!(told, [("event", 0), ("closing", 0), ("abandon", 8), ("disconnect", 8)]);
    assert_eq!(keeper.replies.lock().unwrap().len(), 1);
    answering.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_handlers_whose_connection_has_gone() {
    let keeper = Arc::<Keeper>::default();
    let server = start(&keeper);
    drop(busy(&server, &keeper).await);
    while keeper.ends.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    keeper.ends.lock().unwrap().clear();
    *keeper.began.lock().unwrap() = Some(Instant::now());
    let ending = keeper.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        ending.replies.lock().unwrap().clear();
    });
    server.shutdown_within(Duration::from_secs(10)).await;
    assert_eq!(keeper.began.lock().unwrap().unwrap().elapsed().as_secs(), 3);
    assert!(keeper.told().iter().all(|(what, _)| *what != "abandon"));
}
