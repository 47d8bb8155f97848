//! What a request tells the application: tokens, headers, addresses; and what it keeps to itself.

use etp_ws::{Client, Conn, Request, Server, ServerBuilder, token_protocols};
use tokio::sync::mpsc;

use crate::support::{Running, echo, run, upgrade};

const TOKEN: &str = "s3cret/with+signs=ü";

/// A server that hands every request to the test.
fn asking(builder: ServerBuilder) -> (ServerBuilder, mpsc::UnboundedReceiver<Request>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let builder = builder.on_upgrade(move |request: Request| {
        let _ = sender.send(request);
    });
    (builder, requests)
}

async fn request_of(running: &Running, requests: &mut mpsc::UnboundedReceiver<Request>, lines: &[&str]) -> Request {
    assert_eq!(running.ask(&upgrade(lines)).await.status, 101);
    requests.recv().await.unwrap()
}

#[tokio::test]
async fn a_token_comes_in_a_header_or_among_the_subprotocols() {
    let (builder, mut requests) = asking(echo());
    let running = run(builder).await;
    let browser = format!("Sec-WebSocket-Protocol: {}", token_protocols(TOKEN));
    let rows: [(&[&str], Option<&str>); 9] = [
        (&[], None),
        (&["Authorization: Bearer abc"], Some("abc")),
        (&["Authorization: bearer abc"], Some("abc")),
        (&["Authorization: Basic abc"], None),
        (&["Authorization: Bearer"], None),
        (&[&browser], Some(TOKEN)),
        // In lines of their own, and padded by a client that pads.
        (
            &["Sec-WebSocket-Protocol: etp", "Sec-WebSocket-Protocol: etp.auth.YWI="],
            Some("ab"),
        ),
        (&["Sec-WebSocket-Protocol: etp, etp.auth.!!!"], None),
        // The header counts where both are there.
        (&["Authorization: Bearer abc", &browser], Some("abc")),
    ];
    for (lines, token) in rows {
        let request = request_of(&running, &mut requests, lines).await;
        assert_eq!(request.token().as_deref(), token, "{lines:?}");
    }
    running.shutdown().await;
}

#[tokio::test]
async fn etp_is_selected_where_it_was_offered_and_a_token_is_never_echoed() {
    let (builder, mut requests) = asking(echo());
    let running = run(builder).await;
    let browser = token_protocols(TOKEN);
    let carried = browser.strip_prefix("etp, ").unwrap();
    for (offer, selected) in [
        (browser.clone(), Some("etp")),
        (format!("{carried}, etp"), Some("etp")),
        (format!("chat,{carried} ,  etp"), Some("etp")),
        (carried.to_owned(), None),
        ("chat".to_owned(), None),
        ("ETP".to_owned(), None),
    ] {
        let answer = running
            .ask(&upgrade(&[&format!("Sec-WebSocket-Protocol: {offer}")]))
            .await;
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("sec-websocket-protocol"), selected, "{offer}");
        assert!(!answer.whole().contains("etp.auth"), "{}", answer.whole());
        requests.recv().await.unwrap();
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_client_of_ours_sends_its_token_in_a_header() {
    let (builder, mut requests) = asking(echo());
    let running = run(builder).await;
    let client = Client::builder()
        .auth("t0ken")
        .header("X-Tenant", "blue")
        .header("Cookie", "a=b")
        .connect(format!("{}?room=7", running.url))
        .await
        .unwrap();
    let request = requests.recv().await.unwrap();
    assert_eq!(request.token().as_deref(), Some("t0ken"));
    assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
    // Without a browser no subprotocol is asked for: other servers select none.
    assert_eq!(request.header("sec-websocket-protocol"), None);
    assert_eq!(request.header("x-tenant"), Some("blue"));
    assert_eq!(request.header("COOKIE"), Some("a=b"));
    assert_eq!(request.header("origin"), None);
    assert_eq!(request.header("host"), Some(&*running.address));
    assert_eq!(
        (request.path(), request.query(), request.uri()),
        ("/ws", Some("room=7"), "/ws?room=7")
    );
    assert_eq!(request.method(), "GET");
    let own = client.conn().unwrap();
    assert_eq!(own.request().header("x-tenant"), Some("blue"));
    running.shutdown().await;
}

#[tokio::test]
async fn an_auth_function_is_asked_at_the_dial_and_its_failure_is_told() {
    let (builder, mut requests) = asking(echo());
    let running = run(builder).await;
    let client = Client::builder()
        .auth_fn(async || Ok::<_, std::io::Error>("fresh".to_owned()))
        .connect(&running.url)
        .await
        .unwrap();
    assert_eq!(requests.recv().await.unwrap().token().as_deref(), Some("fresh"));
    client.close().await;
    let error = Client::builder()
        .auth_fn(async || Err::<String, _>(std::io::Error::other("no session")))
        .connect(&running.url)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "connect_failed");
    crate::support::says(&error, &["auth", "no session"]);
    running.shutdown().await;
}

