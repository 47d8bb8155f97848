//! What a connection has still to send: encoded WebSocket frames in order, counted by kind, since the limits treat kinds apart.
//!
//! Any thread appends under the connection's lock; the link alone takes the bytes and tells how many have left. It decides
//! nothing about time: [`Watch`](super::watch::Watch) asks it for its counts.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};

use crate::protocol::frame::Opening;
use crate::websocket::{FrameHead, Opcode, mask, write_head};

/// A message whose bytes are shared between connections from this size on; smaller ones are cheaper copied.
pub(crate) const SHARE_FROM: usize = 4 * 1024;

/// What bytes in an outbox are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Emit,
    Room,
    Reply,
    Control,
}

/// The name part of a message.
#[derive(Clone, Copy)]
pub(crate) enum Heading<'a> {
    Event { name: &'a str, ack_id: u64 },
    Reply { name: &'a str, ack_id: u64 },
}

impl<'a> Heading<'a> {
    /// What stands before a payload of this length.
    #[inline]
    pub(crate) fn opening(self, payload: usize) -> Opening<'a> {
        match self {
            Self::Event { name, ack_id } => Opening::event(name, ack_id),
            Self::Reply { name, ack_id } => Opening::reply(name, ack_id, payload == 0),
        }
    }

    /// Length of the ETP frame with a payload of this length.
    pub(crate) fn frame_len(self, payload: usize) -> usize {
        self.opening(payload).len() + payload
    }
}

fn message_opcode(text: bool) -> Opcode {
    if text { Opcode::Text } else { Opcode::Binary }
}

/// Frames in order: shared chunks and own bytes, the last own bytes in `tail`.
#[derive(Default)]
struct Frames {
    chunks: VecDeque<Chunk>,
    tail: Vec<u8>,
}

enum Chunk {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

pub(crate) struct Outbox {
    frames: Frames,
    /// A client's frames are masked (RFC 6455, 5.3).
    masked: bool,
    /// Runs of bytes of one kind, in order, to know what has left: the first, mostly the only one, then the others.
    first_run: (Kind, usize),
    runs: VecDeque<(Kind, usize)>,
    queued: usize,
    replies: usize,
    /// Messages appended since they were last counted.
    messages: u64,
    /// Position in the stream of all bytes ever appended, and of those that have left.
    appended: u64,
    written: u64,
}

impl Outbox {
    pub(crate) fn new(masked: bool) -> Self {
        Self {
            frames: Frames::default(),
            masked,
            first_run: (Kind::Control, 0),
            runs: VecDeque::new(),
            queued: 0,
            replies: 0,
            messages: 0,
            appended: 0,
            written: 0,
        }
    }

    /// Bytes that have not left yet.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Those of them that are replies.
    pub(crate) fn replies(&self) -> usize {
        self.replies
    }

    /// The position after everything appended so far.
    pub(crate) fn appended(&self) -> u64 {
        self.appended
    }

    /// Messages appended since this was last asked, control frames included.
    pub(crate) fn take_messages(&mut self) -> u64 {
        std::mem::take(&mut self.messages)
    }

    /// The position that has left.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn has_frames(&self) -> bool {
        !self.frames.tail.is_empty() || !self.frames.chunks.is_empty()
    }

    pub(crate) fn push_message(&mut self, kind: Kind, opening: &Opening<'_>, payload: &[u8], text: bool) {
        let len = opening.len() + payload.len();
        let start = self.open_frame(len, message_opcode(text));
        let body = self.frames.tail.len();
        opening.write(&mut self.frames.tail);
        self.frames.tail.extend_from_slice(payload);
        self.close_frame(kind, start, body);
    }

    /// Appends a message that is no ETP frame.
    #[cfg(feature = "echo-for-conformance")]
    pub(crate) fn push_bare(&mut self, kind: Kind, payload: &[u8], text: bool) {
        let start = self.open_frame(payload.len(), message_opcode(text));
        let body = self.frames.tail.len();
        self.frames.tail.extend_from_slice(payload);
        self.close_frame(kind, start, body);
    }

    pub(crate) fn push_control(&mut self, opcode: Opcode, payload: &[u8]) {
        let start = self.open_frame(payload.len(), opcode);
        let body = self.frames.tail.len();
        self.frames.tail.extend_from_slice(payload);
        self.close_frame(Kind::Control, start, body);
    }

    /// Appends a frame that was encoded once for many connections.
    pub(crate) fn push_encoded(&mut self, encoded: &Encoded) {
        if self.masked {
            let start = self.open_frame(encoded.frame.len() - encoded.head, message_opcode(encoded.text));
            let body = self.frames.tail.len();
            self.frames.tail.extend_from_slice(&encoded.frame[encoded.head..]);
            self.close_frame(Kind::Room, start, body);
            return;
        }
        let len = encoded.frame.len();
        if len < SHARE_FROM {
            self.reserve(len);
            self.frames.tail.extend_from_slice(&encoded.frame);
        } else {
            if !self.frames.tail.is_empty() {
                let own = std::mem::take(&mut self.frames.tail);
                self.frames.chunks.push_back(Chunk::Own(own));
            }
            self.frames.chunks.push_back(Chunk::Shared(encoded.frame.clone()));
        }
        self.count(Kind::Room, len);
    }

