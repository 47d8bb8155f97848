//! The decoder: bytes in, whole messages and control frames out, every rule and limit of a receiver
//! enforced as soon as the bytes show that it is broken.
//!
//! A frame that lies whole in the input is handed over in place. What comes in pieces is gathered in
//! buffers that grow with the bytes that came, never with the length that a head announced, and that go
//! to the caller with the item: between messages a decoder owns no heap memory.

use std::mem;

use super::close::parse_close;
use super::head::{FIN, MASKED, MAX_HEAD, read_head};
use super::mask::mask_ascii;
use super::{Data, FrameHead, Item, Opcode, Violation, mask, utf8};

/// Which side of the connection decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Expects masked frames (and writes unmasked ones).
    Server,
    /// Expects unmasked frames (and writes masked ones).
    Client,
}

/// What a [`Decoder`] accepts.
#[derive(Clone, Copy, Debug)]
pub struct DecoderConfig {
    /// Which side this is.
    pub role: Role,
    /// The largest message in bytes of payload; a larger one is a violation with code 1009.
    pub max_message_size: usize,
    /// How many bytes more than `max_message_size` one message may take on the wire, heads included. It
    /// bounds what endless small or empty fragments cost; control frames between them don't count.
    pub max_overhead: usize,
    /// An extension that uses RSV1 was negotiated: the first frame of a message may carry it.
    pub allow_rsv1: bool,
    /// Whether a frame's mask must suit the role. An in-process transport has nothing to mask against and
    /// sets it to `false`; masked and unmasked frames are then both read.
    pub check_masks: bool,
}

/// Reads one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    config: DecoderConfig,
    /// Nothing may follow a close frame or a violation.
    ended: bool,
    /// The first bytes of a head of which the input did not hold all.
    head: [u8; MAX_HEAD],
    head_len: u8,
    /// The frame whose payload is under way.
    frame: Option<Frame>,
    /// The data message under way, also between its fragments.
    message: Message,
    /// The payload so far of the control frame under way.
    control: Vec<u8>,
}

/// A frame whose head has been read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    key: Option<[u8; 4]>,
    len: usize,
    /// Bytes of payload taken so far.
    taken: usize,
}

impl Frame {
    /// What `input` holds of the payload, unmasked.
    fn take<'a>(&mut self, input: &mut &'a mut [u8]) -> &'a mut [u8] {
        let len = self.left().min(input.len());
        let (chunk, rest) = mem::take(input).split_at_mut(len);
        *input = rest;
        if let Some(key) = self.key {
            mask(key, self.taken, chunk);
        }
        self.taken += chunk.len();
        chunk
    }

    fn left(&self) -> usize {
        self.len - self.taken
    }
}

/// A data message; its buffer is empty between messages and as long as nothing had to be gathered.
#[derive(Debug, Default)]
struct Message {
    /// Its first frame has begun, its last has not ended.
    begun: bool,
    binary: bool,
    rsv1: bool,
    bytes: Vec<u8>,
    /// Bytes that need no further look: whole characters of a text.
    checked: usize,
    /// Bytes on the wire, heads included.
    raw: u64,
}

impl Message {
    fn begin(&mut self, binary: bool, rsv1: bool) {
        (self.begun, self.binary, self.rsv1) = (true, binary, rsv1);
        (self.checked, self.raw) = (0, 0);
    }

    /// Appends `chunk` and checks what a text has so far. In the last frame, `left` tells how many bytes
    /// are still to come.
    fn push(&mut self, chunk: &[u8], left: Option<usize>) -> Result<(), Violation> {
        let len = self.bytes.len() + chunk.len();
        if len > self.bytes.capacity() {
            let doubled = len.max(self.bytes.capacity() * 2);
            // The end is in sight: no room beyond it.
            let capacity = left.map_or(doubled, |left| doubled.min(len + left));
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        if self.is_text() {
            self.checked += utf8::prefix(&self.bytes[self.checked..]).ok_or(NOT_UTF8)?;
        }
        Ok(())
    }

    /// Whether it must be UTF-8. Compressed text is checked by whoever inflates it.
    fn is_text(&self) -> bool {
        !self.binary && !self.rsv1
    }
}

/// The first byte of a message in one frame.
const FIN_TEXT: u8 = FIN | Opcode::Text as u8;
const FIN_BINARY: u8 = FIN | Opcode::Binary as u8;

const NOT_UTF8: Violation = Violation::not_utf8("a text message that is not UTF-8");
const TOO_BIG: Violation = Violation::too_big("the message is too big");
const TOO_MUCH: Violation = Violation::too_big("the message takes too many bytes on the wire");

impl Decoder {
    /// A decoder at the first byte after the handshake.
    pub fn new(config: DecoderConfig) -> Self {
        Self {
            config,
            ended: false,
            head: [0; MAX_HEAD],
            head_len: 0,
            frame: None,
            message: Message::default(),
            control: Vec::new(),
        }
    }

