//! The head of a frame, read and written: `name "||" ack-id [ "||" payload ]`.
//!
//! Payloads are never looked at: a reader learns where one begins, a writer appends it behind the head.

use alloc::vec::Vec;
use core::fmt;

/// The longest name in bytes, one leading [`REPLY_PREFIX`] not counted.
pub const MAX_NAME: usize = 256;

/// What the name of a reply begins with; the name of the event that it answers follows.
pub const REPLY_PREFIX: &str = "__ack_";

/// The event name kept for the protocol itself: `__ack___etp` with id 0 is the extension channel.
pub const EXTENSION: &str = "__etp";

/// The largest ack id: every language of this project and Go's `int64` hold it.
pub const MAX_ACK_ID: u64 = i64::MAX as u64;

/// The longest head: [`parse`] never needs more of a frame than this to answer.
pub const MAX_HEAD: usize = REPLY_PREFIX.len() + MAX_NAME + SEPARATOR.len() + MAX_DIGITS + SEPARATOR.len();

const SEPARATOR: &[u8] = b"||";
const MAX_DIGITS: usize = 19;

/// What stands in a frame before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The name as it stands in the frame: with [`REPLY_PREFIX`] if the frame is a reply.
    pub name: &'a str,
    /// The id to answer with, or the id answered; 0 if no acknowledgment is wanted.
    pub ack_id: u64,
    /// The offset where the payload begins; `None` for a frame of two parts, which has none.
    pub payload: Option<usize>,
}

impl<'a> Head<'a> {
    /// The name of the event that this frame answers; `None` if it is an event itself.
    pub fn reply_to(&self) -> Option<&'a str> {
        self.name.strip_prefix(REPLY_PREFIX)
    }
}

/// Why a frame is malformed. Says nothing of the frame's content, so it may be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Defect {
    /// The frame begins with `||`, or nothing follows `__ack_`.
    NameEmpty,
    /// No `||` where the longest name would end.
    NameTooLong,
    /// The name is not UTF-8.
    NameNotUtf8,
    /// The frame ends before its ack id: no `||`, or nothing behind it.
    NoAckId,
    /// The ack id is not made of the digits 0 to 9, or something other than `||` follows it.
    AckIdNotDecimal,
    /// A digit follows a leading 0.
    AckIdLeadingZero,
    /// The ack id is beyond [`MAX_ACK_ID`].
    AckIdTooLarge,
}

impl Defect {
    /// The defect as a stable word, as the test vectors spell it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NameEmpty => "name_empty",
            Self::NameTooLong => "name_too_long",
            Self::NameNotUtf8 => "name_not_utf8",
            Self::NoAckId => "no_ack_id",
            Self::AckIdNotDecimal => "ack_id_not_decimal",
            Self::AckIdLeadingZero => "ack_id_leading_zero",
            Self::AckIdTooLarge => "ack_id_too_large",
        }
    }

    /// The defect in words.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NameEmpty => "the event name is empty",
            Self::NameTooLong => "the event name is longer than 256 bytes",
            Self::NameNotUtf8 => "the event name is not UTF-8",
            Self::NoAckId => "there is no ack id",
            Self::AckIdNotDecimal => "the ack id is not a decimal number",
            Self::AckIdLeadingZero => "the ack id has a leading zero",
            Self::AckIdTooLarge => "the ack id is larger than 2^63 - 1",
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl core::error::Error for Defect {}

