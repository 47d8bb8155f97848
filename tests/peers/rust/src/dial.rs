//! The client of the peers' contract: commands as JSON lines on standard input, answers and events as JSON lines on standard
//! output.

use std::io::Write;
use std::time::Duration;

use etp_ws::{BoxError, Bytes, Client, Conn, Disconnect, Error, ErrorKind, Event, State};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: there is nobody to tell.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn done(id: &Value, outcome: Result<Option<Bytes>, Error>) {
    say(&match outcome {
        Ok(Some(data)) => json!({"done": id, "data_hex": hex::encode(data)}),
        Ok(None) => json!({"done": id}),
        Err(error) => json!({"done": id, "error": error.code()}),
    });
}

async fn obey(client: Client, command: Value) -> Result<(), BoxError> {
    let text = |key: &str| command[key].as_str().unwrap_or_default();
    let name = match command["name_hex"].as_str() {
        Some(name) => String::from_utf8(hex::decode(name)?)?,
        None => text("name").to_owned(),
    };
    let data = hex::decode(text("data_hex"))?;
    let id = &command["id"];
    match text("do") {
        "emit" => done(id, client.emit(&name, data).map(|()| None)),
        "ack" => {
            let mut ack = client.emit_with_ack(name, data);
            if let Some(millis) = command["timeout_ms"].as_u64() {
                ack = ack.timeout(Duration::from_millis(millis));
            }
            done(id, ack.await.map(Some));
        }
        "ping" => done(id, client.ping().await.map(|_| None)),
        "drain" => done(id, client.drain().await.map(|()| None)),
        "close" => {
            client.close().await;
            done(id, Ok(None));
        }
        other => return Err(format!("unknown command {other:?}").into()),
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let url = std::env::args().nth(1).ok_or("usage: etp-peer-dial URL")?;
    let connected = Client::builder()
        .on_connect(|_: Conn| say(&json!({"state": "connected"})))
        .on_disconnect(|_: Conn, end: Disconnect| {
            say(&json!({"disconnected": {
                "code": end.code, "reason": end.reason, "clean": end.clean,
                "normal": end.normal, "will_reconnect": end.will_reconnect,
            }}));
        })
        .on_error(|_: Option<Conn>, error: Error| {
            eprintln!("{error}");
            if error.kind() == ErrorKind::Rejected {
                say(&json!({"error": error.code()}));
            }
        })
        .on("question", |_: Conn, data: Bytes| data)
        .on_unknown_event(|_: Conn, event: Event| {
            say(&json!({"event": event.name(), "data_hex": hex::encode(event.payload())}));
        })
        .connect(url)
        .await;
    let client = match connected {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{error}");
            say(&json!({"error": error.code()}));
            std::process::exit(1);
        }
    };
    let ended = client.clone();
    tokio::spawn(async move {
        ended.wait_for(State::Closed).await;
        say(&json!({"state": "closed"}));
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let command: Value = serde_json::from_str(&line)?;
        // Emits keep their order: each command begins before the next line is read.
        let mut obeying = Box::pin(obey(client.clone(), command));
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(obeying.as_mut().poll(cx))).await;
        match first {
            std::task::Poll::Ready(outcome) => outcome?,
            std::task::Poll::Pending => {
                tokio::spawn(obeying);
            }
        }
    }
    client.close().await;
    Ok(())
}
