use etp_ws::{Bytes, Conn, Server};

fn main() {
    let _ = Server::builder().on("say", async |_: Bytes| {});
    let _ = Server::builder().on_connect(|_: Conn, _: Bytes| {});
}