/// Reads the head of a frame from its first bytes; `complete` says that `head` is the whole frame.
///
/// `Ok(None)` asks for more bytes, and only if the frame is not complete. [`MAX_HEAD`] bytes always suffice. A frame is
/// refused at the first byte that no well-formed frame has there, so nobody has to send much for it.
///
/// ```
/// use etp_ws::protocol::frame::{Head, parse};
///
/// let head = Head { name: "hello", ack_id: 7, payload: Some(10) };
/// assert_eq!(parse(b"hello||7||world", true), Ok(Some(head)));
/// assert_eq!(parse(b"hello||7", false), Ok(None));
/// ```
///
/// # Errors
/// The [`Defect`] that puts the frame outside the grammar.
pub fn parse(head: &[u8], complete: bool) -> Result<Option<Head<'_>>, Defect> {
    let prefix = if head.starts_with(REPLY_PREFIX.as_bytes()) {
        REPLY_PREFIX.len()
    } else {
        0
    };
    let longest = prefix + MAX_NAME;
    let window = &head[..head.len().min(longest + SEPARATOR.len())];
    let Some(split) = find_separator(window) else {
        return no_separator(window, longest, complete);
    };
    if split <= prefix {
        // `__ack_||`: the name of the answered event is empty. A shorter split leaves no room for the prefix.
        return Err(Defect::NameEmpty);
    }
    let name = text(&head[..split]).ok_or(Defect::NameNotUtf8)?;
    let id_at = split + SEPARATOR.len();
    let Some(id) = parse_id(&head[id_at..], complete)? else {
        return Ok(None);
    };
    let payload = id.followed.then_some(id_at + id.digits + SEPARATOR.len());
    Ok(Some(Head {
        name,
        ack_id: id.value,
        payload,
    }))
}

/// Bytes as text. In a browser they are looked at by what is half as large, if slower, than `from_utf8`.
fn text(bytes: &[u8]) -> Option<&str> {
    if cfg!(not(target_family = "wasm")) {
        return core::str::from_utf8(bytes).ok();
    }
    let chunk = bytes.utf8_chunks().next()?;
    chunk.invalid().is_empty().then(|| chunk.valid())
}

/// Where the first `||` begins. Eight bytes at a time: a name of 40 bytes takes half the time of a plain loop.
fn find_separator(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    const BARS: u64 = u64::from_le_bytes([b'|'; 8]);
    // In a browser the plain loop below does all: it is size that counts there.
    const SWAR: bool = cfg!(not(target_family = "wasm"));
    let mut at = 0;
    while let Some(chunk) = bytes.get(at..).filter(|_| SWAR).and_then(<[u8]>::first_chunk) {
        // A byte becomes zero where a bar stands. Subtracting one then sets its top bit; borrows can set bits only above
        // the first bar, and only the lowest bit is used.
        let zeros = u64::from_le_bytes(*chunk) ^ BARS;
        let found = zeros.wrapping_sub(ONES) & !zeros & TOPS;
        if found == 0 {
            at += 8;
            continue;
        }
        let bar = at + (found.trailing_zeros() / 8) as usize;
        if bytes.get(bar + 1) == Some(&b'|') {
            return Some(bar);
        }
        at = bar + 1;
    }
    let rest = bytes.get(at..)?;
    rest.windows(2).position(|pair| pair == SEPARATOR).map(|bar| at + bar)
}

/// The name has not ended within `window`, which is at most two bytes longer than the longest name.
#[cold]
fn no_separator(window: &[u8], longest: usize, complete: bool) -> Result<Option<Head<'_>>, Defect> {
    let name = &window[..window.len().min(longest)];
    if let Some(chunk) = name.utf8_chunks().next()
        && let [first, ..] = chunk.invalid()
    {
        // What begins a character and is cut off at the end may yet be completed.
        let at_end = chunk.valid().len() + chunk.invalid().len() == name.len();
        if !(at_end && matches!(first, 0xc2..=0xf4)) {
            return Err(Defect::NameNotUtf8);
        }
    }
    match window.get(longest..) {
        // The first byte of a separator may stand here, the second has not come.
        None | Some([] | [b'|']) => {}
        Some(_) => return Err(Defect::NameTooLong),
    }
    if complete { Err(Defect::NoAckId) } else { Ok(None) }
}

struct AckId {
    value: u64,
    digits: usize,
    /// A separator follows: the frame has three parts.
    followed: bool,
}

