"""How a client's connection ends, what it tells of it, and when it comes back."""

import pytest
import vectors
from rawws import CLOSE, PING, TEXT, close_payload, text


def leave(client):
    """Takes the client's connection and tears it, so that it dials again."""
    client.accept().abort()
    assert client.wait_disconnected()["will_reconnect"] is True


def told(code, reason="", *, clean=True, back):
    return {"code": code, "reason": reason, "clean": clean, "normal": code == 1000, "will_reconnect": back}


# The end


def test_a_client_closes_with_1000_and_waits_for_the_answer(client):
    conn = client.accept()
    conn.await_pong()
    closed = client.do("close")
    conn.expect_close_in_time(1000, "")
    assert client.outcome(closed) == b""
    assert client.wait_disconnected() == told(1000, back=False)


def test_close_sends_what_was_emitted_before_it(client):
    conn = client.accept()
    for number in range(100):
        client.do("emit", "count", b"%d" % number)
    client.do("close")
    assert conn.receive_all(100) == [text(f"count||0||{number}") for number in range(100)]
    assert conn.await_close().code == 1000


def test_what_arrives_before_the_answer_to_a_close_does_no_harm(client):
    conn = client.accept()
    client.do("close")
    assert conn.await_close().code == 1000
    for _ in range(500):
        conn.send_text("say||0||late")
    conn.send_text("question||1||late", "no frame")
    conn.ping(b"late")
    conn.send_close(1000)
    conn.expect_end(messages=True)
    assert client.wait_disconnected() == told(1000, back=False)


def test_a_close_that_is_not_answered_is_not_clean(client):
    conn = client.accept()
    client.do("close")
    conn.await_close()
    conn.end()
    got = client.wait_disconnected()
    assert (got["clean"], got["will_reconnect"]) == (False, False)


@pytest.mark.parametrize("code", [1000, 1001, 1008, 3000, 4999])
def test_a_close_frame_is_answered_with_its_code(client, code):
    conn = client.accept()
    assert conn.close_in_order(code, "good bye").code == code


@pytest.mark.parametrize("close", vectors.disconnects())
def test_a_disconnect_is_told_with_what_follows(client, close):
    code, reason, back = close
    conn = client.accept()
    conn.close_in_order(code, reason)
    assert client.wait_disconnected() == told(code or 1005, reason, back=back)
    if back:
        client.accept().fence()


def test_a_reason_is_told_letter_by_letter(client):
    conn = client.accept()
    conn.close_in_order(1000, 'dość 🎉 "quoted"\n')
    assert client.wait_disconnected() == told(1000, 'dość 🎉 "quoted"\n', back=False)


@pytest.mark.parametrize("how", ["abort", "end"])
def test_an_end_without_a_close_frame_is_told_as_1006(client, how):
    conn = client.accept()
    conn.fence()
    getattr(conn, how)()
    assert client.wait_disconnected() == told(1006, clean=False, back=True)
    client.accept().fence()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda conn: conn.close_in_order(1000, "kicked"), id="kicked"),
        pytest.param(lambda conn: conn.close_in_order(1011), id="1011"),
        pytest.param(lambda conn: conn.abort(), id="abort"),
        pytest.param(lambda conn: conn.end(), id="end"),
    ],
)
def test_every_open_acknowledgment_ends_with_connection_closed(client, end):
    conn = client.accept()
    acked = [client.do("ack", "why", b"?", timeout_ms=20_000) for _ in range(20)]
    conn.receive_all(20)
    end(conn)
    assert [client.outcome(id) for id in acked] == ["connection_closed"] * 20


def test_its_own_close_ends_every_open_acknowledgment(client):
    conn = client.accept()
    acked = [client.do("ack", "why", b"?", timeout_ms=20_000) for _ in range(20)]
    conn.receive_all(20)
    client.do("close")
    conn.await_close()
    conn.send_close(1000)
    conn.end()
    assert [client.outcome(id) for id in acked] == ["connection_closed"] * 20


def test_what_came_before_a_close_frame_is_handled(client):
    conn = client.accept()
    events = b"".join(conn.encode(TEXT, b"say||0||%d" % number) for number in range(10))
    conn.send_bytes(events + conn.encode(CLOSE, close_payload(1000, "kicked")))
    assert sorted(client.next_event("say") for _ in range(10)) == [b"%d" % number for number in range(10)]
    assert conn.await_close().code == 1000
    conn.end()
    assert client.wait_disconnected()["reason"] == "kicked"


def test_a_reply_that_came_before_the_end_counts(client):
    conn = client.accept()
    acked = client.do("ack", "why", b"?")
    conn.receive()
    conn.send_text("__ack_why||1||because")
    conn.close_in_order(1000, "kicked")
    assert client.outcome(acked) == b"because"