    /// Writes a frame's head and answers where the frame begins.
    fn open_frame(&mut self, len: usize, opcode: Opcode) -> usize {
        self.reserve(len + 14);
        let start = self.frames.tail.len();
        let mask = self.masked.then(rand::random::<[u8; 4]>);
        write_head(
            &mut self.frames.tail,
            &FrameHead {
                fin: true,
                rsv1: false,
                opcode,
                mask,
                len,
            },
        );
        start
    }

    /// Masks what follows the head and counts the frame.
    fn close_frame(&mut self, kind: Kind, start: usize, body: usize) {
        if self.masked {
            let mut key = [0; 4];
            key.copy_from_slice(&self.frames.tail[body - 4..body]);
            mask(key, 0, &mut self.frames.tail[body..]);
        }
        let len = self.frames.tail.len() - start;
        self.count(kind, len);
    }

    fn reserve(&mut self, len: usize) {
        let tail = &mut self.frames.tail;
        if tail.capacity() == 0 {
            *tail = pool::take();
        }
        tail.reserve(len);
    }

    fn count(&mut self, kind: Kind, len: usize) {
        self.queued += len;
        self.messages += 1;
        self.appended += len as u64;
        if kind == Kind::Reply {
            self.replies += len;
        }
        if self.runs.is_empty() && self.first_run.1 == 0 {
            self.first_run = (kind, len);
            return;
        }
        match self.runs.back_mut().unwrap_or(&mut self.first_run) {
            (last, bytes) if *last == kind => *bytes += len,
            _ => self.runs.push_back((kind, len)),
        }
    }

    /// Counts bytes that have left.
    pub(crate) fn left(&mut self, mut bytes: usize) {
        self.queued -= bytes;
        self.written += bytes as u64;
        while bytes > 0 {
            let (kind, run) = &mut self.first_run;
            let part = bytes.min(*run);
            *run -= part;
            bytes -= part;
            if *kind == Kind::Reply {
                self.replies -= part;
            }
            if *run == 0 {
                match self.runs.pop_front() {
                    Some(next) => self.first_run = next,
                    None => break,
                }
            }
        }
        debug_assert_eq!(bytes, 0, "more bytes left than were appended");
    }

    /// Moves the frames to the link's own queue, which must be empty.
    pub(crate) fn take(&mut self, writing: &mut Writing) {
        debug_assert!(writing.is_empty());
        std::mem::swap(&mut self.frames, &mut writing.frames);
        writing.offset = 0;
    }

    /// Writes everything at once, where it lies in one piece and nothing before it is under way; answers how many bytes have left.
    /// Those that have not stay.
    pub(crate) fn write_whole(&mut self, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        let tail = &mut self.frames.tail;
        if tail.is_empty() || tail.len() != self.queued {
            return Ok(0);
        }
        let wrote = write(tail)?;
        if wrote >= tail.len() {
            tail.clear();
        } else {
            tail.drain(..wrote);
        }
        self.left(wrote);
        Ok(wrote)
    }

    /// Gives back what a silent connection need not hold.
    pub(crate) fn trim(&mut self) {
        if !self.has_frames() {
            pool::give(std::mem::take(&mut self.frames.tail));
            self.frames.chunks = VecDeque::new();
            if self.runs.is_empty() && self.runs.capacity() > 0 {
                self.runs = VecDeque::new();
            }
        }
    }
}

/// The frames that the link is writing: it owns them, so no lock is held during a system call.
#[derive(Default)]
pub(crate) struct Writing {
    frames: Frames,
    /// Bytes of the first chunk that have left already.
    offset: usize,
}

impl Writing {
    pub(crate) fn trim(&mut self) {
        if self.is_empty() {
            pool::give(std::mem::take(&mut self.frames.tail));
            self.frames.chunks = VecDeque::new();
        }
    }
}

impl Writing {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.chunks.is_empty() && self.frames.tail.is_empty()
    }
}

impl Buf for Writing {
    fn remaining(&self) -> usize {
        let chunks: usize = self.frames.chunks.iter().map(|chunk| chunk.bytes().len()).sum();
        chunks + self.frames.tail.len() - self.offset
    }

