use etp_ws::{Conn, Server};

struct Point;

fn main() {
    let _ = Server::builder().on("where", |_: Conn, (): ()| Point);
}