#[tokio::test]
async fn headers_keep_their_order_their_repetitions_and_their_bytes() {
    let (builder, mut requests) = asking(echo());
    let running = run(builder).await;
    let mut lines = vec!["X-Many: one", "X-Other:   spaced  ", "X-Many: two", "X-Empty:"];
    lines.push("X-Utf8: größe");
    let request = request_of(&running, &mut requests, &lines).await;
    assert_eq!(request.header("x-many"), Some("one"));
    assert_eq!(request.header("x-other"), Some("spaced"));
    assert_eq!(request.header("x-empty"), Some(""));
    assert_eq!(request.header("X-UTF8"), Some("größe"));
    assert_eq!(request.header("x-none"), None);
    let headers = request.headers();
    assert_eq!(headers.get_all("x-many").iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(headers.get("x-empty").unwrap(), "");
    running.shutdown().await;
}

#[tokio::test]
async fn the_client_behind_trusted_proxies_is_the_last_address_that_is_none_of_them() {
    let (builder, mut requests) = asking(echo().trusted_proxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]));
    let running = run(builder).await;
    let rows: [(&[&str], &str); 12] = [
        (&[], "127.0.0.1"),
        (&["X-Forwarded-For: 198.51.100.1"], "198.51.100.1"),
        (&["X-Forwarded-For: 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        // What the client itself wrote stands in front and is not believed.
        (&["X-Forwarded-For: 1.1.1.1, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        (
            &["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 198.51.100.1"],
            "198.51.100.1",
        ),
        (&["X-Forwarded-For: 127.0.0.1, 198.51.100.1"], "198.51.100.1"),
        (&["X-Forwarded-For: nonsense, 10.1.2.3"], "10.1.2.3"),
        (&["X-Forwarded-For: nonsense"], "127.0.0.1"),
        (&["X-Forwarded-For: "], "127.0.0.1"),
        (&["X-Forwarded-For: 198.51.100.1:4711"], "198.51.100.1"),
        (&["X-Forwarded-For: 2001:db8::7, ::ffff:10.1.2.3"], "2001:db8::7"),
        (&["X-Forwarded-For: [2a00::1]:443"], "2a00::1"),
    ];
    for (lines, client) in rows {
        let request = request_of(&running, &mut requests, lines).await;
        assert_eq!(request.client_ip().unwrap().to_string(), client, "{lines:?}");
        assert!(request.peer_addr().unwrap().ip().is_loopback());
    }
    running.shutdown().await;

    // Nobody is trusted by default, and a peer that is no proxy never.
    for builder in [echo(), echo().trusted_proxies(["10.0.0.0/8"])] {
        let (builder, mut requests) = asking(builder);
        let running = run(builder).await;
        let request = request_of(&running, &mut requests, &["X-Forwarded-For: 198.51.100.1"]).await;
        assert_eq!(request.client_ip().unwrap().to_string(), "127.0.0.1");
        running.shutdown().await;
    }
}

#[tokio::test]
async fn nothing_that_is_printed_for_debugging_holds_a_secret() {
    let (sender, mut conns) = mpsc::unbounded_channel();
    let (builder, mut requests) = asking(Server::builder().on_connect(move |conn: Conn| {
        let _ = sender.send(conn);
    }));
    let running = run(builder).await;
    let client = Client::builder()
        .auth("s3cret-token")
        .header("Cookie", "session=s3cret-cookie")
        .header("Sec-WebSocket-Protocol", token_protocols("s3cret-protocol"))
        .connect(format!("{}?key=s3cret-query", running.url))
        .await
        .unwrap();
    let request = requests.recv().await.unwrap();
    let conn = conns.recv().await.unwrap();
    let own = client.conn().unwrap();
    let printed = format!(
        "{request:?} {request:#?} {conn:?} {:?} {own:?} {:?} {client:?} {:?}",
        conn.request(),
        own.request(),
        running.server
    );
    assert!(!printed.contains("s3cret"), "{printed}");
    let carried = token_protocols("s3cret-protocol");
    assert!(!printed.contains(carried.strip_prefix("etp, ").unwrap()), "{printed}");
    assert!(printed.contains("/ws"), "{printed}");
    running.shutdown().await;
}

#[tokio::test]
async fn an_absolute_form_names_the_same_path_and_its_host() {
    let (builder, mut requests) = asking(echo());
    let running = run(builder).await;
    let request = crate::support::handshake(&format!("GET http://{}/ws?x=1 HTTP/1.1", running.address), &[]);
    assert_eq!(running.ask(&request).await.status, 101);
    let request = requests.recv().await.unwrap();
    assert_eq!((request.path(), request.query()), ("/ws", Some("x=1")));
    running.shutdown().await;
}
