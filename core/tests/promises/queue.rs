//! What a client emits while it is away.

use std::future::IntoFuture;

use etp_ws::{Client, ClientBuilder, Conn, Error, Event, Server, State};
use tokio::time::Instant;

use crate::client::Site;
use crate::support::*;

/// A client that is away, from a server that counts what it gets, and the log of that.
async fn away(client: ClientBuilder) -> (Site, Client, Log<String>) {
    away_with(client.on_error(|_, _| ())).await
}

/// The same, where the test has an `on_error` of its own.
async fn away_with(client: ClientBuilder) -> (Site, Client, Log<String>) {
    let got = Log::new();
    let log = got.clone();
    let server = Server::builder()
        .on("login", {
            let log = log.clone();
            async move |_: Conn, ()| {
                tokio::time::sleep(SEC).await;
                log.push("login".to_owned());
            }
        })
        .on("void", {
            let log = log.clone();
            async move |conn: Conn, ()| {
                log.push("void".to_owned());
                conn.closed().await;
                Err::<(), _>("gone")
            }
        })
        .on_unknown_event(move |_: Conn, event: Event| {
            log.push(event.name().to_owned());
            "got"
        });
    let site = Site::new(server).await;
    let client = client.connect(&site.url).await.unwrap();
    site.answer(503);
    site.conn(1).await.close_with(1001, "").unwrap();
    client.wait_for(State::Reconnecting).await;
    (site, client, got)
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_emits_while_away_are_refused() {
    let (site, client, got) = away(Client::builder()).await;
    assert_eq!(err(client.emit("e", ())).code(), "connection_closed");
    assert_eq!(err(client.emit_with_ack("e", ()).await).code(), "connection_closed");
    assert_eq!(err(client.ping().await).code(), "connection_closed");
    site.answer(0);
    client.wait_for(State::Connected).await;
    assert_eq!(client.emit_with_ack("f", ()).await.unwrap(), "got");
    assert_eq!(got.all(), ["f"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_goes_out_in_order_after_on_connect_has_ended() {
    let client = Client::builder().queue(100).on_connect(async |conn: Conn| {
        conn.emit_with_ack("login", ()).await?;
        Ok::<_, Error>(())
    });
    let (site, client, got) = away(client).await;
    for n in 0..50 {
        client.emit(&format!("e{n}"), ()).unwrap();
    }
    let call = tokio::spawn(client.emit_with_ack("e50", ()).timeout(600 * SEC).into_future());
    settle().await;
    site.answer(0);
    site.conn(2).await;
    // While the login is under way, emits wait as well.
    client.emit("e51", ()).unwrap();
    assert_eq!(call.await.unwrap().unwrap(), "got");
    assert_eq!(client.wait_for(State::Connected).await, State::Connected);
    client.emit("e52", ()).unwrap();
    let expected: Vec<_> = ["login".to_owned(), "login".to_owned()]
        .into_iter()
        .chain((0..53).map(|n| format!("e{n}")))
        .collect();
    assert_eq!(got.until(55).await, expected);
}

#[tokio::test(start_paused = true)]
async fn more_is_queued_than_fits_an_outbox_and_all_of_it_arrives() {
    let client = Client::builder().max_message_size(20_000).max_outbox(40_000).queue(300);
    let (site, client, got) = away(client).await;
    for n in 0..300 {
        client.emit(&format!("e{n}"), "x".repeat(10_000)).unwrap();
    }
    site.answer(0);
    let expected: Vec<_> = (0..300).map(|n| format!("e{n}")).collect();
    assert_eq!(got.until(300).await, expected);
    assert_eq!(client.wait_for(State::Connected).await, State::Connected);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_with_outbox_full() {
    let (site, client, got) = away(Client::builder().queue(2)).await;
    client.emit("e0", ()).unwrap();
    client.emit("e1", ()).unwrap();
    assert_eq!(err(client.emit("e2", ())).code(), "outbox_full");
    assert_eq!(err(client.emit_with_ack("e2", ()).await).code(), "outbox_full");
    assert_eq!(err(client.emit("a||b", ())).code(), "invalid_event");
    site.answer(0);
    client.wait_for(State::Connected).await;
    assert_eq!(client.emit_with_ack("e3", ()).await.unwrap(), "got");
    assert_eq!(got.all(), ["e0", "e1", "e3"]);
}

#[tokio::test(start_paused = true)]
async fn an_acks_deadline_counts_the_time_in_the_queue() {
    let (site, client, got) = away(Client::builder().queue(10)).await;
    let tenth = SEC / 10;
    let began = Instant::now();
    let error = err(client.emit_with_ack("expires", ()).timeout(3 * SEC).await);
    assert_eq!(error.code(), "ack_timeout");
    assert!(
        began.elapsed() >= 3 * SEC && began.elapsed() <= 3 * SEC + tenth,
        "{:?}",
        began.elapsed()
    );

    let began = Instant::now();
    let call = tokio::spawn(client.emit_with_ack("void", ()).timeout(60 * SEC).into_future());
    tokio::time::sleep(10 * SEC).await;
    site.answer(0);
    got.until(1).await;
    assert!(began.elapsed() < 60 * SEC);
    assert_eq!(err(call.await.unwrap()).code(), "ack_timeout");
    assert!(
        began.elapsed() >= 60 * SEC && began.elapsed() <= 60 * SEC + tenth,
        "{:?}",
        began.elapsed()
    );
    assert_eq!(got.all(), ["void"], "the expired one is not sent");
}

#[tokio::test(start_paused = true)]
async fn an_acks_deadline_is_kept_while_on_connect_takes_its_time() {
    let client = Client::builder().queue(10).on_connect(async |conn: Conn| {
        conn.emit_with_ack("login", ()).await?;
        tokio::time::sleep(100 * SEC).await;
        Ok::<_, Error>(())
    });
    let (site, client, got) = away(client).await;
    site.answer(0);
    site.conn(2).await;
    settle().await;
    let began = Instant::now();
    let error = err(client.emit_with_ack("expires", ()).timeout(3 * SEC).await);
    assert_eq!(error.code(), "ack_timeout");
    assert!(
        began.elapsed() >= 3 * SEC && began.elapsed() <= 3 * SEC + SEC / 10,
        "{:?}",
        began.elapsed()
    );
    client.wait_for(State::Connected).await;
    assert_eq!(client.emit_with_ack("e", ()).await.unwrap(), "got");
    assert_eq!(got.all(), ["login", "login", "e"]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_ack_that_is_given_up_is_not_sent() {
    let (site, client, got) = away(Client::builder().queue(2)).await;
    let call = tokio::spawn(client.emit_with_ack("given_up", ()).timeout(600 * SEC).into_future());
    settle().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    client.emit("e0", ()).unwrap();
    client.emit("e1", ()).expect("its place is free");
    site.answer(0);
    assert_eq!(got.until(2).await, ["e0", "e1"]);
}

#[tokio::test(start_paused = true)]
async fn a_queued_ack_that_is_given_up_after_it_was_sent_is_forgotten() {
    let (site, client, got) = away(Client::builder().queue(2)).await;
    let call = tokio::spawn(client.emit_with_ack("void", ()).timeout(600 * SEC).into_future());
    settle().await;
    site.answer(0);
    got.until(1).await;
    assert_eq!(client.stats().acks_pending, 1);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(client.stats().acks_pending, 0);
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_was_sent_is_not_sent_again_and_ends_with_its_connection() {
    let (site, client, got) = away(Client::builder().queue(10)).await;
    site.answer(0);
    client.wait_for(State::Connected).await;
    let call = tokio::spawn(client.emit_with_ack("void", ()).timeout(600 * SEC).into_future());
    got.until(1).await;
    site.conn(2).await.close_with(1001, "").unwrap();
    let error = err(call.await.unwrap());
    assert_eq!((error.code(), error.close_code()), ("connection_closed", Some(1001)));
    site.conn(3).await;
    client.wait_for(State::Connected).await;
    assert_eq!(client.emit_with_ack("e", ()).await.unwrap(), "got");
    assert_eq!(got.all(), ["void", "e"]);
}

#[tokio::test(start_paused = true)]
async fn closing_while_away_ends_what_is_queued() {
    let (_site, client, got) = away(Client::builder().queue(10)).await;
    let call = tokio::spawn(client.emit_with_ack("e", ()).timeout(600 * SEC).into_future());
    settle().await;
    client.close().await;
    assert_eq!(err(call.await.unwrap()).code(), "connection_closed");
    assert_eq!(err(client.emit("e", ())).code(), "connection_closed");
    assert_eq!(got.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_connection_that_ends_has_not_taken_waits_for_the_next() {
    const EVENTS: usize = 1_500;
    let (lost, on_error) = errors();
    let client = Client::builder().max_message_size(20_000).max_outbox(40_000);
    let (site, client, got) = away_with(client.queue(EVENTS).on_error(on_error)).await;
    // More than all buffers of a socket hold.
    for n in 0..EVENTS {
        client.emit(&format!("e{n}"), "x".repeat(19_000)).unwrap();
    }
    site.answer(0);
    site.conn(2).await.close_with(1001, "").unwrap();
    site.conn(3).await;
    let last = format!("e{}", EVENTS - 1);
    let all = async {
        while got.all().last() != Some(&last) {
            got.until(got.len() + 1).await;
        }
    };
    let arrived = tokio::time::timeout(600 * SEC, all).await;
    assert!(arrived.is_ok(), "the last of them has not come");
    let refused = codes(&lost).iter().filter(|code| **code == "connection_closed").count();
    assert_eq!(refused, 0, "of those that waited");
}
