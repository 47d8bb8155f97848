"""Restarts: a server goes and comes back on its port; a client of ours finds it again, one of the reference says goodbye."""

import pytest
from peers import PeerError, ServerPeer, fixed_listen_address


@pytest.fixture
def server(pair):
    with ServerPeer(pair.server, fixed_listen_address()) as peer:
        yield peer


def test_a_server_that_was_killed(pair, server, client):
    _use(client)
    server.kill()
    assert client.wait_disconnected() == {
        "code": 1006,
        "reason": "",
        "clean": False,
        "normal": False,
        "will_reconnect": pair.our_client,
    }
    _find_it_again(pair, server, client)


def test_a_server_that_was_shut_down(pair, server, client):
    _use(client)
    assert server.terminate() == 0
    assert client.wait_disconnected() == {
        "code": 1000,
        "reason": "server shutdown" if pair.our_server else "",
        "clean": True,
        "normal": True,
        "will_reconnect": pair.our_client,
    }
    _find_it_again(pair, server, client)


def test_all_clients_are_told_of_a_shutdown(pair, server, dial):
    clients = [dial(server) for _ in range(5)]
    for client in clients:
        _use(client)
    assert server.terminate() == 0
    assert {client.wait_disconnected()["code"] for client in clients} == {1000}


@pytest.mark.only(lambda pair: pair.our_client)
def test_a_client_survives_several_restarts(pair, server, client):
    listen = server.listen
    server.kill()
    for _ in range(3):
        client.wait_disconnected()
        with ServerPeer(pair.server, listen) as again:
            client.wait_state("connected")
            _use(client)
            again.kill()


def test_pending_acks_end_when_the_server_dies(server, client):
    waiting = [client.do("ack", "fail", timeout_ms=30_000), client.do("ack", "slow", b"3600000", timeout_ms=30_000)]
    _use(client)
    server.kill()
    assert [client.result(id).get("error") for id in waiting] == ["connection_closed"] * 2


def test_nothing_can_be_sent_while_the_server_is_away(pair, server, client):
    server.kill()
    client.wait_disconnected()
    assert client.call("ack", "echo").get("error") == "connection_closed"
    assert client.call("ping").get("error") == "connection_closed"
    # The reference tells of a disconnect before it lets go of the connection: an emit in between still seems to succeed.
    if pair.our_client:
        assert client.call("emit", "echo").get("error") == "connection_closed"


def _use(client) -> None:
    assert client.ack("echo", b"in use") == b"in use"


def _find_it_again(pair, server, client) -> None:
    with ServerPeer(pair.server, server.listen):
        if pair.our_client:
            client.wait_state("connected")
            assert (
                client.ack("join", b"lobby") == b"1"
            )  # a new connection: its rooms are the application's to join anew
            _use(client)
        else:
            with pytest.raises(PeerError, match="connection_closed"):
                client.ack("echo", b"gone")
