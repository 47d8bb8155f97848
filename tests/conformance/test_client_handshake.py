"""How a client asks for a connection, and which answers it must not take."""

import base64

import pytest
import rawws
from harness import Client
from rawws import TEXT, Listener


def test_the_request_is_as_rfc_6455_wants_it(client):
    request = client.dialled().request
    assert request.first_line == "GET /ws HTTP/1.1"
    assert request.all("Host") == [f"127.0.0.1:{client.listener.port}"]
    assert [value.lower() for value in request.all("Upgrade")] == ["websocket"]
    assert "upgrade" in [value.strip().lower() for value in request.get("Connection").split(",")]
    assert request.all("Sec-WebSocket-Version") == ["13"]
    (key,) = request.all("Sec-WebSocket-Key")
    assert len(base64.b64decode(key, validate=True)) == 16


def test_no_subprotocol_and_no_extension_is_asked_for(client):
    request = client.dialled().request
    assert request.get("Sec-WebSocket-Protocol") is None
    assert request.get("Sec-WebSocket-Extensions") is None
    assert request.get("Authorization") is None


def test_the_request_has_no_origin(client):
    assert client.dialled().request.get("Origin") is None


@pytest.fixture
def another(client):
    """Makes another client of the same kind, for a listener of the case's own."""
    clients = []

    def dial(listener):
        clients.append(Client(client.program, listener))
        return clients[-1]

    yield dial
    for other in clients:
        other.clean_up()


def test_path_and_query_are_sent_as_given(another):
    assert another(Listener("/a/b?c=d&e=%20f")).dialled().request.target == "/a/b?c=d&e=%20f"


def test_an_event_in_the_packet_of_the_answer_is_handled(client):
    client.accept(first=rawws.frame(TEXT, b"say||0||early"))
    assert client.next_event("say") == b"early"


def test_half_a_frame_in_the_packet_of_the_answer_is_kept(client):
    frame = rawws.frame(TEXT, b"say||0||early")
    conn = client.accept(first=frame[:5])
    conn.send_bytes(frame[5:])
    assert client.next_event("say") == b"early"


def test_a_close_in_the_packet_of_the_answer_is_answered(client):
    conn = client.accept(first=rawws.frame(rawws.CLOSE, rawws.close_payload(1008, "go away")))
    assert conn.await_close().code == 1008
    conn.end()
    assert client.wait_disconnected()["reason"] == "go away"


def test_the_answer_may_come_byte_by_byte(client):
    client.accept(pieces=True).fence()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Connection", "keep-alive, UPGRADE"), ("Upgrade", "WebSocket")], id="capitals"),
        pytest.param(
            [("Server", "nginx"), ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("X-Fill", "x" * 4000)], id="more-headers"
        ),
    ],
)
def test_answers_as_they_occur_are_taken(client, headers):
    client.accept(headers=headers).fence()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Sec-WebSocket-Accept", rawws.accept_key("another key"))], id="another-accept-key"),
        pytest.param([("Sec-WebSocket-Accept", "")], id="an-empty-accept-key"),
        pytest.param([("Upgrade", "h2c")], id="another-upgrade"),
        pytest.param([("Connection", "close")], id="another-connection"),
        pytest.param([("Sec-WebSocket-Protocol", "etp")], id="an-unasked-subprotocol"),
        pytest.param([("Sec-WebSocket-Extensions", "permessage-deflate")], id="an-unasked-extension"),
    ],
)
def test_an_answer_101_that_does_not_fit_is_no_connection(client, headers):
    dialled = client.dialled()
    dialled.send_bytes(dialled.switching(headers))
    assert client.failure() == "connect_failed"


@pytest.mark.parametrize(
    "status",
    [
        "200 OK",
        "204 No Content",
        "400 Bad Request",
        "404 Not Found",
        "426 Upgrade Required",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "503 Service Unavailable",
    ],
)
def test_another_status_is_no_connection(client, status):
    client.dialled().refuse(status)
    assert client.failure() == "connect_failed"


def test_a_redirect_is_no_connection(client):
    dialled = client.dialled()
    client.listener.close()
    dialled.refuse("302 Found", [("Location", client.listener.url.replace("ws:", "http:"))])
    assert client.failure() == "connect_failed"


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_first_dial_answered_401_or_403_is_rejected(client, status):
    client.dialled().refuse(status)
    assert client.failure() == "rejected"


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 101", b"\0\0\0\0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"],
    ids=["nothing", "half-a-line", "zeros", "ssh", "no-status"],
)
def test_an_answer_that_is_no_http_is_no_connection(client, answer):
    dialled = client.dialled()
    dialled.send_bytes(answer)
    dialled.end()
    assert client.failure() == "connect_failed"


def test_nobody_there_is_no_connection(another):
    listener = Listener()
    listener.close()
    assert another(listener).failure() == "connect_failed"


def test_a_client_that_could_not_connect_ends_with_status_1(client):
    client.dialled().refuse("404 Not Found")
    client.failure()
    assert client.close_stdin() == 1


@pytest.mark.long
def test_a_server_that_never_answers_is_no_connection(client):
    client.dialled()
    assert client.failure() == "connect_failed"
