//! The ceiling: a server that does nothing but what the generator makes it do. It reads a wake's worth of requests, copies
//! each into its reply, and writes once per connection; no routing, limits, keepalive, tasks or checks. What it costs is
//! nearly the kernel's price of the traffic, and the rate that it reaches is the generator's own limit.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::wire;

/// The argument that makes the benchmark's program this server.
pub(crate) const ARGUMENT: &str = "serve-ceiling";

const LISTENER: u64 = u64::MAX;

struct Conn {
    stream: TcpStream,
    open: bool,
    closing: bool,
    member: bool,
    rest: Vec<u8>,
    out: Vec<u8>,
}

struct Ceiling {
    epoll: Epoll,
    listener: TcpListener,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    members: Vec<usize>,
    /// Replies of `slow` by the time at which they are due. All wait equally long, so the first is due first.
    slow: VecDeque<(Instant, usize, Vec<u8>)>,
    dirty: Vec<usize>,
    scratch: Vec<u8>,
}

/// Serves until it is ended by a signal.
pub(crate) fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    println!("LISTENING ws://{}/ws", listener.local_addr()?);
    let mut server = Ceiling {
        epoll,
        listener,
        conns: Vec::new(),
        free: Vec::new(),
        members: Vec::new(),
        slow: VecDeque::new(),
        dirty: Vec::new(),
        scratch: vec![0; 256 * 1_024],
    };
    let mut events = vec![EpollEvent::empty(); 1_024];
    loop {
        let timeout = match server.slow.front() {
            None => EpollTimeout::NONE,
            Some((due, ..)) => due.saturating_duration_since(Instant::now()).as_millis().try_into()?,
        };
        let ready = server.epoll.wait(&mut events, timeout)?;
        for event in &events[..ready] {
            match event.data() {
                LISTENER => server.accept()?,
                conn => server.ready(conn as usize)?,
            }
        }
        server.reply_slow();
        server.flush();
    }
}

