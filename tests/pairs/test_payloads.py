"""Payloads: bytes go and come back as they were, up to the limit of a message."""

import pytest
from peers import PeerError

LIMIT = 1024 * 1024  # bytes of a message, head included: the default of both sides
REQUEST_HEAD = len("empty||1||")
REPLY_HEAD = len("__ack_echo||1||")  # of the first acked event of a connection


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello", id="ascii"),
        pytest.param(b"||", id="delimiter"),
        pytest.param(b"a||7||b||", id="a whole frame"),
        pytest.param(b"|x|", id="single pipes"),
        pytest.param(b"\n\r\n\n", id="newlines"),
        pytest.param(b"\x00a\x00", id="NUL"),
        pytest.param("😀 héllo \u2028 \ufeff".encode(), id="unicode"),
        pytest.param(b'{"n":9007199254740993,"s":"\\u0000"}', id="JSON"),
        pytest.param(b"x" * (LIMIT - REPLY_HEAD), id="a reply of exactly the limit"),
    ],
)
def test_a_payload_comes_back_unchanged(client, payload):
    assert client.ack("echo", payload) == payload


@pytest.mark.only(lambda pair: pair.our_server == pair.our_client)
def test_bytes_that_are_no_text_come_back_unchanged(client):
    payload = bytes(range(256))
    assert client.ack("echo", payload) == payload


@pytest.mark.only(lambda pair: pair.our_server != pair.our_client)
def test_broken_text_from_the_reference_ends_the_connection_with_1007(client):
    # It puts any bytes into text messages: here the request of its client, or the reply of its server.
    with pytest.raises(PeerError, match="connection_closed"):
        client.ack("echo", b"\xff\xfe")
    assert client.wait_disconnected()["code"] == 1007


@pytest.mark.only(lambda pair: pair.our_client)
def test_bytes_that_are_no_text_reach_any_server_in_a_binary_message(client):
    client.ack("set", b"\xff\xfe\nvalue")
    assert client.ack("get", b"\xff\xfe") == b"value"


def test_a_message_of_exactly_the_limit_is_read(client):
    assert client.ack("empty", b"x" * (LIMIT - REQUEST_HEAD)) == b""


@pytest.mark.only(lambda pair: pair.our_client)
def test_a_message_past_the_limit_is_refused_to_its_caller(client):
    assert client.call("ack", "empty", b"x" * (LIMIT - REQUEST_HEAD + 1)).get("error") == "message_too_large"
    assert client.ack("echo", b"still here") == b"still here"


@pytest.mark.only(lambda pair: not pair.our_client)
def test_a_message_past_the_limit_ends_the_connection_with_1009(client):
    with pytest.raises(PeerError, match="connection_closed"):
        client.ack("empty", b"x" * (LIMIT - REQUEST_HEAD + 1))
    assert client.wait_disconnected()["code"] == 1009


@pytest.mark.only(lambda pair: pair.our_server)
def test_a_reply_past_the_limit_is_not_sent_and_reported_to_the_server(client, seen):
    with pytest.raises(PeerError, match="ack_timeout"):
        client.ack("echo", b"x" * (LIMIT - REPLY_HEAD + 1), timeout_ms=1000)
    assert seen(client, "errors") == 1


@pytest.mark.only(lambda pair: not pair.our_server)
@pytest.mark.deviates("the reference tells of a limit that it enforced itself without a close code", client="go")
def test_a_reply_past_the_limit_ends_the_connection_with_1009(client):
    with pytest.raises(PeerError, match="connection_closed"):
        client.ack("echo", b"x" * (LIMIT - REPLY_HEAD + 1))
    assert client.wait_disconnected()["code"] == 1009
