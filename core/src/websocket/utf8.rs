//! UTF-8 checks: of whole texts, and of what has arrived of one so far.

/// Below this, vector code costs more to begin than it saves.
const SHORT: usize = 64;

/// Whether `bytes` are whole characters.
#[inline]
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    if bytes.len() < SHORT {
        bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
    } else {
        simdutf8::basic::from_utf8(bytes).is_ok()
    }
}

/// How many of `bytes` are whole characters, if more bytes can still make text of them all.
///
/// What it leaves uncounted is at most three bytes of a character that has begun.
pub(super) fn prefix(bytes: &[u8]) -> Option<usize> {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(_) => Some(bytes.len()),
        Err(error) if error.error_len().is_none() => Some(error.valid_up_to()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{is_text, prefix};

    #[test]
    fn a_begun_character_is_waited_for_and_a_broken_one_is_not() {
        assert_eq!(prefix(b""), Some(0));
        assert_eq!(prefix("aé".as_bytes()), Some(3));
        assert_eq!(prefix(b"a\xF0\x9F\x98"), Some(1));
        // Overlong, surrogate and beyond U+10FFFF: hopeless at the second byte.
        for broken in [
            &b"\xE0\x80"[..],
            b"\xED\xA0",
            b"\xF4\x90",
            b"\xC0",
            b"\xF5",
            b"\x80",
            b"\xC3a",
        ] {
            assert_eq!(prefix(broken), None, "{broken:x?}");
        }
    }

    #[test]
    fn short_and_long_texts_are_judged_alike() {
        for len in 0..200 {
            let mut bytes = vec![b'a'; len];
            assert!(is_text(&bytes));
            bytes.extend_from_slice("é".as_bytes());
            assert!(is_text(&bytes));
            bytes.pop();
            assert!(!is_text(&bytes));
        }
    }
}
