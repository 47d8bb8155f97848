//! What a foreign thread writes to a single connection it writes by itself, while the connection's task sleeps: shown on a runtime
//! that stands still unless a test runs it.
#![cfg(feature = "net")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use etp_ws::handler::{
    BoxFuture, ConnectTicket, DisconnectTicket, Handler, Reply, Ticket, UpgradeTicket, Waiter, Wakes,
};
use etp_ws::{Accept, Conn, Disconnect, Error, Incoming, Payload, Request, Server};
use tokio::runtime::{Builder, Runtime};

/// Far more than anything here takes: past it something hangs.
const HANG: Duration = Duration::from_secs(20);

/// Hands over connections and tickets.
struct Queue {
    conns: Sender<Conn>,
    replies: Sender<Reply>,
}

impl Handler for Queue {
    fn upgrade(&self, _: &Request, ticket: UpgradeTicket) -> Option<BoxFuture> {
        ticket.accept(Accept::new());
        None
    }

    fn connect(&self, conn: &Conn, ticket: ConnectTicket) -> Option<BoxFuture> {
        self.conns.send(conn.clone()).unwrap();
        ticket.complete();
        None
    }

    fn event(&self, _: &Conn, _: Incoming<'_>, ticket: Ticket<'_>) -> Option<BoxFuture> {
        let reply = ticket.into_reply();
        self.replies.send(reply).unwrap();
        None
    }

    fn disconnect(&self, _: &Conn, _: Disconnect, _: DisconnectTicket) -> Option<BoxFuture> {
        None
    }

    fn error(&self, _: Option<&Conn>, _: Error) -> Option<BoxFuture> {
        None
    }
}

/// A server whose runtime stands still, and peers that speak bytes.
struct Stage {
    runtime: Runtime,
    server: Server,
    addr: std::net::SocketAddr,
    conns: Receiver<Conn>,
    replies: Receiver<Reply>,
    wakes: Wakes,
}

impl Stage {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (conns, open) = channel();
        let (replies, events) = channel();
        let (server, addr) = runtime.block_on(async {
            let server = Server::builder()
                .handler(Arc::new(Queue { conns, replies }))
                .build()
                .unwrap();
            let bound = server.bind("127.0.0.1:0").await.unwrap();
            let addr = bound.local_addr().unwrap();
            tokio::spawn(bound.serve());
            (server, addr)
        });
        Self {
            runtime,
            server,
            addr,
            conns: open,
            replies: events,
            wakes: Wakes::default(),
        }
    }

    /// The runtime runs until something is there, and what is due then has had its turn; and stands still again.
    fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            self.runtime
                .block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            if let Some(found) = look() {
                self.runtime.block_on(async {
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                });
                return found;
            }
            assert!(began.elapsed() < HANG, "it never came");
        }
    }

    fn peer(&self) -> (Conn, Peer) {
        let mut socket = TcpStream::connect(self.addr).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.addr
        );
        socket.write_all(request.as_bytes()).unwrap();
        let conn = self.until(|| self.conns.try_recv().ok());
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        (conn, Peer(socket))
    }

    /// Writes as a foreign thread does, and lets go.
    fn writing(&self, write: impl FnOnce()) {
        let held = self.wakes.hold();
        write();
        drop(held);
        self.wakes.release_on(self.runtime.handle());
    }
}

struct Peer(TcpStream);

