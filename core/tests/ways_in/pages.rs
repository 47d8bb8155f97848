//! Which web pages may connect: the rules `origins` and `hosts` over requests of the shapes that browsers and proxies make.

use etp_ws::{Error, ServerBuilder};

use crate::support::{Answer, Errors, Running, echo, run, run_at, says, upgrade, with_errors};

/// A page of `origin` that names the server `host`, by these further lines of a proxy.
fn page(origin: &str, host: &str, proxy: &[&str]) -> String {
    let (origin, host) = (format!("Origin: {origin}"), format!("Host: {host}"));
    let own = ["User-Agent: Mozilla/5.0", "Sec-Fetch-Mode: websocket", &origin, &host];
    upgrade(&[&own, proxy].concat())
}

async fn statuses(running: &Running, rows: &[(&str, &str, u16)]) {
    for (origin, host, status) in rows {
        let origin_and_host = (origin, host);
        let answer = running.ask(&page(origin, host, &[])).await;
        assert_eq!(answer.status, *status, "{origin_and_host:?}: {}", answer.body);
    }
}

/// A refusal with 403: the answer and what `on_error` was told.
async fn refused(running: &Running, errors: &mut Errors, request: &str) -> (Answer, Error) {
    let answer = running.ask(request).await;
    assert_eq!(answer.status, 403, "{answer:?}");
    let error = errors.next().await;
    assert_eq!((error.code(), error.status()), ("handshake_failed", Some(403)));
    says(&error, &[answer.body.trim()]);
    (answer, error)
}

/// The list in the line that a refusal says to write: `origins(["https://example.org"])`.
fn advice(body: &str, setting: &str) -> Vec<String> {
    let line = body
        .split(&format!("{setting}(["))
        .nth(1)
        .expect(body)
        .split("])")
        .next()
        .unwrap();
    line.split(", ").map(|item| item.trim_matches('"').to_owned()).collect()
}

/// A listener that is not on a loopback address; everything goes to it by one all the same.
async fn public(builder: ServerBuilder) -> Running {
    run_at(builder, "0.0.0.0:0").await
}

#[tokio::test]
async fn by_default_a_page_reaches_the_host_and_port_that_it_came_from() {
    let running = run(echo()).await;
    let port = running.address.rsplit(':').next().unwrap();
    for name in ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"] {
        let host = format!("{name}:{port}");
        let rows = [
            (format!("http://{host}"), host.clone(), 101),
            // A development server on another port.
            (format!("http://{name}:3000"), host.clone(), 403),
            ("https://evil.example".to_owned(), host.clone(), 403),
            ("null".to_owned(), host.clone(), 403),
            ("file://".to_owned(), host.clone(), 403),
            (format!("http://{host}.evil.example"), host.clone(), 403),
            (format!("http://evil.example@{host}"), host.clone(), 403),
        ];
        for (origin, host, status) in rows {
            statuses(&running, &[(&origin, &host, status)]).await;
        }
    }
    // Whoever is no browser says no origin.
    assert_eq!(running.ask(&upgrade(&["Host: anything.example"])).await.status, 101);
    running.shutdown().await;
}

#[tokio::test]
async fn behind_nginx_and_caddy() {
    let running = public(echo()).await;
    let caddy = [
        "X-Forwarded-For: 198.51.100.1",
        "X-Forwarded-Host: example.org",
        "X-Forwarded-Proto: https",
        "Via: 1.1 Caddy",
    ];
    let nginx = ["Connection: upgrade", "X-Real-IP: 198.51.100.1"];
    for (origin, host, proxy, status) in [
        // Caddy, and nginx with `proxy_set_header Host $host`: TLS ends in front, the Host stays, without its port.
        ("https://example.org", "example.org", &caddy[..], 101),
        ("http://example.org", "example.org", &caddy, 101),
        ("https://example.org:8443", "example.org:8443", &caddy, 101),
        ("https://example.org", "example.org", &nginx, 101),
        ("https://example.org", "example.org:443", &nginx, 101),
        // `$host` drops the port.
        ("https://example.org:8443", "example.org", &nginx, 403),
        // nginx as it comes: the Host is the upstream's. What X-Forwarded-Host claims, anybody can claim.
        ("https://example.org", "127.0.0.1:8080", &nginx, 403),
        ("https://example.org", "backend", &nginx, 403),
        ("https://example.org", "127.0.0.1:8080", &caddy, 403),
        ("https://evil.example", "example.org", &caddy, 403),
    ] {
        let answer = running.ask(&page(origin, host, proxy)).await;
        assert_eq!(answer.status, status, "{origin} at {host}: {}", answer.body);
    }
    running.shutdown().await;
}

#[tokio::test]
async fn an_origin_is_listed_exactly_by_wildcard_or_as_null() {
    let running =
        public(echo().origins(["https://example.org", "https://*.example.com", "http://localhost:3000"])).await;
    statuses(
        &running,
        &[
            ("https://example.org", "backend", 101),
            ("https://example.org:443", "backend", 101),
            ("https://EXAMPLE.org", "backend", 101),
            ("https://a.example.com", "backend", 101),
            ("https://a.b.example.com", "backend", 101),
            ("http://localhost:3000", "backend", 101),
            ("http://example.org", "backend", 403),
            ("https://example.org:8443", "backend", 403),
            ("https://www.example.org", "backend", 403),
            ("https://example.com", "backend", 403),
            ("https://evilexample.com", "backend", 403),
            ("https://a.example.com.evil.example", "backend", 403),
            ("http://a.example.com", "backend", 403),
            ("null", "backend", 403),
            // A list takes the place of the same origin.
            ("https://backend", "backend", 403),
        ],
    )
    .await;
    running.shutdown().await;

    let running = public(echo().origins(["null"])).await;
    statuses(
        &running,
        &[("null", "backend", 101), ("https://backend", "backend", 403)],
    )
    .await;
    running.shutdown().await;

    let running = public(echo().origins(["*"])).await;
    statuses(
        &running,
        &[("null", "backend", 101), ("https://evil.example", "backend", 101)],
    )
    .await;
    running.shutdown().await;
}

