//! Somebody else's WebSocket as a transport: a `WebSocketStream` that the application upgraded or dialled by itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame as TheirClose;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::limits::Limits;
use crate::net::outbox::Writing;
use crate::net::pipe::{check_message, close_of, next_frame};
use crate::net::transport::{Read, Transport};
use crate::websocket::{CloseFrame, Data, Item, Opcode, Violation};

pub(crate) struct Theirs<S> {
    ws: WebSocketStream<S>,
    max_message_size: usize,
}

impl<S> Theirs<S> {
    pub(crate) fn new(ws: WebSocketStream<S>, limits: &Limits) -> Self {
        Self {
            ws,
            max_message_size: limits.max_message_size,
        }
    }
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for Theirs<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, on: &mut dyn FnMut(Item<'_>) -> bool) -> Poll<Read> {
        let message = match ready!(Pin::new(&mut self.ws).poll_next(cx)) {
            Some(Ok(message)) => message,
            Some(Err(Error::Capacity(_))) => {
                return Poll::Ready(Read::Violation(Violation {
                    code: 1009,
                    reason: "the message is too big",
                }));
            }
            Some(Err(Error::Utf8(_))) => {
                return Poll::Ready(Read::Violation(Violation {
                    code: 1007,
                    reason: "a text message that is not UTF-8",
                }));
            }
            Some(Err(Error::Protocol(error))) => {
                return Poll::Ready(match error {
                    tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake => {
                        Read::End(None)
                    }
                    _ => Read::Violation(Violation {
                        code: 1002,
                        reason: "protocol error",
                    }),
                });
            }
            None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return Poll::Ready(Read::End(None)),
            Some(Err(error)) => return Poll::Ready(Read::End(Some(to_io(error)))),
        };
        let len = message.len();
        let mut data = |bytes: &[u8], binary| {
            check_message(bytes, false, self.max_message_size)?;
            on(Item::Message {
                binary,
                rsv1: false,
                data: Data::Borrowed(bytes),
            });
            Ok(())
        };
        let checked = match &message {
            Message::Text(text) => data(text.as_bytes(), false),
            Message::Binary(bytes) => data(bytes, true),
            Message::Ping(bytes) => {
                on(Item::Ping(Data::Borrowed(bytes)));
                Ok(())
            }
            Message::Pong(bytes) => {
                on(Item::Pong(Data::Borrowed(bytes)));
                Ok(())
            }
            Message::Close(frame) => {
                on(Item::Close(frame.as_ref().map(|frame| CloseFrame {
                    code: frame.code.into(),
                    reason: frame.reason.as_str().into(),
                })));
                Ok(())
            }
            // Never read, only written.
            Message::Frame(_) => Ok(()),
        };
        Poll::Ready(match checked {
            Ok(()) => Read::Some(len),
            Err(violation) => Read::Violation(violation),
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Writing) -> Poll<io::Result<usize>> {
        let mut wrote = 0;
        while out.has_remaining() {
            let (opcode, payload, len) = next_frame(out)?;
            if let Some(message) = message_of(opcode, payload)? {
                match Pin::new(&mut self.ws).poll_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    // It has answered the peer's close frame by itself.
                    Poll::Ready(Err(Error::ConnectionClosed | Error::AlreadyClosed)) if opcode == Opcode::Close => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(to_io(error))),
                    Poll::Pending if wrote == 0 => return Poll::Pending,
                    Poll::Pending => break,
                }
                match Pin::new(&mut self.ws).start_send(message) {
                    Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {}
                    Err(Error::Protocol(_)) if opcode == Opcode::Close => {}
                    Err(error) => return Poll::Ready(Err(to_io(error))),
                }
            }
            out.advance(len);
            wrote += len;
        }
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.ws).poll_flush(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(to_io(error))),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.ws).poll_close(cx).map(drop)
    }
}

/// Our frame as a message of theirs; `None` for pongs, which it sends by itself.
fn message_of(opcode: Opcode, payload: Bytes) -> io::Result<Option<Message>> {
    Ok(Some(match opcode {
        Opcode::Pong => return Ok(None),
        Opcode::Ping => Message::Ping(payload),
        Opcode::Binary => Message::Binary(payload),
        Opcode::Close => Message::Close(close_of(&payload).map(|(code, reason)| TheirClose {
            code: code.into(),
            reason: reason.into(),
        })),
        Opcode::Text | Opcode::Continuation => Message::Text(Utf8Bytes::try_from(payload).map_err(io::Error::other)?),
    }))
}
