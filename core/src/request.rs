//! The HTTP request that a connection began with, kept as compact bytes: a header map of a browser's request takes 9 KiB, these
//! take what was sent. Headers are looked up on demand.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method, request};

/// The prefix of the subprotocol that carries a browser's token.
pub(crate) const TOKEN_PROTOCOL: &str = "etp.auth.";

/// The HTTP request that a connection began with. Cloning is cheap.
#[derive(Clone)]
pub struct Request(Arc<Inner>);

struct Inner {
    method: Method,
    uri: Box<str>,
    /// `name: value\r\n` for each header, names in lower case.
    headers: Box<[u8]>,
    peer: Option<SocketAddr>,
    client: Option<IpAddr>,
    extensions: Extensions,
}

impl Request {
    pub(crate) fn new(
        parts: &request::Parts,
        peer: Option<SocketAddr>,
        trusted: &[ipnet::IpNet],
        extensions: Extensions,
    ) -> Self {
        let request::Parts {
            method, uri, headers, ..
        } = parts;
        let len: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        let mut bytes = Vec::with_capacity(len);
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        Self(Arc::new(Inner {
            method: method.clone(),
            uri: uri.to_string().into(),
            headers: bytes.into(),
            peer,
            client: forwarded_for(headers, peer, trusted),
            extensions,
        }))
    }

    /// A request that says nothing, of a connection that no HTTP request began.
    pub(crate) fn bare(uri: &str) -> Self {
        Self(Arc::new(Inner {
            method: Method::GET,
            uri: uri.into(),
            headers: Box::default(),
            peer: None,
            client: None,
            extensions: Extensions::new(),
        }))
    }

    /// The method: `GET`.
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// Path and query as they were sent. A query may hold secrets: keep it out of logs.
    pub fn uri(&self) -> &str {
        &self.0.uri
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        let uri = self.uri();
        let path = uri.find('?').map_or(uri, |at| &uri[..at]);
        // An absolute form (`GET http://host/path`) is legal, if rare.
        match path.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => path,
        }
    }

    /// The query without its question mark, where there is one.
    pub fn query(&self) -> Option<&str> {
        self.uri().split_once('?').map(|(_, query)| query)
    }

    /// The first header of this name (case does not matter), if it is visible ASCII or UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.lines()
            .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All headers, built anew at each call.
    pub fn headers(&self) -> HeaderMap {
        self.lines()
            .filter_map(|(name, value)| {
                Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
            })
            .collect()
    }

    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.0.headers[..];
        std::iter::from_fn(move || {
            // Neither a name nor a value holds a CR: http's types refuse it.
            let end = rest.iter().position(|byte| *byte == b'\r')?;
            let line = &rest[..end];
            rest = rest.get(end + 2..).unwrap_or_default();
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], line.get(colon + 2..).unwrap_or_default()))
        })
    }

    /// What the application's own middleware left with the request, where it did not come to our own listener: axum's and tower's layers
    /// keep the user they have authenticated there.
    pub fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }

    /// The address that the connection came from; `None` over a Unix socket or in memory.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// The client's address: what `X-Forwarded-For` says where the peer is a trusted proxy, else the peer's.
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.0.client
    }

    /// The token that the client authenticates with: from `Authorization: Bearer`, or, from a browser, out of
    /// `Sec-WebSocket-Protocol: etp, etp.auth.<base64url>`.
    pub fn token(&self) -> Option<String> {
        if let Some((scheme, token)) = self.header("authorization").and_then(|value| value.split_once(' '))
            && scheme.eq_ignore_ascii_case("bearer")
        {
            return Some(token.trim().to_owned());
        }
        self.protocols()
            .find_map(|protocol| protocol.strip_prefix(TOKEN_PROTOCOL))
            .and_then(|token| URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).ok())
            .and_then(|token| String::from_utf8(token).ok())
    }

    /// The subprotocols that the client offers.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        self.lines()
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"sec-websocket-protocol"))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No query and no header: both may hold secrets.
        write!(f, "Request({} {:?})", self.method(), self.path())
    }
}

/// The client behind trusted proxies: the last address of `X-Forwarded-For` that is not one of them.
fn forwarded_for(headers: &HeaderMap, peer: Option<SocketAddr>, trusted: &[ipnet::IpNet]) -> Option<IpAddr> {
    let peer = peer?.ip();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip.to_canonical()));
    if !is_trusted(peer) {
        return Some(peer);
    }
    let mut client = peer;
    let values: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    for value in values.iter().rev() {
        for part in value.to_str().unwrap_or_default().rsplit(',') {
            let part = part.trim();
            let ip = part
                .parse::<IpAddr>()
                .or_else(|_| part.parse::<SocketAddr>().map(|addr| addr.ip()));
            match ip {
                Ok(ip) if is_trusted(ip) => client = ip,
                Ok(ip) => return Some(ip),
                // What a trusted proxy did not write can't be believed.
                Err(_) => return Some(client),
            }
        }
    }
    Some(client)
}
