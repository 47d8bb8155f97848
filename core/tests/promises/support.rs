//! What the tests share: logs that can be awaited, raw peers that see every message, and pairs that can be cut.

use std::fmt::Debug;
use std::time::Duration;

use etp_ws::testing::{Message, Pipe, pipe};
use etp_ws::{Bytes, Client, ClientBuilder, Conn, Disconnect, Error, Server, ServerBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(crate) const SEC: Duration = Duration::from_secs(1);

/// Lets everything run that can, under paused time: a millisecond passes when nothing else is left to do.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// What happened, in order; any test may wait for more of it.
pub(crate) struct Log<T>(watch::Sender<Vec<T>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> Log<T> {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }

    pub(crate) fn push(&self, item: T) {
        self.0.send_modify(|items| items.push(item));
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.borrow().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Waits until that much has happened.
    pub(crate) async fn until(&self, count: usize) -> Vec<T> {
        let mut items = self.0.subscribe();
        items
            .wait_for(|items| items.len() >= count)
            .await
            .expect("the log lives")
            .clone()
    }
}

/// A log as `on_error` fills it.
pub(crate) fn errors() -> (
    Log<Error>,
    impl FnOnce(Option<Conn>, Error) + Clone + Send + Sync + 'static,
) {
    let log = Log::new();
    let fill = log.clone();
    (log, move |_: Option<Conn>, error: Error| fill.push(error))
}

/// A log as `on_disconnect` fills it.
pub(crate) fn disconnects() -> (
    Log<Disconnect>,
    impl FnOnce(Conn, Disconnect) + Clone + Send + Sync + 'static,
) {
    let log = Log::new();
    let fill = log.clone();
    (log, move |_: Conn, why: Disconnect| fill.push(why))
}

pub(crate) fn codes(log: &Log<Error>) -> Vec<&'static str> {
    log.all().iter().map(Error::code).collect()
}

/// A peer that is no client of ours: it sends and sees messages as they are.
pub(crate) struct Peer(pub(crate) Pipe);

pub(crate) fn text(frame: impl Into<String>) -> Message {
    Message::Text(Bytes::from(frame.into()))
}

impl Peer {
    /// Connected, with the server's handle of the connection; `on_connect` may not have ended.
    pub(crate) async fn join(server: &Server) -> (Self, Conn) {
        let (ours, theirs) = pipe();
        let conn = server
            .accept_pipe(http::Request::new(()), ours)
            .await
            .expect("the server lets it in");
        (Self(theirs), conn)
    }

    pub(crate) async fn send(&mut self, frame: impl Into<String>) {
        self.0.send(text(frame)).await.expect("the server is there");
    }

    /// The next message of any kind.
    pub(crate) async fn next(&mut self) -> Message {
        self.0.recv().await.expect("the server is there")
    }

    /// The next message, which must be text.
    pub(crate) async fn frame(&mut self) -> String {
        match self.next().await {
            Message::Text(bytes) => String::from_utf8(bytes.to_vec()).expect("text is UTF-8"),
            other => panic!("{} instead of text", short(&other)),
        }
    }

    /// The close frame; messages before it are passed over.
    pub(crate) async fn close_frame(&mut self) -> Option<(u16, String)> {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame;
            }
        }
    }

    /// Asks and is answered: whatever was sent before has been read.
    pub(crate) async fn is_read(&mut self) {
        self.0
            .send(Message::Ping(Bytes::from_static(b"?")))
            .await
            .expect("the server is there");
        loop {
            if self.next().await == Message::Pong(Bytes::from_static(b"?")) {
                return;
            }
        }
    }

    /// Whether a message can be sent without the other end reading more.
    pub(crate) async fn has_room(&mut self, frame: impl Into<String>) -> bool {
        tokio::time::timeout(Duration::from_millis(1), self.0.send(text(frame)))
            .await
            .is_ok()
    }
}

pub(crate) fn short(message: &Message) -> String {
    let shown = format!("{message:?}");
    shown.chars().take(80).collect()
}

pub(crate) fn closed_with(code: u16, reason: &str) -> Option<(u16, String)> {
    Some((code, reason.to_owned()))
}

/// A server and a client of ours with a wire between them that can be cut.
pub(crate) struct Pair {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) conn: Conn,
    pub(crate) wire: AbortHandle,
}

impl Pair {
    pub(crate) async fn new(server: ServerBuilder, client: ClientBuilder) -> Self {
        let server = server.build().expect("the options can be");
        let (at_server, mut left) = pipe();
        let (mut right, at_client) = pipe();
        let wire = tokio::spawn(async move {
            loop {
                let (to, message) = tokio::select! {
                    message = left.recv() => (&mut right, message),
                    message = right.recv() => (&mut left, message),
                };
                let Some(message) = message else { return };
                if to.send(message).await.is_err() {
                    return;
                }
            }
        });
        let conn = server
            .accept_pipe(http::Request::new(()), at_server)
            .await
            .expect("the server lets it in");
        let client = client.connect_pipe(at_client).await.expect("the client connects");
        Self {
            server,
            client,
            conn,
            wire: wire.abort_handle(),
        }
    }
}

/// A WebSocket handshake as an HTTP library hands it over.
pub(crate) fn handshake() -> http::Request<()> {
    http::Request::get("/ws")
        .header("host", "example.org")
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .expect("the request can be")
}

/// The handshake as bytes, to be written to a socket.
pub(crate) fn handshake_bytes(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

/// The head of an HTTP answer, up to its empty line.
pub(crate) async fn http_head(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

pub(crate) fn status(head: &str) -> u16 {
    head.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

/// A peer that writes bytes: the frames of RFC 6455 by hand.
pub(crate) struct Wire(pub(crate) DuplexStream);

impl Wire {
    pub(crate) async fn join(server: &Server) -> Self {
        let (ours, mut theirs) = duplex(256 * 1024);
        server
            .accept(handshake(), ours, [])
            .await
            .expect("the server lets it in");
        assert_eq!(status(&http_head(&mut theirs).await), 101);
        Self(theirs)
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the server is there");
    }

    /// The next frame: opcode and payload.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        let first = self.0.read_u8().await.expect("the server is there");
        let len = match self.0.read_u8().await.expect("a length") {
            126 => usize::from(self.0.read_u16().await.expect("a length")),
            127 => usize::try_from(self.0.read_u64().await.expect("a length")).expect("a length that fits"),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.0.read_exact(&mut payload).await.expect("a payload");
        (first & 15, payload)
    }

    /// The close frame; frames before it are passed over.
    pub(crate) async fn close_frame(&mut self) -> (u16, String) {
        loop {
            if let (8, payload) = self.frame().await {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return (
                    code,
                    String::from_utf8(payload[2..].to_vec()).expect("a reason is UTF-8"),
                );
            }
        }
    }
}

/// A client's frame; its mask is zero, so the payload stands as it is.
pub(crate) fn raw_frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(fin) << 7 | opcode];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | u8::try_from(len).expect("small")),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(len).expect("small").to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The error that must have come.
pub(crate) fn err<T: Debug>(outcome: Result<T, Error>) -> Error {
    outcome.expect_err("this can't be")
}
