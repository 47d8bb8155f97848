use etp_ws::{Conn, Server};

struct Broken;

fn main() {
    let _ = Server::builder().on("where", async |_: Conn, (): ()| -> Result<String, Broken> { Err(Broken) });
}
