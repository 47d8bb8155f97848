//! Dialects: what the messages of a server look like, around an event, an ack id and a payload that are the same in all.
//! A server is asked in its own dialect and held to it; loads and connections know no more than this.

use anyhow::{Result, bail};

use crate::wire;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Dialect {
    /// `event||id||payload`, replied to with `__ack_event||id||answer`.
    Etp,
    /// What a program does by hand that has a WebSocket library and no protocol: it is asked as an ETP server is and sends
    /// the request back with the answer as its payload, so an `echo` goes back as it came.
    Raw,
    /// Socket.IO 5 over Engine.IO 4: `42id["event","payload"]`, replied to with `43id["answer"]`.
    SocketIo,
}

/// Messages with an ack id: `start`, the id, `middle`, a payload, `end`.
pub(crate) struct Numbered {
    pub(crate) start: String,
    pub(crate) middle: String,
    pub(crate) end: String,
}

impl Numbered {
    fn new(start: String, middle: String, end: &str) -> Self {
        let end = end.to_owned();
        Self { start, middle, end }
    }

    /// The ack id and the payload of a message that has this form.
    pub(crate) fn parts<'a>(&self, message: &'a [u8]) -> Option<(u64, &'a [u8])> {
        let (id, rest) = wire::leading_number(message.strip_prefix(self.start.as_bytes())?)?;
        let rest = rest.strip_prefix(self.middle.as_bytes())?;
        Some((id, rest.strip_suffix(self.end.as_bytes())?))
    }
}

impl Dialect {
    /// Requests for an event.
    pub(crate) fn request(self, event: &str) -> Numbered {
        match self {
            Self::Etp | Self::Raw => Numbered::new(format!("{event}||"), "||".to_owned(), ""),
            Self::SocketIo => Numbered::new("42".to_owned(), format!("[\"{event}\",\""), "\"]"),
        }
    }

    /// Replies to requests for an event.
    pub(crate) fn reply(self, event: &str) -> Numbered {
        match self {
            Self::Etp => Numbered::new(format!("__ack_{event}||"), "||".to_owned(), ""),
            Self::Raw => self.request(event),
            Self::SocketIo => Numbered::new("43".to_owned(), "[\"".to_owned(), "\"]"),
        }
    }

    /// What stands around the payload of an event that the server emits.
    pub(crate) fn delivery(self, event: &str) -> (String, &'static str) {
        match self {
            Self::Etp | Self::Raw => (format!("{event}||0||"), ""),
            Self::SocketIo => (format!("42[\"{event}\",\""), "\"]"),
        }
    }

    /// A payload as it stands in a message. The benchmark's are printable ASCII without quotes, and line breaks.
    pub(crate) fn payload(self, text: &str) -> String {
        match self {
            Self::Etp | Self::Raw => text.to_owned(),
            Self::SocketIo => text.replace('\n', "\\n"),
        }
    }

    /// Whether a connection is of use as soon as its WebSocket handshake is done, without an opening of its own.
    pub(crate) fn opens_at_once(self) -> bool {
        self != Self::SocketIo
    }

    /// What a message of the opening is answered with; nothing: it was the last one.
    pub(crate) fn opening(self, message: &[u8]) -> Result<Option<&'static [u8]>> {
        match (self, message) {
            (Self::SocketIo, [b'0', b'{', ..]) => Ok(Some(b"40")),
            (Self::SocketIo, [b'4', b'0', b'{', ..]) => Ok(None),
            _ => bail!("not a part of the opening: {}", wire::shown(message)),
        }
    }

    /// What a message that keeps the connection alive is answered with; nothing: it is the load's.
    pub(crate) fn keepalive(self, message: &[u8]) -> Option<&'static [u8]> {
        (self == Self::SocketIo && message == b"2").then_some(b"3")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dialect; 3] = [Dialect::Etp, Dialect::Raw, Dialect::SocketIo];

    fn written(form: &Numbered, payload: &str) -> String {
        format!("{}7{}{payload}{}", form.start, form.middle, form.end)
    }

    #[test]
    fn each_dialect_has_its_own_request_reply_and_delivery() {
        let texts = ALL.map(|dialect| {
            let (start, end) = dialect.delivery("shout");
            let room = dialect.payload("room\ndata");
            [
                written(&dialect.request("shout"), &room),
                written(&dialect.reply("shout"), "3"),
                format!("{start}data{end}"),
            ]
        });
        assert_eq!(
            texts,
            [
                ["shout||7||room\ndata", "__ack_shout||7||3", "shout||0||data"],
                ["shout||7||room\ndata", "shout||7||3", "shout||0||data"],
                [r#"427["shout","room\ndata"]"#, r#"437["3"]"#, r#"42["shout","data"]"#],
            ]
        );
    }

    #[test]
    fn a_message_comes_apart_into_id_and_payload_in_its_own_dialect_alone() {
        for dialect in ALL {
            let message = written(&dialect.reply("echo"), "data");
            for other in ALL {
                let parts = other.reply("echo").parts(message.as_bytes());
                assert_eq!(
                    parts,
                    (other == dialect).then_some((7, b"data".as_slice())),
                    "{dialect:?} as {other:?}"
                );
            }
        }
    }

    #[test]
    fn only_socket_io_has_an_opening_and_pings_of_its_own() {
        let dialect = Dialect::SocketIo;
        assert_eq!(dialect.opening(br#"0{"sid":"a"}"#).unwrap(), Some(b"40".as_slice()));
        assert_eq!(dialect.opening(br#"40{"sid":"b"}"#).unwrap(), None);
        assert!(dialect.opening(br#"44{"message":"no"}"#).is_err(), "refused");
        assert_eq!(
            ALL.map(|dialect| dialect.keepalive(b"2")),
            [None, None, Some(b"3".as_slice())]
        );
    }
}
