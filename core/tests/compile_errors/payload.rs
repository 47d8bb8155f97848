use etp_ws::Conn;

struct Point;

fn main() {
    let _ = |conn: Conn| conn.emit("at", Point);
}
