//! What the tests share: an echo, a peer that writes bytes by hand, and the errors that a server reports.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use etp_ws::websocket::{Decoder, DecoderConfig, FrameHead, Item, Opcode, Role, close_payload, mask, write_head};
use etp_ws::{Bytes, Conn, Disconnect, Error, Server, ServerBuilder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The key and its answer of RFC 6455, 1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A server that answers `echo` with what it got.
pub(crate) fn echo() -> ServerBuilder {
    Server::builder().on("echo", async |_: Conn, data: Bytes| data)
}

/// A server on a loopback port of its own.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) url: String,
    pub(crate) address: String,
    serving: JoinHandle<Result<(), Error>>,
}

impl Running {
    pub(crate) async fn dial(&self) -> Peer<TcpStream> {
        Peer::new(TcpStream::connect(&self.address).await.unwrap())
    }

    /// Sends one request and answers what came back.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        let mut peer = self.dial().await;
        peer.send(request).await;
        peer.answer().await
    }

    pub(crate) async fn shutdown(self) {
        self.server.shutdown().await;
        self.serving.await.unwrap().unwrap();
    }
}

pub(crate) async fn run(builder: ServerBuilder) -> Running {
    run_at(builder, "127.0.0.1:0").await
}

pub(crate) async fn run_at(builder: ServerBuilder, address: &str) -> Running {
    let server = builder.build().unwrap();
    let bound = server.bind(address).await.unwrap();
    Running {
        url: bound.url(),
        address: format!("127.0.0.1:{}", bound.local_addr().unwrap().port()),
        serving: tokio::spawn(bound.serve()),
        server,
    }
}

/// What `on_error` was told, in order.
pub(crate) struct Errors(mpsc::UnboundedReceiver<Error>);

impl Errors {
    pub(crate) async fn next(&mut self) -> Error {
        self.0.recv().await.expect("the server lives")
    }
}

pub(crate) fn with_errors(builder: ServerBuilder) -> (ServerBuilder, Errors) {
    let (sender, errors) = mpsc::unbounded_channel();
    let builder = builder.on_error(move |_: Option<Conn>, error: Error| {
        let _ = sender.send(error);
    });
    (builder, Errors(errors))
}

/// What `on_disconnect` was told.
pub(crate) fn with_ends(builder: ServerBuilder) -> (ServerBuilder, mpsc::UnboundedReceiver<Disconnect>) {
    let (sender, ends) = mpsc::unbounded_channel();
    let builder = builder.on_disconnect(move |_: Conn, end: Disconnect| {
        let _ = sender.send(end);
    });
    (builder, ends)
}

/// A handshake of the path `/ws` with these further header lines; `Host` is added unless one of them is it.
pub(crate) fn upgrade(lines: &[&str]) -> String {
    handshake("GET /ws HTTP/1.1", lines)
}

pub(crate) fn handshake(first: &str, lines: &[&str]) -> String {
    let mut request = format!("{first}\r\n");
    let own = [
        ("host:", "Host: localhost"),
        ("upgrade:", "Upgrade: websocket"),
        ("connection:", "Connection: Upgrade"),
        ("sec-websocket-key:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version:", "Sec-WebSocket-Version: 13"),
    ];
    for (name, line) in own {
        if !lines.iter().any(|line| line.to_ascii_lowercase().starts_with(name)) {
            request += line;
            request += "\r\n";
        }
    }
    // An empty value leaves the header out.
    for line in lines.iter().filter(|line| !line.ends_with(": ")) {
        request += line;
        request += "\r\n";
    }
    request + "\r\n"
}

/// A frame as a client writes it.
pub(crate) fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [9, 8, 7, 6];
    let mut bytes = Vec::new();
    write_head(
        &mut bytes,
        &FrameHead {
            fin,
            rsv1: false,
            opcode,
            mask: Some(key),
            len: payload.len(),
        },
    );
    let at = bytes.len();
    bytes.extend_from_slice(payload);
    mask(key, 0, &mut bytes[at..]);
    bytes
}

pub(crate) fn text(payload: &str) -> Vec<u8> {
    frame(true, Opcode::Text, payload.as_bytes())
}

pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(true, Opcode::Close, &close_payload(code, reason))
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers, names in lower case.
    head: Vec<String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn whole(&self) -> String {
        self.head.join("\n")
    }
}

/// One message from a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Data {
        binary: bool,
        bytes: Vec<u8>,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    /// The stream has ended.
    End,
}

/// The other end of a connection, with everything written and read by hand.
pub(crate) struct Peer<IO> {
    pub(crate) io: IO,
    read: Vec<u8>,
    decoder: Decoder,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Peer<IO> {
    pub(crate) fn new(io: IO) -> Self {
        let decoder = Decoder::new(DecoderConfig {
            role: Role::Client,
            max_message_size: 16 << 20,
            max_overhead: 1 << 20,
            allow_rsv1: false,
            check_masks: true,
        });
        Self {
            io,
            read: Vec::new(),
            decoder,
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// False at the end of the stream.
    async fn fill(&mut self) -> bool {
        self.io.read_buf(&mut self.read).await.unwrap() > 0
    }

    /// Reads an HTTP answer; what follows a 101 stays for [`next`](Self::next).
    pub(crate) async fn answer(&mut self) -> Answer {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => assert!(
                    self.fill().await,
                    "no whole answer: {:?}",
                    String::from_utf8_lossy(&self.read)
                ),
            }
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let head: Vec<String> = head
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
                None => line.to_owned(),
            })
            .collect();
        let mut answer = Answer {
            status: head[0].split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::new(),
        };
        if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap();
            while self.read.len() < length {
                assert!(self.fill().await, "half a body");
            }
            answer.body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        }
        answer
    }

    /// Makes the handshake.
    pub(crate) async fn upgrade(&mut self) -> Answer {
        self.send(upgrade(&[])).await;
        let answer = self.answer().await;
        assert_eq!(answer.status, 101, "{answer:?}");
        answer
    }

    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let mut input = &mut self.read[..];
            let item = self.decoder.decode(&mut input).unwrap();
            let left = input.len();
            let message = item.map(|item| match item {
                Item::Message { binary, data, .. } => Message::Data {
                    binary,
                    bytes: data.to_vec(),
                },
                Item::Ping(data) => Message::Ping(data.to_vec()),
                Item::Pong(data) => Message::Pong(data.to_vec()),
                Item::Close(Some(frame)) => Message::Close(frame.code, frame.reason.into_owned()),
                Item::Close(None) => Message::Close(1005, String::new()),
            });
            self.read.drain(..self.read.len() - left);
            match message {
                Some(message) => return message,
                None if !self.fill().await => return Message::End,
                None => {}
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Message::Data { binary: false, bytes } => String::from_utf8(bytes).unwrap(),
            other => panic!("not a text message: {other:?}"),
        }
    }

    /// Waits for the end of the stream, after nothing but what has been read.
    pub(crate) async fn ended(&mut self) {
        // A reset is an end as well.
        let read = self.io.read_buf(&mut self.read).await.unwrap_or(0);
        assert_eq!(read, 0, "{:?}", String::from_utf8_lossy(&self.read));
    }
}

/// A directory of its own, removed in the end.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "etp-ws-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An ignored test of this binary as a process of its own.
pub(crate) fn child(test: &str) -> Vec<String> {
    let program = std::env::current_exe().unwrap();
    [
        program.to_str().unwrap(),
        "--exact",
        test,
        "--ignored",
        "--nocapture",
        "--test-threads=2",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Whether an error's text says all of this.
pub(crate) fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

pub(crate) fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}
