"""How a server shakes hands, and with whom it doesn't."""

import base64
import json
import re

import pytest
import rawws
from harness import event
from rawws import TEXT, Refused, text

TOKEN = base64.urlsafe_b64encode(b"a very secret token?").decode().rstrip("=")


def first_frame(frame):
    return rawws.frame(TEXT, frame.encode(), mask=b"mask")


def test_a_good_request_is_answered_101(server):
    conn = server.connect()
    assert conn.head.status == 101
    assert conn.head.get("Upgrade").lower() == "websocket"
    assert conn.head.get("Connection").lower() == "upgrade"
    conn.fence()


def test_an_event_in_the_packet_of_the_request_is_handled(server):
    for _ in range(20):
        conn = server.connect(first=first_frame("echo||1||early"))
        assert conn.receive() == text("__ack_echo||1||early")


def test_many_events_in_the_packet_of_the_request_are_all_handled(server):
    conn = server.connect(first=b"".join(first_frame(f"echo||{id}||{'x' * 1000}") for id in range(1, 101)))
    assert {message.data for message in conn.receive_all(100)} == {
        event("__ack_echo", id, "x" * 1000) for id in range(1, 101)
    }


def test_the_first_event_finds_its_connection_counted(server):
    watcher = server.connect()
    for _ in range(20):
        before = watcher.seen()["connects"]
        conn = server.connect(first=first_frame("seen||1||"))
        seen = json.loads(conn.receive().data.removeprefix(b"__ack_seen||1||"))
        assert seen["connects"] == before + 1


def test_half_a_frame_in_the_packet_of_the_request_is_kept(server):
    frame = first_frame("echo||1||early")
    for cut in range(1, len(frame)):
        conn = server.connect(first=frame[:cut])
        conn.send_bytes(frame[cut:])
        assert conn.receive() == text("__ack_echo||1||early")
        conn.end()


def test_the_request_may_come_byte_by_byte(server):
    conn = server.connect(pieces=True)
    conn.fence()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Connection", "keep-alive, Upgrade")], id="firefox"),
        pytest.param([("Connection", "UPGRADE"), ("Upgrade", "WebSocket")], id="capitals"),
        pytest.param(
            [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")], id="small-letters"
        ),
        pytest.param([("Connection", "keep-alive"), ("Connection", "Upgrade")], id="two-lines"),
        pytest.param([("Upgrade", "h2c, websocket")], id="a-choice"),
        pytest.param([("Origin", "https://example.org")], id="an-origin"),
        pytest.param([("Origin", "null")], id="the-origin-null"),
        pytest.param([("Cookie", "a=b; c=d"), ("User-Agent", "x" * 500)], id="cookies"),
    ],
)
def test_requests_as_they_occur_are_accepted(server, headers):
    server.connect(headers=headers).fence()


@pytest.mark.parametrize("target", ["/ws", "/ws?", "/ws?a=1&b=%20x", "/ws?token=a%2Fb+c&&=", "/ws?a=/ws?b"])
def test_the_requests_path_and_query_are_told_as_sent(server, target):
    assert server.connect(target=target).call("url") == target.encode()


def test_an_id_is_32_hexadecimal_digits(server):
    assert re.fullmatch(rb"[0-9a-f]{32}", server.connect().call("id"))


def test_an_id_is_the_connections_own(server):
    conns = [server.connect() for _ in range(20)]
    ids = [conn.call("id") for conn in conns]
    assert len(set(ids)) == 20
    assert [conn.call("id") for conn in conns] == ids


# Subprotocols and extensions


def test_no_subprotocol_is_selected_when_none_is_asked_for(server):
    assert server.connect().head.get("Sec-WebSocket-Protocol") is None


def test_etp_is_selected_and_the_token_beside_it_is_not_echoed(server):
    conn = server.connect(headers=[("Sec-WebSocket-Protocol", f"etp, etp.auth.{TOKEN}")])
    assert conn.head.all("Sec-WebSocket-Protocol") == ["etp"]
    assert not any(TOKEN in value for _, value in conn.head.headers)
    conn.fence()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Sec-WebSocket-Protocol", "etp")], id="alone"),
        pytest.param([("Sec-WebSocket-Protocol", f"etp.auth.{TOKEN},etp")], id="second"),
        pytest.param(
            [("Sec-WebSocket-Protocol", "etp"), ("Sec-WebSocket-Protocol", f"etp.auth.{TOKEN}")], id="two-lines"
        ),
    ],
)
def test_etp_is_selected_wherever_it_stands(server, headers):
    conn = server.connect(headers=headers)
    assert conn.head.all("Sec-WebSocket-Protocol") == ["etp"]
    conn.fence()


