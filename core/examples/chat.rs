//! A chat with rooms: an axum application that serves a page at `/` and ETP at `/ws`, on one port. The page and its client are
//! those of this repository: `make js-client` builds the client.
//!
//! `cargo run --example chat`, then open http://127.0.0.1:8080 in two windows. `ADDR=127.0.0.1:9000` takes another port.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use etp_ws::{BoxError, Conn, Disconnect, Json, Server};
use serde::{Deserialize, Serialize};

const PAGE: &str = "js-client/examples/chat.html";
const CLIENT: &str = ".build/js-client/package/index.js";

/// Who somebody is, and where: kept with the connection.
#[derive(Clone)]
struct Guest {
    name: String,
    room: String,
}

#[derive(Deserialize)]
struct Enter {
    name: String,
    room: String,
}

#[derive(Serialize)]
struct Entered {
    room: String,
    members: Vec<String>,
}

#[derive(Serialize)]
struct Said {
    name: String,
    text: String,
}

/// The names of those in a room that this connection may or may not be in.
fn names(conn: &Conn, room: &str) -> Vec<String> {
    let members = conn.to(room).conns();
    members
        .iter()
        .filter_map(|conn| conn.data().get::<Guest>())
        .map(|guest| guest.name)
        .collect()
}

/// Tells a room who is in it now.
fn tell_members(conn: &Conn, room: &str) -> Result<(), etp_ws::Error> {
    conn.to(room).emit("members", Json(names(conn, room)))?;
    Ok(())
}

fn short(text: &str, what: &str) -> Result<String, BoxError> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > 40 {
        return Err(format!("{what} is empty or longer than 40 characters").into());
    }
    Ok(text.to_owned())
}

fn chat() -> Result<Server, etp_ws::Error> {
    Server::builder()
        .on("enter", |conn: Conn, Json(Enter { name, room }): Json<Enter>| {
            let (name, room) = (short(&name, "the name")?, short(&room, "the room")?);
            leave(&conn)?;
            conn.data().insert(Guest {
                name,
                room: room.clone(),
            });
            conn.join(&room);
            tell_members(&conn, &room)?;
            let members = names(&conn, &room);
            Ok::<_, BoxError>(Json(Entered { room, members }))
        })
        .on("say", |conn: Conn, text: String| {
            let guest = conn.data().get::<Guest>().ok_or("enter a room first")?;
            let said = Said { name: guest.name, text };
            conn.to(&guest.room).emit("said", Json(said))?;
            Ok::<_, BoxError>(())
        })
        .on("leave", |conn: Conn, _: ()| leave(&conn))
        .on("alive", |_: Conn, _: ()| ()) // that it is answered is the answer
        .on_disconnect(|conn: Conn, _: Disconnect| leave(&conn))
        .build()
}

/// Leaves the room, if there is one, and tells those who stay.
fn leave(conn: &Conn) -> Result<(), etp_ws::Error> {
    let Some(guest) = conn.data().remove::<Guest>() else {
        return Ok(());
    };
    conn.leave(&guest.room);
    tell_members(conn, &guest.room)
}

/// A file of the repository, read anew each time, or what to do where there is none.
fn file(path: &str, media_type: &'static str) -> Response {
    let headers = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")];
    match std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)) {
        Ok(text) => (headers, text).into_response(),
        Err(error) => (StatusCode::NOT_FOUND, missing(path, &error)).into_response(),
    }
}

fn missing(path: &str, error: &std::io::Error) -> String {
    format!("{path} can't be read ({error}): `make js-client` in the repository builds what the page needs")
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = chat()?;
    let app = Router::new()
        .route("/", get(async || file(PAGE, "text/html; charset=utf-8")))
        .route(
            "/etp-ws-client.js",
            get(async || file(CLIENT, "text/javascript; charset=utf-8")),
        )
        .route_service("/ws", server.clone());

    let addr = std::env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(&addr).await?;
    println!(
        "The chat is at http://{} - open it in two windows, enter a room and talk.",
        listener.local_addr()?
    );
    for path in [PAGE, CLIENT] {
        if let Err(error) = std::fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)) {
            eprintln!("{}", missing(path, &error));
        }
    }
    println!("Ctrl-C ends it; the page comes back by itself when you start it again.");
    let ended = async move {
        // Without a signal handler there is nothing to wait for: the process ends anyhow.
        let _ = tokio::signal::ctrl_c().await;
        server.shutdown_within(Duration::from_secs(3)).await;
    };
    axum::serve(listener, app).with_graceful_shutdown(ended).await?;
    Ok(())
}
