//! Letting a connection in where somebody else speaks HTTP and WebSocket to the peer: an ASGI server, another process.

use http::{HeaderMap, Request as HttpRequest, Response};

use super::Server;
use crate::conn::Conn;
use crate::limits::Limits;
use crate::net::accept::{Door, Granted, Refusal, admit};
use crate::net::link::Link;
use crate::net::pipe::{Pipe, Piped};
use crate::net::transport::Transport;

/// A handshake that was let in, and whose answer the host has yet to send.
#[must_use = "the connection begins with `serve_pipe`"]
pub struct Admitted {
    server: Server,
    granted: Granted,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admitted")
    }
}

impl Admitted {
    /// What `on_upgrade` adds to the answer, `Sec-WebSocket-Protocol` included.
    pub fn headers(&self) -> &HeaderMap {
        &self.granted.headers
    }

    /// Begins the connection: its messages travel through this end of a [`pipe`](crate::testing::pipe). One that `on_upgrade` lets in
    /// only to close it begins all the same, with a close message.
    pub fn serve_pipe(self, pipe: Pipe) -> Conn {
        let transport = Piped::new(pipe, &self.server.inner.hub.limits);
        self.server.serve_granted(self.granted, transport)
    }
}

impl Server {
    /// Decides about a handshake by what its request says, origin rule and `on_upgrade` included. `Err` is the answer that the host
    /// sends instead; `on_error` has been told.
    ///
    /// # Errors
    /// The answer of a refusal.
    ///
    /// # Cancellation
    /// Nobody is let in.
    pub async fn admit<B>(&self, request: HttpRequest<B>) -> Result<Admitted, Response<String>> {
        match self.admit_request(request).await {
            Ok(granted) => Ok(Admitted {
                server: self.clone(),
                granted,
            }),
            Err(refusal) => Err(refusal.into_response(&self.inner)),
        }
    }

    async fn admit_request<B>(&self, request: HttpRequest<B>) -> Result<Granted, Box<Refusal>> {
        self.inner.hub.runtime().map_err(Refusal::internal)?;
        let (parts, _) = request.into_parts();
        let door = Door {
            peer: self.peer_of(&parts.extensions),
            ..Door::FOREIGN
        };
        admit(&self.inner, &parts, door).await
    }

    /// Makes a connection over a message transport, for a request that another server has answered already.
    pub(crate) async fn serve_messages<B, T: Transport>(
        &self,
        request: HttpRequest<B>,
        transport: impl FnOnce(&Limits) -> T,
    ) -> Result<Conn, crate::error::Error> {
        self.inner.hub.runtime()?;
        match self.admit_request(request).await {
            Ok(granted) => Ok(self.serve_granted(granted, transport(&self.inner.hub.limits))),
            Err(refusal) => Err(refusal.into_error(&self.inner)),
        }
    }

    fn serve_granted<T: Transport>(&self, granted: Granted, transport: T) -> Conn {
        let (conn, permit) = granted.connect(&self.inner);
        self.spawn_link(Link::new(conn.clone(), transport, Some(permit)));
        conn
    }
}
