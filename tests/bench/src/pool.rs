//! The generator's connections: non-blocking sockets behind one edge-triggered epoll, in one thread. A wake reads all that
//! a connection has, gives its messages to the load, and writes what the load answers in one call. It decides nothing
//! about the traffic; that is the [`Load`]'s.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::dialect::Dialect;
use crate::wire;

/// Handshakes under way at a time while many connections are dialled: fewer than any listener's backlog.
const DIALS: usize = 64;

/// How long a server may say nothing at all while something is outstanding.
const STALLED: u64 = 10_000_000_000;

/// What is done with connections, and what is counted. Times are nanoseconds of the pool's clock.
pub(crate) trait Load {
    /// A connection's handshake is done, and its dialect's opening.
    fn opened(&mut self, _conn: usize, _out: &mut Outgoing) {}

    /// A message has come.
    fn message(&mut self, conn: usize, message: &[u8], now: u64) -> Result<()>;

    /// The answer to a ping has come.
    fn pong(&mut self, _conn: usize, payload: &[u8], _now: u64) -> Result<()> {
        bail!("a pong that nobody asked for: {}", wire::shown(payload))
    }

    /// All messages that came at once have been told.
    fn batch_ended(&mut self, _conn: usize, _out: &mut Outgoing, _clock: &Clock) {}

    /// A connection dialled at `dialled` has ended; without a close frame there is no code.
    fn closed(&mut self, _conn: usize, code: Option<u16>, _dialled: u64, _now: u64) -> Result<()> {
        match code {
            Some(code) => bail!("the server closed a connection with code {code}"),
            None => bail!("the server cut a connection"),
        }
    }
}

/// Nanoseconds since the pool was made.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// How the generator waits for its sockets.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wait {
    /// It sleeps, and whoever writes to it pays for waking it.
    Sleep,
    /// It stays awake and asks again, so that no server pays for waking it: but not sooner than so many nanoseconds after
    /// it last asked, or it would answer each message by itself and starve both sides of batches that a busy network gives.
    Spin { pace: u64 },
}

/// What is to be written, by connection.
pub(crate) struct Outgoing {
    queues: Vec<Vec<u8>>,
    dirty: Vec<usize>,
}

impl Outgoing {
    /// For loads without sockets.
    #[cfg(test)]
    pub(crate) fn of(conns: usize) -> Self {
        Self {
            queues: vec![Vec::new(); conns],
            dirty: Vec::new(),
        }
    }

    /// The bytes that wait for a connection, to append to.
    pub(crate) fn queue(&mut self, conn: usize) -> &mut Vec<u8> {
        let queue = &mut self.queues[conn];
        // One that holds bytes already is on the list, or waits for its socket to take more.
        if queue.is_empty() {
            self.dirty.push(conn);
        }
        queue
    }
}

/// How far a connection is.
#[derive(PartialEq)]
enum Stage {
    /// The handshake is under way.
    Upgrading,
    /// The opening of its dialect is.
    Opening,
    Open,
}

struct Conn {
    stream: TcpStream,
    stage: Stage,
    close_code: Option<u16>,
    dialled: u64,
    /// The unfinished frame or handshake answer at the end of what was read.
    rest: Vec<u8>,
}

pub(crate) struct Pool {
    target: SocketAddr,
    dialect: Dialect,
    request: String,
    epoll: Epoll,
    events: Vec<EpollEvent>,
    conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    opening: usize,
    out: Outgoing,
    scratch: Vec<u8>,
    clock: Clock,
    wait: Wait,
    /// When the sockets were last asked.
    polled: u64,
    waited: u64,
    heard: u64,
}

