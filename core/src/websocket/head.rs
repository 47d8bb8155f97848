//! Frame heads (RFC 6455, 5.2): written, and read with every rule that a head alone can break.

use super::Violation;

/// The longest head: two bytes, a 64-bit length and a key.
pub(super) const MAX_HEAD: usize = 14;
/// Control frames carry at most this much (RFC 6455, 5.5).
const MAX_CONTROL: usize = 125;

/// In the first byte: the last frame of its message.
pub(super) const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_3: u8 = 0x30;
/// In the second byte: a key follows the length.
pub(super) const MASKED: u8 = 0x80;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of the message under way.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The last frame a side sends.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping, or says that a side is alive.
    Pong = 0xA,
}

impl Opcode {
    /// Whether it is a control frame, which may come between the fragments of a message.
    pub fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }

    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            _ => return None,
        })
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The last frame of its message; always set on control frames.
    pub fin: bool,
    /// The bit of the negotiated extension; only on the first frame of a message.
    pub rsv1: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The key its payload is masked with: always from a client, never from a server.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow.
    pub len: usize,
}

/// The size of a frame's head, 2 to 14 bytes.
pub fn frame_head_len(payload_len: usize, masked: bool) -> usize {
    let length = match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    if masked { length + 4 } else { length }
}

/// Appends `head` to `out`, its length in the fewest bytes.
pub fn write_head(out: &mut Vec<u8>, head: &FrameHead) {
    let first = head.opcode as u8 | if head.fin { FIN } else { 0 } | if head.rsv1 { RSV1 } else { 0 };
    if head.len < 126 && head.mask.is_none() {
        return out.extend_from_slice(&[first, head.len as u8]);
    }
    let mut bytes = [0; MAX_HEAD];
    bytes[0] = first;
    let masked = if head.mask.is_some() { MASKED } else { 0 };
    let mut end = frame_head_len(head.len, false);
    match end {
        2 => bytes[1] = masked | head.len as u8,
        4 => {
            bytes[1] = masked | 126;
            bytes[2..4].copy_from_slice(&(head.len as u16).to_be_bytes());
        }
        _ => {
            bytes[1] = masked | 127;
            bytes[2..10].copy_from_slice(&(head.len as u64).to_be_bytes());
        }
    }
    if let Some(key) = head.mask {
        bytes[end..end + 4].copy_from_slice(&key);
        end += 4;
    }
    out.extend_from_slice(&bytes[..end]);
}

/// The head at the front of `bytes` and its size, for bytes that this side wrote itself: a transport that
/// carries whole messages unwraps them this way.
///
/// `None` if the head is not all there, or not one that [`write_head`] writes.
pub fn parse_frame(bytes: &[u8]) -> Option<(FrameHead, usize)> {
    read_head(bytes).ok().flatten()
}

/// The head at the front of `bytes` and its size, or `None` if more bytes are needed.
///
/// Whether RSV1, the mask and the opcode are allowed here and now is left to the decoder.
#[inline]
pub(super) fn read_head(bytes: &[u8]) -> Result<Option<(FrameHead, usize)>, Violation> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & RSV2_AND_3 != 0 {
        return Err(Violation::protocol("a reserved bit is set"));
    }
    let Some(opcode) = Opcode::from_bits(first & 0xF) else {
        return Err(Violation::protocol("a reserved opcode"));
    };
    let (fin, rsv1) = (first & FIN != 0, first & RSV1 != 0);
    let short = second & !MASKED;
    if opcode.is_control() {
        if !fin {
            return Err(Violation::protocol("a fragmented control frame"));
        }
        if usize::from(short) > MAX_CONTROL {
            return Err(Violation::protocol("a control frame of more than 125 bytes"));
        }
    }
    if rsv1 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(Violation::protocol(
            "a reserved bit is set on a frame that begins no message",
        ));
    }

    let (len, rest) = match short {
        126 => {
            let Some((&length, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            (u64::from(u16::from_be_bytes(length)), rest)
        }
        127 => {
            let Some((&length, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            (u64::from_be_bytes(length), rest)
        }
        short => (u64::from(short), rest),
    };
    if len >> 63 != 0 {
        return Err(Violation::protocol("a length of more than 63 bits"));
    }
    // "The minimal number of bytes MUST be used" (RFC 6455, 5.2).
    if (short == 126 && len < 126) || (short == 127 && len <= 0xFFFF) {
        return Err(Violation::protocol("a length in more bytes than it needs"));
    }
    // Only a platform with small pointers meets a length that it can't count.
    let Ok(len) = usize::try_from(len) else {
        return Err(Violation::too_big("the message is too big"));
    };

    let (mask, rest) = if second & MASKED == 0 {
        (None, rest)
    } else {
        let Some((&key, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        (Some(key), rest)
    };
    let head = FrameHead {
        fin,
        rsv1,
        opcode,
        mask,
        len,
    };
    Ok(Some((head, bytes.len() - rest.len())))
}

#[cfg(test)]
mod tests {
    use super::{FrameHead, Opcode, frame_head_len, parse_frame, write_head};

    #[test]
    fn a_head_is_as_short_as_its_length_allows_and_reads_back() {
        let opcodes = [Opcode::Continuation, Opcode::Text, Opcode::Binary];
        for len in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 1 << 40] {
            for (mask, mask_len) in [(None, 0), (Some([1, 2, 3, 4]), 4)] {
                for opcode in opcodes {
                    for fin in [false, true] {
                        let rsv1 = opcode == Opcode::Text;
                        let head = FrameHead {
                            fin,
                            rsv1,
                            opcode,
                            mask,
                            len,
                        };
                        let mut bytes = vec![];
                        write_head(&mut bytes, &head);
                        let short = if len < 126 {
                            2
                        } else if len < 0x1_0000 {
                            4
                        } else {
                            10
                        };
                        assert_eq!(bytes.len(), short + mask_len);
                        assert_eq!(bytes.len(), frame_head_len(len, mask.is_some()));
                        assert_eq!(parse_frame(&bytes), Some((head, bytes.len())));
                        for cut in 0..bytes.len() {
                            assert_eq!(parse_frame(&bytes[..cut]), None);
                        }
                        bytes.push(0xFF);
                        assert_eq!(parse_frame(&bytes), Some((head, bytes.len() - 1)));
                    }
                }
            }
        }
    }
}
