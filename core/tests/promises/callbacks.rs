//! `on_connect` before the first event, `on_disconnect` exactly once, `on_upgrade` before all.

use std::future::{IntoFuture, pending};
use std::sync::Arc;

use etp_ws::testing::{Message, pipe};
use etp_ws::{Accept, Bytes, Conn, Disconnect, Error, Reject, Request, Server, ServerBuilder};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn on_connect_ends_before_the_first_event_is_handled() {
    let (order, gate) = (Log::new(), Arc::new(Semaphore::new(0)));
    let (connecting, handling, held) = (order.clone(), order.clone(), gate.clone());
    let server = Server::builder()
        .on_connect(async move |_: Conn| {
            connecting.push("connecting");
            held.acquire().await.expect("the gate is never closed").forget();
            connecting.push("connected");
        })
        .on("e", move |_: Conn, ()| handling.push("event"))
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    peer.send("e||1||").await;
    peer.send("e||2||").await;
    peer.is_read().await;
    assert_eq!(order.all(), ["connecting"], "pings are answered meanwhile");
    gate.add_permits(1);
    assert_eq!(
        (peer.frame().await, peer.frame().await),
        ("__ack_e||1".into(), "__ack_e||2".into())
    );
    assert_eq!(order.all(), ["connecting", "connected", "event", "event"]);
}

#[tokio::test(start_paused = true)]
async fn a_plain_on_connect_ends_first_as_well() {
    let order = Log::new();
    let (connecting, handling) = (order.clone(), order.clone());
    let server = Server::builder()
        .on_connect(move |_: Conn| connecting.push("connected"))
        .on("e", move |_: Conn, ()| handling.push("event"))
        .build()
        .unwrap();
    let (ours, theirs) = pipe();
    let mut peer = Peer(theirs);
    peer.send("e||1||").await;
    server.accept_pipe(http::Request::new(()), ours).await.unwrap();
    assert_eq!(order.until(2).await, ["connected", "event"]);
}

#[tokio::test(start_paused = true)]
async fn on_connect_may_ask_the_peer_before_events_are_handled() {
    let order = Log::new();
    let (asked, handled) = (order.clone(), order.clone());
    let server = Server::builder()
        .on_connect(async move |conn: Conn| {
            let name = conn.emit_with_ack("who", ()).await?;
            asked.push(String::from_utf8_lossy(&name).into_owned());
            Ok::<_, Error>(())
        })
        .on("e", move |_: Conn, what: String| handled.push(what))
        .build()
        .unwrap();
    let (mut peer, _) = Peer::join(&server).await;
    peer.send("e||0||event").await;
    assert_eq!(peer.frame().await, "who||1||");
    peer.send("__ack_who||1||ann").await;
    assert_eq!(order.until(2).await, ["ann", "event"]);
}

/// Gives a server one of the callbacks that fail.
type Way = fn(ServerBuilder) -> ServerBuilder;

#[tokio::test(start_paused = true)]
async fn a_failing_on_connect_closes_with_1011_and_is_told() {
    let ways: [(&str, Way); 4] = [
        ("refused", |server| server.on_connect(|_: Conn| Err::<(), _>("refused"))),
        ("panicked", |server| {
            server.on_connect(|_: Conn| -> () { panic!("panicked at once") })
        }),
        ("later", |server| {
            server.on_connect(async |_: Conn| {
                tokio::task::yield_now().await;
                Err::<(), _>("refused later")
            })
        }),
        ("panicked", |server| {
            server.on_connect(async |_: Conn| -> () {
                tokio::task::yield_now().await;
                panic!("panicked later")
            })
        }),
    ];
    for (cause, way) in ways {
        let (log, on_error) = errors();
        let (gone, on_disconnect) = disconnects();
        let handled = Log::new();
        let event = handled.clone();
        let server = way(Server::builder())
            .on_error(on_error)
            .on_disconnect(on_disconnect)
            .on("e", move |_: Conn, ()| event.push(()))
            .build()
            .unwrap();
        let (mut peer, _) = Peer::join(&server).await;
        peer.send("e||1||").await;
        assert_eq!(
            peer.next().await,
            Message::Close(closed_with(1011, "on_connect failed"))
        );
        peer.0.send(Message::Close(closed_with(1011, ""))).await.unwrap();
        let why = gone.until(1).await.remove(0);
        settle().await;
        assert_eq!((why.code, why.clean, gone.len()), (1011, true, 1));
        assert_eq!((codes(&log), handled.len()), (vec!["handler_failed"], 0));
        assert!(log.all()[0].to_string().contains(cause), "{}", log.all()[0]);
    }
}