impl Pool {
    /// Connections to `target`, which speaks `dialect`; each is opened with the HTTP request `request`.
    pub(crate) fn new(target: SocketAddr, dialect: Dialect, request: String) -> Result<Self> {
        Ok(Self {
            target,
            dialect,
            request,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("epoll_create")?,
            events: vec![EpollEvent::empty(); 1_024],
            conns: Vec::new(),
            free: Vec::new(),
            opening: 0,
            out: Outgoing {
                queues: Vec::new(),
                dirty: Vec::new(),
            },
            scratch: vec![0; 256 * 1_024],
            clock: Clock::start(),
            wait: Wait::Sleep,
            polled: 0,
            waited: 0,
            heard: 0,
        })
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn outgoing(&mut self) -> (&mut Outgoing, &Clock) {
        (&mut self.out, &self.clock)
    }

    /// Nanoseconds spent waiting in vain so far.
    pub(crate) fn waited(&self) -> u64 {
        self.waited
    }

    pub(crate) fn set_wait(&mut self, wait: Wait) {
        self.wait = wait;
    }

    /// Connections that live, those whose handshake is under way included.
    pub(crate) fn len(&self) -> usize {
        self.conns.len() - self.free.len()
    }

    /// Dials until there are `count` open connections. They are numbered in the order of dialling, from 0.
    pub(crate) fn dial_up_to(&mut self, count: usize, load: &mut impl Load) -> Result<()> {
        while self.len() < count || self.opening > 0 {
            while self.len() < count && self.opening < DIALS {
                self.dial()?;
            }
            let now = self.turn(load)?;
            self.check_alive(now, self.opening)?;
        }
        Ok(())
    }

    /// Begins one connection; the load is told when it is open.
    pub(crate) fn dial(&mut self) -> Result<()> {
        let dialled = self.clock.now();
        // On loopback this returns as soon as the listener's queue has room.
        let stream = TcpStream::connect(self.target).with_context(|| format!("connecting to {}", self.target))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let conn = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.out.queues.push(Vec::new());
            self.conns.len() - 1
        });
        let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.epoll
            .add(&stream, EpollEvent::new(interest, conn as u64))
            .context("epoll_ctl")?;
        self.conns[conn] = Some(Conn {
            stream,
            stage: Stage::Upgrading,
            close_code: None,
            dialled,
            rest: Vec::new(),
        });
        self.opening += 1;
        self.heard = dialled;
        self.out.queue(conn).extend_from_slice(self.request.as_bytes());
        self.flush_dirty()
    }

    /// Waits for sockets once (at most 20 ms; not at all when spinning) and does all that they are ready for.
    /// Returns the time after the wait.
    pub(crate) fn turn(&mut self, load: &mut impl Load) -> Result<u64> {
        self.flush_dirty()?;
        let before = self.clock.now();
        let mut asked = before;
        if let Wait::Spin { pace } = self.wait {
            while asked - self.polled < pace {
                std::hint::spin_loop();
                asked = self.clock.now();
            }
        }
        let timeout = match self.wait {
            Wait::Spin { .. } => EpollTimeout::ZERO,
            Wait::Sleep => EpollTimeout::from(20u8),
        };
        let ready = self.epoll.wait(&mut self.events, timeout).context("epoll_wait")?;
        let after = self.clock.now();
        if ready == 0 || self.wait == Wait::Sleep {
            self.waited += after - before;
        } else {
            self.waited += asked - before;
        }
        self.polled = after;
        if ready > 0 {
            self.heard = after;
        }
        for at in 0..ready {
            let (flags, conn) = (self.events[at].events(), self.events[at].data() as usize);
            if flags.contains(EpollFlags::EPOLLOUT) {
                self.flush(conn)?;
            }
            if flags.intersects(!EpollFlags::EPOLLOUT) {
                self.receive(
                    conn,
                    flags.intersects(!(EpollFlags::EPOLLOUT | EpollFlags::EPOLLIN)),
                    load,
                )
                .with_context(|| format!("on connection {conn}"))?;
                self.flush_dirty()?;
            }
        }
        Ok(after)
    }

    /// Fails when no connection has been ready for anything for ten seconds.
    pub(crate) fn check_alive(&self, now: u64, outstanding: usize) -> Result<()> {
        ensure!(
            now.saturating_sub(self.heard) < STALLED,
            "the server has sent nothing for 10 s; {outstanding} outstanding"
        );
        Ok(())
    }

    /// Reads all that a connection has. `ending`: go on until its end, as one end of file is announced only once.
    fn receive(&mut self, conn: usize, ending: bool, load: &mut impl Load) -> Result<()> {
        // Closed since this event was reported.
        let Some(Some(held)) = self.conns.get_mut(conn) else {
            return Ok(());
        };
        loop {
            let kept = held.rest.len();
            if self.scratch.len() < kept + 64 * 1_024 {
                self.scratch.resize(kept + 64 * 1_024, 0);
            }
            self.scratch[..kept].copy_from_slice(&held.rest);
            held.rest.clear();
            let room = self.scratch.len() - kept;
            let got = match held.stream.read(&mut self.scratch[kept..]) {
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    held.rest.extend_from_slice(&self.scratch[..kept]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(anyhow!(error).context("reading")),
            };
            let now = self.clock.now();
            if got == 0 {
                let (code, dialled) = (held.close_code, held.dialled);
                ensure!(held.stage == Stage::Open, "the connection was cut during its handshake");
                self.conns[conn] = None;
                self.out.queues[conn].clear();
                self.free.push(conn);
                return load.closed(conn, code, dialled, now);
            }
            let bytes = &self.scratch[..kept + got];
            let mut at = 0;
            if held.stage == Stage::Upgrading {
                let Some(length) = wire::head_length(bytes) else {
                    held.rest.extend_from_slice(bytes);
                    continue;
                };
                wire::check_answer(&bytes[..length])?;
                at = length;
                held.stage = Stage::Opening;
                if self.dialect.opens_at_once() {
                    held.stage = Stage::Open;
                    self.opening -= 1;
                    load.opened(conn, &mut self.out);
                }
            }
            let mut messages = false;
            while let Some(frame) = wire::frame(&bytes[at..])? {
                let payload = &bytes[at + frame.start..at + frame.end];
                match frame.opcode {
                    wire::TEXT | wire::BINARY if held.stage == Stage::Opening => match self.dialect.opening(payload)? {
                        Some(answer) => wire::write_client_frame(wire::TEXT, answer, self.out.queue(conn)),
                        None => {
                            held.stage = Stage::Open;
                            self.opening -= 1;
                            load.opened(conn, &mut self.out);
                        }
                    },
                    wire::TEXT | wire::BINARY => match self.dialect.keepalive(payload) {
                        Some(answer) => wire::write_client_frame(wire::TEXT, answer, self.out.queue(conn)),
                        None => {
                            messages = true;
                            load.message(conn, payload, now)?;
                        }
                    },
                    wire::PONG => load.pong(conn, payload, now)?,
                    wire::PING => wire::write_client_frame(wire::PONG, payload, self.out.queue(conn)),
                    wire::CLOSE => {
                        held.close_code = Some(match payload {
                            [a, b, ..] => u16::from_be_bytes([*a, *b]),
                            _ => 1005,
                        });
                    }
                    other => bail!("a frame with opcode {other}"),
                }
                at += frame.end;
            }
            held.rest.extend_from_slice(&bytes[at..]);
            if messages {
                load.batch_ended(conn, &mut self.out, &self.clock);
            }
            // Less than there was room for: the socket is empty, and a new edge will tell of more.
            if got < room && !ending {
                return Ok(());
            }
        }
    }

    fn flush_dirty(&mut self) -> Result<()> {
        while let Some(conn) = self.out.dirty.pop() {
            self.flush(conn)?;
        }
        Ok(())
    }

    /// Writes what waits for a connection, as far as its socket takes it.
    fn flush(&mut self, conn: usize) -> Result<()> {
        let queue = &mut self.out.queues[conn];
        if queue.is_empty() {
            return Ok(());
        }
        let Some(held) = &mut self.conns[conn] else {
            queue.clear();
            return Ok(());
        };
        match held.stream.write(queue) {
            Ok(written) if written == queue.len() => queue.clear(),
            Ok(written) => drop(queue.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                return Err(anyhow!(error).context(format!("writing on connection {conn}")));
            }
        }
        Ok(())
    }
}
