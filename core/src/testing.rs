//! Connections without ports: a [`Client`] for any [`Server`] over memory, and the raw ends for tests that want to see messages.
//!
//! Session, limits and outbox rules are the same as over a socket.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), etp_ws::Error> {
//! use etp_ws::{Client, Conn, Server, testing};
//!
//! let server = Server::builder().on("hello", async |_: Conn, name: String| format!("hi {name}")).build()?;
//! let client = testing::connect(&server, Client::builder()).await?;
//! assert_eq!(client.emit_with_ack("hello", "ann").await?, "hi ann");
//! # Ok(())
//! # }
//! ```

pub use crate::net::pipe::{Message, Pipe, PipeReceiver, PipeSender, pipe};

use crate::client::{Client, ClientBuilder};
use crate::conn::Conn;
use crate::error::Error;
use crate::net::pipe::Piped;
use crate::server::Server;

/// Connects a client to a server through memory.
///
/// # Errors
/// What the server refuses (`handshake_failed`) and what a client's builder refuses.
///
/// # Cancellation
/// The connection is dropped.
pub async fn connect(server: &Server, client: ClientBuilder) -> Result<Client, Error> {
    connect_with(server, http::Request::new(()), client).await
}

/// As [`connect`], with a request of one's own: path, headers and token as `on_upgrade` will see them.
///
/// # Errors
/// As [`connect`].
///
/// # Cancellation
/// The connection is dropped.
pub async fn connect_with<B>(
    server: &Server,
    request: http::Request<B>,
    client: ClientBuilder,
) -> Result<Client, Error> {
    let (ours, theirs) = pipe();
    server.accept_pipe(request, ours).await?;
    client.connect_pipe(theirs).await
}

impl Server {
    /// Serves one end of an in-memory [`pipe`]: for tests, and for hosts that speak WebSocket themselves and pass messages on.
    /// `on_upgrade` and the origin rule decide first, by what the request says; the answer's headers are the host's matter.
    ///
    /// # Errors
    /// `handshake_failed`, with the status to answer.
    ///
    /// # Cancellation
    /// The pipe is dropped.
    pub async fn accept_pipe<B>(&self, request: http::Request<B>, pipe: Pipe) -> Result<Conn, Error> {
        self.serve_messages(request, |limits| Piped::new(pipe, limits)).await
    }

    /// Serves a WebSocket that the application upgraded by itself. `on_upgrade` and the origin rule still decide, by what the request
    /// says.
    ///
    /// # Errors
    /// `handshake_failed`; the WebSocket is dropped then.
    ///
    /// # Cancellation
    /// The WebSocket is dropped.
    #[cfg(feature = "tokio-tungstenite")]
    pub async fn accept_websocket<B, S>(
        &self,
        request: http::Request<B>,
        ws: tokio_tungstenite::WebSocketStream<S>,
    ) -> Result<Conn, Error>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        self.serve_messages(request, |limits| crate::net::tungstenite::Theirs::new(ws, limits))
            .await
    }
}
