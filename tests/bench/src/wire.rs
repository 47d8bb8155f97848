//! What goes over the wire, for both ends of a benchmark: WebSocket frames and handshakes, and requests made ahead of
//! time. Only what the benchmark needs: whole messages of one frame, one masking key, one handshake key.

use anyhow::{Context, Result, bail, ensure};

use crate::dialect::{Dialect, Numbered};

/// Every client frame is masked with this key; a load generator has nothing to hide.
pub(crate) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The key of RFC 6455's own example, and the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a program sends to open a connection.
pub(crate) fn plain_request(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// What Chrome sends to open a connection from a page of the same origin: about 1 KiB.
pub(crate) fn browser_request(host: &str, path: &str) -> String {
    let cookie = "_ga=GA1.1.1485206153.1731939184; _ga_7QXH2K9V3M=GS1.1.1732031045.4.1.1732031377.0.0.0; theme=dark; \
                  locale=en-GB; csrftoken=kq8Zr1vN5tYw3xJc7dLf0hPbGmRs2uQa; consent=necessary%2Canalytics; \
                  session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MjE3IiwibmFtZSI6IkFkYSIsImlhdCI6MTczMjAzMTM3N30.\
                  c2lnbmF0dXJlLW9mLWEtc2Vzc2lvbi10b2tlbg";
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\n\
         Upgrade: websocket\r\nOrigin: http://{host}\r\nSec-WebSocket-Version: 13\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8,fr;q=0.7\r\n\
         Cookie: {cookie}\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    )
}

/// The length of an HTTP head that is complete, its blank line included.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Holds a server's answer to what a client may expect.
pub(crate) fn check_answer(head: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    ensure!(
        status.starts_with("HTTP/1.1 101 "),
        "the handshake was answered `{status}`"
    );
    let mut accepted = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "sec-websocket-accept" => accepted = value.trim() == ACCEPT,
            "sec-websocket-extensions" => {
                bail!("the server chose an extension that nobody measures:{value}")
            }
            _ => {}
        }
    }
    ensure!(
        accepted,
        "the handshake's answer has no right Sec-WebSocket-Accept:\n{text}"
    );
    Ok(())
}

/// The head of a frame that is complete in a buffer.
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    /// Where the payload begins and where the frame ends.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The frame at the beginning of `bytes`, or nothing as long as it is incomplete.
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<Frame>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    ensure!(
        first & 0xf0 == 0x80,
        "a frame begins with {first:#04x}: fragments and extensions are not expected here"
    );
    let (length, extended) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
        (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
        (126 | 127, _) => return Ok(None),
        (short, _) => (u64::from(short), 0),
    };
    ensure!(length <= 1 << 24, "a frame announces {length} bytes");
    let key = 2 + extended;
    let (mask, start) = match (second & 0x80 != 0, bytes.get(key..key + 4)) {
        (false, _) => (None, key),
        (true, Some(four)) => (Some([four[0], four[1], four[2], four[3]]), key + 4),
        (true, None) => return Ok(None),
    };
    let end = start + usize::try_from(length)?;
    Ok((bytes.len() >= end).then_some(Frame {
        opcode: first & 0x0f,
        mask,
        start,
        end,
    }))
}

/// Appends a frame's head: masked as a client's, or bare as a server's.
pub(crate) fn write_head(opcode: u8, length: usize, masked: bool, out: &mut Vec<u8>) {
    let bit = if masked { 0x80 } else { 0 };
    match length {
        0..126 => out.extend_from_slice(&[0x80 | opcode, bit | length as u8]),
        126..65_536 => {
            let [a, b] = (length as u16).to_be_bytes();
            out.extend_from_slice(&[0x80 | opcode, bit | 126, a, b]);
        }
        _ => {
            out.extend_from_slice(&[0x80 | opcode, bit | 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&MASK);
    }
}

/// Appends a client's whole frame. For what is sent seldom: requests by the thousand are a [`Request`].
pub(crate) fn write_client_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    write_head(opcode, payload.len(), true, out);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at & 3]));
}

/// Masks or unmasks bytes that stand at the beginning of a payload.
pub(crate) fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut eights = bytes.chunks_exact_mut(8);
    for eight in &mut eights {
        for (byte, key) in eight.iter_mut().zip(wide.to_ne_bytes()) {
            *byte ^= key;
        }
    }
    for (byte, key) in eights.into_remainder().iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// A request with everything but its ack id masked ahead of time, and the reply that it asks for.
pub(crate) struct Request {
    head: Vec<u8>,
    /// What follows the id, masked for each of the four places where it can begin.
    tails: [Vec<u8>; 4],
    reply: Numbered,
    /// What follows the id in a reply.
    reply_tail: Vec<u8>,
}

impl Request {
    /// A request for event `name` with `payload`, to be answered with the payload `answer`.
    pub(crate) fn new(dialect: Dialect, name: &str, payload: &str, answer: &str) -> Self {
        let masked = |text: &str, from: usize| -> Vec<u8> {
            text.bytes()
                .enumerate()
                .map(|(at, byte)| byte ^ MASK[(from + at) & 3])
                .collect()
        };
        let (request, reply) = (dialect.request(name), dialect.reply(name));
        let tail = format!("{}{}{}", request.middle, dialect.payload(payload), request.end);
        let reply_tail = format!("{}{}{}", reply.middle, dialect.payload(answer), reply.end);
        Self {
            head: masked(&request.start, 0),
            tails: [0, 1, 2, 3].map(|from| masked(&tail, from)),
            reply,
            reply_tail: reply_tail.into_bytes(),
        }
    }