    /// Takes bytes from the front of `input`, unmasking them in place, until one item is whole or the
    /// input is used up (`Ok(None)`). Call it until then: items may also be whole without a byte left.
    ///
    /// After a close frame or a violation nothing more is read: every further call uses up its input.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol or a limit. Answer with a close frame of the violation's code.
    pub fn decode<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Item<'a>>, Violation> {
        if self.ended {
            *input = &mut [];
            return Ok(None);
        }
        let result = self.next(input);
        if matches!(result, Err(_) | Ok(Some(Item::Close(_)))) {
            *self = Self {
                ended: true,
                ..Self::new(self.config)
            };
        }
        result
    }

    /// Whether a data message has begun and is not complete, between its fragments included.
    pub fn mid_message(&self) -> bool {
        self.message.begun
    }

    /// Bytes of the current message taken off the wire so far, the heads of its frames included; 0 between
    /// messages. As long as it grows, the peer makes progress.
    pub fn raw_bytes(&self) -> u64 {
        if self.message.begun { self.message.raw } else { 0 }
    }

    /// Takes a data message of one frame that lies whole in the input, as nearly all do: its payload, unmasked, and whether it is
    /// binary. `None` leaves the input, and whatever is out of the ordinary or wrong, to [`decode`](Self::decode), which would have
    /// answered the same; this way takes half the time.
    #[inline]
    pub fn decode_whole<'a>(&mut self, input: &mut &'a mut [u8]) -> Option<(&'a [u8], bool)> {
        let [first, second, rest @ ..] = &**input else {
            return None;
        };
        let binary = match *first {
            FIN_TEXT => false,
            FIN_BINARY => true,
            _ => return None,
        };
        if self.ended || self.message.begun || self.frame.is_some() || self.head_len > 0 {
            return None;
        }
        let (length, len) = match second & !MASKED {
            short @ 0..=125 => (2, usize::from(short)),
            126 => match u16::from_be_bytes(*rest.first_chunk()?) {
                0..=125 => return None,
                len => (4, usize::from(len)),
            },
            _ => return None,
        };
        let key = match (self.config.role, second & MASKED != 0) {
            (Role::Server, true) => Some(*input.get(length..)?.first_chunk()?),
            (Role::Client, false) => None,
            _ => return None,
        };
        let head = length + if key.is_some() { 4 } else { 0 };
        if len > self.config.max_message_size || head > self.config.max_overhead || head + len > input.len() {
            return None;
        }
        let payload = &mut input[head..head + len];
        let ascii = key.is_some_and(|key| mask_ascii(key, payload));
        if !binary && !ascii && !utf8::is_text(payload) {
            if let Some(key) = key {
                // As it was.
                mask(key, 0, payload);
            }
            return None;
        }
        let (frame, rest) = mem::take(input).split_at_mut(head + len);
        *input = rest;
        Some((&frame[head..], binary))
    }

    fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Item<'a>>, Violation> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.take_head(input)? {
                    Some((head, head_len)) => self.begin(head, head_len)?,
                    None => return Ok(None),
                },
            };
            let chunk = frame.take(input);
            let item = if frame.opcode.is_control() {
                self.control(frame, chunk)?
            } else {
                self.data(frame, chunk)?
            };
            if item.is_some() || input.is_empty() {
                return Ok(item);
            }
        }
    }

    fn take_head(&mut self, input: &mut &mut [u8]) -> Result<Option<(FrameHead, usize)>, Violation> {
        if self.head_len == 0
            && let Some((head, len)) = read_head(input)?
        {
            *input = &mut mem::take(input)[len..];
            return Ok(Some((head, len)));
        }
        // It is split between inputs. Byte by byte, as the end is seen only when it is there; every head
        // is whole after 14 bytes, so the index stays within.
        while let Some(byte) = input.split_off_first_mut() {
            self.head[usize::from(self.head_len)] = *byte;
            self.head_len += 1;
            if let Some(head) = read_head(&self.head[..usize::from(self.head_len)])? {
                self.head_len = 0;
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// Checks a head against the role, the limits and the message under way.
    fn begin(&mut self, head: FrameHead, head_len: usize) -> Result<Frame, Violation> {
        let FrameHead {
            fin,
            rsv1,
            opcode,
            mask: key,
            len,
        } = head;
        if rsv1 && !self.config.allow_rsv1 {
            return Err(Violation::protocol("a reserved bit is set"));
        }
        if self.config.check_masks {
            match (self.config.role, key) {
                (Role::Server, None) => {
                    return Err(Violation::protocol("a frame of a client without a mask"));
                }
                (Role::Client, Some(_)) => {
                    return Err(Violation::protocol("a frame of a server with a mask"));
                }
                _ => {}
            }
        }
        if !opcode.is_control() {
            match (self.message.begun, opcode == Opcode::Continuation) {
                (true, true) => {}
                (true, false) => {
                    return Err(Violation::protocol("a new message before the end of the last"));
                }
                (false, true) => return Err(Violation::protocol("a continuation of no message")),
                (false, false) => self.message.begin(opcode == Opcode::Binary, rsv1),
            }
            let DecoderConfig {
                max_message_size,
                max_overhead,
                ..
            } = self.config;
            // What is announced is refused, not what has come: the peer learns it before it sends it all.
            if len > max_message_size.saturating_sub(self.message.bytes.len()) {
                return Err(TOO_BIG);
            }
            self.message.raw += head_len as u64;
            if self.message.raw + len as u64 > max_message_size.saturating_add(max_overhead) as u64 {
                return Err(TOO_MUCH);
            }
        }
        Ok(Frame {
            opcode,
            fin,
            key,
            len,
            taken: 0,
        })
    }

    /// Takes `chunk` into the message, of whose current frame it is the next part.
    fn data<'a>(&mut self, frame: Frame, chunk: &'a [u8]) -> Result<Option<Item<'a>>, Violation> {
        let message = &mut self.message;
        message.raw += chunk.len() as u64;
        let left = frame.left();
        let last = frame.fin && left == 0;

        let data = if last && message.bytes.is_empty() {
            if message.is_text() && !utf8::is_text(chunk) {
                return Err(NOT_UTF8);
            }
            Data::Borrowed(chunk)
        } else {
            message.push(chunk, frame.fin.then_some(left))?;
            if !last {
                self.frame = (left > 0).then_some(frame);
                return Ok(None);
            }
            if message.is_text() && message.checked < message.bytes.len() {
                return Err(NOT_UTF8);
            }
            Data::Owned(mem::take(&mut message.bytes))
        };
        message.begun = false;
        Ok(Some(Item::Message {
            binary: message.binary,
            rsv1: message.rsv1,
            data,
        }))
    }

    /// Takes `chunk` into the control frame under way.
    fn control<'a>(&mut self, frame: Frame, chunk: &'a [u8]) -> Result<Option<Item<'a>>, Violation> {
        let whole = frame.left() == 0;
        let payload = if whole && self.control.is_empty() {
            Data::Borrowed(chunk)
        } else {
            self.control.extend_from_slice(chunk);
            if !whole {
                self.frame = Some(frame);
                return Ok(None);
            }
            Data::Owned(mem::take(&mut self.control))
        };
        Ok(Some(match frame.opcode {
            Opcode::Ping => Item::Ping(payload),
            Opcode::Pong => Item::Pong(payload),
            // The only control frame left.
            _ => Item::Close(parse_close(payload)?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{Decoder, DecoderConfig, Role};

    fn server() -> Decoder {
        Decoder::new(DecoderConfig {
            role: Role::Server,
            max_message_size: 1 << 20,
            max_overhead: 64 << 10,
            allow_rsv1: false,
            check_masks: true,
        })
    }

    fn heap(decoder: &Decoder) -> usize {
        decoder.message.bytes.capacity() + decoder.control.capacity()
    }

    fn feed(decoder: &mut Decoder, bytes: &[u8]) -> usize {
        let mut bytes = bytes.to_vec();
        let mut input = &mut bytes[..];
        let mut items = 0;
        while let Ok(Some(_)) = decoder.decode(&mut input) {
            items += 1;
        }
        items
    }

    #[test]
    fn a_decoder_is_small() {
        assert!(size_of::<Decoder>() <= 160, "{}", size_of::<Decoder>());
    }

    #[test]
    fn an_announced_megabyte_costs_nothing_until_it_comes() {
        let mut decoder = server();
        feed(&mut decoder, b"\x82\xff\0\0\0\0\0\x10\0\0key!");
        assert!(decoder.mid_message());
        assert_eq!(heap(&decoder), 0);
        feed(&mut decoder, &[0; 100]);
        assert_eq!(heap(&decoder), 100);
        // Pieces of any size cost at most twice what came, and never more than the frame.
        let mut came = 100;
        while came + 1000 < 1 << 20 {
            feed(&mut decoder, &[0; 1000]);
            came += 1000;
            assert!(heap(&decoder) <= (2 * came).min(1 << 20));
        }
        assert_eq!(feed(&mut decoder, &vec![0; (1 << 20) - came]), 1);
        assert_eq!(heap(&decoder), 0);
    }

    #[test]
    fn nothing_is_kept_between_items_nor_after_the_end() {
        let mut decoder = server();
        for (piece, items, holds) in [
            (&b"\x01\x83\0\0\0\0abc"[..], 0, true), // the first fragment
            (b"\x89\x82\0\0\0\0p", 0, true),        // half a ping in between
            (b"i", 1, true),
            (b"\x80\x81\0\0\0\0d", 1, false), // the last fragment
            (b"\x8a\x81\0\0\0\0", 0, false),  // the head of a pong
            (b"x", 1, false),
            (b"\x01\x83\0\0\0\0abc", 0, true),
            (b"\xff", 0, true),
            (b"\xff", 0, false), // a violation
            (b"\x01\x83\0\0\0\0abc", 0, false),
        ] {
            assert_eq!(feed(&mut decoder, piece), items, "{piece:x?}");
            assert_eq!(heap(&decoder) > 0, holds, "{piece:x?}");
        }
    }
}
