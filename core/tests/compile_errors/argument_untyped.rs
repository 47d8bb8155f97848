use etp_ws::Server;

fn main() {
    let _ = Server::builder().on("say", async |_conn, _data| {});
}
