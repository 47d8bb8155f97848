//! Options that can't be are refused when a server is built or a client connects, with a sentence that says what can.

use std::time::Duration;

use etp_ws::testing::pipe;
use etp_ws::{Client, ClientBuilder, Reconnect, Server, ServerBuilder};

use crate::support::*;

const DAYS_8: Duration = Duration::from_secs(8 * 24 * 3600);

/// Takes a builder with one wrong option and the words that the error must have.
macro_rules! wrong {
    ($($builder:expr, [$($says:expr),+];)+) => {
        vec![$((stringify!($builder), ($builder).try_build().await, vec![$($says),+])),+]
    };
}

/// What both builders come to.
trait TryBuild {
    async fn try_build(self) -> Option<etp_ws::Error>;
}

impl TryBuild for ServerBuilder {
    async fn try_build(self) -> Option<etp_ws::Error> {
        self.build().err()
    }
}

impl TryBuild for ClientBuilder {
    async fn try_build(self) -> Option<etp_ws::Error> {
        self.connect_pipe(pipe().0).await.err()
    }
}

fn reconnect(change: impl FnOnce(&mut Reconnect)) -> Reconnect {
    let mut reconnect = Reconnect::default();
    change(&mut reconnect);
    reconnect
}

#[tokio::test]
async fn an_option_that_can_not_be_says_what_can() {
    let (s, c) = (Server::builder, Client::builder);
    let cases = wrong! {
        s().max_message_size(0), ["max_message_size", "1024 to 1073741824"];
        s().max_message_size(1023), ["max_message_size", "1024"];
        s().max_message_size(usize::MAX), ["max_message_size", "1073741824"];
        s().max_inflight(0), ["max_inflight", "1 to"];
        s().max_inflight(usize::MAX), ["max_inflight", "16777216"];
        s().max_inflight_total(0), ["max_inflight_total", "1 to"];
        s().max_outbox(0), ["max_outbox", "1024 to"];
        s().max_outbox(1 << 19), ["max_outbox", "max_message_size", "1048576"];
        s().max_pending_acks(0), ["max_pending_acks", "1 to"];
        s().ack_timeout(Duration::ZERO), ["ack_timeout", "1 ms to 7 days"];
        s().ack_timeout(DAYS_8), ["ack_timeout", "1 ms to 7 days"];
        s().ping_interval(Duration::ZERO), ["ping_interval", "1 ms to 7 days"];
        s().ping_timeout(Duration::ZERO), ["ping_timeout", "1 ms to 7 days"];
        s().close_timeout(Duration::MAX), ["close_timeout", "1 ms to 7 days"];
        s().handshake_timeout(Duration::ZERO), ["handshake_timeout", "1 ms to 7 days"];
        s().upgrade_timeout(Duration::ZERO), ["upgrade_timeout", "1 ms to 7 days"];
        s().shutdown_timeout(Duration::MAX), ["shutdown_timeout", "1 ms to 7 days"];
        s().max_connections(0), ["max_connections", "1 or more"];
        s().path("ws"), ["path", "ws", "\"/\""];
        s().path(""), ["path", "\"/\""];
        s().path("/a?b"), ["path", "query"];
        s().path("/a b"), ["path"];
        s().origins(["example.org"]), ["origin", "example.org", "https://"];
        s().origins(["https://example.org/path"]), ["origin", "https://example.org/path"];
        s().origins(["https://*example.org"]), ["origin", "*"];
        s().origins(["*", "https://example.org"]), ["*"];
        s().hosts(["http://a"]), ["host", "http://a"];
        s().trusted_proxies(["nonsense"]), ["nonsense", "10.0.0.1", "10.0.0.0/8"];
        s().trusted_proxies(["10.0.0.0/33"]), ["10.0.0.0/33"];
        s().tls("/nowhere/cert.pem", "/nowhere/key.pem"), ["/nowhere/cert.pem"];
        c().max_message_size(1), ["max_message_size", "1024"];
        c().max_inflight(0), ["max_inflight", "1 to"];
        c().max_outbox(1), ["max_outbox", "1024"];
        c().max_pending_acks(0), ["max_pending_acks", "1 to"];
        c().ack_timeout(Duration::ZERO), ["ack_timeout", "1 ms"];
        c().ping_interval(DAYS_8), ["ping_interval", "7 days"];
        c().ping_timeout(Duration::ZERO), ["ping_timeout", "1 ms"];
        c().close_timeout(Duration::ZERO), ["close_timeout", "1 ms"];
    };
    for (what, outcome, says) in cases {
        let error = outcome.unwrap_or_else(|| panic!("{what} was taken"));
        assert_eq!(error.code(), "invalid_option", "{what}");
        for words in says {
            assert!(error.to_string().contains(words), "{what}: {error}");
        }
    }
}

