//! The client's side of the handshake (RFC 6455, 4.1): from a URL to a stream that speaks WebSocket.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::error::{Error, ErrorKind, chain};
use crate::net::accept::accept_key;
use crate::net::origin::split_host;
use crate::protocol::reconnect::retry_after_seconds;
use crate::request::{Request, TOKEN_PROTOCOL};

/// Anything a client's bytes travel over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that the server has agreed to.
pub(crate) struct Dialled {
    pub(crate) io: Box<dyn Io>,
    /// What arrived behind the server's answer.
    pub(crate) leftover: Bytes,
    pub(crate) request: Request,
}

/// A dial that came to nothing.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) status: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            status: None,
            retry_after: None,
        }
    }
}

/// Where a URL leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Net {
        tls: bool,
        host: String,
        port: u16,
        authority: String,
        path: String,
    },
    Unix {
        socket: String,
    },
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        // Query and credentials stay out of errors, also of URLs that are none: nothing before an "@" is shown.
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let rest = rest.rfind('@').map_or(rest, |at| &rest[at + 1..]);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let shown = match scheme {
            "" => rest.to_owned(),
            scheme if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => format!("{scheme}://{rest}"),
            _ => rest.to_owned(),
        };
        let wrong = |why: &str| {
            Error::option(format!(
                "URL {shown:?}: {why}; write ws://host:port/path, wss://host/path or unix:/path/to/socket"
            ))
        };
        if let Some(socket) = url.strip_prefix("unix:") {
            if socket.is_empty() {
                return Err(wrong("it names no socket"));
            }
            return Ok(Self::Unix {
                socket: socket.to_owned(),
            });
        }
        // A fragment is for the one who dials (RFC 3986, 3.5), and RFC 6455, 3 forbids it.
        if url.contains('#') {
            return Err(wrong("a fragment can't be"));
        }
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            _ => return Err(wrong("its scheme is neither ws nor wss")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?.as_str();
        if authority.contains('@') {
            return Err(wrong("credentials in a URL end up in logs; use the option auth"));
        }
        let (host, port) = split_host(authority).ok_or_else(|| wrong("it names no host"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self::Net {
            tls,
            host,
            port: port.unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_owned(),
            path,
        })
    }

    /// The target without its query, for errors.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Net {
                tls, authority, path, ..
            } => {
                let path = path.split('?').next().unwrap_or_default();
                format!("{}://{authority}{path}", if *tls { "wss" } else { "ws" })
            }
            Self::Unix { socket } => format!("unix:{socket}"),
        }
    }
}

/// What a dial needs to know.
pub(crate) struct Dial<'a> {
    pub(crate) target: &'a Target,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) token: Option<String>,
    #[cfg(feature = "tls")]
    pub(crate) tls: &'a crate::net::tls::ClientTls,
}

