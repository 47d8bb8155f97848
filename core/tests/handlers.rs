//! What a Rust user may write as a handler, a callback or middleware, and what becomes of it.
#![cfg(all(feature = "net", feature = "json"))]

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etp_ws::testing::{Message, pipe};
use etp_ws::{
    Accept, BoxError, Bytes, Client, Conn, Disconnect, Error, ErrorKind, Event, Json, Next, Payload, Reached,
    Reconnect, Reject, Request, Server, ServerBuilder, State, blocking, spawned, testing,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, duplex};
use tokio::sync::mpsc;

/// A server, a client of it over memory, and what `on_error` was told.
struct Pair {
    server: Server,
    client: Client,
    errors: mpsc::UnboundedReceiver<(Option<Conn>, Error)>,
}

async fn pair(builder: ServerBuilder) -> Pair {
    let (tx, errors) = mpsc::unbounded_channel();
    let server = builder
        .on_error(move |conn, error| {
            let _ = tx.send((conn, error));
        })
        .build()
        .expect("options are legal");
    let client = testing::connect(&server, Client::builder())
        .await
        .expect("the server lets everybody in");
    Pair { server, client, errors }
}

impl Pair {
    async fn ask(&self, event: &str, payload: impl etp_ws::IntoPayload) -> Result<Bytes, Error> {
        self.client
            .emit_with_ack(event, payload)
            .timeout(Duration::from_secs(5))
            .await
    }

    /// The reply, as text.
    async fn reply(&self, event: &str, payload: impl etp_ws::IntoPayload) -> String {
        let reply = self.ask(event, payload).await.expect("there is a reply");
        String::from_utf8(reply.into()).expect("it is text")
    }

    /// Emits an event that fails: there is no reply; answers what `on_error` was told.
    async fn failure(&mut self, event: &str, payload: impl etp_ws::IntoPayload) -> Error {
        let outcome = self.ask(event, payload).await;
        assert_eq!(
            outcome.expect_err("a failure sends no reply").kind(),
            ErrorKind::AckTimeout
        );
        let (conn, error) = self.errors.recv().await.expect("the server lives");
        assert_eq!(conn, self.server.conns().pop());
        assert!(self.errors.try_recv().is_err(), "a failure is told once");
        error
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
struct Point {
    x: i32,
    y: i32,
}

#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it broke")
    }
}

impl std::error::Error for Broken {}

fn plain(_: Conn, data: String) -> String {
    format!("plain {data}")
}

async fn asynchronous(_: Conn, data: String) -> String {
    tokio::task::yield_now().await;
    format!("async {data}")
}

#[expect(
    clippy::manual_async_fn,
    reason = "a function that returns a future is one of the forms"
)]
fn generic<T: std::fmt::Display>(_: Conn, data: String) -> impl Future<Output = String> + Send {
    async move { format!("{} {data}", std::any::type_name::<T>()) }
}

#[tokio::test]
async fn handlers_are_plain_or_async_closures_or_functions() {
    let pair = pair(
        Server::builder()
            .on("fn", plain)
            .on("async fn", asynchronous)
            .on("fn of a future", generic::<u8>)
            .on("closure", |_: Conn, data: String| format!("closure {data}"))
            .on("async closure", async |_: Conn, data: String| {
                format!("async closure {data}")
            })
            .on("async block", |_: Conn, data: String| async move {
                format!("async block {data}")
            })
            .on("inferred conn", async |conn, data: String| {
                format!("{} {data}", Conn::is_open(&conn))
            })
            .on(
                "boxed",
                |_: Conn, data: String| -> std::pin::Pin<Box<dyn Future<Output = String> + Send>> {
                    Box::pin(async move { format!("boxed {data}") })
                },
            ),
    )
    .await;
    assert_eq!(pair.reply("fn", "a").await, "plain a");
    assert_eq!(pair.reply("async fn", "a").await, "async a");
    assert_eq!(pair.reply("fn of a future", "a").await, "u8 a");
    assert_eq!(pair.reply("closure", "a").await, "closure a");
    assert_eq!(pair.reply("async closure", "a").await, "async closure a");
    assert_eq!(pair.reply("async block", "a").await, "async block a");
    assert_eq!(pair.reply("inferred conn", "a").await, "true a");
    assert_eq!(pair.reply("boxed", "a").await, "boxed a");
}

