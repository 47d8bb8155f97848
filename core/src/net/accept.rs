//! The server's side of the handshake (RFC 6455, 4.2): what a request must be, who may come in, and the answer.
//!
//! [`negotiate`] decides for every way in: our own listener, a tower service, an adopted stream, a message transport.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Extensions, Method, Response, StatusCode, Version, request};
use http_body_util::Full;
use sha1::{Digest, Sha1};
use tokio::sync::oneshot;

use crate::conn::{By, Conn, panic_message};
use crate::error::{Error, ErrorKind};
use crate::handler::UpgradeTicket;
use crate::net::origin::{request_host, split_host};
use crate::request::Request;
use crate::server::Inner;
use crate::upgrade::{Accept, Reject};

/// Lines (the default of our HTTP library) and bytes of a request's head.
const MAX_HEADERS: usize = 100;
pub(crate) const MAX_HEADER_BYTES: usize = 16 * 1024;

/// How a request reached us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) peer: Option<SocketAddr>,
    /// Our own listener: path and plain GETs are ours to answer.
    pub(crate) own: bool,
    /// Our own listener on a loopback address: the `hosts` rule holds.
    pub(crate) loopback: bool,
}

impl Door {
    pub(crate) const FOREIGN: Self = Self {
        peer: None,
        own: false,
        loopback: false,
    };
}

/// A handshake that may go ahead: the answer to send, and the connection to make of it.
pub(crate) struct Granted {
    pub(crate) headers: HeaderMap,
    request: Request,
    accept: Accept,
    permit: Permit,
}

/// A place among `max_connections`.
pub(crate) struct Permit(Arc<Inner>);

impl Permit {
    pub(crate) fn take(server: &Arc<Inner>) -> Option<Self> {
        let most = server.options.max_connections.unwrap_or(usize::MAX);
        let taken = server.connections.fetch_add(1, Ordering::SeqCst);
        let permit = Self(server.clone());
        (taken < most).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A refused handshake: the answer, and what the log should know beyond it.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    body: String,
    headers: HeaderMap,
    error: Error,
}

impl Refusal {
    fn new(status: StatusCode, body: impl Into<String>) -> Box<Self> {
        let body = body.into();
        let error = Error::new(
            ErrorKind::HandshakeFailed,
            format!("handshake refused with {}: {body}", status.as_u16()),
        )
        .with_status(status.as_u16());
        Box::new(Self {
            status,
            body,
            headers: HeaderMap::new(),
            error,
        })
    }

    fn header(mut self: Box<Self>, name: http::HeaderName, value: &'static str) -> Box<Self> {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    fn because(mut self: Box<Self>, source: impl Into<crate::error::BoxError>) -> Box<Self> {
        self.error = self.error.with_source(source);
        self
    }

    /// A failure of ours.
    pub(crate) fn internal(error: Error) -> Box<Self> {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").because(error)
    }

    /// The error, where somebody else writes the answer; `on_error` is told as well.
    pub(crate) fn into_error(self, server: &Inner) -> Error {
        server.handshake_failed(self.error.clone());
        self.error
    }

    /// The HTTP answer; what the log should know goes to `on_error`.
    pub(crate) fn answer(self, server: &Inner) -> Response<Full<Bytes>> {
        self.into_response(server).map(|body| Full::new(Bytes::from(body)))
    }

    /// As [`answer`](Self::answer), for hosts that write it themselves.
    pub(crate) fn into_response(self, server: &Inner) -> Response<String> {
        server.handshake_failed(self.error);
        let mut response = Response::new(self.body + "\n");
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

impl From<Reject> for Box<Refusal> {
    fn from(reject: Reject) -> Self {
        let reject = *reject.0;
        let mut refusal = Refusal::new(reject.status, reject.body);
        refusal.headers = reject.headers;
        match reject.cause {
            Some(cause) => refusal.because(cause),
            None => refusal,
        }
    }
}

/// Whether a comma-separated header names this token, in any case.
fn names_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

pub(crate) fn accept_key(key: &[u8]) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finalize())
}

/// Decides about a handshake.
pub(crate) async fn negotiate(
    server: &Arc<Inner>,
    parts: &request::Parts,
    door: Door,
) -> Result<Granted, Box<Refusal>> {
    if door.own && parts.uri.path() != server.options.path {
        let body = format!(
            "nothing is here; the setting `path` of this server is {:?}",
            server.options.path
        );
        return Err(Refusal::new(StatusCode::NOT_FOUND, body));
    }
    if !door.own {
        check_size(&parts.headers)?;
    }
    let key = check_request(parts)?;
    let mut granted = admit(server, parts, door).await?;
    let headers = &mut granted.headers;
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, value(&accept_key(key.as_bytes()))?);
    Ok(granted)
}

/// Decides about a handshake whose HTTP side somebody else has checked: pages, places, the application.
pub(crate) async fn admit(server: &Arc<Inner>, parts: &request::Parts, door: Door) -> Result<Granted, Box<Refusal>> {
    check_pages(server, parts, door)?;
    if server.hub.stopping.is_cancelled() {
        return Err(unavailable("the server is shutting down"));
    }
    let permit =
        Permit::take(server).ok_or_else(|| unavailable("as many connections are open as max_connections allows"))?;
    let mut extensions = Extensions::new();
    if !door.own {
        extensions.clone_from(&parts.extensions);
        // It is the transport's, and would keep it.
        extensions.remove::<hyper::upgrade::OnUpgrade>();
    }
    let request = Request::new(parts, door.peer, &server.options.trusted_proxies, extensions);
    let mut accept = ask(server, &request).await?;
    let mut headers = std::mem::take(&mut accept.headers);
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Some(protocol) = select_protocol(&request, accept.protocol.as_deref())? {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value(&protocol)?);
    }
    Ok(Granted {
        headers,
        request,
        accept,
        permit,
    })
}

