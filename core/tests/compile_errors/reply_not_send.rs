use std::rc::Rc;

use etp_ws::{Conn, Server};

fn main() {
    let _ = Server::builder().on("count", async |conn: Conn, (): ()| {
        let count = Rc::new(1);
        conn.closed().await;
        count.to_string()
    });
}
