//! A message transport in memory: two ends, each a bounded queue of messages to the other.
//!
//! It takes the socket's place in tests and wherever somebody else speaks WebSocket to the peer (an ASGI server, for example).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use crate::limits::Limits;
use crate::net::outbox::Writing;
use crate::net::transport::{Read, Transport};
use crate::websocket::{CloseFrame, Data, Item, Opcode, Violation, is_sendable_close_code, is_text, parse_frame};

/// Bytes that may wait in one direction; one message always may.
const CAPACITY: usize = 64 * 1024;

/// One WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message; its bytes should be valid UTF-8 (others close with 1007).
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping with its payload.
    Ping(Bytes),
    /// A pong with its payload.
    Pong(Bytes),
    /// A close frame: code and reason, where there are any.
    Close(Option<(u16, String)>),
}

impl Message {
    fn len(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Close(_) => 0,
        }
    }
}

/// One end of an in-memory connection. Dropping it ends the connection without a close frame.
#[derive(Debug)]
pub struct Pipe {
    incoming: Arc<Half>,
    outgoing: Arc<Half>,
    closing: bool,
}

/// Two connected ends.
pub fn pipe() -> (Pipe, Pipe) {
    let (a, b) = (Arc::<Half>::default(), Arc::<Half>::default());
    let end = |incoming: &Arc<Half>, outgoing: &Arc<Half>| Pipe {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        closing: false,
    };
    (end(&a, &b), end(&b, &a))
}