fn parse_id(bytes: &[u8], complete: bool) -> Result<Option<AckId>, Defect> {
    let more = |defect| if complete { Err(defect) } else { Ok(None) };
    let mut value = 0u64;
    let mut digits = 0;
    // One digit more than an id has is read, and then refused: twenty nines may wrap, nineteen fit into 64 bits.
    while digits <= MAX_DIGITS
        && let Some(digit) = bytes.get(digits).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        digits += 1;
    }
    if digits > 1 && bytes.first() == Some(&b'0') {
        return Err(Defect::AckIdLeadingZero);
    }
    if digits > MAX_DIGITS || value > MAX_ACK_ID {
        return Err(Defect::AckIdTooLarge);
    }
    match &bytes[digits..] {
        [] if digits == 0 => more(Defect::NoAckId),
        [] if complete => Ok(Some(AckId {
            value,
            digits,
            followed: false,
        })),
        [] => Ok(None),
        _ if digits == 0 => Err(Defect::AckIdNotDecimal),
        [b'|', b'|', ..] => Ok(Some(AckId {
            value,
            digits,
            followed: true,
        })),
        [b'|'] => more(Defect::AckIdNotDecimal),
        _ => Err(Defect::AckIdNotDecimal),
    }
}

/// Why a name can't be emitted or handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameDefect {
    /// It has no bytes.
    Empty,
    /// It has more than [`MAX_NAME`] bytes.
    TooLong,
    /// It contains `||`.
    Separator,
    /// It ends in `|`, which would merge with the separator behind it.
    TrailingBar,
    /// It begins with `__ack_` or `__etp`.
    Reserved,
}

impl NameDefect {
    /// The defect as a stable word, as the test vectors spell it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::Separator => "separator",
            Self::TrailingBar => "trailing_bar",
            Self::Reserved => "reserved",
        }
    }

    /// What is wrong, and what is allowed instead.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Empty => "an event name is empty; it must have 1 to 256 bytes",
            Self::TooLong => "an event name is longer than 256 bytes of UTF-8",
            Self::Separator => {
                "an event name contains \"||\", which separates the parts of a frame; a single \"|\" inside is allowed"
            }
            Self::TrailingBar => "an event name ends in \"|\"; it is allowed anywhere but at the end",
            Self::Reserved => {
                "an event name is reserved: names that begin with \"__ack_\" or \"__etp\" belong to the protocol"
            }
        }
    }
}

impl fmt::Display for NameDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl core::error::Error for NameDefect {}

/// Checks a name before it is emitted or gets a handler.
///
/// ```
/// use etp_ws::protocol::frame::{NameDefect, check_name};
///
/// assert_eq!(check_name("chat message"), Ok(()));
/// assert_eq!(check_name("a||b"), Err(NameDefect::Separator));
/// ```
///
/// # Errors
/// The [`NameDefect`]; its text says what is allowed instead.
pub fn check_name(name: &str) -> Result<(), NameDefect> {
    let bytes = name.as_bytes();
    match bytes.last() {
        None => return Err(NameDefect::Empty),
        _ if bytes.len() > MAX_NAME => return Err(NameDefect::TooLong),
        _ if name.starts_with(REPLY_PREFIX) || name.starts_with(EXTENSION) => {
            return Err(NameDefect::Reserved);
        }
        _ if find_separator(bytes).is_some() => return Err(NameDefect::Separator),
        Some(b'|') => return Err(NameDefect::TrailingBar),
        Some(_) => {}
    }
    Ok(())
}

/// Appends the head of an event, `name||id||`; its payload follows. Always three parts: older peers throw on two.
///
/// The caller has checked `name` with [`check_name`]; `ack_id` is 0 or was counted by a [`Session`](super::Session).
pub fn write_event(out: &mut Vec<u8>, name: &str, ack_id: u64) {
    Opening::event(name, ack_id).write(out);
}

/// Appends the head of a reply, `__ack_name||id||`, its payload to follow; or the whole of an `empty` reply,
/// `__ack_name||id`: so the Go module's caller gets its nil.
///
/// `name` and `ack_id` are those of the event that is answered.
pub fn write_reply(out: &mut Vec<u8>, name: &str, ack_id: u64, empty: bool) {
    Opening::reply(name, ack_id, empty).write(out);
}