/// A reason whose words are not promised.
const ANY: &str = "any";

/// The ways in which a connection ends, and what `on_disconnect` is told: code, reason, clean.
#[derive(Clone, Copy, Debug)]
enum End {
    PeerCloses,
    PeerClosesWithoutACode,
    ServerCloses,
    Vanishes,
    BreaksTheProtocol,
    SendsBrokenText,
    Shutdown,
    VanishesWhileConnecting,
    ConnectFails,
}

#[tokio::test(start_paused = true)]
async fn on_disconnect_runs_once_however_it_ends_and_still_knows_the_rooms() {
    let ends = [
        (End::PeerCloses, 4000, "bye", true),
        (End::PeerClosesWithoutACode, 1005, "", true),
        (End::ServerCloses, 4001, "kicked", true),
        (End::Vanishes, 1006, "", false),
        (End::BreaksTheProtocol, 1002, ANY, false),
        (End::SendsBrokenText, 1007, ANY, false),
        (End::Shutdown, 1000, "server shutdown", true),
        (End::VanishesWhileConnecting, 1006, "", false),
        (End::ConnectFails, 1011, "on_connect failed", true),
    ];
    for (end, code, reason, clean) in ends {
        let told = Log::new();
        let log = told.clone();
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        let server = Server::builder()
            .on_error(|_, _| ())
            .on_connect(async move |conn: Conn| {
                conn.join("a");
                conn.join("b");
                match end {
                    End::VanishesWhileConnecting => held.acquire().await.expect("never closed").forget(),
                    End::ConnectFails => return Err("refused"),
                    _ => {}
                }
                Ok(())
            })
            .on_disconnect(move |conn: Conn, why: Disconnect| {
                let mut rooms = conn.rooms();
                rooms.sort();
                let reached = conn.to(["a", "b"]).emit("late", ()).unwrap().count();
                log.push((rooms, reached, why, conn.emit("late", ()).map_err(|error| error.code())));
            })
            .build()
            .unwrap();
        let (mut peer, conn) = Peer::join(&server).await;
        let (_other, bystander) = Peer::join(&server).await;
        settle().await;
        bystander.leave("a");
        bystander.leave("b");
        let ours = server.clone();
        match end {
            End::PeerCloses => peer.0.send(Message::Close(closed_with(4000, "bye"))).await.unwrap(),
            End::PeerClosesWithoutACode => peer.0.send(Message::Close(None)).await.unwrap(),
            End::ServerCloses => conn.close_with(4001, "kicked").unwrap(),
            End::BreaksTheProtocol => peer.0.send(Message::Close(closed_with(1006, ""))).await.unwrap(),
            End::SendsBrokenText => peer
                .0
                .send(Message::Text(Bytes::from_static(b"e||0||\xff")))
                .await
                .unwrap(),
            End::Shutdown => drop(tokio::spawn(async move { ours.shutdown().await })),
            End::Vanishes | End::VanishesWhileConnecting | End::ConnectFails => {}
        }
        match end {
            End::ServerCloses | End::Shutdown | End::ConnectFails => {
                let frame = peer.close_frame().await;
                assert_eq!(frame, closed_with(code, reason), "{end:?}");
                peer.0.send(Message::Close(frame)).await.unwrap();
            }
            End::VanishesWhileConnecting => {
                drop(peer);
                settle().await;
                assert_eq!(told.len(), 0, "on_connect has not ended");
                gate.add_permits(2);
            }
            _ => drop(peer),
        }
        let (rooms, reached, why, late) = told.until(1).await.remove(0);
        conn.closed().await;
        tokio::time::sleep(SEC).await;
        let ours = told.all().into_iter().filter(|(rooms, ..)| !rooms.is_empty());
        assert_eq!(ours.count(), 1, "{end:?}");
        assert_eq!(rooms, ["a", "b"], "{end:?}");
        assert_eq!((reached, late), (0, Err("connection_closed")), "{end:?}");
        assert_eq!(
            (why.code, why.clean, why.normal),
            (code, clean, code == 1000),
            "{end:?}"
        );
        assert!(why.reason == reason || reason == ANY, "{end:?}: {why:?}");
        assert!(!why.will_reconnect);
        assert_eq!((server.member_count("a"), conn.rooms().len()), (0, 2), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn on_disconnect_may_be_async_and_a_failing_one_is_told() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .on_error(on_error)
        .on_disconnect(async |_: Conn, _: Disconnect| {
            tokio::time::sleep(SEC).await;
            Err::<(), _>("could not say goodbye")
        })
        .build()
        .unwrap();
    let (peer, _) = Peer::join(&server).await;
    settle().await;
    let began = Instant::now();
    drop(peer);
    assert!(log.until(1).await[0].to_string().contains("could not say goodbye"));
    assert_eq!((codes(&log), began.elapsed()), (vec!["handler_failed"], SEC));
}

/// What the peer of a refused handshake is answered.
async fn answer(server: &Server) -> u16 {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    let (outcome, head) = tokio::join!(server.accept(handshake(), ours, []), http_head(&mut theirs));
    assert_eq!(outcome.map_err(|error| error.status()).err(), Some(Some(status(&head))));
    status(&head)
}

#[tokio::test(start_paused = true)]
async fn a_failing_on_upgrade_answers_500() {
    let ways: [Way; 4] = [
        |server| {
            server.on_upgrade(|_: Request| {
                let _: u8 = "secret".parse()?;
                Ok::<_, Reject>(Accept::new())
            })
        },
        |server| server.on_upgrade(|_: Request| -> Accept { panic!("secret") }),
        |server| {
            server.on_upgrade(async |_: Request| -> Accept {
                tokio::task::yield_now().await;
                panic!("secret")
            })
        },
        // A status that is no refusal.
        |server| server.on_upgrade(|_: Request| Err::<Accept, _>(Reject::new(200))),
    ];
    for way in ways {
        let (log, on_error) = errors();
        let server = way(Server::builder()).on_error(on_error).build().unwrap();
        assert_eq!(answer(&server).await, 500);
        assert_eq!(codes(&log), ["handshake_failed"]);
        assert_eq!((server.conns().len(), server.stats().handshakes_failed), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_on_upgrade_that_takes_too_long_answers_503() {
    let (log, on_error) = errors();
    let server = Server::builder()
        .max_connections(1)
        .on_error(on_error)
        .on_upgrade(async |_: Request| pending::<()>().await)
        .build()
        .unwrap();
    for n in 1..=2 {
        let began = Instant::now();
        assert_eq!(answer(&server).await, 503);
        assert_eq!(began.elapsed(), 5 * SEC);
        assert_eq!(codes(&log).len(), n);
        assert!(
            log.all()[n - 1].to_string().contains("upgrade_timeout"),
            "no place is lost: {}",
            log.all()[n - 1]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn on_upgrade_rejects_or_lets_in_with_data_or_only_to_close() {
    let (gone, on_disconnect) = disconnects();
    let connected = Log::new();
    let log = connected.clone();
    let server = Server::builder()
        .on_connect(move |conn: Conn| log.push(conn.data().get::<u32>()))
        .on_disconnect(on_disconnect)
        .on_upgrade(|request: Request| match request.token().as_deref() {
            Some("ann") => Ok(Accept::new().data(7_u32)),
            Some("banned") => Ok(Accept::new().close(4003, "banned").expect("can be sent")),
            _ => Err(Reject::new(401)),
        })
        .build()
        .unwrap();
    let knock = |token: &str| {
        let (ours, theirs) = pipe();
        let request = http::Request::builder()
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap();
        let server = server.clone();
        async move { (server.accept_pipe(request, ours).await, Peer(theirs)) }
    };
    assert_eq!(err(knock("nobody").await.0).status(), Some(401));
    let (conn, _peer) = knock("ann").await;
    assert_eq!(
        (connected.until(1).await, conn.unwrap().data().get::<u32>()),
        (vec![Some(7)], Some(7))
    );
    let (conn, mut peer) = knock("banned").await;
    assert_eq!(
        err(conn.unwrap().emit_with_ack("e", ()).into_future().await).code(),
        "connection_closed"
    );
    assert_eq!(peer.next().await, Message::Close(closed_with(4003, "banned")));
    drop(peer);
    settle().await;
    assert_eq!((connected.len(), gone.len()), (1, 0), "handlers never hear of it");
}