/// One direction.
#[derive(Debug, Default)]
struct Half(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Half {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut queue = self.lock();
        queue.ended = true;
        let wakers = [queue.reader.take(), queue.writer.take()];
        drop(queue);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut queue = self.lock();
        if queue.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if queue.bytes >= CAPACITY {
            queue.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn push(&self, message: Message) {
        let mut queue = self.lock();
        queue.bytes += message.len();
        queue.messages.push_back(message);
        let reader = queue.reader.take();
        drop(queue);
        if let Some(waker) = reader {
            waker.wake();
        }
    }

    fn pop(&self) -> Option<Message> {
        let mut queue = self.lock();
        let message = queue.messages.pop_front()?;
        queue.bytes -= message.len();
        let writer = if queue.bytes < CAPACITY {
            queue.writer.take()
        } else {
            None
        };
        drop(queue);
        if let Some(waker) = writer {
            waker.wake();
        }
        Some(message)
    }

    fn poll_pop(&self, cx: &Context<'_>) -> Poll<Option<Message>> {
        if let Some(message) = self.pop() {
            return Poll::Ready(Some(message));
        }
        let mut queue = self.lock();
        // One may have come since.
        if !queue.messages.is_empty() {
            drop(queue);
            return Poll::Ready(self.pop());
        }
        if queue.ended {
            return Poll::Ready(None);
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Pipe {
    /// Sends a message to the other end, when there is room.
    ///
    /// # Errors
    /// `BrokenPipe` if the other end has gone.
    ///
    /// # Cancellation
    /// The message is not sent.
    pub async fn send(&mut self, message: Message) -> io::Result<()> {
        poll_fn(|cx| self.outgoing.poll_room(cx)).await?;
        self.outgoing.push(message);
        Ok(())
    }

    /// The next message from the other end; `None` when that has gone.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn recv(&mut self) -> Option<Message> {
        poll_fn(|cx| self.incoming.poll_pop(cx)).await
    }
}

impl Pipe {
    /// The two directions, for those who read and write in different places.
    pub fn split(self) -> (PipeSender, PipeReceiver) {
        let mut this = self;
        // They end their own directions from now on; what is dropped here are two that nobody knows.
        let outgoing = std::mem::take(&mut this.outgoing);
        let incoming = std::mem::take(&mut this.incoming);
        (PipeSender(outgoing), PipeReceiver(incoming))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.incoming.end();
        self.outgoing.end();
    }
}

/// The direction to the other end. Dropping it ends that direction.
#[derive(Debug)]
pub struct PipeSender(Arc<Half>);

impl PipeSender {
    /// Sends a message even if the direction is full: for those who await [`ready`](Self::ready) before the next.
    ///
    /// # Errors
    /// `BrokenPipe` if the other end has gone.
    pub fn send(&self, message: Message) -> io::Result<()> {
        if self.0.lock().ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.push(message);
        Ok(())
    }

    /// Whether a message may be sent without waiting.
    pub fn is_ready(&self) -> bool {
        let queue = self.0.lock();
        queue.ended || queue.bytes < CAPACITY
    }

    /// Waits until there is room. One caller at a time.
    ///
    /// # Errors
    /// `BrokenPipe` if the other end has gone.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn ready(&self) -> io::Result<()> {
        poll_fn(|cx| self.0.poll_room(cx)).await
    }

    /// Ends the direction, as dropping this does.
    pub fn end(&self) {
        self.0.end();
    }
}

impl Drop for PipeSender {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The direction from the other end. Dropping it ends that direction.
#[derive(Debug)]
pub struct PipeReceiver(Arc<Half>);

impl PipeReceiver {
    /// The messages that have come, one at least; `None` when the other end has gone. One caller at a time.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn recv(&self) -> Option<Vec<Message>> {
        let first = poll_fn(|cx| self.0.poll_pop(cx)).await?;
        let mut messages = vec![first];
        while let Some(message) = self.0.pop() {
            messages.push(message);
        }
        Some(messages)
    }

    /// Ends the direction, as dropping this does.
    pub fn end(&self) {
        self.0.end();
    }
}

impl Drop for PipeReceiver {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A pipe under a link.
pub(crate) struct Piped {
    pipe: Pipe,
    max_message_size: usize,
}

impl Piped {
    pub(crate) fn new(pipe: Pipe, limits: &Limits) -> Self {
        Self {
            pipe,
            max_message_size: limits.max_message_size,
        }
    }
}

/// The checks that the codec makes where frames are read from bytes.
pub(crate) fn check_message(bytes: &[u8], text: bool, most: usize) -> Result<(), Violation> {
    if bytes.len() > most {
        return Err(Violation {
            code: 1009,
            reason: "the message is too big",
        });
    }
    if text && !is_text(bytes) {
        return Err(Violation {
            code: 1007,
            reason: "a text message that is not UTF-8",
        });
    }
    Ok(())
}

impl Transport for Piped {
    fn poll_read(&mut self, cx: &mut Context<'_>, on: &mut dyn FnMut(Item<'_>) -> bool) -> Poll<Read> {
        let Poll::Ready(message) = self.pipe.incoming.poll_pop(cx) else {
            return Poll::Pending;
        };
        let Some(message) = message else {
            return Poll::Ready(Read::End(None));
        };
        let len = message.len();
        let mut data = |bytes: &Bytes, binary: bool| {
            check_message(bytes, !binary, self.max_message_size)?;
            on(Item::Message {
                binary,
                rsv1: false,
                data: Data::Borrowed(bytes),
            });
            Ok(())
        };
        let checked = match &message {
            Message::Text(bytes) => data(bytes, false),
            Message::Binary(bytes) => data(bytes, true),
            Message::Ping(bytes) => {
                on(Item::Ping(Data::Borrowed(bytes)));
                Ok(())
            }
            Message::Pong(bytes) => {
                on(Item::Pong(Data::Borrowed(bytes)));
                Ok(())
            }
            Message::Close(None) => {
                on(Item::Close(None));
                Ok(())
            }
            Message::Close(Some((code, reason))) if is_sendable_close_code(*code) => {
                on(Item::Close(Some(CloseFrame {
                    code: *code,
                    reason: reason.into(),
                })));
                Ok(())
            }
            Message::Close(Some(_)) => Err(Violation {
                code: 1002,
                reason: "a close code that must not be sent",
            }),
        };
        Poll::Ready(match checked {
            Ok(()) => Read::Some(len),
            Err(violation) => Read::Violation(violation),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Writing) -> Poll<io::Result<usize>> {
        let mut wrote = 0;
        while out.has_remaining() {
            match self.pipe.outgoing.poll_room(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if wrote == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
            let (opcode, payload, len) = next_frame(out)?;
            self.pipe.outgoing.push(match opcode {
                Opcode::Ping => Message::Ping(payload),
                Opcode::Pong => Message::Pong(payload),
                Opcode::Close => Message::Close(close_of(&payload)),
                Opcode::Binary => Message::Binary(payload),
                Opcode::Text | Opcode::Continuation => Message::Text(payload),
            });
            out.advance(len);
            wrote += len;
        }
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if !self.pipe.closing {
            self.pipe.closing = true;
            self.pipe.outgoing.end();
        }
        Poll::Ready(())
    }
}

/// The first frame of an outbox without masks: opcode, payload, length with its head.
pub(crate) fn next_frame(out: &Writing) -> io::Result<(Opcode, Bytes, usize)> {
    let chunk = out.chunk();
    // Frames lie whole in one chunk and are our own.
    let (head, at) = parse_frame(chunk).ok_or_else(|| io::Error::other("the outbox holds half a frame"))?;
    let len = at + head.len;
    let payload = chunk
        .get(at..len)
        .ok_or_else(|| io::Error::other("the outbox holds half a frame"))?;
    Ok((head.opcode, Bytes::copy_from_slice(payload), len))
}

/// Code and reason of our own close frame.
pub(crate) fn close_of(payload: &[u8]) -> Option<(u16, String)> {
    let (code, reason) = payload.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()))
}