/// What [`write_event`] or [`write_reply`] appends, ready to be measured and then written: limits ask for its length first.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    prefix: &'static str,
    name: &'a str,
    ack_id: u64,
    digits: usize,
    /// No payload follows, nor the separator before one.
    two_parts: bool,
}

impl<'a> Opening<'a> {
    /// What [`write_event`] appends.
    #[inline]
    pub fn event(name: &'a str, ack_id: u64) -> Self {
        Self::new("", name, ack_id, false)
    }

    /// What [`write_reply`] appends.
    #[inline]
    pub fn reply(name: &'a str, ack_id: u64, empty: bool) -> Self {
        Self::new(REPLY_PREFIX, name, ack_id, empty)
    }

    #[inline]
    fn new(prefix: &'static str, name: &'a str, ack_id: u64, two_parts: bool) -> Self {
        let mut digits = 1;
        let mut rest = ack_id / 10;
        while rest > 0 {
            digits += 1;
            rest /= 10;
        }
        Self {
            prefix,
            name,
            ack_id,
            digits,
            two_parts,
        }
    }

    /// Bytes that [`write`](Self::write) appends.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    #[inline]
    pub fn len(&self) -> usize {
        let separators = if self.two_parts { 1 } else { 2 };
        self.prefix.len() + self.name.len() + self.digits + separators * SEPARATOR.len()
    }

    /// Appends it.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(SEPARATOR);
        write_digits(out, self.ack_id, self.digits);
        if !self.two_parts {
            out.extend_from_slice(SEPARATOR);
        }
    }
}