impl Peer {
    /// The next text frame, short or long.
    fn text(&mut self) -> String {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x81, "a whole text frame");
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.0.read_exact(&mut len).unwrap();
                usize::from(u16::from_be_bytes(len))
            }
            len => usize::from(len),
        };
        let mut text = vec![0; len];
        self.0.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Sends a short text frame, masked with zeros.
    fn send(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).unwrap();
    }

    fn has_some(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let some = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        match some {
            Ok(len) => len > 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn has_nothing(&self) {
        assert!(!self.has_some());
    }
}

#[test]
fn emits_and_replies_to_one_connection_need_no_turn_of_the_runtime() {
    let stage = Stage::new();
    let (conn, mut peer) = stage.peer();
    let before = stage.server.stats();
    stage.writing(|| {
        conn.emit("a", "1").unwrap();
        conn.emit("b", "2").unwrap();
    });
    assert_eq!(peer.text(), "a||0||1");
    assert_eq!(peer.text(), "b||0||2");

    peer.send("echo||7||x");
    let reply = stage.until(|| stage.replies.try_recv().ok());
    stage.writing(|| reply.send("y"));
    assert_eq!(peer.text(), "__ack_echo||7||y");

    stage.writing(|| {
        stage.server.emit("all", "3").unwrap();
    });
    assert_eq!(peer.text(), "all||0||3");

    let after = stage.server.stats();
    assert_eq!(after.messages_out - before.messages_out, 4);
    assert_eq!(
        after.bytes_out - before.bytes_out,
        (2 + "a||0||1".len() + 2 + "b||0||2".len() + 2 + "__ack_echo||7||y".len() + 2 + "all||0||3".len()) as u64
    );
    assert_eq!((after.bytes_queued, after.handlers_in_flight), (0, 0));

    // Its task finds nothing left to do, and counts nothing twice.
    peer.send("echo||8||x");
    let _reply = stage.until(|| stage.replies.try_recv().ok());
    assert_eq!(stage.server.stats().messages_out, after.messages_out);
    assert_eq!(stage.server.stats().bytes_out, after.bytes_out);
}

#[test]
fn what_goes_to_several_connections_the_runtime_writes_and_every_one_gets_it_once() {
    let stage = Stage::new();
    // More than are written to in one row.
    let mut peers: Vec<_> = (0..150).map(|_| stage.peer()).collect();
    let before = stage.server.stats();
    stage.writing(|| {
        for (number, (conn, _)) in peers.iter().enumerate() {
            conn.emit("own", number.to_string()).unwrap();
        }
        stage.server.emit("all", "x").unwrap();
        // One is to be closed as well, which its task alone does.
        peers[70].0.close();
    });
    for (_, peer) in &peers {
        peer.has_nothing();
    }
    stage.until(|| peers.iter().all(|(_, peer)| peer.has_some()).then_some(()));
    for (number, (_, peer)) in peers.iter_mut().enumerate() {
        assert_eq!(peer.text(), format!("own||0||{number}"));
        assert_eq!(peer.text(), "all||0||x");
        if number == 70 {
            let mut close = [0; 4];
            peer.0.read_exact(&mut close).unwrap();
            assert_eq!(close, [0x88, 2, 3, 232]);
        }
        peer.has_nothing();
    }
    let after = stage.server.stats();
    assert_eq!(after.messages_out - before.messages_out, 301);
    assert_eq!(after.bytes_queued, 0);
}

#[test]
fn what_is_held_back_briefly_gathers_with_the_rest() {
    let stage = Stage::new();
    let mut peers: Vec<_> = (0..4).map(|_| stage.peer()).collect();
    let emit = |at: usize| peers[at].0.emit("n", at.to_string()).unwrap();
    let outer = stage.wakes.hold();
    emit(0);
    let brief = stage.wakes.hold_briefly();
    emit(1);
    let elsewhere = Wakes::default();
    let inner = elsewhere.hold_briefly();
    emit(2);
    drop(inner);
    assert!(!elsewhere.is_empty());
    drop(brief);
    emit(3);
    drop(outer);
    // A guard that is held still does not hide what it has from its own thread.
    let brief = stage.wakes.hold_briefly();
    stage.wakes.release_on(stage.runtime.handle());
    drop(brief);
    stage.until(|| [0, 1, 3].iter().all(|at| peers[*at].1.has_some()).then_some(()));
    assert!(stage.wakes.is_empty());
    peers[2].1.has_nothing();
    elsewhere.release_on(stage.runtime.handle());
    for (at, (_, peer)) in peers.iter_mut().enumerate() {
        assert_eq!(peer.text(), format!("n||0||{at}"));
        peer.has_nothing();
    }
}

#[test]
fn what_has_a_deadline_wakes_the_task() {
    let stage = Stage::new();
    let (conn, mut peer) = stage.peer();
    let (told, outcome) = channel();
    stage.writing(|| {
        conn.emit("before", "").unwrap();
        let waiter = Waiter::call(move |outcome: Result<Payload, Error>| told.send(outcome).unwrap());
        conn.emit_with_ack_to("ask", b"", true, Some(Duration::from_millis(20)), waiter)
            .unwrap();
    });
    peer.has_nothing();
    stage.until(|| peer.has_some().then_some(()));
    assert_eq!(peer.text(), "before||0||");
    assert!(peer.text().starts_with("ask||1||"));
    // Nothing else wakes the task: it has set its timer.
    let error = stage.until(|| outcome.try_recv().ok()).unwrap_err();
    assert_eq!(error.kind(), etp_ws::ErrorKind::AckTimeout);
}

#[test]
fn what_the_socket_does_not_take_the_task_sends_in_order() {
    let stage = Stage::new();
    let (conn, mut peer) = stage.peer();
    let text = |number: usize| format!("{number:06}{}", "x".repeat(8_000));
    // The runtime stands still, so what the socket takes was written from here; then some is left.
    let mut sent = 0;
    while stage.server.stats().bytes_queued == 0 {
        stage.writing(|| conn.emit("n", text(sent)).unwrap());
        sent += 1;
        assert!(sent < 10_000, "80 MB fit into the sockets' buffers");
    }
    assert!(sent > 1);
    for _ in 0..5 {
        stage.writing(|| conn.emit("n", text(sent)).unwrap());
        sent += 1;
    }
    let reader = std::thread::spawn(move || {
        for number in 0..sent {
            assert_eq!(peer.text(), format!("n||0||{}", text(number)));
        }
        peer
    });
    stage.until(|| reader.is_finished().then_some(()));
    let peer = reader.join().unwrap();
    peer.has_nothing();
    assert_eq!(stage.server.stats().bytes_queued, 0);
}

/// Whether this process holds the server's side of a peer's connection.
#[cfg(target_os = "linux")]
fn holds(inode: &str) -> bool {
    let of = format!("socket:[{inode}]");
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target.to_string_lossy() == of)
}

