use etp_ws::{Conn, Server};

fn main() {
    let _ = Server::builder().on("say", async |_: Conn, _: &str| {});
}