#[tokio::test]
async fn a_dial_that_can_not_be_is_an_invalid_option() {
    let c = Client::builder;
    let cases = [
        (c().dial_timeout(Duration::ZERO), "ws://127.0.0.1:1/ws", "dial_timeout"),
        (
            c().reconnect(reconnect(|r| r.base = Duration::ZERO)),
            "ws://127.0.0.1:1/ws",
            "reconnect.base",
        ),
        (
            c().reconnect(reconnect(|r| r.cap = DAYS_8)),
            "ws://127.0.0.1:1/ws",
            "reconnect.cap",
        ),
        (
            c().reconnect(reconnect(|r| r.cap = Duration::from_millis(1))),
            "ws://127.0.0.1:1/ws",
            "reconnect.base",
        ),
        (c().header("a b", "c"), "ws://127.0.0.1:1/ws", "a b"),
        (c().header("x-secret", "a\nb"), "ws://127.0.0.1:1/ws", "x-secret"),
        (c(), "http:/127.0.0.1", "URL"),
        (c(), "ftp://127.0.0.1/", "ws nor wss"),
        (c(), "ws://user:pass@127.0.0.1/", "auth"),
        (c(), "ws://127.0.0.1/#part", "fragment"),
        (c(), "unix:", "socket"),
    ];
    for (client, url, says) in cases {
        let error = err(client.connect(url).await);
        assert_eq!(error.code(), "invalid_option", "{url}: {error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(!error.to_string().contains("pass@"), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_an_invalid_option_and_a_taken_one_a_failed_listen() {
    let server = Server::builder().build().unwrap();
    for addr in ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536"] {
        let error = err(server.bind(addr).await);
        assert_eq!(error.code(), "invalid_option", "{addr}");
        assert!(error.to_string().contains("127.0.0.1:8080"), "{error}");
    }
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let addr = bound.local_addr().unwrap().to_string();
    let error = err(Server::builder().build().unwrap().bind(&addr).await);
    assert_eq!(error.code(), "listen_failed");
    assert!(error.to_string().contains(&addr), "{error}");
}

#[tokio::test]
async fn what_lies_at_the_edge_is_taken() {
    let least = Duration::from_millis(1);
    let most = Duration::from_secs(7 * 24 * 3600);
    Server::builder()
        .max_message_size(1024)
        .max_outbox(1024)
        .max_inflight(1)
        .max_inflight_total(1)
        .max_pending_acks(1)
        .max_connections(1)
        .ack_timeout(least)
        .ping_interval(least)
        .ping_timeout(most)
        .close_timeout(most)
        .handshake_timeout(least)
        .upgrade_timeout(most)
        .shutdown_timeout(least)
        .path("/")
        .origins([
            "https://example.org",
            "https://*.example.org",
            "http://localhost:3000",
            "null",
        ])
        .hosts(["localhost", "[::1]"])
        .trusted_proxies(["10.0.0.1", "10.0.0.0/8", "::1"])
        .build()
        .unwrap();
    Server::builder().origins(["*"]).hosts(["*"]).build().unwrap();
}

#[test]
fn outside_a_runtime_the_error_says_what_is_missing() {
    let client = Client::builder().connect_pipe(pipe().0);
    let error = err(futures_util::FutureExt::now_or_never(client).expect("it can't wait"));
    assert_eq!(error.code(), "invalid_option");
    assert!(error.to_string().contains("runtime"), "{error}");
}
