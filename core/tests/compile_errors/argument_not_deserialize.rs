use etp_ws::{Conn, Json, Server};

struct Point;

fn main() {
    let _ = Server::builder().on("move", async |_: Conn, Json(_): Json<Point>| {});
}
