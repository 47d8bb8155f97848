//! Close codes and the payload of close frames (RFC 6455, 5.5.1 and 7.4).

use std::borrow::Cow;

use super::{Data, Violation};

/// A control frame carries at most 125 bytes (RFC 6455, 5.5), two of them the code.
const MAX_REASON: usize = 123;

/// Code and reason of a received close frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// A code for which [`is_sendable_close_code`] holds.
    pub code: u16,
    /// Why, for people; often empty.
    pub reason: Cow<'a, str>,
}

/// Whether `code` may stand in a close frame: those of RFC 6455, 7.4.1 and of IANA's registry, and what
/// 7.4.2 leaves to libraries (3000 to 3999) and applications (4000 to 4999).
///
/// 1004, 1005, 1006 and 1015 are names for what no frame said; they never travel.
pub fn is_sendable_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a close frame: `code`, then `reason` cut at the end of a character to 123 bytes.
///
/// It takes any code; whether a peer accepts it tells [`is_sendable_close_code`].
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}

pub(super) fn parse_close(payload: Data<'_>) -> Result<Option<CloseFrame<'_>>, Violation> {
    let code = match *payload {
        [] => return Ok(None),
        [_] => return Err(Violation::protocol("a close frame with half a code")),
        [high, low, ..] => u16::from_be_bytes([high, low]),
    };
    if !is_sendable_close_code(code) {
        return Err(Violation::protocol("a close code that must not be sent"));
    }
    let reason = match payload {
        Data::Borrowed(bytes) => str::from_utf8(&bytes[2..]).map(Cow::Borrowed),
        Data::Owned(bytes) => str::from_utf8(&bytes[2..]).map(|reason| Cow::Owned(reason.to_owned())),
    };
    match reason {
        Ok(reason) => Ok(Some(CloseFrame { code, reason })),
        Err(_) => Err(Violation::not_utf8("a close reason that is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::{close_payload, is_sendable_close_code};

    #[test]
    fn a_long_reason_is_cut_at_the_end_of_a_character() {
        assert_eq!(close_payload(1000, ""), [0x03, 0xE8]);
        assert_eq!(close_payload(4000, &"x".repeat(123)).len(), 125);
        assert_eq!(close_payload(4000, &"x".repeat(200)).len(), 125);
        let cut = close_payload(1001, &"€".repeat(50));
        assert_eq!(str::from_utf8(&cut[2..]), Ok(&*"€".repeat(41)));
        let cut = close_payload(1001, &format!("x{}", "é".repeat(70)));
        assert_eq!(cut.len(), 2 + 123);
        let cut = close_payload(1001, &"é".repeat(70));
        assert_eq!(cut.len(), 2 + 122);
    }

    #[test]
    fn only_codes_with_a_meaning_on_the_wire_are_sendable() {
        let sendable: Vec<u16> = (0..3000).filter(|&code| is_sendable_close_code(code)).collect();
        assert_eq!(
            sendable,
            [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014]
        );
        assert!((3000..5000).all(is_sendable_close_code));
        assert!(!(5000..=u16::MAX).any(is_sendable_close_code));
    }
}
