use etp_ws::{Request, Server};

fn main() {
    let _ = Server::builder().on_upgrade(|_: Request| 401);
    let _ = Server::builder().on_upgrade(async |_: Request| true);
}