def test_an_unknown_subprotocol_is_not_selected(server):
    try:
        conn = server.connect(headers=[("Sec-WebSocket-Protocol", "chat, superchat")])
    except Refused as refused:
        assert 400 <= refused.response.status < 500
    else:
        assert conn.head.get("Sec-WebSocket-Protocol") is None


def test_no_extension_is_negotiated(server):
    conn = server.connect(
        headers=[("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits, x-unknown")]
    )
    assert conn.head.get("Sec-WebSocket-Extensions") is None
    conn.fence()


# Refusals


def test_a_request_without_a_key_is_refused_with_400(server):
    assert server.exchange(without=["Sec-WebSocket-Key"]).status == 400


@pytest.mark.parametrize(
    "key",
    ["", "x", "not base64 at all!!!!!!!", base64.b64encode(b"fifteen bytes..").decode()],
    ids=["empty", "short", "no-base64", "15-bytes"],
)
def test_a_request_with_a_bad_key_is_refused_with_400(server, key):
    assert server.exchange(headers=[("Sec-WebSocket-Key", key)]).status == 400


@pytest.mark.parametrize("version", ["8", "7", "14", "thirteen", ""])
def test_another_version_is_refused_with_426_and_told_ours(server, version):
    response = server.exchange(headers=[("Sec-WebSocket-Version", version)])
    assert (response.status, response.get("Sec-WebSocket-Version")) == (426, "13")


def test_a_request_without_a_version_is_refused_and_told_ours(server):
    response = server.exchange(without=["Sec-WebSocket-Version"])
    assert response.status in (400, 426)
    assert response.get("Sec-WebSocket-Version") == "13"


def test_a_plain_get_is_answered_426(server):
    response = server.exchange(without=["Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
    assert response.status == 426
    assert response.get("Upgrade").lower() == "websocket"


@pytest.mark.parametrize("missing", ["Upgrade", "Connection"])
def test_a_request_that_does_not_ask_for_an_upgrade_is_answered_426(server, missing):
    assert server.exchange(without=[missing]).status == 426


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_another_method_than_get_is_refused(server, method):
    assert server.exchange(method=method, headers=[("Content-Length", "0")]).status in (400, 404, 405, 426)


def test_http_1_0_is_refused(server):
    assert server.exchange(version="HTTP/1.0").status in (400, 426, 505)


@pytest.mark.parametrize("target", ["/", "/other", "/wsx", "/ws/", "/ws/x", "/WS", "/%77s/"])
def test_another_path_is_answered_404(server, target):
    assert server.exchange(target=target).status == 404


def test_100_header_lines_are_read(server):
    fill = [(f"X-Line-{number}", "x") for number in range(95)]
    assert server.exchange(headers=fill).status == 101


def test_101_header_lines_are_refused_with_431(server):
    fill = [(f"X-Line-{number}", "x") for number in range(96)]
    assert server.exchange(headers=fill).status == 431


def test_headers_of_15_kib_are_read(server):
    assert server.exchange(headers=[("X-Fill", "x" * 15 * 1024)]).status == 101


@pytest.mark.parametrize("size", [20 * 1024, 200 * 1024])
def test_headers_of_more_than_16_kib_are_refused_with_431(server, size):
    assert server.exchange(headers=[("X-Fill", "x" * size)]).status == 431


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), id="a-tls-hello"),
        pytest.param(b"\0" * 300, id="zeros"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="ssh"),
        pytest.param(b"GET\r\n\r\n", id="half-a-line"),
        pytest.param(b"GET /ws HTTP/1.1\r\n: no name\r\n\r\n", id="a-header-without-a-name"),
        pytest.param(b"GET /ws HTTP/9.9\r\n\r\n", id="http-9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http-2"),
        pytest.param(b"\x81\x85mask", id="a-frame"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_bytes_that_are_no_request_do_no_harm(server, data):
    wire = server.open_wire()
    wire.send_bytes(data)
    wire.finish_writing()
    assert not wire.read_to_end().startswith(b"HTTP/1.1 101")
    server.connect().fence()


def test_requests_broken_off_do_no_harm(server):
    request = rawws.request(server.url)
    for cut in range(0, len(request), 7):
        wire = server.open_wire()
        wire.send_bytes(request[:cut])
        wire.abort()
    server.connect().fence()


def test_who_leaves_before_the_answer_is_counted_in_and_out_or_not_at_all(server):
    for _ in range(50):
        wire = server.open_wire()
        wire.send_bytes(rawws.request(server.url))
        wire.abort()
    server.settle()


def test_a_refused_request_is_no_connection(server):
    before = server.settle()
    server.exchange(without=["Sec-WebSocket-Key"])
    server.exchange(target="/other")
    after = server.settle()
    assert (after["connects"], after["disconnects"]) == (before["connects"], before["disconnects"])
