//! Every way into a server and out of a client: our own listener, TLS, a Unix socket, tower stacks, adopted streams, somebody
//! else's WebSocket; what a handshake may not be, which pages may come, what a request tells, and how a dial fails.

#![cfg(all(feature = "tls", feature = "json", feature = "tokio-tungstenite"))]

mod adopted;
mod dial;
mod handshake;
mod life;
mod pages;
mod request;
mod support;
mod tls;
mod tower;
mod unix;
mod websocket;
