//! How a client dials, and after which ends and when it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use etp_ws::{Accept, Client, Conn, Disconnect, Error, Reconnect, Reject, Request, Server, ServerBuilder, State};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::*;

/// A server on a port of its own, whose answer to a handshake can be changed: 0 lets in, anything else is the status.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) url: String,
    pub(crate) answer: Arc<AtomicU16>,
    /// When each handshake came, and with which token and target.
    pub(crate) knocks: Log<(Instant, Option<String>, String)>,
    pub(crate) conns: Log<Conn>,
}

impl Site {
    pub(crate) async fn new(server: ServerBuilder) -> Self {
        Self::with_header(server, None).await
    }

    pub(crate) async fn with_header(server: ServerBuilder, retry_after: Option<&'static str>) -> Self {
        let (answer, knocks, conns) = (Arc::new(AtomicU16::new(0)), Log::new(), Log::new());
        let (say, knocking, connected) = (answer.clone(), knocks.clone(), conns.clone());
        let server = server
            .on_error(|_, _| ())
            .on_connect(move |conn: Conn| connected.push(conn))
            .on_upgrade(move |request: Request| {
                knocking.push((Instant::now(), request.token(), request.uri().to_owned()));
                match say.load(Ordering::SeqCst) {
                    0 => Ok(Accept::new()),
                    status => {
                        let reject = Reject::new(status);
                        Err(match retry_after {
                            Some(value) => {
                                reject.header(http::header::RETRY_AFTER, http::HeaderValue::from_static(value))
                            }
                            None => reject,
                        })
                    }
                }
            })
            .build()
            .unwrap();
        let bound = server.bind("127.0.0.1:0").await.unwrap();
        let url = bound.url();
        tokio::spawn(bound.serve());
        Self {
            server,
            url,
            answer,
            knocks,
            conns,
        }
    }

    pub(crate) fn answer(&self, status: u16) {
        self.answer.store(status, Ordering::SeqCst);
    }