    /// Appends the frame of the request with this ack id.
    pub(crate) fn append(&self, id: u64, out: &mut Vec<u8>) {
        let mut digits = [0; 20];
        let digits = decimal(id, &mut digits);
        let after = self.head.len() + digits.len();
        let tail = &self.tails[after & 3];
        write_head(TEXT, after + tail.len(), true, out);
        out.extend_from_slice(&self.head);
        out.extend(
            digits
                .iter()
                .enumerate()
                .map(|(at, digit)| digit ^ MASK[(self.head.len() + at) & 3]),
        );
        out.extend_from_slice(tail);
    }

    /// The ack id of a reply to this request; whatever else it may be, is an error.
    pub(crate) fn reply_id(&self, message: &[u8]) -> Result<u64> {
        let parsed = message
            .strip_prefix(self.reply.start.as_bytes())
            .and_then(leading_number);
        match parsed {
            Some((id, rest)) if rest == self.reply_tail => Ok(id),
            _ => bail!("not the reply that was asked for: {}", shown(message)),
        }
    }
}

/// The ack id of a reply whose answer is a number, and that number.
pub(crate) fn reply_number(reply: &Numbered, message: &[u8]) -> Result<(u64, u64)> {
    let parsed = reply.parts(message).and_then(|(id, answer)| {
        let (number, rest) = leading_number(answer)?;
        rest.is_empty().then_some((id, number))
    });
    parsed.with_context(|| format!("not the reply that was asked for: {}", shown(message)))
}

/// A number in decimal, written into the end of `space`.
fn decimal(mut number: u64, space: &mut [u8; 20]) -> &[u8] {
    let mut at = space.len();
    loop {
        at -= 1;
        space[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &space[at..];
        }
    }
}

/// The decimal number that `bytes` begin with, and what follows it.
pub(crate) fn leading_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=18).contains(&length) {
        return None;
    }
    let (digits, rest) = bytes.split_at(length);
    Some((
        digits
            .iter()
            .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')),
        rest,
    ))
}

/// The beginning of a message, for an error.
pub(crate) fn shown(message: &[u8]) -> String {
    let start = String::from_utf8_lossy(&message[..message.len().min(80)])
        .escape_debug()
        .to_string();
    format!("`{start}` ({} bytes)", message.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_masked_frame_whatever_the_length_of_its_id() {
        for (dialect, start, end) in [
            (Dialect::Etp, "echo||", "||some payload"),
            (Dialect::Raw, "echo||", "||some payload"),
            (Dialect::SocketIo, "42", r#"["echo","some payload"]"#),
        ] {
            let request = Request::new(dialect, "echo", "some payload", "some payload");
            for id in [1, 12, 123, 1_234, 12_345, u64::MAX] {
                let mut bytes = Vec::new();
                request.append(id, &mut bytes);
                let frame = frame(&bytes).unwrap().unwrap();
                assert_eq!((frame.opcode, frame.end), (TEXT, bytes.len()));
                unmask(&mut bytes[frame.start..], frame.mask.unwrap());
                assert_eq!(bytes[frame.start..], *format!("{start}{id}{end}").as_bytes());
            }
        }
    }

    #[test]
    fn a_reply_must_have_the_event_an_id_and_the_whole_payload() {
        let id = |dialect, reply: &str| Request::new(dialect, "echo", "data", "data").reply_id(reply.as_bytes());
        assert_eq!(id(Dialect::Etp, "__ack_echo||17||data").unwrap(), 17);
        assert_eq!(id(Dialect::Raw, "echo||17||data").unwrap(), 17);
        assert_eq!(id(Dialect::SocketIo, r#"4317["data"]"#).unwrap(), 17);
        for wrong in [
            "__ack_echo||17||dat",
            "__ack_echo||17||dataa",
            "__ack_echo||||data",
            "echo||17||data",
            "",
        ] {
            assert!(id(Dialect::Etp, wrong).is_err(), "{wrong}");
        }
        for wrong in [
            r#"4317["dat"]"#,
            r#"4317["data","data"]"#,
            r#"43["data"]"#,
            r#"4217["data"]"#,
        ] {
            assert!(id(Dialect::SocketIo, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_that_counts_is_a_number_and_nothing_else() {
        let number = |reply: &str| reply_number(&Dialect::Etp.reply("join"), reply.as_bytes());
        assert_eq!(number("__ack_join||1||1000").unwrap(), (1, 1_000));
        for wrong in ["__ack_join||1||", "__ack_join||1||1x", "__ack_join||1", "join||1||1"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_incomplete_frame_is_not_a_frame_yet() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut bytes = Vec::new();
            write_client_frame(BINARY, &vec![7; length], &mut bytes);
            assert_eq!(frame(&bytes).unwrap().unwrap().end, bytes.len());
            for cut in [0, 1, 2, 5, bytes.len() - 1] {
                assert!(frame(&bytes[..cut]).unwrap().is_none(), "{cut} of {length}");
            }
        }
    }
}