#[tokio::test]
async fn what_a_refusal_says_to_write_lets_the_page_in() {
    // First behind a proxy that keeps no Host, then one that keeps it, on the same machine.
    for (host, origin) in [
        ("127.0.0.1:8080", "https://example.org"),
        ("example.org", "https://example.org"),
        ("[2001:db8::1]:9", "http://[2001:db8::1]:9"),
    ] {
        let request = page(origin, host, &[]);
        let (mut origins, mut hosts) = (None, None);
        loop {
            let mut builder = echo();
            if let Some(origins) = &origins {
                builder = builder.origins(Vec::clone(origins));
            }
            if let Some(hosts) = &hosts {
                builder = builder.hosts(Vec::clone(hosts));
            }
            let (builder, mut errors) = with_errors(builder);
            let running = run(builder).await;
            let answer = running.ask(&request).await;
            if answer.status == 101 {
                running.shutdown().await;
                break;
            }
            assert_eq!(answer.status, 403);
            let error = errors.next().await;
            running.shutdown().await;
            says(&error, &[answer.body.trim()]);
            if answer.body.contains("the setting `hosts`") {
                assert_eq!(hosts, None, "the advice does not help: {}", answer.body);
                hosts = Some(advice(&answer.body, "hosts"));
            } else {
                assert!(answer.body.contains("the setting `origins`"), "{}", answer.body);
                assert_eq!(origins, None, "the advice does not help: {}", answer.body);
                origins = Some(advice(&answer.body, "origins"));
            }
        }
        assert!(origins.is_some() || hosts.is_some());
    }
}

#[tokio::test]
async fn a_page_reaches_a_loopback_listener_under_loopback_names_alone() {
    let (builder, mut errors) = with_errors(echo().origins(["*"]));
    let running = run(builder).await;
    // A name that an attacker points at 127.0.0.1 makes page and server the same origin.
    let rebound = page("http://rebound.example:8080", "rebound.example:8080", &[]);
    let (answer, _) = refused(&running, &mut errors, &rebound).await;
    assert!(answer.body.contains("the setting `hosts`"), "{}", answer.body);
    assert_eq!(advice(&answer.body, "hosts"), ["rebound.example"]);
    statuses(
        &running,
        &[
            ("https://any.example", "localhost", 101),
            ("https://any.example", "127.0.0.1:1", 101),
            ("https://any.example", "[::1]:1", 101),
            ("https://any.example", "localhost.evil.example", 403),
            ("https://any.example", "127.0.0.2", 403),
        ],
    )
    .await;
    // Without an Origin no page is asking.
    assert_eq!(running.ask(&upgrade(&["Host: rebound.example"])).await.status, 101);
    running.shutdown().await;

    let running = run(echo().origins(["*"]).hosts(["example.org"])).await;
    statuses(
        &running,
        &[
            ("https://any.example", "example.org", 101),
            ("https://any.example", "EXAMPLE.org:443", 101),
            ("https://any.example", "localhost", 403),
        ],
    )
    .await;
    running.shutdown().await;

    let running = run(echo().origins(["*"]).hosts(["*"])).await;
    statuses(&running, &[("https://any.example", "rebound.example", 101)]).await;
    running.shutdown().await;
}

#[tokio::test]
async fn the_rule_for_hosts_is_for_our_own_loopback_listener() {
    let running = public(echo()).await;
    statuses(
        &running,
        &[("http://rebound.example:8080", "rebound.example:8080", 101)],
    )
    .await;
    running.shutdown().await;

    // Adopted streams: the host server decides who reaches it.
    let server = echo().build().unwrap();
    let (_ours, theirs) = tokio::io::duplex(4096);
    let mut request = crate::adopted::request(&[("origin", "http://rebound.example")]);
    request
        .headers_mut()
        .insert("host", http::HeaderValue::from_static("rebound.example"));
    server.accept(request, theirs, []).await.unwrap();
}

#[tokio::test]
async fn an_origin_that_is_sent_twice_or_can_not_be_read_is_refused() {
    let running = run(echo().origins(["*"])).await;
    let twice = upgrade(&["Origin: http://localhost", "Origin: http://localhost"]);
    assert_eq!(running.ask(&twice).await.status, 403);
    let mut peer = running.dial().await;
    let mut request = upgrade(&["Origin: http://loc@lhost"]).into_bytes();
    let at = request.iter().position(|byte| *byte == b'@').unwrap();
    request[at] = 0xFF;
    peer.send(request).await;
    assert_eq!(peer.answer().await.status, 403);
    running.shutdown().await;
}

#[tokio::test]
async fn a_refusal_quotes_what_the_peer_sent_without_its_control_characters() {
    let (builder, mut errors) = with_errors(echo());
    let running = run(builder).await;
    let (answer, error) = refused(&running, &mut errors, &page("http://a\tb", "localhost", &[])).await;
    assert!(!answer.body.trim_end().contains(char::is_control), "{:?}", answer.body);
    assert!(!error.to_string().contains(char::is_control), "{error:?}");
    running.shutdown().await;
}
