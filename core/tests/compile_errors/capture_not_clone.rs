use std::sync::Mutex;

use etp_ws::{Conn, Server};

fn main() {
    let count = Mutex::new(0);
    let _ = Server::builder().on("count", move |_: Conn, (): ()| *count.lock().unwrap() += 1);
}
