"""Acknowledgments: each acked event has one outcome, its own."""

import json

import pytest
from peers import PeerError, eventually

HOUR = b"3600000"  # milliseconds: a handler that is still waiting whenever the test ends


def test_five_thousand_at_once_each_get_their_own_reply(client):
    payloads = [f"payload {n} || 😀".encode() for n in range(5_000)]
    ids = [client.do("ack", "echo", payload, timeout_ms=30_000) for payload in payloads]
    assert [client.result(id).get("data") for id in ids] == payloads


def test_an_empty_reply_is_an_outcome(client):
    assert client.call("ack", "empty", b"anything") == {"done": 1, "data": b""}


@pytest.mark.parametrize("payload", [b"", b"why?", "||😀\n".encode()], ids=["empty", "ascii", "unicode"])
def test_a_server_asks_its_client_and_gets_the_answer(client, payload):
    assert client.ack("ask", payload) == payload


def test_many_questions_and_answers_cross_each_other(client):
    ids = [client.do("ack", "ask", str(n).encode()) for n in range(200)]
    assert [client.result(id).get("data") for id in ids] == [str(n).encode() for n in range(200)]


def test_slow_handlers_end_in_the_order_of_their_own_delays(client):
    ids = [client.do("ack", "slow", delay) for delay in (b"1600", b"800", b"1")]
    for id in ids:
        assert client.result(id)["data"] == b"done"
    assert [line["done"] for line in client.lines if "done" in line] == ids[::-1]


def test_handlers_that_wait_never_hold_up_another(server, client):
    waiting = [client.do("ack", "slow", HOUR) for _ in range(19)]
    assert client.ack("slow", b"1") == b"done"
    server.kill()  # else a graceful end would wait for the handlers
    assert {client.result(id).get("error") for id in waiting} == {"connection_closed"}


def test_an_ack_without_a_reply_ends_at_its_own_deadline(client):
    later = client.do("ack", "fail", timeout_ms=2000)
    sooner = client.do("ack", "fail", timeout_ms=100)
    assert client.result(sooner).get("error") == "ack_timeout"
    assert client.ack("echo", b"still here") == b"still here"
    assert client.result(later).get("error") == "ack_timeout"
    assert [line["done"] for line in client.lines if "done" in line][0] == sooner


@pytest.mark.deviates("a handler of the reference has no way to fail, and its replies cannot be withheld", server="go")
def test_a_failed_handler_is_an_error_of_the_server(client, seen):
    with pytest.raises(PeerError, match="ack_timeout"):
        client.ack("fail", timeout_ms=100)
    assert seen(client, "errors") == 1


def test_pending_acks_end_when_the_connection_does(client):
    waiting = [client.do("ack", "fail", timeout_ms=30_000) for _ in range(2)]
    client.emit("close")
    assert [client.result(id).get("error") for id in waiting] == ["connection_closed"] * 2


def test_unknown_events_go_to_the_servers_callback(client, seen):
    assert client.ack("nobody", b"ignored") == b"unknown:nobody"
    client.emit("nobody")
    eventually(lambda: seen(client, "unknown"), 2)
    assert json.loads(client.ack("seen"))["errors"] == 0