#[tokio::test]
async fn captures_are_cloned_for_each_event() {
    let count = Arc::new(AtomicUsize::new(0));
    let words = vec!["one".to_owned(), "two".to_owned()];
    let pair = pair(
        Server::builder()
            .on("count", {
                let count = count.clone();
                move |_: Conn, (): ()| count.fetch_add(1, Ordering::SeqCst).to_string()
            })
            .on("count later", {
                let count = count.clone();
                async move |_: Conn, (): ()| {
                    tokio::task::yield_now().await;
                    count.fetch_add(1, Ordering::SeqCst).to_string()
                }
            })
            // Consumes what it captured, at each event.
            .on("words", move |_: Conn, more: String| {
                let mut words = words;
                words.push(more);
                async move { words.join(" ") }
            }),
    )
    .await;
    assert_eq!(pair.reply("count", ()).await, "0");
    assert_eq!(pair.reply("count later", ()).await, "1");
    assert_eq!(pair.reply("words", "three").await, "one two three");
    assert_eq!(pair.reply("words", "four").await, "one two four");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn arguments_are_bytes_text_json_the_event_or_nothing() {
    let pair = pair(
        Server::builder()
            .on("bytes", |_: Conn, data: Bytes| data)
            .on("vec", |_: Conn, data: Vec<u8>| data)
            .on("string", |_: Conn, data: String| data)
            .on("json", |_: Conn, Json(Point { x, y }): Json<Point>| Json(x + y))
            .on("event", |_: Conn, event: Event| {
                format!(
                    "{} {} {} {}",
                    event.name(),
                    event.payload().len(),
                    event.is_text(),
                    event.wants_reply()
                )
            })
            .on("nothing", |_: Conn, (): ()| "nothing"),
    )
    .await;
    let binary: &[u8] = &[0, 159, 146, 150];
    assert_eq!(pair.ask("bytes", binary).await.unwrap(), binary);
    assert_eq!(pair.ask("vec", binary).await.unwrap(), binary);
    assert_eq!(pair.reply("string", "ünï").await, "ünï");
    assert_eq!(pair.reply("string", ()).await, "");
    assert_eq!(pair.reply("json", Json(Point { x: 1, y: 2 })).await, "3");
    assert_eq!(pair.reply("event", "four").await, "event 4 true true");
    assert_eq!(pair.reply("event", binary).await, "event 4 false true");
    assert_eq!(pair.reply("nothing", binary).await, "nothing");
}

#[tokio::test]
async fn no_data_is_none_and_json_null_is_a_value() {
    let pair = pair(
        Server::builder()
            .on("any", |_: Conn, data: Option<Json<serde_json::Value>>| {
                format!("{data:?}")
            })
            .on("point", |_: Conn, data: Option<Json<Point>>| match data {
                Some(Json(point)) => point.x.to_string(),
                None => "none".to_owned(),
            })
            .on("nullable", |_: Conn, data: Option<Json<Option<Point>>>| {
                format!("{data:?}")
            }),
    )
    .await;
    assert_eq!(pair.reply("any", ()).await, "None");
    assert_eq!(pair.reply("any", "null").await, "Some(Json(Null))");
    assert_eq!(pair.reply("point", ()).await, "none");
    assert_eq!(pair.reply("point", Json(Point { x: 7, y: 0 })).await, "7");
    assert_eq!(pair.reply("nullable", ()).await, "None");
    assert_eq!(pair.reply("nullable", "null").await, "Some(Json(None))");
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_is_not_the_argument_calls_no_handler_and_its_content_is_not_told() {
    let calls = Arc::new(AtomicUsize::new(0));
    let called = |calls: &Arc<AtomicUsize>| {
        let calls = calls.clone();
        move || {
            calls.fetch_add(1, Ordering::SeqCst);
        }
    };
    let (a, b, c) = (called(&calls), called(&calls), called(&calls));
    let mut pair = pair(
        Server::builder()
            .on("string", move |_: Conn, _: String| a())
            .on("point", move |_: Conn, _: Json<Point>| b())
            .on("option", async move |_: Conn, _: Option<Json<Point>>| c()),
    )
    .await;
    let secret = r#"{"x":"hunter2","y":"hunter2"}"#;
    let broken = [b"hunter2".as_slice(), &[0xff]].concat();
    for (event, payload) in [
        ("string", broken),
        ("point", secret.into()),
        ("point", b"hunter2".to_vec()),
        ("point", Vec::new()),
        ("option", secret.into()),
        ("option", b"null".to_vec()),
    ] {
        let error = pair.failure(event, payload).await;
        assert_eq!(error.code(), "invalid_payload");
        let told = format!("{error} {error:?} {:?}", error.source());
        assert!(told.contains(&format!("payload of event {event:?}")), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!(pair.server.stats().handlers_in_flight, 0);
}

#[tokio::test]
async fn what_a_handler_returns_is_the_reply() {
    let pair = pair(
        Server::builder()
            .on_connect(|conn: Conn| conn.join("lobby"))
            .on("unit", |_: Conn, (): ()| {})
            .on("str", |_: Conn, (): ()| "text")
            .on("string", async |_: Conn, (): ()| String::from("text"))
            .on("vec", |_: Conn, (): ()| vec![0xff, 0xfe])
            .on("bytes", |_: Conn, (): ()| Bytes::from_static(&[0xff]))
            .on("slice", |_: Conn, (): ()| b"bytes")
            .on("json", |_: Conn, (): ()| Json(Point { x: 1, y: 2 }))
            .on("payload", |_: Conn, (): ()| Payload::from_text("text"))
            .on("some", |_: Conn, (): ()| Some("text"))
            .on("none", |_: Conn, (): ()| None::<String>)
            .on("ok", |_: Conn, (): ()| Ok::<_, Broken>("text"))
            .on("ok some", async |_: Conn, (): ()| Ok::<_, BoxError>(Some(Json(1))))
            .on("some ok", async |_: Conn, (): ()| Some(Ok::<_, Error>("text")))
            .on("reached", |conn: Conn, (): ()| conn.to("lobby").emit("news", "hi"))
            .on("reached later", async |conn: Conn, (): ()| -> Result<Reached, Error> {
                conn.to("lobby").emit("news", "hi")
            })
            .on("emitted", |conn: Conn, (): ()| conn.emit("news", "hi"))
            .on(
                "never",
                async |_: Conn, _: String| -> Result<(), std::convert::Infallible> { Ok(()) },
            ),
    )
    .await;
    for empty in ["unit", "none", "reached", "reached later", "emitted", "never"] {
        assert_eq!(pair.reply(empty, ()).await, "", "{empty}");
    }
    for text in ["str", "string", "payload", "some", "ok", "some ok"] {
        assert_eq!(pair.reply(text, ()).await, "text", "{text}");
    }
    assert_eq!(pair.reply("slice", ()).await, "bytes");
    assert_eq!(pair.reply("json", ()).await, r#"{"x":1,"y":2}"#);
    assert_eq!(pair.reply("ok some", ()).await, "1");
    assert_eq!(pair.ask("vec", ()).await.unwrap(), [0xff, 0xfe].as_slice());
    assert_eq!(pair.ask("bytes", ()).await.unwrap(), [0xff].as_slice());
}

#[tokio::test(start_paused = true)]
async fn any_error_ends_a_handler_by_a_question_mark() {
    let mut pair = pair(
        Server::builder()
            .on(
                "std",
                |_: Conn, data: String| -> Result<String, std::num::ParseIntError> {
                    Ok(data.parse::<u8>()?.to_string())
                },
            )
            .on("boxed", async |_: Conn, data: String| -> Result<String, BoxError> {
                let number: u8 = data.parse()?;
                if number == 0 {
                    return Err("zero".into());
                }
                Err(Broken)?;
                Ok(data)
            })
            .on("own", |conn: Conn, (): ()| -> Result<(), Error> {
                conn.emit("no||name", ())?;
                Ok(())
            })
            .on("text", |_: Conn, (): ()| Err::<(), _>("just words")),
    )
    .await;
    assert_eq!(pair.reply("std", "7").await, "7");
    for (event, payload, cause) in [
        ("std", "x", "invalid digit found in string"),
        ("boxed", "300", "number too large to fit in target type"),
        ("boxed", "0", "zero"),
        ("boxed", "1", "it broke"),
        ("own", "", r#""no||name""#),
        ("text", "", "just words"),
    ] {
        let error = pair.failure(event, payload).await;
        assert_eq!(error.code(), "handler_failed", "{error}");
        let told = error.to_string();
        assert!(
            told.starts_with(&format!("the handler of event {event:?} failed: ")),
            "{told}"
        );
        assert!(told.contains(cause), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_cant_be_sent_is_reported() {
    let mut pair = pair(
        Server::builder()
            .max_message_size(1024)
            .on("large", |_: Conn, (): ()| vec![b'x'; 2000])
            .on("unwritable", async |_: Conn, (): ()| {
                Json(std::collections::HashMap::from([((1, 2), 3)]))
            }),
    )
    .await;
    assert_eq!(pair.failure("large", ()).await.code(), "message_too_large");
    assert_eq!(pair.failure("unwritable", ()).await.code(), "invalid_payload");
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_handler_is_reported_or_goes_to_on_unknown_event() {
    let mut without = pair(Server::builder().on("gone", |_: Conn, (): ()| "here").off("gone")).await;
    assert_eq!(without.failure("nobody", "x").await.code(), "no_handler");
    let error = without.failure("gone", "x").await;
    assert_eq!(error.to_string(), r#"no handler for event "gone""#);

    let with = pair(
        Server::builder()
            .on("known", |_: Conn, (): ()| "known")
            .on_unknown_event(|_: Conn, _: Bytes| "replaced")
            .on_unknown_event(async |_: Conn, event: Event| format!("unknown {}", event.name())),
    )
    .await;
    assert_eq!(with.reply("known", ()).await, "known");
    assert_eq!(with.reply("nobody", ()).await, "unknown nobody");
}

#[tokio::test]
async fn a_second_handler_replaces_the_first_and_names_are_checked_by_build() {
    let pair = pair(
        Server::builder()
            .on("hello", |_: Conn, (): ()| "first")
            .on("hello", async |_: Conn, name: String| format!("second {name}")),
    )
    .await;
    assert_eq!(pair.reply("hello", "ann").await, "second ann");

    for name in ["", "a||b", "a|", "__ack_a", "__etp", &"x".repeat(257)] {
        let error = Server::builder()
            .on(name, |_: Conn, (): ()| {})
            .build()
            .expect_err("the name can't be");
        assert_eq!(error.code(), "invalid_event", "{error}");
    }
}

fn note(trace: &mpsc::UnboundedSender<String>, text: impl Into<String>) {
    let _ = trace.send(text.into());
}

fn noted(trace: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| trace.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn middleware_wraps_every_event_in_the_order_in_which_it_was_added() {
    let (trace, mut seen) = mpsc::unbounded_channel();
    let outer = trace.clone();
    let inner = trace.clone();
    let mut pair = pair(
        Server::builder()
            .middleware(async move |conn: Conn, event: Event, next: Next| {
                let name = event.name().to_owned();
                note(&outer, format!("> {name}"));
                let outcome = next.run(conn, event).await;
                note(
                    &outer,
                    match &outcome {
                        Ok(payload) => format!("< {name} {:?}", payload.as_bytes()),
                        Err(error) => format!("< {name} failed: {error}"),
                    },
                );
                outcome
            })
            .middleware(move |conn: Conn, event: Event, next: Next| {
                note(&inner, format!(">> {}", event.name()));
                async move {
                    match event.name() {
                        "forbidden" => Ok(Payload::from_text("no")),
                        "refused" => Err("refused here".into()),
                        "shout" => {
                            let reply = next.run(conn, event).await?;
                            Ok(Payload::from_bytes(reply.as_bytes().to_ascii_uppercase().into()))
                        }
                        _ => next.run(conn, event).await,
                    }
                }
            })
            .on("shout", async |_: Conn, data: String| data)
            .on("forbidden", |_: Conn, (): ()| -> () {
                panic!("middleware keeps it from being called")
            })
            .on("fails", |_: Conn, (): ()| Err::<(), _>(Broken))
            .on("point", |_: Conn, _: Json<Point>| {})
            .on("panics", |_: Conn, (): ()| -> () { panic!("oh no") }),
    )
    .await;
    assert_eq!(pair.reply("shout", "hey").await, "HEY");
    assert_eq!(noted(&mut seen), ["> shout", ">> shout", r#"< shout b"HEY""#]);
    assert_eq!(pair.reply("forbidden", "x").await, "no");
    noted(&mut seen);

    let error = pair.failure("refused", "x").await;
    assert_eq!(
        error.to_string(),
        r#"the handler of event "refused" failed: refused here"#
    );
    assert_eq!(
        noted(&mut seen),
        ["> refused", ">> refused", "< refused failed: refused here"]
    );

    let error = pair.failure("nobody", "x").await;
    assert_eq!(error.code(), "no_handler");
    assert_eq!(
        noted(&mut seen),
        [
            "> nobody",
            ">> nobody",
            r#"< nobody failed: no handler for event "nobody""#
        ]
    );

    assert_eq!(
        pair.failure("fails", "x").await.to_string(),
        r#"the handler of event "fails" failed: it broke"#
    );
    assert_eq!(pair.failure("point", "x").await.code(), "invalid_payload");
    let error = pair.failure("panics", "x").await;
    assert_eq!(error.to_string(), r#"the handler of event "panics" panicked: oh no"#);
}

#[tokio::test]
async fn middleware_may_return_any_reply() {
    let pair = pair(
        Server::builder()
            .middleware(async |_: Conn, event: Event, next: Next| {
                drop(next);
                Some(format!("middleware took {}", event.name()))
            })
            .on_unknown_event(|_: Conn, (): ()| "never"),
    )
    .await;
    assert_eq!(pair.reply("anything", ()).await, "middleware took anything");
}

#[tokio::test(start_paused = true)]
async fn blocking_and_spawned_handlers_reply_fail_and_panic_like_any() {
    let thread = || format!("{:?}", std::thread::current().id());
    let own = thread();
    let mut pair = pair(
        Server::builder()
            .on(
                "blocking",
                blocking(move |_: Conn, data: String| {
                    if thread() == own {
                        "same thread".to_owned()
                    } else {
                        data
                    }
                }),
            )
            .on("blocking fails", blocking(|_: Conn, (): ()| Err::<(), _>(Broken)))
            .on(
                "blocking panics",
                blocking(|_: Conn, (): ()| -> () { panic!("on the pool: {}", 7) }),
            )
            .on("spawned", spawned(async |_: Conn, data: Bytes| data))
            .on("spawned fn", spawned(asynchronous))
            .on(
                "spawned fails",
                spawned(async |_: Conn, (): ()| -> Result<(), Broken> { Err(Broken) }),
            )
            .on(
                "spawned panics",
                spawned(async |_: Conn, (): ()| {
                    tokio::task::yield_now().await;
                    if true {
                        panic!("in its task");
                    }
                }),
            )
            .on("point", blocking(|_: Conn, _: Json<Point>| {})),
    )
    .await;
    assert_eq!(pair.reply("blocking", "a").await, "a");
    assert_eq!(pair.reply("spawned", "a").await, "a");
    assert_eq!(pair.reply("spawned fn", "a").await, "async a");
    for (event, told) in [
        ("blocking fails", "it broke"),
        ("blocking panics", "panicked: on the pool: 7"),
        ("spawned fails", "it broke"),
        ("spawned panics", "panicked: in its task"),
    ] {
        let error = pair.failure(event, ()).await;
        assert_eq!(error.code(), "handler_failed");
        assert_eq!(
            error.to_string(),
            format!("the handler of event {event:?} failed: {told}")
        );
    }
    assert_eq!(pair.failure("point", "x").await.code(), "invalid_payload");
    assert_eq!(pair.server.stats().handlers_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_costs_its_own_event_only() {
    let mut pair = pair(
        Server::builder()
            .on("at once", |_: Conn, (): ()| -> () { panic!("at once") })
            .on("before", async |_: Conn, (): ()| {
                if true {
                    panic!("before an await");
                }
                tokio::task::yield_now().await;
            })
            .on("after", async |_: Conn, n: Json<u8>| {
                tokio::task::yield_now().await;
                assert!(n.0 != 7, "after {} awaits", n.0);
            })
            .on("no text", |_: Conn, (): ()| -> () { std::panic::panic_any(7) })
            .on("alive", |_: Conn, (): ()| "alive"),
    )
    .await;
    for (event, payload, told) in [
        ("at once", "", "at once"),
        ("before", "", "before an await"),
        ("after", "7", "after 7 awaits"),
        ("no text", "", "a value that is not text"),
    ] {
        let error = pair.failure(event, payload).await;
        assert_eq!(error.code(), "handler_failed");
        assert_eq!(
            error.to_string(),
            format!("the handler of event {event:?} panicked: {told}")
        );
    }
    assert_eq!(pair.reply("alive", ()).await, "alive");
    assert_eq!(pair.server.stats().handlers_in_flight, 0);
}

/// A server whose `on_connect` fails; answers what a client was told and what `on_error` was.
async fn refused_by_on_connect(builder: ServerBuilder) -> (String, Vec<Error>) {
    let (tx, mut errors) = mpsc::unbounded_channel();
    let server = builder
        .on_error(move |_, error| {
            let _ = tx.send(error);
        })
        .on("event", |_: Conn, (): ()| -> () {
            unreachable!("no event is handled after a failed on_connect")
        })
        .build()
        .expect("options are legal");
    let (near, mut far) = pipe();
    server
        .accept_pipe(http::Request::new(()), near)
        .await
        .expect("it is let in");
    far.send(Message::Text("event||1".into()))
        .await
        .expect("the server is there");
    let mut close = None;
    while let Some(message) = far.recv().await {
        assert_eq!(close, None, "nothing follows a close frame");
        let Message::Close(Some((code, reason))) = message else {
            panic!("a close frame is all that comes, not {message:?}");
        };
        far.send(Message::Close(Some((code, reason.clone())))).await.ok();
        close = Some(format!("{code} {reason}"));
    }
    server.shutdown().await;
    (
        close.unwrap_or_default(),
        std::iter::from_fn(|| errors.try_recv().ok()).collect(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_failing_on_connect_closes_with_1011_and_says_so() {
    let builder = || Server::builder();
    for (builder, told) in [
        (
            builder().on_connect(|_: Conn| Err::<(), _>(Broken)),
            "on_connect failed: it broke",
        ),
        (
            builder().on_connect(async |_: Conn| Err::<(), _>("words")),
            "on_connect failed: words",
        ),
        (
            builder().on_connect(|_: Conn| -> () { panic!("at once") }),
            "on_connect panicked: at once",
        ),
        (
            builder().on_connect(async |_: Conn| {
                tokio::task::yield_now().await;
                if true {
                    panic!("later");
                }
            }),
            "on_connect panicked: later",
        ),
    ] {
        let (ends, mut ended) = mpsc::unbounded_channel();
        let builder = builder.on_disconnect(move |_: Conn, why: Disconnect| {
            let _ = ends.send(why);
        });
        let (close, errors) = refused_by_on_connect(builder).await;
        assert_eq!(close, "1011 on_connect failed");
        let errors: Vec<_> = errors.iter().map(|error| (error.code(), error.to_string())).collect();
        assert_eq!(errors, [("handler_failed", told.to_owned())]);
        assert_eq!(ended.try_recv().expect("on_disconnect has run").code, 1011);
        assert!(ended.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn on_connect_ends_before_the_first_event_is_handled() {
    let (trace, mut seen) = mpsc::unbounded_channel();
    let (connect, event) = (trace.clone(), trace);
    let server = Server::builder()
        .on_connect(async move |conn: Conn| {
            note(&connect, "begun");
            tokio::time::sleep(Duration::from_secs(3)).await;
            conn.emit("welcome", "hi").expect("it is open");
            note(&connect, "ended");
        })
        .on("event", move |_: Conn, data: String| note(&event, data))
        .build()
        .unwrap();
    let (near, mut far) = pipe();
    server.accept_pipe(http::Request::new(()), near).await.unwrap();
    for n in 0..3 {
        far.send(Message::Text(format!("event||{}||event {n}", n + 1).into()))
            .await
            .unwrap();
    }
    assert_eq!(far.recv().await, Some(Message::Text("welcome||0||hi".into())));
    for n in 1..=3 {
        assert_eq!(
            far.recv().await,
            Some(Message::Text(format!("__ack_event||{n}").into()))
        );
    }
    assert_eq!(noted(&mut seen), ["begun", "ended", "event 0", "event 1", "event 2"]);
}

#[tokio::test(start_paused = true)]
async fn an_on_connect_that_panics_when_its_peer_has_left_is_reported() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let (tx, mut errors) = mpsc::unbounded_channel();
    let server = Server::builder()
        .on_connect(async |conn: Conn| {
            conn.closed().await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            if true {
                panic!("too late");
            }
        })
        .on_disconnect(move |_: Conn, why: Disconnect| {
            let _ = ends.send(why.code);
        })
        .on_error(move |_, error: Error| {
            let _ = tx.send(error.to_string());
        })
        .build()
        .unwrap();
    let (near, far) = pipe();
    server.accept_pipe(http::Request::new(()), near).await.unwrap();
    tokio::task::yield_now().await;
    drop(far);
    assert_eq!(ended.recv().await, Some(1006));
    assert_eq!(errors.try_recv().as_deref(), Ok("on_connect panicked: too late"));
    assert!(ended.try_recv().is_err() && errors.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_failing_on_disconnect_is_reported() {
    let builder = || Server::builder();
    for (builder, told) in [
        (
            builder().on_disconnect(|_: Conn, _| Err::<(), _>(Broken)),
            "on_disconnect failed: it broke",
        ),
        (
            builder().on_disconnect(|_: Conn, _| -> () { panic!("at once") }),
            "on_disconnect panicked: at once",
        ),
        (
            builder().on_disconnect(async |_: Conn, _| {
                if true {
                    panic!("in its future");
                }
            }),
            "on_disconnect panicked: in its future",
        ),
        (
            builder().on_disconnect(async |_: Conn, _| {
                tokio::task::yield_now().await;
                if true {
                    panic!("later");
                }
            }),
            "on_disconnect panicked: later",
        ),
    ] {
        let mut pair = pair(builder).await;
        pair.client.close().await;
        let (conn, error) = pair.errors.recv().await.unwrap();
        assert_eq!((error.code(), error.to_string().as_str()), ("handler_failed", told));
        assert!(conn.is_some_and(|conn| !conn.is_open()));
        assert!(pair.errors.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_on_error_costs_nothing_else() {
    let server = Server::builder()
        .on_error(async |_: Option<Conn>, error: Error| -> Result<(), Broken> {
            if error.to_string().contains("at once") {
                panic!("at once");
            }
            tokio::task::yield_now().await;
            if error.to_string().contains("later") {
                panic!("later");
            }
            Err(Broken)
        })
        .on("fails", |_: Conn, data: String| Err::<(), _>(data))
        .on("alive", |_: Conn, (): ()| "alive")
        .build()
        .unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    for how in ["at once", "later", "by an error"] {
        client.emit("fails", how).unwrap();
        assert_eq!(client.emit_with_ack("alive", ()).await.unwrap(), "alive");
    }
    let synchronous = Server::builder()
        .on_error(|_, _| -> () { panic!("at once") })
        .on("fails", |_: Conn, (): ()| Err::<(), _>("no"))
        .on("alive", |_: Conn, (): ()| "alive")
        .build()
        .unwrap();
    let client = testing::connect(&synchronous, Client::builder()).await.unwrap();
    client.emit("fails", ()).unwrap();
    assert_eq!(client.emit_with_ack("alive", ()).await.unwrap(), "alive");
}

#[tokio::test(start_paused = true)]
async fn without_on_error_failures_are_logged_and_the_connection_lives() {
    let server = Server::builder()
        .on("fails", |_: Conn, (): ()| Err::<(), _>("no"))
        .on("panics", |_: Conn, (): ()| -> () { panic!("no") })
        .build()
        .unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    for event in ["fails", "panics", "nobody"] {
        assert_eq!(
            client.emit_with_ack(event, ()).await.unwrap_err().kind(),
            ErrorKind::AckTimeout
        );
    }
    assert!(client.ping().await.is_ok());
}

#[tokio::test]
async fn on_disconnect_is_told_why_and_the_rooms_are_the_last_ones() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let server = Server::builder()
        .on_connect(|conn: Conn| {
            conn.join("a");
            conn.join("b");
            conn.leave("a");
        })
        .on_disconnect(async move |conn: Conn, why: Disconnect| {
            let reached = conn.to("b").emit("gone", ()).map(Reached::count);
            let _ = ends.send((conn.rooms(), reached, why));
        })
        .build()
        .unwrap();
    let client = testing::connect(&server, Client::builder()).await.unwrap();
    client.close_with(4001, "bye").await.unwrap();
    let (rooms, reached, why) = ended.recv().await.unwrap();
    assert_eq!(rooms, ["b"]);
    assert_eq!(reached.unwrap(), 0);
    assert_eq!(
        (why.code, why.reason.as_str(), why.clean, why.normal),
        (4001, "bye", true, false)
    );
}

/// Shakes hands over a stream; answers the HTTP answer and the bytes behind its head.
async fn shake_hands(server: &Server, request: http::Request<()>) -> (String, Vec<u8>) {
    let (near, mut far) = duplex(4096);
    let (mut parts, body) = request.into_parts();
    for (name, value) in [
        ("host", "example.org"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        parts.headers.insert(name, http::HeaderValue::from_static(value));
    }
    let accepting = server.accept(http::Request::from_parts(parts, body), near, []);
    let reading = async {
        let mut bytes = Vec::new();
        // A connection that lives on ends by its idle time, a refusal by the end of the stream.
        let _ = tokio::time::timeout(Duration::from_secs(1), far.read_to_end(&mut bytes)).await;
        let at = bytes
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .expect("an HTTP answer has a head")
            + 4;
        let rest = bytes.split_off(at);
        (String::from_utf8(bytes).expect("an HTTP head is text"), rest)
    };
    let (_, answer) = tokio::join!(accepting, reading);
    answer
}

fn is_let_in(head: &str) -> bool {
    head.starts_with("HTTP/1.1 101 ")
}

#[derive(Clone, Debug, PartialEq)]
struct User(String);

#[tokio::test(start_paused = true)]
async fn on_upgrade_lets_in_by_a_unit_or_an_accept() {
    let builder = || Server::builder();
    for server in [
        builder().on_upgrade(|_: Request| {}),
        builder().on_upgrade(|_: Request| Accept::new()),
        builder().on_upgrade(async |_: Request| tokio::task::yield_now().await),
        builder().on_upgrade(async |_: Request| Accept::new()),
        builder().on_upgrade(|_: Request| Ok::<_, Reject>(())),
        builder().on_upgrade(|_: Request| async { Ok::<_, Reject>(Accept::new()) }),
    ] {
        let (head, rest) = shake_hands(&server.build().unwrap(), http::Request::new(())).await;
        assert!(is_let_in(&head), "{head}");
        assert!(rest.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_accept_brings_data_headers_and_a_subprotocol() {
    let (users, mut user) = mpsc::unbounded_channel();
    let server = Server::builder()
        .on_upgrade(async |request: Request| -> Result<Accept, Reject> {
            let name = request
                .query()
                .and_then(|query| query.strip_prefix("name="))
                .ok_or_else(|| Reject::new(400))?;
            Ok(Accept::new()
                .data(User(name.to_owned()))
                .data(7_u8)
                .header(http::header::SET_COOKIE, "a=1".parse()?)
                .header(http::header::SET_COOKIE, "b=2".parse()?)
                .protocol("chat"))
        })
        .on_connect(move |conn: Conn| {
            let _ = users.send((
                conn.data().get::<User>(),
                conn.data().get::<u8>(),
                conn.data().get::<u16>(),
            ));
        })
        .build()
        .unwrap();
    let request = http::Request::get("/ws?name=ann")
        .header("sec-websocket-protocol", "etp, chat")
        .body(())
        .unwrap();
    let (head, _) = shake_hands(&server, request).await;
    assert!(is_let_in(&head), "{head}");
    for line in ["set-cookie: a=1", "set-cookie: b=2", "sec-websocket-protocol: chat"] {
        assert_eq!(head.matches(line).count(), 1, "{head}");
    }
    assert_eq!(user.recv().await, Some((Some(User("ann".into())), Some(7), None)));
}

#[tokio::test(start_paused = true)]
async fn a_subprotocol_that_was_not_offered_is_a_failure_of_ours() {
    let (tx, mut errors) = mpsc::unbounded_channel();
    let server = Server::builder()
        .on_upgrade(|_: Request| Accept::new().protocol("chat"))
        .on_error(move |_, error: Error| {
            let _ = tx.send(error.to_string());
        })
        .build()
        .unwrap();
    let (head, _) = shake_hands(&server, http::Request::new(())).await;
    assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
    assert!(
        errors
            .try_recv()
            .unwrap()
            .contains(r#"selected the subprotocol "chat", which the client did not offer"#)
    );
}

#[tokio::test(start_paused = true)]
async fn an_accept_may_close_at_once_with_a_code_that_a_browser_can_read() {
    let (calls, mut called) = mpsc::unbounded_channel();
    let (connected, ended) = (calls.clone(), calls);
    let server = Server::builder()
        .on_upgrade(|_: Request| Ok::<_, Reject>(Accept::new().close(4401, "who are you?")?))
        .on_connect(move |_: Conn| note(&connected, "on_connect"))
        .on_disconnect(move |_: Conn, _| note(&ended, "on_disconnect"))
        .build()
        .unwrap();
    let (head, rest) = shake_hands(&server, http::Request::new(())).await;
    assert!(is_let_in(&head), "{head}");
    let mut frame = vec![0x88, 14, 0x11, 0x31];
    frame.extend_from_slice(b"who are you?");
    assert_eq!(rest, frame);
    assert!(called.try_recv().is_err(), "no callback hears of it");
    assert!(server.conns().is_empty());

    assert_eq!(Accept::new().close(1006, "").unwrap_err().code(), "invalid_option");
    assert_eq!(
        Accept::new().close(4000, "x".repeat(124)).unwrap_err().code(),
        "invalid_option"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reject_answers_with_status_body_and_headers() {
    let server = Server::builder()
        .on_upgrade(|_: Request| {
            Err::<(), _>(
                Reject::new(429)
                    .body("slowly")
                    .header(http::header::RETRY_AFTER, http::HeaderValue::from_static("7")),
            )
        })
        .build()
        .unwrap();
    let (head, body) = shake_hands(&server, http::Request::new(())).await;
    assert!(head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{head}");
    assert!(
        head.contains("retry-after: 7\r\n") && head.contains("content-length: 7\r\n"),
        "{head}"
    );
    assert_eq!(body, b"slowly\n");

    for (given, status) in [
        (401, 401),
        (599, 599),
        (200, 500),
        (101, 500),
        (302, 500),
        (600, 500),
        (0, 500),
    ] {
        assert_eq!(Reject::new(given).status(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_on_upgrade_answers_500_and_the_cause_stays_here() {
    let builder = || Server::builder();
    for (builder, told) in [
        (
            builder().on_upgrade(|_: Request| -> Result<(), Reject> {
                "hunter2".parse::<u8>()?;
                Ok(())
            }),
            "invalid digit found in string",
        ),
        (
            builder().on_upgrade(async |_: Request| -> Result<Accept, Reject> {
                Err(Broken)?;
                Ok(Accept::new())
            }),
            "it broke",
        ),
        (
            builder().on_upgrade(|_: Request| -> () { panic!("it broke") }),
            "on_upgrade panicked: it broke",
        ),
        (
            builder().on_upgrade(async |_: Request| {
                tokio::task::yield_now().await;
                if true {
                    panic!("it broke");
                }
            }),
            "on_upgrade panicked: it broke",
        ),
    ] {
        let (tx, mut errors) = mpsc::unbounded_channel();
        let server = builder
            .on_error(move |conn: Option<Conn>, error: Error| {
                let _ = tx.send((conn.is_none(), error.code(), error.status(), error.to_string()));
            })
            .build()
            .unwrap();
        let (head, body) = shake_hands(&server, http::Request::new(())).await;
        assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
        let body = String::from_utf8(body).unwrap();
        for word in ["broke", "digit", "panic"] {
            assert!(!body.contains(word) && !head.contains(word), "{head}{body}");
        }
        let (no_conn, code, status, text) = errors.try_recv().expect("on_error was told");
        assert_eq!((no_conn, code, status), (true, "handshake_failed", Some(500)));
        assert!(text.contains(told), "{text}");
        assert!(errors.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn an_on_upgrade_that_takes_too_long_answers_503() {
    let server = Server::builder()
        .upgrade_timeout(Duration::from_millis(100))
        .on_upgrade(async |_: Request| std::future::pending::<()>().await)
        .build()
        .unwrap();
    let (head, _) = shake_hands(&server, http::Request::new(())).await;
    assert!(
        head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: "),
        "{head}"
    );
}

#[tokio::test]
async fn a_should_reconnect_that_panics_is_reported_and_the_usual_rule_holds() {
    let server = Server::builder()
        .on("kick", |conn: Conn, (): ()| conn.close_with(1000, "kicked"))
        .build()
        .unwrap();
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let url = bound.url();
    tokio::spawn(bound.serve());
    let (tx, mut errors) = mpsc::unbounded_channel();
    let client = Client::builder()
        .should_reconnect(|_| panic!("no idea"))
        .on_error(move |_, error: Error| {
            let _ = tx.send((error.code(), error.to_string()));
        })
        .connect(url)
        .await
        .unwrap();
    client.emit("kick", ()).unwrap();
    assert_eq!(client.wait_for(State::Closed).await, State::Closed);
    assert_eq!(
        errors.recv().await,
        Some(("handler_failed", "should_reconnect panicked: no idea".to_owned()))
    );
}

#[tokio::test]
async fn a_function_for_url_or_token_that_panics_fails_its_dial_only() {
    let server = Server::builder().build().unwrap();
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let url = bound.url();
    tokio::spawn(bound.serve());
    let quickly = Reconnect {
        base: Duration::from_millis(2),
        cap: Duration::from_millis(2),
        ..Reconnect::default()
    };
    // The second dial panics in the one, the third in the other.
    let dials = Arc::new(AtomicUsize::new(0));
    let (tx, mut errors) = mpsc::unbounded_channel();
    let client = Client::builder()
        .reconnect(quickly)
        .auth_fn({
            let dials = dials.clone();
            async move || {
                assert_ne!(dials.load(Ordering::SeqCst), 3, "no token");
                Ok::<_, Error>("token".to_owned())
            }
        })
        .on_error(move |_, error: Error| {
            let _ = tx.send((error.code(), error.to_string()));
        })
        .connect_fn(move || {
            assert_ne!(dials.fetch_add(1, Ordering::SeqCst), 1, "no URL");
            async move { Ok::<_, Error>(url) }
        })
        .await
        .unwrap();
    server.conns().pop().unwrap().close_with(1012, "again").unwrap();
    client.wait_for(State::Reconnecting).await;
    client.wait_for(State::Connected).await;
    for told in ["no URL", "no token"] {
        let (code, text) = errors.recv().await.unwrap();
        assert_eq!(code, "connect_failed");
        assert!(text.contains("panicked") && text.contains(told), "{text}");
    }
    client.close().await;
}

#[tokio::test]
async fn conn_data_holds_one_value_of_each_type() {
    let pair = pair(
        Server::builder()
            .on_connect(|conn: Conn| drop(conn.data().insert(User("ann".into()))))
            .on("rename", |conn: Conn, name: String| {
                let before = conn.data().insert(User(name));
                before.map(|User(name)| name)
            })
            .on("count", |conn: Conn, (): ()| {
                let count = conn.data().get::<u32>().unwrap_or_default();
                conn.data().insert(count + 1);
                count.to_string()
            })
            .on("forget", |conn: Conn, (): ()| {
                conn.data().remove::<User>().map(|User(name)| name)
            }),
    )
    .await;
    assert_eq!(pair.reply("rename", "bob").await, "ann");
    assert_eq!(pair.reply("rename", "cid").await, "bob");
    assert_eq!(pair.reply("count", ()).await, "0");
    assert_eq!(pair.reply("count", ()).await, "1");
    assert_eq!(pair.reply("forget", ()).await, "cid");
    assert_eq!(pair.reply("forget", ()).await, "");
    let conn = pair.server.conns().pop().unwrap();
    assert_eq!(conn.data().get::<u32>(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn handlers_run_concurrently_and_start_in_the_order_of_arrival() {
    let (trace, mut seen) = mpsc::unbounded_channel();
    let pair = pair(
        Server::builder().on("wait", async move |_: Conn, Json(secs): Json<u64>| {
            note(&trace, format!("begin {secs}"));
            tokio::time::sleep(Duration::from_secs(secs)).await;
            note(&trace, format!("end {secs}"));
        }),
    )
    .await;
    let (a, b, c) = tokio::join!(pair.ask("wait", "3"), pair.ask("wait", "1"), pair.ask("wait", "2"));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(
        noted(&mut seen),
        ["begin 3", "begin 1", "begin 2", "end 1", "end 2", "end 3"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_runs_to_its_end_when_its_peer_has_left() {
    let (trace, mut seen) = mpsc::unbounded_channel();
    let (handler, end) = (trace.clone(), trace);
    let mut pair = pair(
        Server::builder()
            .on("work", async move |conn: Conn, (): ()| {
                conn.closed().await;
                note(&handler, "told");
                tokio::time::sleep(Duration::from_secs(60)).await;
                note(&handler, "done");
                "a reply that nobody hears"
            })
            .on_disconnect(move |_: Conn, _| note(&end, "on_disconnect")),
    )
    .await;
    pair.client.emit("work", ()).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    pair.client.close().await;
    let mut all = [seen.recv().await.unwrap(), seen.recv().await.unwrap()];
    all.sort();
    assert_eq!(all, ["on_disconnect", "told"]);
    assert_eq!(seen.recv().await.as_deref(), Some("done"));
    assert!(pair.errors.try_recv().is_err());
    assert_eq!(pair.server.stats().handlers_in_flight, 0);
}