    /// The n-th connection, counted from 1.
    pub(crate) async fn conn(&self, n: usize) -> Conn {
        self.conns.until(n).await.remove(n - 1)
    }
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_after_everything_but_1008_and_a_kick_with_a_reason() {
    let ends = [
        (1000, "", true),
        (1000, "server shutdown", true),
        (1000, "kicked", false),
        (1008, "", false),
        (1008, "policy", false),
        (1001, "", true),
        (1011, "failed", true),
        (1013, "overloaded", true),
        (3000, "", true),
        (4000, "kicked", true),
    ];
    for (code, reason, back) in ends {
        let site = Site::new(Server::builder()).await;
        let (gone, on_disconnect) = disconnects();
        let client = Client::builder()
            .on_disconnect(on_disconnect)
            .connect(&site.url)
            .await
            .unwrap();
        let began = Instant::now();
        site.conn(1).await.close_with(code, reason).unwrap();
        let why = gone.until(1).await.remove(0);
        assert_eq!(
            (why.code, &*why.reason, why.will_reconnect),
            (code, reason, back),
            "{code} {reason:?}"
        );
        assert!(why.clean);
        if back {
            site.conn(2).await;
            assert!(began.elapsed() <= SEC / 2, "the first wait is half a second at most");
            assert_eq!(client.wait_for(State::Connected).await, State::Connected);
        } else {
            assert_eq!(client.wait_for(State::Closed).await, State::Closed);
            tokio::time::sleep(120 * SEC).await;
            assert_eq!(site.knocks.len(), 1, "{code} {reason:?}");
        }
    }
}

/// Passes bytes on until it is told to cut them.
struct Proxy {
    url: String,
    cut: tokio::sync::watch::Sender<usize>,
}

impl Proxy {
    async fn before(site: &Site) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let target = site.url.trim_start_matches("ws://").trim_end_matches("/ws").to_owned();
        let cut = tokio::sync::watch::Sender::new(0);
        let cuts = cut.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = tokio::net::TcpStream::connect(&target).await.unwrap();
                let mut cuts = cuts.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { url, cut }
    }
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_when_the_wire_is_cut() {
    let site = Site::new(Server::builder()).await;
    let proxy = Proxy::before(&site).await;
    let (gone, on_disconnect) = disconnects();
    let client = Client::builder()
        .on_disconnect(on_disconnect)
        .connect(&proxy.url)
        .await
        .unwrap();
    for n in 1..=3 {
        site.conn(n).await;
        client.wait_for(State::Connected).await;
        proxy.cut.send_replace(n);
        let why = gone.until(n).await.remove(n - 1);
        assert_eq!(
            (why.code, &*why.reason, why.clean, why.will_reconnect),
            (1006, "", false, true)
        );
    }
    site.conn(4).await;
}

#[tokio::test(start_paused = true)]
async fn it_does_not_come_back_after_its_own_close() {
    let site = Site::new(Server::builder()).await;
    let client = Client::builder().connect(&site.url).await.unwrap();
    assert_eq!(client.state(), State::Connected);
    client.close_with(4000, "enough").await.unwrap();
    assert_eq!(client.state(), State::Closed);
    tokio::time::sleep(120 * SEC).await;
    assert_eq!(site.knocks.len(), 1);
    assert_eq!(err(client.emit("e", ())).code(), "connection_closed");
}

#[tokio::test(start_paused = true)]
async fn it_does_not_come_back_when_told_not_to() {
    let site = Site::new(Server::builder()).await;
    let client = Client::builder().reconnect(None).connect(&site.url).await.unwrap();
    site.conn(1).await.close_with(1001, "").unwrap();
    assert_eq!(client.wait_for(State::Closed).await, State::Closed);
    tokio::time::sleep(120 * SEC).await;
    assert_eq!(site.knocks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn should_reconnect_overrides_the_rule_both_ways() {
    for (code, decision) in [(1008, true), (1001, false)] {
        let site = Site::new(Server::builder()).await;
        let seen = Log::new();
        let log = seen.clone();
        let decide = move |why: &Disconnect| {
            log.push((why.code, why.reason.clone()));
            decision
        };
        let client = Client::builder()
            .should_reconnect(decide)
            .connect(&site.url)
            .await
            .unwrap();
        site.conn(1).await.close_with(code, "because").unwrap();
        if decision {
            site.conn(2).await;
        } else {
            assert_eq!(client.wait_for(State::Closed).await, State::Closed);
        }
        assert_eq!(seen.all(), [(code, "because".to_owned())]);
    }
}

/// The time from the end of the n-th connection to the next handshake, after it was alive for some time.
async fn wait_after(site: &Site, n: usize, alive: Duration) -> Duration {
    let conn = site.conn(n).await;
    tokio::time::sleep(alive).await;
    let ended = Instant::now();
    conn.close_with(1001, "").unwrap();
    site.knocks.until(n + 1).await[n].0 - ended
}

#[tokio::test(start_paused = true)]
async fn waits_grow_with_each_attempt_and_begin_anew_after_thirty_seconds_alive() {
    let site = Site::new(Server::builder()).await;
    let reconnect = Reconnect {
        base: SEC / 10,
        cap: 6 * 24 * 3600 * SEC,
        ..Reconnect::default()
    };
    let _client = Client::builder().reconnect(reconnect).connect(&site.url).await.unwrap();
    for n in 1..=24 {
        let most = SEC / 10 * (1 << (n - 1));
        let wait = wait_after(&site, n, Duration::ZERO).await;
        assert!(wait <= most.min(reconnect.cap) + SEC, "wait {n} took {wait:?}");
    }
    // Were it to begin anew, a tenth of a second would be the most; as it is, that is one in millions.
    let wait = wait_after(&site, 25, 29 * SEC).await;
    assert!(wait > SEC / 10, "29 s alive are too short: {wait:?}");
    let wait = wait_after(&site, 26, 31 * SEC).await;
    assert!(wait <= SEC / 10 + SEC / 100, "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_dial_makes_one_attempt_and_says_why_it_failed() {
    let site = Site::new(Server::builder()).await;
    for (status, code) in [
        (401, "rejected"),
        (403, "rejected"),
        (404, "connect_failed"),
        (503, "connect_failed"),
    ] {
        site.answer(status);
        let error = err(Client::builder().connect(&site.url).await);
        assert_eq!((error.code(), error.status()), (code, Some(status)));
    }
    assert_eq!(site.knocks.len(), 4);
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", dead.local_addr().unwrap());
    drop(dead);
    let error = err(Client::builder().connect(url).await);
    assert_eq!((error.code(), error.status()), ("connect_failed", None));
}

#[tokio::test(start_paused = true)]
async fn a_dial_takes_dial_timeout_at_most() {
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", deaf.local_addr().unwrap());
    for (client, limit) in [(Client::builder(), 10), (Client::builder().dial_timeout(3 * SEC), 3)] {
        let began = Instant::now();
        let error = err(client.connect(&url).await);
        assert_eq!((error.code(), began.elapsed()), ("connect_failed", limit * SEC));
        assert!(error.to_string().contains("dial_timeout"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redial_that_is_rejected_ends_it() {
    for status in [401, 403] {
        let site = Site::new(Server::builder()).await;
        let (log, on_error) = errors();
        let client = Client::builder()
            .queue(5)
            .on_error(on_error)
            .connect(&site.url)
            .await
            .unwrap();
        site.answer(status);
        site.conn(1).await.close_with(1001, "").unwrap();
        client.wait_for(State::Reconnecting).await;
        let call = client.emit_with_ack("waits", ()).timeout(600 * SEC);
        assert_eq!(err(call.await).code(), "connection_closed");
        assert_eq!(client.wait_for(State::Closed).await, State::Closed);
        assert_eq!(codes(&log), ["rejected"]);
        assert_eq!(log.all()[0].status(), Some(status));
        tokio::time::sleep(120 * SEC).await;
        assert_eq!(site.knocks.len(), 2);
        assert_eq!(err(client.emit("e", ())).code(), "connection_closed");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_with_429_and_503() {
    for (status, honoured) in [(429, true), (503, true), (500, false)] {
        let site = Site::with_header(Server::builder(), Some("3600")).await;
        let (log, on_error) = errors();
        let client = Client::builder().on_error(on_error).connect(&site.url).await.unwrap();
        site.answer(status);
        site.conn(1).await.close_with(1001, "").unwrap();
        let refused = site.knocks.until(2).await[1].0;
        assert_eq!(log.until(1).await[0].status(), Some(status));
        site.answer(0);
        let wait = site.knocks.until(3).await[2].0 - refused;
        assert_eq!(wait >= 3600 * SEC, honoured, "{status}: {wait:?}");
        assert!(wait <= 3602 * SEC, "the jitter is added: {wait:?}");
        assert_eq!(client.wait_for(State::Connected).await, State::Connected);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_it() {
    let (gone, on_disconnect) = disconnects();
    let site = Site::new(Server::builder().on_disconnect(on_disconnect)).await;
    let client = Client::builder().connect(&site.url).await.unwrap();
    let other = client.clone();
    drop(client);
    settle().await;
    other.emit("last", ()).unwrap();
    assert_eq!(gone.len(), 0);
    drop(other);
    let why = gone.until(1).await.remove(0);
    assert_eq!((why.code, why.clean), (1000, true));
    assert_eq!(site.server.stats().events_in, 1, "what was emitted before it arrives");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_or_closing_while_away_ends_the_dialling() {
    for drops in [true, false] {
        let site = Site::new(Server::builder()).await;
        let client = Client::builder().connect(&site.url).await.unwrap();
        site.answer(503);
        site.conn(1).await.close_with(1001, "").unwrap();
        site.knocks.until(4).await;
        if drops {
            drop(client);
        } else {
            client.close().await;
            assert_eq!(client.state(), State::Closed);
        }
        settle().await;
        let knocks = site.knocks.len();
        tokio::time::sleep(600 * SEC).await;
        assert_eq!(site.knocks.len(), knocks);
    }
}

#[tokio::test(start_paused = true)]
async fn token_and_url_are_asked_for_anew_at_each_dial() {
    let site = Site::new(Server::builder()).await;
    let (tokens, urls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let url = site.url.clone();
    let client = Client::builder()
        .auth_fn(async move || Ok::<_, Error>(format!("token{}", tokens.fetch_add(1, Ordering::SeqCst) + 1)))
        .connect_fn(async move || Ok::<_, Error>(format!("{url}?n={}", urls.fetch_add(1, Ordering::SeqCst) + 1)))
        .await
        .unwrap();
    for n in 1..=2 {
        site.conn(n).await.close_with(1001, "").unwrap();
    }
    site.conn(3).await;
    let knocks: Vec<_> = site
        .knocks
        .all()
        .into_iter()
        .map(|(_, token, uri)| (token.unwrap(), uri))
        .collect();
    let expected = [1, 2, 3].map(|n| (format!("token{n}"), format!("/ws?n={n}")));
    assert_eq!(knocks, expected);
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_token_or_url_that_can_not_be_had_is_a_failed_dial() {
    let site = Site::new(Server::builder()).await;
    let error = err(Client::builder()
        .auth_fn(async || Err::<String, _>("locked"))
        .connect(&site.url)
        .await);
    assert!(
        error.code() == "connect_failed" && error.to_string().contains("locked"),
        "{error}"
    );
    let error = err(Client::builder().connect_fn(async || Err::<String, _>("unknown")).await);
    assert!(
        error.code() == "connect_failed" && error.to_string().contains("unknown"),
        "{error}"
    );
    assert_eq!(site.knocks.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_on_connect_that_fails_at_the_first_dial_is_a_failed_connect() {
    let site = Site::new(Server::builder()).await;
    let (gone, on_disconnect) = disconnects();
    let client = Client::builder()
        .on_error(|_, _| ())
        .on_connect(|_: Conn| Err::<(), _>("login refused"))
        .on_disconnect(on_disconnect);
    let error = err(client.connect(&site.url).await);
    assert!(
        error.code() == "connect_failed" && error.to_string().contains("1011"),
        "{error}"
    );
    tokio::time::sleep(60 * SEC).await;
    assert_eq!((gone.len(), site.knocks.len()), (1, 1));
}
