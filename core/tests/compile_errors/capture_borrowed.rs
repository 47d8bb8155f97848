use etp_ws::{Conn, Server};

fn main() {
    let greeting = String::from("hi");
    let _ = Server::builder().on("hello", async |_: Conn, (): ()| greeting.clone());
}