/// The inode of the socket between these ports, as the kernel lists it.
#[cfg(target_os = "linux")]
fn inode(local: u16, remote: u16) -> String {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ends = (format!(":{local:04X}"), format!(":{remote:04X}"));
    let row = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|row| row[1].ends_with(&ends.0) && row[2].ends_with(&ends.1));
    row.unwrap()[9].to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_that_has_ended_lets_go_of_its_socket_though_its_handle_lives() {
    let stage = Stage::new();
    let (conn, mut peer) = stage.peer();
    let inode = inode(stage.addr.port(), peer.0.local_addr().unwrap().port());
    assert!(holds(&inode));
    stage.writing(|| conn.emit("a", "1").unwrap());
    assert_eq!(peer.text(), "a||0||1");
    // A close frame without a code, masked with zeros.
    peer.0.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    stage.until(|| peer.has_some().then_some(()));
    let mut close = [0; 2];
    peer.0.read_exact(&mut close).unwrap();
    assert_eq!(close, [0x88, 0]);
    drop(peer);
    stage.until(|| (!holds(&inode)).then_some(()));
    stage.writing(|| {
        conn.emit("late", "").unwrap_err();
    });
}

#[test]
fn large_events_in_flight_count_by_bytes() {
    const LEN: usize = 60_000;
    const SENT: usize = 200;
    let stage = Stage::new();
    let (_conn, peer) = stage.peer();
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&u16::try_from(LEN).unwrap().to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(b"echo||7||");
    frame.resize(frame.len() + LEN - 9, b'x');
    let mut socket = peer.0.try_clone().unwrap();
    let writer = std::thread::spawn(move || (0..SENT).for_each(|_| socket.write_all(&frame).unwrap()));
    // Twice `max_outbox`, which is 4 MiB, and the event that passes it.
    let most = (2 * 4 * 1024 * 1024) / LEN + 1;
    let mut tickets = Vec::new();
    stage.until(|| {
        tickets.extend(stage.replies.try_iter());
        (tickets.len() >= most).then_some(())
    });
    stage.until(|| Some(()));
    tickets.extend(stage.replies.try_iter());
    assert_eq!(tickets.len(), most, "of {SENT}, and max_inflight is 256");
    let mut handled = tickets.len();
    tickets.drain(..).for_each(Reply::no_handler);
    stage.until(|| {
        let more: Vec<_> = stage.replies.try_iter().collect();
        handled += more.len();
        more.into_iter().for_each(Reply::no_handler);
        (handled == SENT).then_some(())
    });
    writer.join().unwrap();
}
