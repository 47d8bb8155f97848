"""Limits that a peer can run into. Those that take many seconds run with `--long`."""

import select

import pytest
import rawws
from harness import event
from rawws import CONTINUATION, PING, TEXT, Ended, text

PATIENCE = 60.0
"""Seconds: longer than any limit here."""


def test_a_flood_of_pings_closes_with_1008(server):
    conn = server.connect()
    conn.send_bytes(b"".join(conn.encode(PING, b"%d" % number) for number in range(1100)))
    conn.expect_close(1008)


def test_1000_pings_are_borne(server):
    conn = server.connect()
    conn.send_bytes(b"".join(conn.encode(PING, b"%d" % number) for number in range(1000)))
    conn.expect_nothing()
    assert conn.pongs == [b"%d" % number for number in range(1000)]


def test_pings_among_other_traffic_are_no_flood(server):
    conn = server.connect()
    for _ in range(5):
        conn.send_bytes(b"".join(conn.encode(PING, b"%d" % number) for number in range(900)))
        conn.expect_nothing()


@pytest.mark.parametrize("size", [1_000, 65_000, 1_000_000])
def test_a_peer_that_reads_late_loses_nothing(server, size):
    payload = b"x" * size
    count = (32 << 20) // size
    for _ in range(3):
        conn = server.connect()
        sent = conn.send_until_it_blocks(text(event("echo", id + 1, payload)) for id in range(count))
        got = {message.data for message in conn.receive_all(sent)}
        assert got == {event("__ack_echo", id + 1, payload) for id in range(sent)}
        conn.end()


def test_a_member_that_does_not_read_is_cut_off_and_holds_up_nobody(server):
    caller, reader, sleeper = (server.connect() for _ in range(3))
    sleeper.sock.setsockopt(rawws.socket.SOL_SOCKET, rawws.socket.SO_RCVBUF, 65_536)
    reader.join("room")
    sleeper.join("room")
    caller.sock.settimeout(10)
    payload = "x" * 262_144
    # 4 times 4 MiB, and what the kernel keeps.
    for _ in range(200):
        reached = caller.call("shout", f"room\n{payload}")
        assert reader.receive() == text(f"shout||0||{payload}")
        if reached == b"1":
            break
    else:
        pytest.fail("50 MiB waited for a peer that does not read")
    sleeper.read_to_end()
    sleeper.end()
    assert server.settle()["connects"]


# Limits of many seconds


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr(rawws, "TIMEOUT", PATIENCE)


@pytest.mark.long
def test_a_connection_that_no_handler_frees_for_30_s_is_overloaded(server, patient):
    conn = server.connect()
    conn.send_text(*(event("slow", id, "40000") for id in range(1, 257)))
    for id in range(32):
        conn.send_text(event("echo", 1000 + id, "x" * 65_000))
    closed = conn.await_close()
    assert (closed.code, closed.reason) == (1013, "overloaded")
    conn.end()


@pytest.mark.long
def test_a_silent_connection_is_pinged_and_lives_while_it_answers(server, patient):
    conn = server.connect()
    got = conn.receive_frame()
    assert got.opcode == PING
    conn.send_frame(rawws.PONG, got.payload)
    assert conn.receive_frame().opcode == PING
    conn.expect_nothing()


@pytest.mark.long
def test_a_connection_that_answers_no_ping_is_closed(server, patient):
    conn = server.connect()
    assert conn.receive_frame().opcode == PING
    with pytest.raises(Ended):
        while conn.receive_frame().opcode != PING:
            pass
        pytest.fail("it was pinged again")
    conn.end()


@pytest.mark.long
def test_a_message_that_stops_half_way_closes_with_1008(server, patient):
    conn = server.connect()
    conn.send_frame(TEXT, b"echo||1||x", fin=False)
    assert conn.await_close().code == 1008
    conn.end()


@pytest.mark.long
def test_a_frame_that_stops_half_way_closes_with_1008(server, patient):
    conn = server.connect()
    conn.send_bytes(conn.encode(TEXT, b"echo||1||x" * 1000)[:500])
    assert conn.await_close().code == 1008
    conn.end()


@pytest.mark.long
def test_a_message_that_makes_progress_may_take_its_time(server, patient):
    conn = server.connect()
    conn.send_frame(TEXT, b"echo||1||a", fin=False)
    for _ in range(4):
        select.select([], [], [], 10)  # The rule is one of time: 40 s in all, never 30 s without a byte.
        conn.send_frame(CONTINUATION, b"b", fin=False)
    conn.send_frame(CONTINUATION, b"c")
    assert conn.receive() == text("__ack_echo||1||abbbbc")


@pytest.mark.long
def test_a_peer_that_never_ends_its_request_is_cut(server, patient):
    wire = server.open_wire()
    wire.send_bytes(rawws.request(server.url)[:-2])
    assert not wire.read_to_end().startswith(b"HTTP/1.1 101")


@pytest.mark.long
def test_a_peer_that_says_nothing_at_all_is_cut(server, patient):
    wire = server.open_wire()
    assert wire.read_to_end() == b""


@pytest.mark.long
def test_a_peer_that_does_not_answer_a_close_frame_is_cut(server, patient):
    conn = server.connect()
    conn.send_text("close||0||")
    assert conn.await_close().code == 1000
    conn.expect_end()


@pytest.mark.long
def test_a_member_that_is_over_the_limit_for_10_s_is_cut_off(server, patient):
    caller, sleeper = server.connect(), server.connect()
    sleeper.sock.setsockopt(rawws.socket.SOL_SOCKET, rawws.socket.SO_RCVBUF, 65_536)
    sleeper.join("room")
    payload = "x" * 262_144
    # Over 4 MiB with all that the kernel may keep, below 16 MiB.
    caller.send_text(*(f"shout||0||room\n{payload}" for _ in range(48)))
    caller.fence()
    while caller.call("others", "room\n!") == b"1":
        pass
    sleeper.read_to_end()
    sleeper.end()
