//! The program that the Autobahn cases face: an echo through this crate's handshake, codec, link and outbox, without ETP.
//!
//! ```text
//! etp-autobahn server          listens on 127.0.0.1, prints "LISTENING <url>", serves until its standard input ends
//! etp-autobahn client <url>    runs every case of the fuzzing server at <url>, then asks it for its reports
//! ```

use std::error::Error;
use std::io::Read;
use std::time::Duration;

use etp_ws::{Client, Server, State};
use futures_util::StreamExt;

/// What the fuzzing server calls us.
const AGENT: &str = "etp-ws";
/// The largest message of the cases is 16 MiB.
const MESSAGE: usize = 16 << 20;
/// Reading pauses while half of it are replies that wait: one message always goes in.
const OUTBOX: usize = 64 << 20;
/// A case takes as long as its peer likes.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server"] => serve().await,
        ["client", url] => run_cases(url).await,
        _ => Err("usage: etp-autobahn server | etp-autobahn client <url>".into()),
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let server = Server::builder()
        .path("/")
        .echo_for_conformance()
        .max_message_size(MESSAGE)
        .max_outbox(OUTBOX)
        .build()?;
    let bound = server.bind("127.0.0.1:0").await?;
    println!("LISTENING {}", bound.url());
    let serving = tokio::spawn(bound.serve());
    // Whoever started us has gone, or wants us gone.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    server.shutdown().await;
    Ok(serving.await??)
}

async fn run_cases(url: &str) -> Result<(), Box<dyn Error>> {
    let cases = case_count(url).await?;
    for case in 1..=cases {
        echo_until_closed(&format!("{url}/runCase?case={case}&agent={AGENT}")).await?;
    }
    echo_until_closed(&format!("{url}/updateReports?agent={AGENT}")).await?;
    println!("RAN {cases}");
    Ok(())
}

async fn case_count(url: &str) -> Result<u32, Box<dyn Error>> {
    let (mut ws, _) = tokio_tungstenite::connect_async(format!("{url}/getCaseCount")).await?;
    let message = ws.next().await.ok_or("the fuzzing server told no number of cases")??;
    Ok(message.to_text()?.trim().parse()?)
}

async fn echo_until_closed(url: &str) -> Result<(), Box<dyn Error>> {
    let dial = Client::builder()
        .echo_for_conformance()
        .max_message_size(MESSAGE)
        .max_outbox(OUTBOX)
        .dial_timeout(PATIENCE)
        .reconnect(None)
        .connect(url);
    dial.await?.wait_for(State::Closed).await;
    Ok(())
}