impl Ceiling {
    fn accept(&mut self) -> Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let at = self.free.pop().unwrap_or_else(|| {
                self.conns.push(None);
                self.conns.len() - 1
            });
            let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
            self.epoll.add(&stream, EpollEvent::new(interest, at as u64))?;
            let conn = Conn {
                stream,
                open: false,
                closing: false,
                member: false,
                rest: Vec::new(),
                out: Vec::new(),
            };
            self.conns[at] = Some(conn);
        }
    }

    fn ready(&mut self, at: usize) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = self.read(at, &mut scratch);
        self.scratch = scratch;
        if !read? {
            self.end(at);
        }
        Ok(())
    }

    fn end(&mut self, at: usize) {
        if let Some(conn) = self.conns[at].take() {
            if conn.member {
                self.members.retain(|member| *member != at);
            }
            self.free.push(at);
        }
    }

    /// Reads and answers until the socket is empty. False: the connection has ended.
    fn read(&mut self, at: usize, scratch: &mut [u8]) -> Result<bool> {
        loop {
            let Some(conn) = &mut self.conns[at] else {
                return Ok(true);
            };
            // Bytes that the socket did not take earlier go first.
            if !conn.out.is_empty() {
                self.dirty.push(at);
            }
            let kept = conn.rest.len();
            scratch[..kept].copy_from_slice(&conn.rest);
            let got = match conn.stream.read(&mut scratch[kept..]) {
                Ok(0) => return Ok(false),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(_) => return Ok(false),
            };
            let bytes = &mut scratch[..kept + got];
            conn.rest.clear();
            let mut done = 0;
            if !conn.open {
                let Some(length) = wire::head_length(bytes) else {
                    conn.rest.extend_from_slice(bytes);
                    continue;
                };
                conn.open = true;
                done = length;
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                    wire::ACCEPT
                );
                conn.out.extend_from_slice(answer.as_bytes());
                self.dirty.push(at);
            }
            while let Some(frame) = wire::frame(&bytes[done..])? {
                let payload = &mut bytes[done + frame.start..done + frame.end];
                if let Some(mask) = frame.mask {
                    wire::unmask(payload, mask);
                }
                self.answer(at, frame.opcode, payload);
                done += frame.end;
            }
            if let Some(conn) = &mut self.conns[at] {
                conn.rest.extend_from_slice(&bytes[done..]);
            }
            if got < scratch.len() - kept {
                return Ok(true);
            }
        }
    }

    fn answer(&mut self, at: usize, opcode: u8, payload: &[u8]) {
        let Some(conn) = &mut self.conns[at] else {
            return;
        };
        if conn.out.is_empty() {
            self.dirty.push(at);
        }
        if opcode == wire::CLOSE {
            wire::write_head(wire::CLOSE, payload.len(), false, &mut conn.out);
            conn.out.extend_from_slice(payload);
            conn.closing = true;
        } else if payload.starts_with(b"echo||") {
            wire::write_head(wire::TEXT, 6 + payload.len(), false, &mut conn.out);
            conn.out.extend_from_slice(b"__ack_");
            conn.out.extend_from_slice(payload);
        } else if let Some(rest) = payload.strip_prefix(b"slow||") {
            let (id, milliseconds) = id_and_number(rest);
            let due = Instant::now() + Duration::from_millis(milliseconds);
            self.slow
                .push_back((due, at, format!("__ack_slow||{id}||done").into_bytes()));
        } else if let Some(rest) = payload.strip_prefix(b"join||") {
            let (id, _) = id_and_number(rest);
            conn.member = true;
            self.members.push(at);
            let reply = format!("__ack_join||{id}||{}", self.members.len());
            wire::write_head(wire::TEXT, reply.len(), false, &mut conn.out);
            conn.out.extend_from_slice(reply.as_bytes());
        } else if let Some(rest) = payload.strip_prefix(b"shout||") {
            let (id, _) = id_and_number(rest);
            let reply = format!("__ack_shout||{id}||{}", self.members.len());
            wire::write_head(wire::TEXT, reply.len(), false, &mut conn.out);
            conn.out.extend_from_slice(reply.as_bytes());
            let data = rest.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
            let mut delivery = Vec::new();
            wire::write_head(wire::TEXT, 10 + data.len(), false, &mut delivery);
            delivery.extend_from_slice(b"shout||0||");
            delivery.extend_from_slice(data);
            for member in &self.members {
                let Some(conn) = &mut self.conns[*member] else {
                    continue;
                };
                if conn.out.is_empty() {
                    self.dirty.push(*member);
                }
                conn.out.extend_from_slice(&delivery);
            }
        }
    }

    fn reply_slow(&mut self) {
        if self.slow.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.slow.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, at, reply)) = self.slow.pop_front() else {
                return;
            };
            let Some(conn) = &mut self.conns[at] else {
                continue;
            };
            if conn.out.is_empty() {
                self.dirty.push(at);
            }
            wire::write_head(wire::TEXT, reply.len(), false, &mut conn.out);
            conn.out.extend_from_slice(&reply);
        }
    }

    fn flush(&mut self) {
        while let Some(at) = self.dirty.pop() {
            let Some(conn) = &mut self.conns[at] else {
                continue;
            };
            if conn.out.is_empty() {
                continue;
            }
            let ended = match conn.stream.write(&conn.out) {
                Ok(written) => {
                    conn.out.drain(..written);
                    conn.closing && conn.out.is_empty()
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if ended {
                self.end(at);
            }
        }
    }
}

/// `<id>||<number>`, as far as it is there.
fn id_and_number(bytes: &[u8]) -> (u64, u64) {
    let Some((id, rest)) = wire::leading_number(bytes) else {
        return (0, 0);
    };
    let number = rest.strip_prefix(b"||").and_then(wire::leading_number);
    (id, number.map_or(0, |(number, _)| number))
}
