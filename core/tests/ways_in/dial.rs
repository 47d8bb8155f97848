//! Dials that fail and what they say, and a first frame that comes with the answer.

use std::time::Duration;

use etp_ws::{Bytes, Client, ClientBuilder, Conn, Error, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{echo, run, says};

/// A server that answers one handshake with what `answer` makes of the right `Sec-WebSocket-Accept`, and then waits for the end.
async fn scripted(answer: impl FnOnce(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        let key = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-key: "))
            .unwrap();
        stream.write_all(&answer(&accept_of(key))).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    format!("ws://{address}/ws?token=s3cret")
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.unwrap() > 0);
    }
    String::from_utf8(head).unwrap()
}

fn accept_of(key: &str) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes())
}

fn switching(lines: &[&str]) -> Vec<u8> {
    let mut answer = "HTTP/1.1 101 Switching Protocols\r\n".to_owned();
    for line in lines {
        answer += line;
        answer += "\r\n";
    }
    (answer + "\r\n").into_bytes()
}

async fn fails(builder: ClientBuilder, url: String) -> Error {
    let error = builder.connect(&url).await.unwrap_err();
    let host = url.split('/').nth(2).unwrap();
    says(&error, &[host]);
    let text = format!("{error} {error:?}");
    assert!(!text.contains("s3cret"), "{text}");
    error
}

#[tokio::test]
async fn a_frame_in_the_packet_of_the_answer_is_not_lost() {
    let url = scripted(|accept| {
        let mut bytes = switching(&[
            "Upgrade: websocket",
            "Connection: Upgrade",
            &format!("Sec-WebSocket-Accept: {accept}"),
        ]);
        bytes.extend(b"\x81\x0bnews||0||hi\x81\x0bnews||0||yo");
        bytes
    })
    .await;
    let (sender, mut news) = mpsc::unbounded_channel();
    let client = Client::builder()
        .on("news", move |_: Conn, data: Bytes| {
            let _ = sender.send(data);
        })
        .connect(url)
        .await
        .unwrap();
    assert_eq!(news.recv().await.unwrap(), "hi");
    assert_eq!(news.recv().await.unwrap(), "yo");
    assert_eq!(client.state(), State::Connected);
}

#[tokio::test]
async fn what_a_server_emits_in_on_connect_arrives() {
    let running = run(echo().on_connect(|conn: Conn| conn.emit("news", "first"))).await;
    for _ in 0..50 {
        let (sender, mut news) = mpsc::unbounded_channel();
        let _client = Client::builder()
            .on("news", move |_: Conn, data: Bytes| {
                let _ = sender.send(data);
            })
            .connect(&running.url)
            .await
            .unwrap();
        assert_eq!(news.recv().await.unwrap(), "first");
    }
    running.shutdown().await;
}

#[tokio::test]
async fn a_close_frame_in_the_packet_of_the_answer_is_a_connection_that_was() {
    let url = scripted(|accept| {
        let mut bytes = switching(&[
            "Upgrade: websocket",
            "Connection: Upgrade",
            &format!("Sec-WebSocket-Accept: {accept}"),
        ]);
        bytes.extend(b"\x88\x05\x0f\xa1bye");
        bytes
    })
    .await;
    let (sender, mut ends) = mpsc::unbounded_channel();
    let client = Client::builder()
        .reconnect(None)
        .on_disconnect(move |_: Conn, end: etp_ws::Disconnect| {
            let _ = sender.send(end);
        })
        .connect(url)
        .await
        .unwrap();
    let end = ends.recv().await.unwrap();
    assert_eq!((end.code, &*end.reason, end.clean), (4001, "bye", true));
    assert_eq!(client.wait_for(State::Closed).await, State::Closed);
}

#[tokio::test]
async fn an_answer_that_is_no_upgrade_of_ours_is_refused() {
    type Script = fn(&str) -> Vec<u8>;
    const UPGRADE: [&str; 2] = ["Upgrade: websocket", "Connection: Upgrade"];
    let rows: [(Script, &str); 7] = [
        (
            |_| {
                switching(&[
                    UPGRADE[0],
                    UPGRADE[1],
                    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                ])
            },
            "Sec-WebSocket-Accept",
        ),
        (|_| switching(&UPGRADE), "Sec-WebSocket-Accept"),
        (
            |accept| switching(&[UPGRADE[1], &format!("Sec-WebSocket-Accept: {accept}")]),
            "upgrade",
        ),
        (
            |accept| switching(&["Upgrade: h2c", UPGRADE[1], &format!("Sec-WebSocket-Accept: {accept}")]),
            "upgrade",
        ),
        (
            |accept| {
                switching(&[
                    UPGRADE[0],
                    UPGRADE[1],
                    &format!("Sec-WebSocket-Accept: {accept}"),
                    "Sec-WebSocket-Protocol: etp",
                ])
            },
            "subprotocol",
        ),
        (
            |accept| {
                let accept = format!("Sec-WebSocket-Accept: {accept}");
                switching(&[
                    UPGRADE[0],
                    UPGRADE[1],
                    &accept,
                    "Sec-WebSocket-Extensions: permessage-deflate",
                ])
            },
            "extension",
        ),
        (|_| b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), "handshake"),
    ];
    for (script, what) in rows {
        let error = fails(Client::builder(), scripted(script).await).await;
        assert_eq!(error.code(), "connect_failed");
        says(&error, &[what]);
    }
}