/// Appends the last `digits` decimal digits of `id`, eight at a time: they are put together in a register, as writing one by one what
/// is then read at once makes a processor wait.
fn write_digits(out: &mut Vec<u8>, id: u64, digits: usize) {
    const EIGHT: u64 = 100_000_000;
    if digits > 8 {
        write_digits(out, id / EIGHT, digits - 8);
    }
    let mut rest = id;
    let mut word = 0;
    for _ in 0..digits.min(8) {
        word = (word << 8) | (u64::from(b'0') + rest % 10);
        rest /= 10;
    }
    out.extend_from_slice(&word.to_le_bytes()[..digits.min(8)]);
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::String, vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    /// A name within the grammar, reply prefix aside.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![".{1,60}", "[|a\u{e9}\u{1f600}\n\0]{1,256}", "(__ack_)?[a-z_]{1,20}"]
            .prop_filter("within the grammar, reserved names aside", |name| {
                check_name(name).is_ok()
            })
    }

    fn ack_id() -> impl Strategy<Value = u64> {
        // Where one more digit begins, and so one more word of them.
        let seam = (0..19u32, 0..3u64).prop_map(|(zeros, more)| 10u64.pow(zeros) - 1 + more);
        prop_oneof![Just(0), Just(MAX_ACK_ID), 1..1_000u64, 0..=MAX_ACK_ID, seam]
    }

    /// The grammar, written as plainly as it stands in the protocol's description: the oracle.
    fn well_formed(frame: &[u8]) -> bool {
        let Some(split) = frame.windows(2).position(|pair| pair == b"||") else {
            return false;
        };
        let name = &frame[..split];
        let event = name.strip_prefix(b"__ack_").unwrap_or(name);
        let rest = &frame[split + 2..];
        let id = rest
            .windows(2)
            .position(|pair| pair == b"||")
            .map_or(rest, |end| &rest[..end]);
        (1..=256).contains(&event.len())
            && core::str::from_utf8(name).is_ok()
            && core::str::from_utf8(id).is_ok_and(|id| {
                id.parse::<i64>()
                    .is_ok_and(|value| value >= 0 && format!("{value}") == id)
            })
    }

    /// Something that some well-formed frame may go on with.
    fn can_go_on(head: &[u8]) -> bool {
        let tails: [&[u8]; 12] = [
            b"",
            b"0",
            b"|0",
            b"||0",
            b"|",
            b"||",
            b"a||0",
            b"\x80||0",
            b"\xa0\x80||0",
            b"\x90\x80\x80||0",
            b"\x80\x80||0",
            b"\x80\x80\x80||0",
        ];
        tails.iter().any(|tail| well_formed(&[head, tail].concat()))
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_at_every_cut(name in name(), id in ack_id(), empty: bool, reply: bool, payload: Vec<u8>) {
            let mut frame = Vec::new();
            if reply {
                write_reply(&mut frame, &name, id, empty);
                prop_assert_eq!(frame.len(), Opening::reply(&name, id, empty).len());
            } else {
                write_event(&mut frame, &name, id);
                prop_assert_eq!(frame.len(), Opening::event(&name, id).len());
            }
            let head_len = frame.len();
            let three_parts = !(reply && empty);
            if three_parts {
                frame.extend_from_slice(&payload);
            }
            let head = parse(&frame, true).unwrap().unwrap();
            prop_assert_eq!(head.ack_id, id);
            prop_assert_eq!(head.payload, three_parts.then_some(head_len));
            prop_assert_eq!(head.reply_to(), reply.then_some(name.as_str()));
            prop_assert_eq!(head.name.strip_prefix(REPLY_PREFIX).unwrap_or(head.name), &name);
            for cut in 0..=head_len {
                let expected = (three_parts && cut == head_len).then_some(head);
                prop_assert_eq!(parse(&frame[..cut], false), Ok(expected));
            }
        }

        #[test]
        fn random_bytes_are_read_as_the_grammar_says(
            frame in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..400),
                "(__ack_)?[|a\u{e9}]{0,4}(\\|\\|)?[+0-9-]{0,21}[|x]{0,4}".prop_map(String::into_bytes),
                proptest::collection::vec(prop_oneof![Just(b'|'), Just(b'0'), Just(0xe2), Just(0x82), Just(0xac)], 0..12),
                (250..270usize, "[|0x]{0,6}").prop_map(|(len, tail)| [vec![b'n'; len], tail.into_bytes()].concat()),
                (250..270usize, "[|0x]{0,6}").prop_map(|(len, tail)| [b"__ack_".to_vec(), vec![b'n'; len], tail.into_bytes()].concat()),
            ],
        ) {
            let whole = parse(&frame, true);
            prop_assert_eq!(whole.is_ok(), well_formed(&frame));
            prop_assert_ne!(whole, Ok(None));
            let mut refused = None;
            for cut in 0..=frame.len() {
                match (parse(&frame[..cut], false), refused) {
                    (Err(defect), None) => refused = Some(defect),
                    (Err(defect), Some(before)) => prop_assert_eq!(defect, before),
                    (Ok(None), None) => {
                        prop_assert!(cut < MAX_HEAD);
                        prop_assert!(can_go_on(&frame[..cut]), "should have been refused at {}", cut);
                    }
                    (Ok(Some(head)), None) => prop_assert_eq!(whole, Ok(Some(head))),
                    (Ok(_), Some(_)) => prop_assert!(false, "refused at first, then not"),
                }
            }
            if let Some(defect) = refused {
                prop_assert_eq!(whole, Err(defect));
            }
        }
    }

    /// The standard library's judgement is the oracle: `error_len` is what tells broken from cut off.
    #[test]
    fn a_name_that_is_cut_off_may_go_on_and_a_broken_one_may_not() {
        const EDGES: [u8; 16] = [
            b'a', 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xe0, 0xe2, 0xed, 0xf0, 0xf4, 0xf5, 0xff,
        ];
        for n in 0..EDGES.len().pow(4) {
            let all = [n & 15, n >> 4 & 15, n >> 8 & 15, n >> 12].map(|at| EDGES[at]);
            for name in [&all[..1], &all[..2], &all[..3], &all] {
                let broken = core::str::from_utf8(name).is_err_and(|error| error.error_len().is_some());
                let expected = if broken { Err(Defect::NameNotUtf8) } else { Ok(None) };
                assert_eq!(parse(name, false), expected, "{name:02x?}");
            }
        }
    }

    #[test]
    fn texts_of_defects_are_short_and_fixed() {
        assert_eq!(format!("{}", Defect::NoAckId), "there is no ack id");
        assert!(format!("{}", NameDefect::Separator).contains("a single \"|\" inside is allowed"));
    }
}