    /// The first contiguous bytes. Frames lie whole in one chunk.
    fn chunk(&self) -> &[u8] {
        let first = match self.frames.chunks.front() {
            Some(chunk) => chunk.bytes(),
            None => &self.frames.tail,
        };
        &first[self.offset..]
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [io::IoSlice<'a>]) -> usize {
        let mut count = 0;
        let own = self.frames.chunks.iter().map(Chunk::bytes);
        for (slot, bytes) in slices.iter_mut().zip(own.chain([&self.frames.tail[..]])) {
            let skip = if count == 0 { self.offset } else { 0 };
            if bytes.len() > skip {
                *slot = io::IoSlice::new(&bytes[skip..]);
                count += 1;
            } else {
                break;
            }
        }
        count
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(chunk) = self.frames.chunks.front() {
            let left = chunk.bytes().len() - self.offset;
            if bytes < left {
                self.offset += bytes;
                return;
            }
            bytes -= left;
            self.offset = 0;
            self.frames.chunks.pop_front();
        }
        self.offset += bytes;
        debug_assert!(self.offset <= self.frames.tail.len());
        if self.offset >= self.frames.tail.len() {
            self.frames.tail.clear();
            self.offset = 0;
        }
    }
}

/// A room's message, encoded once: an unmasked frame.
pub(crate) struct Encoded {
    frame: Bytes,
    /// Length of the WebSocket head.
    head: usize,
    text: bool,
}

impl Encoded {
    pub(crate) fn event(name: &str, payload: &[u8], text: bool) -> Self {
        let opening = Opening::event(name, 0);
        let len = opening.len() + payload.len();
        let mut frame = Vec::with_capacity(len + 14);
        write_head(
            &mut frame,
            &FrameHead {
                fin: true,
                rsv1: false,
                opcode: message_opcode(text),
                mask: None,
                len,
            },
        );
        let head = frame.len();
        opening.write(&mut frame);
        frame.extend_from_slice(payload);
        Self {
            frame: frame.into(),
            head,
            text,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.frame.len()
    }
}

/// Buffers for the next connection that has something to send, so that a silent one holds none. Each thread keeps a few; as one thread may
/// fill what another empties, they pass what they have too much of, or lack, through a store of all threads.
mod pool {
    use std::cell::RefCell;
    use std::sync::{Mutex, PoisonError};

    /// Buffers that pass at once; a thread keeps twice as many.
    const SOME: usize = 32;
    /// Bytes of a buffer that is kept.
    const LARGEST: usize = 64 * 1024;
    /// Bytes that the store holds.
    const MOST: usize = 4 * 1024 * 1024;

    struct Store {
        buffers: Vec<Vec<u8>>,
        bytes: usize,
    }

    static STORE: Mutex<Store> = Mutex::new(Store {
        buffers: Vec::new(),
        bytes: 0,
    });

    thread_local! {
        static POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn take() -> Vec<u8> {
        let kept = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.is_empty() {
                refill(&mut pool);
            }
            pool.pop()
        });
        kept.ok().flatten().unwrap_or_else(|| Vec::with_capacity(512))
    }

    pub(super) fn give(mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 || buffer.capacity() > LARGEST {
            return;
        }
        buffer.clear();
        // A thread that is going away has no pool any more: the buffer is simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.push(buffer);
            if pool.len() > 2 * SOME {
                store(&mut pool);
            }
        });
    }

    fn refill(pool: &mut Vec<Vec<u8>>) {
        let mut store = STORE.lock().unwrap_or_else(PoisonError::into_inner);
        let from = store.buffers.len().saturating_sub(SOME);
        pool.extend(store.buffers.drain(from..));
        store.bytes -= pool.iter().map(Vec::capacity).sum::<usize>();
    }

    fn store(pool: &mut Vec<Vec<u8>>) {
        let passed = pool.split_off(pool.len() - SOME);
        let bytes: usize = passed.iter().map(Vec::capacity).sum();
        let mut store = STORE.lock().unwrap_or_else(PoisonError::into_inner);
        if store.bytes + bytes > MOST {
            drop(store);
            // Freed here, outside the lock.
            return;
        }
        store.bytes += bytes;
        store.buffers.extend(passed);
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn stored() -> (usize, usize) {
            let store = STORE.lock().unwrap();
            let bytes = store.buffers.iter().map(Vec::capacity).sum::<usize>();
            assert_eq!(store.bytes, bytes, "its count is that of its buffers");
            (store.buffers.len(), bytes)
        }

        fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
            std::thread::scope(|scope| scope.spawn(f).join().unwrap())
        }

        fn buffer(capacity: usize) -> Vec<u8> {
            let mut buffer = Vec::with_capacity(capacity);
            buffer.push(1);
            buffer
        }

        #[test]
        fn what_one_thread_gives_another_takes_and_the_store_has_an_end() {
            // Of an odd size, to be known again: other tests take and give some as well.
            on_a_thread(|| (0..1_000).for_each(|_| give(buffer(1_237))));
            let (count, _) = stored();
            assert!(count >= 900, "{count} of 1 000 passed");
            let known = on_a_thread(|| (0..500).filter(|_| take().capacity() == 1_237).count());
            assert!(known >= 400, "{known} of 500 are known");
            on_a_thread(|| {
                let taken = take();
                assert!(taken.is_empty(), "a buffer comes empty");
            });

            on_a_thread(|| (0..10_000).for_each(|_| give(buffer(LARGEST))));
            let (_, bytes) = stored();
            assert!(bytes <= MOST, "{bytes} bytes are kept");
            on_a_thread(|| (0..200).for_each(|_| give(buffer(LARGEST + 1))));
            let largest = STORE.lock().unwrap().buffers.iter().map(Vec::capacity).max();
            assert!(largest <= Some(LARGEST));
        }
    }
}
