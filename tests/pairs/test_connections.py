"""Connections: what a server knows of one, and how one ends while both sides live."""

import re

import pytest
from peers import eventually


def test_each_connection_has_an_id_of_its_own(server, dial):
    first, second = dial(server), dial(server)
    assert re.fullmatch(rb"[0-9a-f]{32}", first.ack("id"))
    assert first.ack("id") == first.ack("id") != second.ack("id")


def test_the_server_knows_path_and_query(server, dial):
    assert dial(server, "?room=a&name=%D1%8F%20b").ack("url") == b"/ws?room=a&name=%D1%8F%20b"


def test_values_are_kept_with_their_connection(server, dial):
    first, second = dial(server), dial(server)
    assert first.ack("set", b"colour\nblue || \n green") == b""
    assert first.ack("get", b"colour") == b"blue || \n green"
    assert first.ack("get", b"shape") == second.ack("get", b"colour") == b""
    first.ack("set", b"colour\n")
    assert first.ack("get", b"colour") == b""


def test_pings_are_answered(client):
    for _ in range(3):
        assert "error" not in client.call("ping", timeout_ms=30_000)


def test_drain_ends_when_what_was_emitted_is_on_its_way(client):
    client.emit("echo", b"x" * 500_000)
    assert "error" not in client.call("drain", timeout_ms=30_000)


def test_callbacks_are_counted(server, dial, seen):
    watcher = dial(server)
    assert seen(watcher, "connects") == 1
    guests = [dial(server) for _ in range(3)]
    eventually(lambda: seen(watcher, "connects"), 4)
    assert seen(watcher, "disconnects") == 0
    for guest in guests:
        guest.stop()
    eventually(lambda: seen(watcher, "disconnects"), 3)
    assert (seen(watcher, "connects"), seen(watcher, "errors"), seen(watcher, "unknown")) == (4, 0, 0)


def test_a_server_closes_with_1000(pair, server, client, dial, seen):
    client.emit("close")
    assert client.wait_disconnected() == {
        "code": 1000,
        "reason": "",
        "clean": True,
        "normal": True,
        "will_reconnect": pair.our_client,
    }
    if pair.our_client:
        client.wait_state("connected")
        assert client.ack("echo", b"back") == b"back"
    eventually(lambda: seen(dial(server), "disconnects") >= 1, True)


def test_a_client_closes_with_1000_and_stays_away(server, client, dial, seen):
    watcher = dial(server)
    client.ack("echo")
    assert "error" not in client.call("close")
    assert client.wait_disconnected() == {
        "code": 1000,
        "reason": "",
        "clean": True,
        "normal": True,
        "will_reconnect": False,
    }
    eventually(lambda: seen(watcher, "disconnects"), 1)
    assert client.call("ack", "echo").get("error") == "connection_closed"
    assert client.call("emit", "echo").get("error") == "connection_closed"
    assert client.call("ping").get("error") == "connection_closed"


def test_what_was_emitted_before_a_close_arrives(server, client, dial, seen):
    watcher = dial(server)
    for _ in range(200):
        client.do("emit", "nobody", b"x" * 1000)
    client.do("close")
    eventually(lambda: (seen(watcher, "disconnects"), seen(watcher, "unknown")), (1, 200))


def test_a_client_whose_commands_end_leaves_with_status_0(server, client, dial, seen):
    watcher = dial(server)
    client.ack("echo")
    assert client.close_stdin() == 0
    eventually(lambda: seen(watcher, "disconnects"), 1)
    assert seen(watcher, "errors") == 0


@pytest.mark.parametrize("events", [0, 50])
def test_a_client_that_dies_is_a_disconnect(server, dial, seen, events):
    watcher, client = dial(server), dial(server)
    client.ack("echo")
    for _ in range(events):
        client.do("ack", "echo", b"x" * 10_000)
    client.kill()
    eventually(lambda: seen(watcher, "disconnects"), 1)