fn value(text: &str) -> Result<HeaderValue, Box<Refusal>> {
    HeaderValue::from_str(text)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").because(error))
}

fn unavailable(body: &str) -> Box<Refusal> {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, body).header(RETRY_AFTER, "1")
}

/// What our own listener's HTTP library bounds while it reads, and somebody else's may not.
fn check_size(headers: &HeaderMap) -> Result<(), Box<Refusal>> {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the headers are too many or too large",
        ));
    }
    Ok(())
}

/// The request must be a WebSocket handshake; answers its key.
fn check_request(parts: &request::Parts) -> Result<HeaderValue, Box<Refusal>> {
    if parts.method != Method::GET {
        return Err(
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket handshake is a GET").header(ALLOW, "GET"),
        );
    }
    let upgrade = || {
        Refusal::new(
            StatusCode::UPGRADE_REQUIRED,
            "this is a WebSocket endpoint: send a WebSocket handshake",
        )
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_VERSION, "13")
    };
    let headers = &parts.headers;
    if parts.version < Version::HTTP_11
        || !names_token(headers, UPGRADE, "websocket")
        || !names_token(headers, CONNECTION, "upgrade")
    {
        return Err(upgrade());
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade());
    }
    let bad = |what: &str| Refusal::new(StatusCode::BAD_REQUEST, what);
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(bad("a WebSocket handshake has one Sec-WebSocket-Key"));
    };
    if !STANDARD.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16) {
        return Err(bad("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(bad("more than one Host"));
    }
    if request_host(&parts.uri, headers).is_none() {
        return Err(bad("no Host"));
    }
    Ok(key.clone())
}

/// The rules for web pages: `origins`, and `hosts` on a loopback listener of ours.
fn check_pages(server: &Inner, parts: &request::Parts, door: Door) -> Result<(), Box<Refusal>> {
    let mut origins = parts.headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Ok(());
    };
    let forbid = |body: String| Err(Refusal::new(StatusCode::FORBIDDEN, body));
    let (Ok(origin), None) = (origin.to_str(), origins.next()) else {
        return forbid("the Origin header can't be read".to_owned());
    };
    let host = request_host(&parts.uri, &parts.headers);
    if door.loopback && !server.options.hosts.allow(host) {
        // As the option takes it: without a port.
        let name = host
            .and_then(|host| split_host(host.trim()))
            .map_or_else(|| "(none)".to_owned(), |(name, _)| name);
        return forbid(format!(
            "the setting `hosts` does not allow a page to reach this server as {name:?}; if that name is right, allow it: hosts([{name:?}])"
        ));
    }
    if !server.options.origins.allow(origin, host) {
        return forbid(format!(
            "the setting `origins` does not allow pages of {origin:?} here; if they may connect, allow them: origins([{origin:?}])"
        ));
    }
    Ok(())
}

/// Asks `on_upgrade`.
async fn ask(server: &Inner, request: &Request) -> Result<Accept, Box<Refusal>> {
    let failed = |cause: String| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").because(format!("on_upgrade {cause}"))
    };
    let (sender, answer) = oneshot::channel();
    let ticket = UpgradeTicket(sender);
    let asking = async {
        let call = AssertUnwindSafe(|| server.hub.handler.upgrade(request, ticket));
        let future = catch_unwind(call).map_err(|panic| panic_message(&*panic))?;
        if let Some(future) = future {
            let done = AssertUnwindSafe(future).catch_unwind().await;
            done.map_err(|panic| panic_message(&*panic))?;
        }
        Ok::<_, String>(answer.await)
    };
    let decided = server
        .hub
        .within(async { tokio::time::timeout(server.options.upgrade_timeout, asking).await });
    match decided.await.map_err(Refusal::internal)? {
        Err(_) => Err(unavailable("on_upgrade took longer than upgrade_timeout")),
        Ok(Err(panic)) => Err(failed(format!("panicked: {panic}"))),
        Ok(Ok(Err(_))) => Err(failed("ended without an outcome".to_owned())),
        Ok(Ok(Ok(Ok(accept)))) => Ok(accept),
        Ok(Ok(Ok(Err(reject)))) => Err(reject.into()),
    }
}

/// The subprotocol to answer: the application's choice, else `etp` where it was offered. A token is never echoed.
fn select_protocol(request: &Request, chosen: Option<&str>) -> Result<Option<String>, Box<Refusal>> {
    let offered = |wanted: &str| request.protocols().any(|protocol| protocol == wanted);
    match chosen {
        Some(chosen) if offered(chosen) => Ok(Some(chosen.to_owned())),
        Some(chosen) => Err(
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").because(format!(
                "on_upgrade selected the subprotocol {chosen:?}, which the client did not offer"
            )),
        ),
        None => Ok(offered("etp").then(|| "etp".to_owned())),
    }
}

impl Granted {
    /// The 101 answer.
    pub(crate) fn answer(&mut self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = std::mem::take(&mut self.headers);
        response
    }

    /// The connection, registered; its link is the caller's to spawn.
    pub(crate) fn connect(self, server: &Arc<Inner>) -> (Conn, Permit) {
        let conn = Conn::new(server.hub.clone(), self.request, self.accept.data, false);
        match &self.accept.close {
            Some((code, reason)) => conn.begin_close(*code, reason, By::User),
            None => server.hub.register(&conn),
        }
        (conn, self.permit)
    }
}