@pytest.mark.parametrize("cmd", ["emit", "ack", "ping"])
def test_after_its_own_close_nothing_can_be_sent(client, cmd):
    conn = client.accept()
    closed = client.do("close")
    conn.await_close()
    conn.send_close(1000)
    conn.expect_end()
    client.outcome(closed)
    assert client.outcome(client.do(cmd, "hello" if cmd != "ping" else None)) == "connection_closed"


def test_while_away_nothing_can_be_sent(client):
    conn = client.accept()
    conn.abort()
    client.wait_disconnected()
    # It may dial meanwhile; nobody answers.
    assert client.outcome(client.do("emit", "hello", b"x")) == "connection_closed"
    assert client.outcome(client.do("ack", "hello", b"x")) == "connection_closed"


def test_open_acknowledgments_are_not_answered_by_the_next_connection(client):
    conn = client.accept()
    acked = client.do("ack", "why", b"?", timeout_ms=20_000)
    conn.receive()
    conn.abort()
    assert client.outcome(acked) == "connection_closed"
    assert client.wait_disconnected()["will_reconnect"] is True
    conn = client.accept()
    conn.send_text("__ack_why||1||late")
    conn.expect_nothing()


# The way back


def test_ids_are_counted_from_1_on_each_connection(client):
    for _ in range(3):
        conn = client.accept()
        for id in (1, 2):
            client.do("ack", "hello", b"x")
            assert conn.receive() == text(f"hello||{id}||x")
        conn.abort()
        assert client.wait_disconnected()["will_reconnect"] is True


def test_a_re_dial_asks_with_another_key(client):
    keys = set()
    for _ in range(3):
        dialled = client.dialled()
        keys.add(dialled.request.get("Sec-WebSocket-Key"))
        assert dialled.request.target == "/ws"
        conn = dialled.accept()
        client.wait_state("connected")
        conn.abort()
        assert client.wait_disconnected()["will_reconnect"] is True
    assert len(keys) == 3


def test_who_was_away_is_there_again(client):
    leave(client)
    conn = client.accept()
    client.emit("hello", b"again")
    assert conn.receive() == text("hello||0||again")
    conn.send_text("say||0||welcome")
    assert client.next_event("say") == b"welcome"


@pytest.mark.parametrize("dial", vectors.dials())
def test_a_re_dial_that_is_refused_is_followed_by_another_or_ends_it(client, dial):
    status, outcome = dial
    leave(client)
    client.dialled().refuse(f"{status} Whatever")
    if outcome == "rejected":
        assert client.failure() == "rejected"
    else:
        client.accept().fence()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "after",
    ["0", "1", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "-1", "1.5", ""],
    ids=["now", "a-second", "a-date", "a-word", "negative", "fraction", "empty"],
)
def test_whatever_retry_after_says_another_dial_follows(client, status, after):
    leave(client)
    client.dialled().refuse(f"{status} Whatever", [("Retry-After", after)])
    client.accept().fence()


@pytest.mark.parametrize("how", ["abort", "end"])
def test_a_re_dial_broken_off_is_followed_by_another(client, how):
    leave(client)
    getattr(client.dialled(), how)()
    client.accept().fence()


def test_a_client_that_is_told_to_close_while_away_does_not_come_back(client):
    client.accept().abort()
    client.wait_disconnected()
    assert client.outcome(client.do("close")) == b""
    assert client.close_stdin() == 0
    assert client.lines.count({"state": "connected"}) == 1


def test_a_client_at_the_end_of_its_commands_closes_and_exits(client):
    conn = client.accept()
    client.end_commands()
    assert conn.await_close().code == 1000
    conn.send_close(1000)
    conn.expect_end()
    assert client.close_stdin() == 0


# Limits of many seconds


@pytest.mark.long
def test_a_silent_server_is_pinged(client):
    conn = client.accept()
    conn.sock.settimeout(40)
    assert conn.receive_frame().opcode == PING


@pytest.mark.long
def test_a_server_that_answers_no_ping_is_left(client):
    conn = client.accept()
    conn.sock.settimeout(40)
    assert conn.receive_frame().opcode == PING
    client.listener.next().accept()
    client.wait_state("connected")
    assert client.wait_disconnected()["will_reconnect"] is True


@pytest.mark.long
def test_an_acknowledgment_waits_10_s_unless_told_otherwise(client):
    conn = client.accept()
    acked = client.do("ack", "why", b"?")
    conn.receive()
    assert client.outcome(acked) == "ack_timeout"


@pytest.mark.long
def test_a_close_that_nobody_answers_ends_all_the_same(client):
    conn = client.accept()
    closed = client.do("close")
    while conn.receive_frame().opcode != CLOSE:
        pass
    assert client.outcome(closed) == b""
    got = client.wait_disconnected()
    assert (got["clean"], got["will_reconnect"]) == (False, False)


@pytest.mark.long
def test_a_server_that_stays_after_the_closing_handshake_is_left(client):
    conn = client.accept()
    conn.send_close(4000)
    assert conn.await_close().code == 4000
    conn.expect_end()
    assert client.wait_disconnected()["code"] == 4000
