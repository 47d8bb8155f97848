//! The WebSocket codec through its public face: every rule of RFC 6455 that a receiver enforces, random
//! messages in random pieces, and tungstenite as the independent reader and writer.

#![cfg(feature = "net")]

use std::io::{self, Cursor, Read, Write};

use etp_ws::websocket::{
    Data, Decoder, DecoderConfig, FrameHead, Item, Opcode, Role, Violation, close_payload, mask, parse_frame,
    write_head,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio_tungstenite::tungstenite;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::{Message, WebSocket};

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const MAX: usize = 1 << 20;

fn config(role: Role) -> DecoderConfig {
    DecoderConfig {
        role,
        max_message_size: MAX,
        max_overhead: 64 << 10,
        allow_rsv1: false,
        check_masks: true,
    }
}

fn small(max_message_size: usize, max_overhead: usize) -> DecoderConfig {
    DecoderConfig {
        max_message_size,
        max_overhead,
        ..config(Role::Server)
    }
}

/// A frame as `role` expects it.
fn frame(role: Role, fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mask = (role == Role::Server).then_some(KEY);
    raw_frame(
        FrameHead {
            fin,
            rsv1: false,
            opcode,
            mask,
            len: payload.len(),
        },
        payload,
    )
}

fn raw_frame(head: FrameHead, payload: &[u8]) -> Vec<u8> {
    let mut wire = vec![];
    write_head(&mut wire, &head);
    let at = wire.len();
    wire.extend_from_slice(payload);
    if let Some(key) = head.mask {
        mask(key, 0, &mut wire[at..]);
    }
    wire
}

/// From a client, with a key of zeros so that the payload reads as it is written.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    assert!(len < 126);
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

fn text(payload: &str) -> Item<'static> {
    Item::Message {
        binary: false,
        rsv1: false,
        data: Data::Owned(payload.into()),
    }
}

fn binary(payload: &[u8]) -> Item<'static> {
    Item::Message {
        binary: true,
        rsv1: false,
        data: Data::Owned(payload.into()),
    }
}

fn keep(item: Item<'_>) -> Item<'static> {
    match item {
        Item::Message { binary, rsv1, data } => Item::Message {
            binary,
            rsv1,
            data: Data::Owned(data.into_vec()),
        },
        Item::Ping(data) => Item::Ping(Data::Owned(data.into_vec())),
        Item::Pong(data) => Item::Pong(Data::Owned(data.into_vec())),
        Item::Close(frame) => Item::Close(frame.map(|frame| etp_ws::websocket::CloseFrame {
            code: frame.code,
            reason: frame.reason.into_owned().into(),
        })),
    }
}

/// Everything in `bytes`, up to a violation, with the short way for whole messages tried first.
fn feed(decoder: &mut Decoder, bytes: &[u8], items: &mut Vec<Item<'static>>) -> Result<(), Violation> {
    let mut bytes = bytes.to_vec();
    let mut input = &mut bytes[..];
    loop {
        let before = input.to_vec();
        if let Some((payload, binary)) = decoder.decode_whole(&mut input) {
            let data = Data::Owned(payload.to_vec());
            items.push(Item::Message {
                binary,
                rsv1: false,
                data,
            });
            continue;
        }
        assert!(
            *input == *before,
            "what the short way does not take it leaves as it was"
        );
        match decoder.decode(&mut input)? {
            Some(item) => items.push(keep(item)),
            None => break,
        }
    }
    assert!(input.is_empty());
    Ok(())
}

/// As `feed`, without the short way.
fn feed_the_long_way(decoder: &mut Decoder, bytes: &[u8], items: &mut Vec<Item<'static>>) -> Result<(), Violation> {
    let mut bytes = bytes.to_vec();
    let mut input = &mut bytes[..];
    while let Some(item) = decoder.decode(&mut input)? {
        items.push(keep(item));
    }
    assert!(input.is_empty());
    Ok(())
}

/// What a decoder makes of `wire` fed whole; the long way, and fed byte by byte, it must be the same.
fn decode(config: DecoderConfig, wire: &[u8]) -> (Vec<Item<'static>>, Result<(), Violation>) {
    let mut whole = (vec![], Ok(()));
    whole.1 = feed(&mut Decoder::new(config), wire, &mut whole.0);
    let mut long = (vec![], Ok(()));
    long.1 = feed_the_long_way(&mut Decoder::new(config), wire, &mut long.0);
    assert_eq!(whole, long);

    let mut bytewise = (vec![], Ok(()));
    let mut decoder = Decoder::new(config);
    for byte in wire {
        bytewise.1 = feed(&mut decoder, &[*byte], &mut bytewise.0);
        if bytewise.1.is_err() {
            break;
        }
    }
    assert_eq!(whole, bytewise);
    whole
}

fn items(config: DecoderConfig, wire: &[u8]) -> Vec<Item<'static>> {
    let (items, result) = decode(config, wire);
    assert_eq!(result, Ok(()));
    items
}

