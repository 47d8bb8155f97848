//! Rooms: every member at the time of the call gets a message once, and a connection leaves all rooms at its end.

use etp_ws::testing::pipe;
use etp_ws::{Client, Conn, Server, testing};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_everybody_in_a_union_of_rooms_once_except_those_left_out() {
    let server = Server::builder().build().unwrap();
    let mut peers = Vec::new();
    for rooms in [&["a"][..], &["a", "b"], &["b"], &["c"], &[], &["a", "b", "quiet"]] {
        let (peer, conn) = Peer::join(&server).await;
        for room in rooms {
            conn.join(room);
        }
        peers.push((peer, conn));
    }
    let conn = |n: usize| peers[n].1.clone();
    let listed = [conn(0), conn(2)];
    let broadcasts = [
        (server.to("a"), vec![0, 1, 5]),
        (server.to(["a", "b"]), vec![0, 1, 2, 5]),
        (server.to(["a", "a", "nobody"]), vec![0, 1, 5]),
        (server.to(["a", "b"]).except("quiet"), vec![0, 1, 2]),
        (server.to(["a", "b"]).except(&conn(1)).except("quiet"), vec![0, 2]),
        (server.to(["a", "b"]).except(&listed[..]), vec![1, 5]),
        (server.to(["a", "b"]).except(["b", "quiet"]), vec![0]),
        (server.except(conn(4).id()).except("a"), vec![2, 3]),
        (server.except("nobody"), vec![0, 1, 2, 3, 4, 5]),
        (conn(1).to("b"), vec![1, 2, 5]),
        (server.to("nobody"), vec![]),
    ];
    let mut expected = vec![Vec::new(); peers.len()];
    for (n, (broadcast, reached)) in broadcasts.iter().enumerate() {
        assert_eq!(
            broadcast.emit("n", n.to_string()).unwrap().count(),
            reached.len(),
            "broadcast {n}"
        );
        assert_eq!(broadcast.conns().len(), reached.len(), "broadcast {n}");
        for peer in reached {
            expected[*peer].push(format!("n||0||{n}"));
        }
    }
    server.emit("end", ()).unwrap();
    for ((peer, _), expected) in peers.iter_mut().zip(expected) {
        let mut got = Vec::new();
        loop {
            match peer.frame().await {
                end if end == "end||0||" => break,
                frame => got.push(frame),
            }
        }
        assert_eq!(got, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn who_left_or_was_put_out_is_not_reached() {
    let server = Server::builder().build().unwrap();
    let (_first, ann) = Peer::join(&server).await;
    let (_second, bob) = Peer::join(&server).await;
    for conn in [&ann, &bob] {
        conn.join("a");
        conn.join("b");
    }
    assert_eq!((server.member_count("a"), server.members("a").len()), (2, 2));
    ann.leave("a");
    assert_eq!(ann.rooms(), ["b"]);
    assert_eq!(server.to("a").emit("e", ()).unwrap().count(), 1);
    server.clear_room("b");
    assert_eq!(server.to("b").emit("e", ()).unwrap().count(), 0);
    assert_eq!((ann.rooms(), bob.rooms()), (vec![], vec!["a".to_owned()]));
    assert_eq!(server.rooms(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_to_a_room_comes_to_clients_and_the_sender_alike() {
    let said = Log::new();
    let server = Server::builder()
        .on_connect(|conn: Conn| conn.join("lobby"))
        .on("say", |conn: Conn, what: String| conn.to("lobby").emit("say", what))
        .build()
        .unwrap();
    let listener = || {
        let said = said.clone();
        Client::builder().on("say", move |_: Conn, what: String| said.push(what))
    };
    let ann = testing::connect(&server, listener()).await.unwrap();
    let _bob = testing::connect(&server, listener()).await.unwrap();
    ann.emit("say", "hi").unwrap();
    assert_eq!(said.until(2).await, ["hi", "hi"]);
    settle().await;
    assert_eq!(said.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_that_races_a_disconnect_leaves_nothing_behind() {
    const RACES: usize = 10_000;
    let (gone, on_disconnect) = disconnects();
    let server = Server::builder().on_disconnect(on_disconnect).build().unwrap();
    let mut joiners = Vec::new();
    for race in 0..RACES {
        let (ours, theirs) = pipe();
        let conn = server.accept_pipe(http::Request::new(()), ours).await.unwrap();
        joiners.push(tokio::spawn(async move {
            for room in 0..4 {
                conn.join(format!("{}", (race + room) % 7));
            }
            // Kept to be asked later, when the connection has long ended.
            conn
        }));
        drop(theirs);
    }
    let mut conns = Vec::new();
    for joiner in joiners {
        conns.push(joiner.await.unwrap());
    }
    gone.until(RACES).await;
    assert_eq!(server.rooms(), Vec::<String>::new());
    assert_eq!((server.conns().len(), server.stats().connections), (0, 0));
    for conn in &conns {
        let last = conn.rooms();
        conn.join("late");
        assert_eq!(conn.rooms(), last, "what has ended joins nothing");
    }
    assert_eq!(server.rooms(), Vec::<String>::new());
    assert_eq!(gone.len(), RACES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_knows_its_last_rooms_at_every_moment_of_its_end() {
    for _ in 0..2_000 {
        let server = Server::builder().build().unwrap();
        let (peer, conn) = Peer::join(&server).await;
        conn.join("room");
        let watching = server.clone();
        let watcher = tokio::task::spawn_blocking(move || {
            loop {
                let there = watching.conn(conn.id()).is_some();
                assert_eq!(conn.rooms(), ["room"]);
                if !there {
                    return;
                }
            }
        });
        drop(peer);
        watcher.await.unwrap();
    }
}