impl Dial<'_> {
    fn failed(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::ConnectFailed,
            format!("dialling {}: {what}", self.target.shown()),
        )
    }

    pub(crate) async fn dial(self) -> Result<Dialled, Failed> {
        let io = self.open().await?;
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let (parts, body) = self.request(&key)?.into_parts();
        let sent = Request::new(&parts, None, &[], http::Extensions::new());
        let request = http::Request::from_parts(parts, body);
        let handshake = |error: hyper::Error| {
            let plain = matches!(self.target, Target::Net { tls: false, .. });
            let hint = if error.is_parse() && plain {
                "; a port that speaks TLS is dialled with wss://"
            } else {
                ""
            };
            self.failed(&format!("the handshake broke off{hint}"))
                .with_source(chain(&error))
        };
        let (mut sender, conn) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(handshake)?;
        let mut conn = std::pin::pin!(conn.without_shutdown());
        let answer = async {
            let answer = sender.send_request(request).await;
            drop(sender);
            answer
        };
        // The connection ends when the answer is an upgrade, and may do so first.
        let mut answer = std::pin::pin!(answer);
        let (response, parts) = tokio::select! {
            response = &mut answer => (response.map_err(handshake)?, None),
            parts = &mut conn => {
                let parts = parts.map_err(handshake)?;
                (answer.await.map_err(handshake)?, Some(parts))
            }
        };
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.refused(status, response.headers()));
        }
        self.check(response.headers(), &key)?;
        let parts = match parts {
            Some(parts) => parts,
            None => conn.await.map_err(handshake)?,
        };
        Ok(Dialled {
            io: parts.io.into_inner(),
            leftover: parts.read_buf,
            request: sent,
        })
    }

    async fn open(&self) -> Result<Box<dyn Io>, Error> {
        let (tls, host, port) = match self.target {
            Target::Unix { socket } => {
                let stream = tokio::net::UnixStream::connect(socket).await;
                let stream = stream.map_err(|error| self.failed("no connection").with_source(error))?;
                return Ok(Box::new(stream));
            }
            Target::Net { tls, host, port, .. } => (*tls, host, *port),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await;
        let stream = stream.map_err(|error| self.failed("no connection").with_source(error))?;
        // Events are small and wanted now.
        let _ = stream.set_nodelay(true);
        if !tls {
            return Ok(Box::new(stream));
        }
        self.secure(stream, host).await
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, stream: TcpStream, host: &str) -> Result<Box<dyn Io>, Error> {
        let config = self.tls.config()?;
        let name = crate::net::tls::server_name(host)?;
        match tokio_rustls::TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
                let what = match tls {
                    Some(rustls::Error::InvalidMessage(_)) => "TLS failed; a port without it is dialled with ws://",
                    _ => {
                        "TLS failed; trusted are the system's certificates, those in SSL_CERT_FILE, or those of the option ca"
                    }
                };
                Err(self.failed(what).with_source(error))
            }
        }
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "with TLS it waits")]
    async fn secure(&self, _: TcpStream, _: &str) -> Result<Box<dyn Io>, Error> {
        Err(self.failed("wss:// needs the feature tls"))
    }

    fn request(&self, key: &str) -> Result<http::Request<Empty<Bytes>>, Error> {
        let (authority, path) = match self.target {
            Target::Net { authority, path, .. } => (authority.as_str(), path.as_str()),
            Target::Unix { .. } => ("localhost", "/ws"),
        };
        let mut request = http::Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| Error::option("the URL's path can't be sent"))?;
        let headers = request.headers_mut();
        let value = |text: &str, what: &str| {
            HeaderValue::from_str(text).map_err(|_| Error::option(format!("{what} can't be sent in a header")))
        };
        headers.insert(HOST, value(authority, "the URL's host")?);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_KEY, value(key, "the key")?);
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        if let Some(token) = &self.token {
            let mut bearer = value(&format!("Bearer {token}"), "the token of auth")?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        for (name, value) in self.headers {
            if name == HOST {
                headers.insert(name, value.clone());
            } else {
                headers.append(name, value.clone());
            }
        }
        Ok(request)
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Failed {
        let code = status.as_u16();
        let (kind, hint) = match code {
            401 | 403 => (ErrorKind::Rejected, ""),
            300..=399 => (ErrorKind::ConnectFailed, "; redirects are not followed"),
            200..=299 => (ErrorKind::ConnectFailed, "; this is no WebSocket endpoint"),
            _ => (ErrorKind::ConnectFailed, ""),
        };
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(retry_after_seconds);
        Failed {
            error: Error::new(
                kind,
                format!("dialling {}: the server answered {code}{hint}", self.target.shown()),
            )
            .with_status(code),
            status: Some(code),
            retry_after,
        }
    }

    /// What a server's 101 must say (RFC 6455, 4.1), and nothing beyond it.
    fn check(&self, headers: &HeaderMap, key: &str) -> Result<(), Error> {
        let is = |name, wanted: &str| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
                .is_some_and(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
        };
        if !is(UPGRADE, "websocket") || !is(CONNECTION, "upgrade") {
            return Err(self.failed("the server's answer is no WebSocket upgrade"));
        }
        if headers
            .get(SEC_WEBSOCKET_ACCEPT)
            .is_none_or(|value| value.as_bytes() != accept_key(key.as_bytes()).as_bytes())
        {
            return Err(self.failed("the server's Sec-WebSocket-Accept is wrong"));
        }
        if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err(self.failed("the server selected an extension that was not offered"));
        }
        let offered: Vec<&str> = self
            .headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        match headers.get(SEC_WEBSOCKET_PROTOCOL).map(|value| value.to_str()) {
            None => Ok(()),
            Some(Ok(chosen)) if offered.contains(&chosen) && !chosen.starts_with(TOKEN_PROTOCOL) => Ok(()),
            Some(_) => Err(self.failed("the server selected a subprotocol that was not offered")),
        }
    }
}

/// The value of `Sec-WebSocket-Protocol` in which a browser's page carries a token, `etp, etp.auth.<base64url>`: what
/// [`Request::token`](crate::Request::token) reads when there is no `Authorization`.
pub fn token_protocols(token: &str) -> String {
    format!("etp, {TOKEN_PROTOCOL}{}", URL_SAFE_NO_PAD.encode(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_somewhere_or_say_why_not() {
        let net = |tls, host: &str, port, authority: &str, path: &str| Target::Net {
            tls,
            host: host.into(),
            port,
            authority: authority.into(),
            path: path.into(),
        };
        assert_eq!(
            Target::parse("ws://a:1/ws?x=1").unwrap(),
            net(false, "a", 1, "a:1", "/ws?x=1")
        );
        assert_eq!(Target::parse("wss://A").unwrap(), net(true, "a", 443, "A", "/"));
        assert_eq!(
            Target::parse("ws://[::1]:8/").unwrap(),
            net(false, "[::1]", 8, "[::1]:8", "/")
        );
        assert_eq!(Target::parse("unix:/s").unwrap(), Target::Unix { socket: "/s".into() });
        for wrong in [
            "",
            "a",
            "/ws",
            "ftp://a/",
            "ws://",
            "ws://u:p@a/",
            "ws://a/#f",
            "unix:",
            "ws://a:99999/",
        ] {
            let error = Target::parse(wrong).unwrap_err();
            assert_eq!(error.code(), "invalid_option", "{wrong}");
        }
    }

    #[test]
    fn errors_about_urls_hide_queries_and_credentials() {
        for url in [
            "ftp://user:secret@a/?token=secret",
            "ws://u:pa#secret@h/",
            "ws://u:p?secret@h/",
            "user:secret@host",
            "secret@x://a",
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