#[tokio::test]
async fn a_subprotocol_that_was_offered_may_be_selected_but_never_a_token() {
    let answer = |protocol: &'static str| {
        move |accept: &str| {
            let accept = format!("Sec-WebSocket-Accept: {accept}");
            let protocol = format!("Sec-WebSocket-Protocol: {protocol}");
            switching(&["Upgrade: WebSocket", "Connection: upgrade", &accept, &protocol])
        }
    };
    let builder = || {
        Client::builder()
            .reconnect(None)
            .header("Sec-WebSocket-Protocol", "etp, chat, etp.auth.c2VjcmV0")
    };
    for protocol in ["etp", "chat"] {
        builder().connect(scripted(answer(protocol)).await).await.unwrap();
    }
    for protocol in ["etp.auth.c2VjcmV0", "other", "etp, chat"] {
        let error = fails(builder(), scripted(answer(protocol)).await).await;
        says(&error, &["subprotocol"]);
        assert!(!error.to_string().contains("c2VjcmV0"));
    }
}

#[tokio::test]
async fn a_status_is_told_with_what_it_means() {
    let rows = [
        (
            "301 Moved Permanently\r\nLocation: wss://elsewhere.example/?s3cret",
            "connect_failed",
            301,
            "redirects are not followed",
        ),
        (
            "307 Temporary Redirect\r\nLocation: /s3cret",
            "connect_failed",
            307,
            "redirects are not followed",
        ),
        ("200 OK", "connect_failed", 200, "no WebSocket endpoint"),
        ("401 Unauthorized", "rejected", 401, "401"),
        ("403 Forbidden", "rejected", 403, "403"),
        ("404 Not Found", "connect_failed", 404, "404"),
        ("429 Too Many Requests\r\nRetry-After: 1", "connect_failed", 429, "429"),
        (
            "503 Service Unavailable\r\nRetry-After: 1",
            "connect_failed",
            503,
            "503",
        ),
    ];
    for (answer, code, status, what) in rows {
        let url =
            scripted(move |_| format!("HTTP/1.1 {answer}\r\nContent-Length: 7\r\n\r\ns3cret\n").into_bytes()).await;
        let error = fails(Client::builder(), url).await;
        assert_eq!((error.code(), error.status()), (code, Some(status)));
        says(&error, &[what]);
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws?token=s3cret", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
    });
    let error = fails(Client::builder(), url).await;
    assert_eq!(error.code(), "connect_failed");
    says(&error, &["handshake"]);
}

#[tokio::test]
async fn nobody_on_the_port_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws?token=s3cret", listener.local_addr().unwrap());
    drop(listener);
    let error = fails(Client::builder(), url).await;
    assert_eq!(error.code(), "connect_failed");
    says(&error, &["refused"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_at_the_dial_timeout() {
    // The system takes the connection; nobody ever reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws?token=s3cret", listener.local_addr().unwrap());
    let error = fails(Client::builder(), url.clone()).await;
    assert_eq!(error.code(), "connect_failed");
    says(&error, &["dial_timeout", "10s"]);
    let error = fails(
        Client::builder().dial_timeout(Duration::from_secs(3)),
        url.replace("ws://", "wss://"),
    )
    .await;
    says(&error, &["dial_timeout", "3s"]);
    drop(listener);
}

#[tokio::test(start_paused = true)]
async fn the_time_for_a_dial_is_one_for_the_functions_too() {
    let error = Client::builder()
        .auth_fn(async || std::future::pending::<Result<String, std::io::Error>>().await)
        .connect("ws://localhost:1/ws")
        .await
        .unwrap_err();
    assert_eq!(error.code(), "connect_failed");
    says(&error, &["dial_timeout", "localhost:1"]);
}

#[tokio::test]
async fn a_url_that_can_not_be_is_an_option_and_its_secrets_stay_out() {
    for wrong in [
        "",
        "localhost:8080",
        "/ws",
        "ftp://user:s3cret@host/ws?token=s3cret",
        "ws://user:s3cret@host/ws",
        "ws://s3cret@host/ws",
        "ws://host/ws#s3cret",
        "ws:///ws?s3cret",
        "ws://ho st/?s3cret",
        "ws://host:port/?s3cret",
        "unix:",
    ] {
        let error = Client::builder().connect(wrong).await.unwrap_err();
        assert_eq!(error.code(), "invalid_option", "{wrong}");
        says(&error, &["ws://host:port/path"]);
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn headers_that_can_not_be_sent_are_options_and_their_values_stay_out() {
    for builder in [
        Client::builder().header("X-Bad", "s3cret\r\nX-Injected: yes"),
        Client::builder().header("bad name", "s3cret"),
        Client::builder().auth("s3cret\n"),
    ] {
        let error = builder.connect("ws://127.0.0.1:1/").await.unwrap_err();
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_told() {
    let error = fails(
        Client::builder(),
        "ws://no-such-host.invalid:1/ws?token=s3cret".to_owned(),
    )
    .await;
    assert_eq!(error.code(), "connect_failed");
}
