//! A byte stream as a transport: the WebSocket codec over anything that reads and writes.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limits::{Limits, MAX_OVERHEAD};
use crate::net::outbox::Writing;
use crate::net::transport::{Read, Transport};
use crate::websocket::{Data, Decoder, DecoderConfig, Item, Role, Violation};

/// Bytes read at most in one system call, and so the events that one connection can put before its neighbours.
const SCRATCH: usize = 32 * 1024;

/// Reads that throw away what comes after the end, in one turn.
const FAREWELL_READS: usize = 32;

thread_local! {
    /// What a read goes into: one buffer of the thread, so that a silent connection has none. Taken out while it is in use.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(crate) struct Stream<IO> {
    io: IO,
    decoder: Decoder,
    /// What arrived together with the handshake.
    leftover: Option<Bytes>,
    /// Bytes have been written since the last flush.
    unflushed: bool,
    finishing: bool,
}

impl<IO> Stream<IO> {
    pub(crate) fn new(io: IO, role: Role, limits: &Limits, leftover: &[u8]) -> Self {
        Self {
            io,
            decoder: Decoder::new(DecoderConfig {
                role,
                max_message_size: limits.max_message_size,
                max_overhead: MAX_OVERHEAD,
                allow_rsv1: false,
                check_masks: true,
            }),
            // Copied even when empty: what an HTTP parser hands over pins its whole buffer.
            leftover: (!leftover.is_empty()).then(|| Bytes::copy_from_slice(leftover)),
            unflushed: false,
            finishing: false,
        }
    }
}

/// Hands over every item that is whole.
fn decode(decoder: &mut Decoder, mut input: &mut [u8], on: &mut dyn FnMut(Item<'_>) -> bool) -> Result<(), Violation> {
    while !input.is_empty() {
        if let Some((payload, binary)) = decoder.decode_whole(&mut input) {
            let go_on = on(Item::Message {
                binary,
                rsv1: false,
                data: Data::Borrowed(payload),
            });
            if !go_on {
                return Ok(());
            }
            continue;
        }
        match decoder.decode(&mut input)? {
            Some(item) => {
                if !on(item) {
                    return Ok(());
                }
            }
            None => return Ok(()),
        }
    }
    Ok(())
}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for Stream<IO> {
    fn poll_read(&mut self, cx: &mut Context<'_>, on: &mut dyn FnMut(Item<'_>) -> bool) -> Poll<Read> {
        if let Some(leftover) = self.leftover.take() {
            let mut bytes = leftover.to_vec();
            return Poll::Ready(match decode(&mut self.decoder, &mut bytes, on) {
                Ok(()) => Read::Some(bytes.len()),
                Err(violation) => Read::Violation(violation),
            });
        }
        let mut scratch = BUFFER.take();
        if scratch.len() < SCRATCH {
            scratch.resize(SCRATCH, 0);
        }
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
            Poll::Pending => {
                BUFFER.set(scratch);
                return Poll::Pending;
            }
            Poll::Ready(Err(error)) => Read::End(Some(error)),
            Poll::Ready(Ok(())) => {
                let filled = buffer.filled_mut();
                match filled.len() {
                    0 => Read::End(None),
                    len => match decode(&mut self.decoder, filled, on) {
                        Ok(()) => Read::Some(len),
                        Err(violation) => Read::Violation(violation),
                    },
                }
            }
        };
        BUFFER.set(scratch);
        Poll::Ready(read)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Writing) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.io);
        let wrote = if out.chunk().len() == out.remaining() || !io.is_write_vectored() {
            ready!(io.poll_write(cx, out.chunk()))?
        } else {
            let mut slices = [io::IoSlice::new(&[]); 32];
            let count = out.chunks_vectored(&mut slices);
            ready!(io.poll_write_vectored(cx, &slices[..count]))?
        };
        if wrote == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        out.advance(wrote);
        self.unflushed = true;
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.finishing {
            if ready!(Pin::new(&mut self.io).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            self.finishing = true;
        }
        // Dropped with bytes unread, the connection would be reset under a close frame on its way.
        let mut discard = [0; 1024];
        for _ in 0..FAREWELL_READS {
            let mut buffer = ReadBuf::new(&mut discard);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
        // Others are due, and the link looks at its clock.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn mid_message(&self) -> bool {
        self.decoder.mid_message()
    }

    fn message_bytes(&self) -> u64 {
        self.decoder.raw_bytes()
    }
}