/// The close code that answers `wire`, whose last byte must be what shows the violation.
fn violation(config: DecoderConfig, wire: &[u8]) -> u16 {
    let all_but_one = &wire[..wire.len() - 1];
    assert_eq!(
        decode(config, all_but_one).1,
        Ok(()),
        "seen before the last byte of {wire:x?}"
    );
    let violation = decode(config, wire).1.expect_err("a violation");
    assert!(violation.reason.len() <= 123);
    violation.code
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    // RFC 6455, 5.7.
    let server = config(Role::Server);
    let client = config(Role::Client);
    assert_eq!(items(client, b"\x81\x05Hello"), [text("Hello")]);
    assert_eq!(
        items(server, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
        [text("Hello")]
    );
    assert_eq!(items(client, b"\x01\x03Hel\x80\x02lo"), [text("Hello")]);
    assert_eq!(items(client, b"\x89\x05Hello"), [Item::Ping(Data::Borrowed(b"Hello"))]);
    assert_eq!(
        items(server, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
        [Item::Pong(Data::Borrowed(b"Hello"))]
    );
    let large = [1; 256];
    assert_eq!(
        items(client, &[b"\x82\x7e\x01\x00", &large[..]].concat()),
        [binary(&large)]
    );
    let larger = [2; 65536];
    assert_eq!(
        items(client, &[b"\x82\x7f\0\0\0\0\0\x01\0\0", &larger[..]].concat()),
        [binary(&larger)]
    );
}

#[test]
fn a_whole_frame_is_handed_over_in_place() {
    let mut wire = [
        frame(Role::Server, true, Opcode::Text, b"one"),
        frame(Role::Server, true, Opcode::Ping, b"two"),
    ]
    .concat();
    let mut decoder = Decoder::new(config(Role::Server));
    // Even if its head came before.
    let (mut head, mut rest) = wire.split_at_mut(3);
    assert_eq!(decoder.decode(&mut head), Ok(None));
    let item = decoder.decode(&mut rest);
    assert!(
        matches!(
            item,
            Ok(Some(Item::Message {
                data: Data::Borrowed(b"one"),
                ..
            }))
        ),
        "{item:?}"
    );
    let item = decoder.decode(&mut rest);
    assert!(matches!(item, Ok(Some(Item::Ping(Data::Borrowed(b"two"))))), "{item:?}");
    assert_eq!(decoder.decode(&mut rest), Ok(None));
}

#[test]
fn empty_messages_fragments_and_control_frames_are_whole_without_a_byte_left() {
    let wire = [
        client(0x81, b""),
        client(0x02, b""),
        client(0x00, b""),
        client(0x89, b""),
        client(0x80, b""),
        client(0x8A, b""),
        client(0x01, b""),
        client(0x80, b"x"),
        client(0x88, b""),
    ]
    .concat();
    let nothing = || Data::Borrowed(b"");
    assert_eq!(
        items(config(Role::Server), &wire),
        [
            text(""),
            Item::Ping(nothing()),
            binary(b""),
            Item::Pong(nothing()),
            text("x"),
            Item::Close(None)
        ]
    );
}

#[test]
fn broken_frame_heads_are_1002() {
    let wires: [(&str, &[u8]); 16] = [
        ("RSV2", b"\xA1\x80"),
        ("RSV3", b"\x91\x80"),
        ("RSV1, not negotiated", b"\xC1\x80\0\0\0\0"),
        ("a reserved data opcode", b"\x83\x80"),
        ("the last reserved data opcode", b"\x87\x80"),
        ("a reserved control opcode", b"\x8B\x80"),
        ("the last reserved control opcode", b"\x8F\x80"),
        ("a fragmented ping", b"\x09\x80"),
        ("a fragmented close", b"\x08\x80"),
        ("a ping of more than 125 bytes", b"\x89\xFE"),
        ("a close of more than 125 bytes", b"\x88\xFF"),
        ("a continuation of nothing", b"\x80\x80\0\0\0\0"),
        ("a frame without a mask", b"\x81\x00"),
        ("a length of 64 bits", b"\x82\xFF\x80\0\0\0\0\0\0\0"),
        ("125 in 16 bits", b"\x82\xFE\0\x7D"),
        ("65535 in 64 bits", b"\x82\xFF\0\0\0\0\0\0\xFF\xFF"),
    ];
    for (what, wire) in wires {
        assert_eq!(violation(config(Role::Server), wire), 1002, "{what}");
    }
    assert_eq!(
        violation(config(Role::Client), b"\x81\x80\0\0\0\0"),
        1002,
        "a frame with a mask"
    );
}

#[test]
fn fragments_out_of_order_are_1002() {
    let begun = client(0x01, b"a");
    let fragment = client(0x00, b"b");
    for (what, next) in [("text", b"\x81\x80\0\0\0\0"), ("a first fragment", b"\x02\x80\0\0\0\0")] {
        let wire = [&begun[..], &fragment, next].concat();
        assert_eq!(violation(config(Role::Server), &wire), 1002, "{what} within a message");
    }
    let wire = [&begun[..], &client(0x80, b"b"), b"\x00\x80\0\0\0\0"].concat();
    assert_eq!(
        violation(config(Role::Server), &wire),
        1002,
        "a continuation after the end"
    );
}

#[test]
fn rsv1_reaches_the_item_where_an_extension_was_negotiated() {
    let config = DecoderConfig {
        allow_rsv1: true,
        ..config(Role::Server)
    };
    // Not UTF-8: it is for the extension to make text of it.
    let wire = [
        client(0x41, b"\xFF"),
        client(0x80, b"\xFE"),
        client(0xC1, b"\xFF"),
        client(0x81, b"plain"),
    ]
    .concat();
    let compressed = |bytes: &[u8]| Item::Message {
        binary: false,
        rsv1: true,
        data: Data::Owned(bytes.to_vec()),
    };
    assert_eq!(
        items(config, &wire),
        [compressed(b"\xFF\xFE"), compressed(b"\xFF"), text("plain")]
    );

    assert_eq!(violation(config, b"\xC9\x80"), 1002, "on a ping");
    assert_eq!(
        violation(config, &[&client(0x41, b"a")[..], b"\xC0\x80"].concat()),
        1002,
        "on a continuation"
    );
}

#[test]
fn an_in_process_peer_may_leave_the_mask_out() {
    let config = DecoderConfig {
        check_masks: false,
        ..config(Role::Server)
    };
    assert_eq!(
        items(config, &[&b"\x81\x01a"[..], &client(0x81, b"b")].concat()),
        [text("a"), text("b")]
    );
}

#[test]
fn close_frames_tell_code_and_reason() {
    let close = |payload: &[u8]| decode(config(Role::Server), &client(0x88, payload));
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 4999] {
        let (items, result) = close(&close_payload(code, "fini é"));
        assert_eq!(result, Ok(()));
        let frame = etp_ws::websocket::CloseFrame {
            code,
            reason: "fini é".into(),
        };
        assert_eq!(items, [Item::Close(Some(frame))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        let violation = close(&close_payload(code, "")).1.expect_err("a violation");
        assert_eq!(violation.code, 1002, "{code}");
    }
    assert_eq!(close(b"\x03").1.map_err(|violation| violation.code), Err(1002));
    assert_eq!(close(b"\x03\xE8\xFF").1.map_err(|violation| violation.code), Err(1007));
    assert_eq!(close(b"\x03\xE8\xC3").1.map_err(|violation| violation.code), Err(1007));
}

#[test]
fn nothing_is_read_after_a_close_or_a_violation() {
    for last in [client(0x88, b""), b"\x83\x80".to_vec()] {
        let mut decoder = Decoder::new(config(Role::Server));
        let mut seen = vec![];
        let wire = [
            client(0x01, b"begun"),
            last,
            client(0x80, b"late"),
            client(0x81, b"later"),
        ]
        .concat();
        let _ = feed(&mut decoder, &wire, &mut seen);
        assert_eq!(feed(&mut decoder, &client(0x81, b"latest"), &mut seen), Ok(()));
        assert!(seen.is_empty() || seen == [Item::Close(None)]);
        assert!(!decoder.mid_message());
        assert_eq!(decoder.raw_bytes(), 0);
    }
}

#[test]
fn broken_text_is_1007_at_the_byte_that_breaks_it() {
    // In the middle of a frame that announces a hundred bytes more.
    for broken in [
        &b"\xC0"[..],
        b"\xE2\x82\x28",
        b"\xED\xA0",
        b"\xF4\x90",
        b"\xF5",
        b"abc\x80",
    ] {
        let wire = [b"\x01\xE4\0\0\0\0", broken].concat();
        assert_eq!(violation(config(Role::Server), &wire), 1007, "{broken:x?}");
    }
    // Begun in one fragment, broken in the next.
    let wire = [&client(0x01, b"\xE2\x82")[..], b"\x80\xE4\0\0\0\0("].concat();
    assert_eq!(violation(config(Role::Server), &wire), 1007);
    // Begun and never ended.
    assert_eq!(violation(config(Role::Server), &client(0x81, b"a\xE2\x82")), 1007);
    let wire = [client(0x01, b"\xE2"), client(0x80, b"\x82")].concat();
    assert_eq!(violation(config(Role::Server), &wire), 1007);
    let wire = [client(0x01, b"\xE2"), client(0x80, b"")].concat();
    assert_eq!(violation(config(Role::Server), &wire), 1007);
    // As long as it can still become text, it is waited for; binary is not looked at.
    let wire = [client(0x01, b"\xE2"), client(0x00, b"\x82"), client(0x80, b"\xAC")].concat();
    assert_eq!(items(config(Role::Server), &wire), [text("€")]);
    assert_eq!(items(config(Role::Server), &client(0x82, b"\xFF")), [binary(b"\xFF")]);
}

#[test]
fn a_message_too_big_is_1009_as_soon_as_it_is_announced() {
    let config = small(10, 1000);
    assert_eq!(items(config, &client(0x82, &[0; 10])), [binary(&[0; 10])]);
    assert_eq!(violation(config, b"\x82\x8B\0\0\0\0"), 1009);
    assert_eq!(
        violation(config, b"\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0"),
        1009
    );
    let wire = [
        &client(0x02, &[0; 6])[..],
        &client(0x00, b""),
        &client(0x89, &[0; 125]),
        b"\x00\x85\0\0\0\0",
    ]
    .concat();
    assert_eq!(violation(config, &wire), 1009);
}

#[test]
fn endless_fragments_are_1009_and_control_frames_do_not_count() {
    let config = small(10, 20);
    // Five empty fragments of six bytes are 30.
    let fragments: Vec<Vec<u8>> = (0..5).map(|i| client(if i == 0 { 0x02 } else { 0x00 }, b"")).collect();
    let ping = client(0x89, &[0; 100]);
    let wire = fragments.join(&ping[..]);
    assert_eq!(decode(config, &wire).1, Ok(()));
    assert_eq!(violation(config, &[&wire[..], b"\x80\x80\0\0\0\0"].concat()), 1009);
    // Every message counts anew.
    let wire = [client(0x02, b""), client(0x00, b""), client(0x80, &[0; 10])]
        .concat()
        .repeat(100);
    assert_eq!(items(config, &wire).len(), 100);
}

#[test]
fn progress_within_a_message_shows() {
    let mut decoder = Decoder::new(config(Role::Server));
    let mut seen = vec![];
    let steps: [(&[u8], bool, u64); 7] = [
        (b"\x81\x81\0\0\0\0a", false, 0),
        (b"\x01\x83\0\0\0\0", true, 6),
        (b"ab", true, 8),
        (b"c", true, 9),
        (b"\x89\x82\0\0\0\0pi", true, 9),
        (b"\x80\x82\0\0\0\0d", true, 16),
        (b"e", false, 0),
    ];
    for (piece, mid_message, raw_bytes) in steps {
        assert_eq!(feed(&mut decoder, piece, &mut seen), Ok(()));
        assert_eq!(
            (decoder.mid_message(), decoder.raw_bytes()),
            (mid_message, raw_bytes),
            "{piece:x?}"
        );
    }
}

#[test]
fn a_million_messages_pass_through_one_decoder() {
    let mut decoder = Decoder::new(config(Role::Server));
    let wire = frame(Role::Server, true, Opcode::Text, b"hello||0||").repeat(1000);
    let mut buffer = wire.clone();
    let mut messages = 0;
    for _ in 0..1000 {
        buffer.copy_from_slice(&wire);
        let mut input = &mut buffer[..];
        while let Some(item) = decoder.decode(&mut input).unwrap() {
            assert!(matches!(
                item,
                Item::Message {
                    data: Data::Borrowed(b"hello||0||"),
                    ..
                }
            ));
            messages += 1;
        }
    }
    assert_eq!(messages, 1_000_000);
}

#[test]
fn a_message_of_a_hundred_thousand_fragments_passes() {
    let mut wire = frame(Role::Server, false, Opcode::Text, b"x");
    let fragment = frame(Role::Server, false, Opcode::Continuation, b"y");
    wire.extend_from_slice(&fragment.repeat(99_998));
    wire.extend_from_slice(&frame(Role::Server, true, Opcode::Continuation, b"z"));
    assert_eq!(
        items(config(Role::Server), &wire),
        [text(&format!("x{}z", "y".repeat(99_998)))]
    );
}

/// A message or control frame to be sent.
#[derive(Clone, Debug)]
enum Sent {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

impl Sent {
    fn item(&self) -> Item<'_> {
        match self {
            Sent::Text(text) => Item::Message {
                binary: false,
                rsv1: false,
                data: Data::Borrowed(text.as_bytes()),
            },
            Sent::Binary(bytes) => Item::Message {
                binary: true,
                rsv1: false,
                data: Data::Borrowed(bytes),
            },
            Sent::Ping(bytes) => Item::Ping(Data::Borrowed(bytes)),
            Sent::Pong(bytes) => Item::Pong(Data::Borrowed(bytes)),
        }
    }

    /// The message for tungstenite.
    fn message(&self) -> Message {
        match self.clone() {
            Sent::Text(text) => Message::text(text),
            Sent::Binary(bytes) => Message::binary(bytes),
            Sent::Ping(bytes) => Message::Ping(bytes.into()),
            Sent::Pong(bytes) => Message::Pong(bytes.into()),
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        3 => "\\PC{0,80}".prop_map(Sent::Text),
        1 => "[a-zé😀]{100,400}".prop_map(Sent::Text),
        3 => vec(any::<u8>(), 0..300).prop_map(Sent::Binary),
        1 => (65_530..65_540usize, any::<u8>()).prop_map(|(len, byte)| Sent::Binary(vec![byte; len])),
        1 => vec(any::<u8>(), 0..=125).prop_map(Sent::Ping),
        1 => vec(any::<u8>(), 0..=125).prop_map(Sent::Pong),
    ]
}

/// A message as it goes out: where it is cut into fragments, and the ping after each of them but the last.
#[derive(Clone, Debug)]
struct Sending {
    sent: Sent,
    cuts: Vec<(Index, Option<Vec<u8>>)>,
    key: [u8; 4],
}

fn sending() -> impl Strategy<Value = Sending> {
    let cut = (any::<Index>(), proptest::option::of(vec(any::<u8>(), 0..20)));
    (sent(), vec(cut, 0..6), any::<[u8; 4]>()).prop_map(|(sent, cuts, key)| Sending { sent, cuts, key })
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

impl Sending {
    /// Appends the frames to `wire` and what a receiver must make of them to `expected`.
    fn write(&self, role: Role, wire: &mut Vec<u8>, expected: &mut Vec<Item<'static>>) {
        let mask = (role == Role::Server).then_some(self.key);
        let mut put = |fin, opcode, payload: &[u8]| {
            let head = FrameHead {
                fin,
                rsv1: false,
                opcode,
                mask,
                len: payload.len(),
            };
            wire.extend(raw_frame(head, payload));
        };
        let (opcode, payload) = match &self.sent {
            Sent::Text(text) => (Opcode::Text, text.as_bytes()),
            Sent::Binary(bytes) => (Opcode::Binary, &bytes[..]),
            Sent::Ping(bytes) => (Opcode::Ping, &bytes[..]),
            Sent::Pong(bytes) => (Opcode::Pong, &bytes[..]),
        };
        let (mut at, mut next) = (0, opcode);
        if !opcode.is_control() {
            let mut cuts: Vec<_> = self
                .cuts
                .iter()
                .map(|(cut, ping)| (cut.index(payload.len() + 1), ping))
                .collect();
            cuts.sort();
            for (cut, ping) in cuts {
                put(false, next, &payload[at..cut]);
                (at, next) = (cut, Opcode::Continuation);
                if let Some(ping) = ping {
                    put(true, Opcode::Ping, ping);
                    expected.push(Item::Ping(Data::Owned(ping.clone())));
                }
            }
        }
        put(true, next, &payload[at..]);
        expected.push(keep(self.sent.item()));
    }
}

/// `wire` in pieces of the given sizes, again and again.
fn pieces<'a>(wire: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = wire;
    sizes.iter().cycle().map_while(move |size| {
        let (piece, after) = rest.split_at(rest.len().min(*size));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A stream for tungstenite: reads from the one, writes to the other.
#[derive(Default)]
struct Stream {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite_at(role: Role, input: Vec<u8>) -> WebSocket<Stream> {
    let role = match role {
        Role::Server => tungstenite::protocol::Role::Server,
        Role::Client => tungstenite::protocol::Role::Client,
    };
    let stream = Stream {
        input: Cursor::new(input),
        output: vec![],
    };
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX))
        .max_frame_size(Some(MAX));
    WebSocket::from_raw_socket(stream, role, Some(limits))
}

fn other(role: Role) -> Role {
    match role {
        Role::Server => Role::Client,
        Role::Client => Role::Server,
    }
}

proptest! {
    #[test]
    fn messages_arrive_however_they_are_fragmented_and_cut(
        role in role(),
        sendings in vec(sending(), 0..8),
        sizes in vec(prop_oneof![1..8usize, 1..2000usize], 1..20),
    ) {
        let (mut wire, mut expected) = (vec![], vec![]);
        for sending in &sendings {
            sending.write(role, &mut wire, &mut expected);
        }
        let mut whole = vec![];
        prop_assert_eq!(feed(&mut Decoder::new(config(role)), &wire, &mut whole), Ok(()));
        prop_assert_eq!(&whole, &expected);
        let mut long = vec![];
        prop_assert_eq!(feed_the_long_way(&mut Decoder::new(config(role)), &wire, &mut long), Ok(()));
        prop_assert_eq!(&long, &expected);

        let mut decoder = Decoder::new(config(role));
        let mut cut = vec![];
        for piece in pieces(&wire, &sizes) {
            prop_assert_eq!(feed(&mut decoder, piece, &mut cut), Ok(()));
        }
        prop_assert_eq!(&cut, &expected);
        prop_assert!(!decoder.mid_message());
    }

    #[test]
    fn tungstenite_reads_what_we_write(role in role(), sendings in vec(sending(), 0..8)) {
        let (mut wire, mut expected) = (vec![], vec![]);
        for sending in &sendings {
            sending.write(role, &mut wire, &mut expected);
        }
        let close = close_payload(4321, "good bye");
        wire.extend(frame(role, true, Opcode::Close, &close));

        let mut peer = tungstenite_at(role, wire);
        for item in expected {
            let message = peer.read().unwrap();
            match item {
                Item::Message { binary: false, data, .. } => {
                    prop_assert_eq!(message, Message::text(String::from_utf8(data.into_vec()).unwrap()));
                }
                Item::Message { data, .. } => prop_assert_eq!(message, Message::binary(data.into_vec())),
                Item::Ping(data) => prop_assert_eq!(message, Message::Ping(data.into_vec().into())),
                Item::Pong(data) => prop_assert_eq!(message, Message::Pong(data.into_vec().into())),
                Item::Close(_) => unreachable!("none was expected"),
            }
        }
        let goodbye = CloseFrame { code: 4321.into(), reason: "good bye".into() };
        prop_assert_eq!(peer.read().unwrap(), Message::Close(Some(goodbye)));
    }

    #[test]
    fn we_read_what_tungstenite_writes(
        role in role(),
        sent in vec(sent(), 0..8),
        sizes in vec(1..2000usize, 1..20),
    ) {
        let mut peer = tungstenite_at(other(role), vec![]);
        for sent in &sent {
            peer.write(sent.message()).unwrap();
            peer.flush().unwrap();
        }
        peer.close(Some(CloseFrame { code: 1001.into(), reason: "é".into() })).unwrap();
        let wire = std::mem::take(&mut peer.get_mut().output);

        let mut decoder = Decoder::new(config(role));
        let mut items = vec![];
        for piece in pieces(&wire, &sizes) {
            prop_assert_eq!(feed(&mut decoder, piece, &mut items), Ok(()));
        }
        let mut expected: Vec<_> = sent.iter().map(Sent::item).collect();
        let goodbye = etp_ws::websocket::CloseFrame { code: 1001, reason: "é".into() };
        expected.push(Item::Close(Some(goodbye)));
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_are_cut(
        role in role(),
        // Bits that make a beginning likely, then anything.
        frames in vec((0..16u8, any::<bool>(), 0..140u8, vec(any::<u8>(), 0..140)), 0..6),
        check_masks in any::<bool>(),
        allow_rsv1 in any::<bool>(),
    ) {
        let mut wire = vec![];
        for (opcode, fin, len, rest) in frames {
            wire.push(opcode | if fin { 0x80 } else { 0 } | if allow_rsv1 && rest.len() % 3 == 0 { 0x40 } else { 0 });
            wire.push(len.min(127) | if role == Role::Server { 0x80 } else { 0 });
            wire.extend(rest);
        }
        let config = DecoderConfig { check_masks, allow_rsv1, max_message_size: 300, ..config(role) };
        let _ = decode(config, &wire);
        parse_frame(&wire);
    }

    #[test]
    fn random_bytes_never_panic(wire in vec(any::<u8>(), 0..200)) {
        let _ = decode(config(Role::Server), &wire);
        let _ = decode(config(Role::Client), &wire);
        parse_frame(&wire);
    }

    #[test]
    fn a_written_head_is_read_back(
        fin in any::<bool>(),
        mask in any::<Option<[u8; 4]>>(),
        len in prop_oneof![0..200usize, 65_000..66_000usize, any::<u32>().prop_map(|len| len as usize)],
    ) {
        let head = FrameHead { fin, rsv1: false, opcode: Opcode::Binary, mask, len };
        let mut bytes = vec![];
        write_head(&mut bytes, &head);
        prop_assert_eq!(parse_frame(&bytes), Some((head, bytes.len())));
    }
}
