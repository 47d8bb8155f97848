use etp_ws::{Conn, Server};

struct Point;

fn main() {
    let _ = Server::builder().on("move", async |_: Conn, _: Point| {});
}
