//! The server as a tower service: mounted in somebody else's HTTP server, beside other routes on one port.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request as HttpRequest, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;

use super::Server;
use crate::error::{Error, ErrorKind};
use crate::net::accept::{Door, Granted, Refusal, negotiate};

/// Mounts in axum and every tower or hyper stack: `Router::new().route_service("/ws", server.clone())`.
///
/// The path is the router's matter then; the origin rule and all limits hold. The HTTP server must support upgrades (axum's does).
/// A `SocketAddr` among the request's extensions tells the peer's address; where the stack keeps it otherwise, as axum does, say so with
/// [`ServerBuilder::peer_addr`](crate::ServerBuilder::peer_addr). End the connections with [`Server::shutdown`]: the HTTP server has
/// handed them over.
impl<B: Send + 'static> tower_service::Service<HttpRequest<B>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
        let answered = self.upgraded(request);
        Box::pin(async move { Ok(answered.await) })
    }
}

impl Server {
    fn upgraded<B: Send + 'static>(
        &self,
        mut request: HttpRequest<B>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send + use<B> {
        let server = self.clone();
        async move {
            let runtime = match server.inner.hub.runtime() {
                Ok(runtime) => runtime.clone(),
                Err(error) => return Refusal::internal(error).answer(&server.inner),
            };
            let on_upgrade = hyper::upgrade::on(&mut request);
            let (parts, body) = request.into_parts();
            drop(body);
            let door = Door {
                peer: server.peer_of(&parts.extensions),
                ..Door::FOREIGN
            };
            match negotiate(&server.inner, &parts, door).await {
                Ok(mut granted) => {
                    let response = granted.answer();
                    let timeout = server.inner.options.handshake_timeout;
                    runtime.spawn(async move {
                        match tokio::time::timeout(timeout, on_upgrade).await {
                            Ok(Ok(upgraded)) => server.serve_upgraded(granted, upgraded),
                            Ok(Err(error)) => server.inner.handshake_failed(
                                Error::new(
                                    ErrorKind::HandshakeFailed,
                                    "the HTTP server did not hand over the connection",
                                )
                                .with_source(error),
                            ),
                            Err(_) => server.too_slow(),
                        }
                    });
                    response
                }
                Err(refusal) => refusal.answer(&server.inner),
            }
        }
    }

    fn serve_upgraded(&self, granted: Granted, upgraded: hyper::upgrade::Upgraded) {
        match upgraded.downcast::<TokioIo<tokio::net::TcpStream>>() {
            Ok(parts) => {
                let stream = parts.io.into_inner();
                let _ = stream.set_nodelay(true);
                self.serve_stream(granted, stream, &parts.read_buf);
            }
            Err(upgraded) => self.serve_stream(granted, TokioIo::new(upgraded), &[]),
        }
    }
}
