//! RFC 6455 as a state machine over bytes, for both roles: frame heads, masks, messages put together
//! from fragments, control frames, close codes.
//!
//! It knows no socket, clock, task or log. A [`Decoder`] is fed what was read and answers with
//! [`Item`]s; whoever writes puts frames together from [`write_head`], the payload and, in a client,
//! [`mask`]. Answering pings, the closing handshake and deadlines are the caller's, as is inflating
//! messages that carry RSV1.
//!
//! ```
//! use etp_ws::websocket::{Decoder, DecoderConfig, FrameHead, Item, Opcode, Role, mask, write_head};
//!
//! // A client writes a text message ...
//! let key = [7, 1, 9, 4];
//! let mut wire = Vec::new();
//! write_head(&mut wire, &FrameHead { fin: true, rsv1: false, opcode: Opcode::Text, mask: Some(key), len: 5 });
//! let at = wire.len();
//! wire.extend_from_slice(b"hello");
//! mask(key, 0, &mut wire[at..]);
//!
//! // ... and a server reads it.
//! let mut decoder = Decoder::new(DecoderConfig {
//!     role: Role::Server,
//!     max_message_size: 1 << 20,
//!     max_overhead: 64 << 10,
//!     allow_rsv1: false,
//!     check_masks: true,
//! });
//! let mut input = &mut wire[..];
//! let item = decoder.decode(&mut input).unwrap();
//! assert!(matches!(item, Some(Item::Message { binary: false, data, .. }) if *data == *b"hello"));
//! ```

mod close;
mod decode;
mod head;
mod item;
mod mask;
mod utf8;
mod violation;

pub use close::{CloseFrame, close_payload, is_sendable_close_code};
pub use decode::{Decoder, DecoderConfig, Role};
pub use head::{FrameHead, Opcode, frame_head_len, parse_frame, write_head};
pub use item::{Data, Item};
pub use mask::mask;
pub(crate) use utf8::is_text;
pub use violation::Violation;
