//! The server of the peers' contract: every event that tests and benchmarks drive, as a user's program would serve it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etp_ws::{BoxError, Bytes, Conn, Disconnect, Error, Event, Server};

/// Values kept with a connection.
#[derive(Clone, Default)]
struct Values(Arc<Mutex<HashMap<Bytes, Bytes>>>);

/// Calls of the callbacks.
#[derive(Default)]
struct Seen {
    connects: AtomicU64,
    disconnects: AtomicU64,
    errors: AtomicU64,
    unknown: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// The first line and the rest.
fn split(data: &Bytes) -> Result<(Bytes, Bytes), BoxError> {
    let at = data.iter().position(|byte| *byte == b'\n').ok_or("no newline")?;
    Ok((data.slice(..at), data.slice(at + 1..)))
}

/// The room in the first line, and the rest.
fn room(data: &Bytes) -> Result<(String, Bytes), BoxError> {
    let (room, payload) = split(data)?;
    Ok((String::from_utf8(room.into())?, payload))
}

fn values(conn: &Conn) -> Values {
    conn.data().get().unwrap_or_default()
}

fn server() -> Result<Server, Error> {
    let seen = Arc::new(Seen::default());
    let [connects, disconnects, errors, unknown] = std::array::from_fn(|_| seen.clone());
    Server::builder()
        .origins(["*"])
        .on_connect(move |conn: Conn| {
            add(&connects.connects);
            conn.data().insert(Values::default());
        })
        .on_disconnect(move |_: Conn, _: Disconnect| add(&disconnects.disconnects))
        .on_error(move |_: Option<Conn>, _: Error| add(&errors.errors))
        .on_unknown_event(move |_: Conn, event: Event| {
            add(&unknown.unknown);
            format!("unknown:{}", event.name())
        })
        .on("echo", |_: Conn, data: Bytes| data)
        .on("id", |conn: Conn, (): ()| conn.id().to_string())
        .on("url", |conn: Conn, (): ()| conn.request().uri().to_owned())
        .on("join", |conn: Conn, room: String| {
            conn.join(&room);
            conn.to(&room).conns().len().to_string()
        })
        .on("leave", |conn: Conn, room: String| {
            conn.leave(&room);
            conn.to(&room).conns().len().to_string()
        })
        .on("rooms", |conn: Conn, (): ()| {
            let mut rooms = conn.rooms();
            rooms.sort();
            serde_json::Value::from(rooms).to_string()
        })
        .on("shout", |conn: Conn, data: Bytes| {
            let (room, payload) = room(&data)?;
            let reached = conn.to(room).emit("shout", payload)?;
            Ok::<_, BoxError>(reached.count().to_string())
        })
        .on("others", |conn: Conn, data: Bytes| {
            let (room, payload) = room(&data)?;
            let reached = conn.to(room).except(&conn).emit("shout", payload)?;
            Ok::<_, BoxError>(reached.count().to_string())
        })
        .on("set", |conn: Conn, data: Bytes| {
            let (key, value) = split(&data)?;
            let values = values(&conn);
            values.0.lock().map_err(|_| "poisoned")?.insert(key, value);
            Ok::<_, BoxError>(())
        })
        .on("get", |conn: Conn, key: Bytes| {
            let values = values(&conn);
            let value = values.0.lock().map_err(|_| "poisoned")?.get(&key).cloned();
            Ok::<_, BoxError>(value)
        })
        .on("slow", async |_: Conn, millis: String| -> Result<&str, BoxError> {
            tokio::time::sleep(Duration::from_millis(millis.parse()?)).await;
            Ok("done")
        })
        .on("fail", |_: Conn, (): ()| Err::<(), _>("asked to fail"))
        .on("empty", |_: Conn, (): ()| ())
        .on("ask", async |conn: Conn, data: Bytes| {
            let answer = conn
                .emit_with_ack("question", data)
                .timeout(Duration::from_secs(1))
                .await;
            answer.unwrap_or_else(|error| format!("error:{}", error.code()).into())
        })
        .on("close", |conn: Conn, (): ()| conn.close())
        .on("seen", move |_: Conn, (): ()| {
            let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
            let (connects, disconnects) = (read(&seen.connects), read(&seen.disconnects));
            let (errors, unknown) = (read(&seen.errors), read(&seen.unknown));
            format!(r#"{{"connects":{connects},"disconnects":{disconnects},"errors":{errors},"unknown":{unknown}}}"#)
        })
        .build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut args = std::env::args().skip(1);
    let addr = match (args.next().as_deref(), args.next()) {
        (None, _) => "127.0.0.1:0".to_owned(),
        (Some("--listen"), Some(addr)) => addr,
        _ => return Err("usage: etp-peer-run [--listen 127.0.0.1:0]".into()),
    };
    let server = server()?;
    let bound = server.bind(addr).await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    println!("LISTENING {}", bound.url());
    let serving = tokio::spawn(bound.serve());
    terminate.recv().await;
    server.shutdown().await;
    Ok(serving.await??)
}
