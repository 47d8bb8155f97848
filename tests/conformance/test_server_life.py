"""A connection's life as the server tells it: each is counted in and out once; and the server's own end."""

import os
import signal

import pytest
from harness import in_thread
from rawws import TEXT, text


def close_from_here(conn):
    conn.close_in_order()


def close_from_there(conn):
    conn.send_text("close||0||")
    conn.expect_close_in_time(1000)


def break_the_protocol(conn):
    conn.send_frame(TEXT, b"x", rsv=1)
    conn.expect_close(1002)


def too_large(conn):
    conn.send_text(b"x" * ((1 << 20) + 1))
    conn.expect_close(1009)


def end(conn):
    conn.end()


def abort(conn):
    conn.abort()


def end_within_a_frame(conn):
    conn.send_bytes(conn.encode(TEXT, b"echo||1||x")[:7])
    conn.end()


def end_within_a_message(conn):
    conn.send_frame(TEXT, b"echo||1||", fin=False)
    conn.end()


def close_and_abort(conn):
    conn.send_close()
    conn.abort()


def leave_during_a_handler(conn):
    conn.send_text("slow||1||200")
    conn.fence()
    conn.abort()


def leave_replies_unread(conn):
    conn.send_text(*(f"echo||{id}||{'x' * 1000}" for id in range(1, 100)))
    conn.abort()


WAYS = [
    close_from_here,
    close_from_there,
    break_the_protocol,
    too_large,
    end,
    abort,
    end_within_a_frame,
    end_within_a_message,
    close_and_abort,
    leave_during_a_handler,
    leave_replies_unread,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_connection_is_counted_in_and_out_once(server, way):
    before = server.settle()
    for _ in range(5):
        conn = server.connect()
        conn.fence()
        way(conn)
    after = server.settle()
    assert after["connects"] == before["connects"] + 5
    assert after["disconnects"] == before["disconnects"] + 5


def test_a_connection_that_says_nothing_is_counted_in_and_out_once(server):
    before = server.settle()
    for number in range(20):
        conn = server.connect()
        (conn.end, conn.abort, conn.close_in_order)[number % 3]()
    after = server.settle()
    assert after["connects"] == before["connects"] + 20
    assert after["disconnects"] == before["disconnects"] + 20


def test_a_live_connection_is_counted_in_but_not_out(server):
    before = server.settle()
    conn = server.connect()
    conn.fence()
    after = server.settle()
    assert after["connects"] == before["connects"] + 1
    assert after["disconnects"] == before["disconnects"]


def test_a_value_is_kept_with_its_connection(server):
    first, second = server.connect(), server.connect()
    first.call("set", "key\nfirst")
    second.call("set", "key\nsecond")
    assert (first.call("get", "key"), second.call("get", "key")) == (b"first", b"second")
    assert first.call("get", "other") == b""
    assert server.connect().call("get", "key") == b""


def test_a_hundred_connections_live_side_by_side(server):
    conns = [server.connect() for _ in range(100)]
    for number, conn in enumerate(conns):
        conn.send_text(f"echo||{number + 1}||{number}")
    for number, conn in enumerate(conns):
        assert conn.receive() == text(f"__ack_echo||{number + 1}||{number}")


# The end of the server


@pytest.fixture
def mortal(server):
    """A server of its own, that the case may end."""
    mortal = server.another()
    yield mortal
    mortal.stop()


def test_a_server_told_to_end_ends_with_status_0(mortal):
    assert mortal.terminate() == 0


def test_a_server_told_to_end_closes_its_connections(mortal):
    conns = [mortal.connect() for _ in range(5)]
    closed = []

    def answer(conn):
        closed.append(conn.await_close().code)
        conn.send_close(1000)
        conn.end()

    for conn in conns:
        conn.fence()
    answering = [in_thread(lambda conn=conn: answer(conn)) for conn in conns]
    os.kill(mortal.pid, signal.SIGTERM)
    for thread in answering:
        thread.join()
    assert closed == [1000] * 5
    assert mortal.ended() == 0


def test_a_server_told_to_end_says_so(mortal):
    conn = mortal.connect()
    conn.fence()
    os.kill(mortal.pid, signal.SIGTERM)
    assert conn.await_close().reason == "server shutdown"
    conn.end()


def test_a_server_told_to_end_lets_running_handlers_reply(mortal):
    conn = mortal.connect()
    conn.send_text("slow||1||500")
    conn.fence()
    os.kill(mortal.pid, signal.SIGTERM)
    assert conn.receive() == text("__ack_slow||1||done")
    conn.expect_close_in_time(1000)


def test_a_server_told_to_end_waits_no_longer_than_it_must_for_a_handler(mortal):
    conn = mortal.connect()
    conn.send_text("slow||1||600000")
    conn.fence()
    os.kill(mortal.pid, signal.SIGTERM)
    assert conn.await_close(messages=True).code == 1000
    conn.end()
    assert mortal.ended() == 0


def test_a_server_told_to_end_does_not_wait_for_a_silent_peer_for_ever(mortal):
    conns = [mortal.connect() for _ in range(2)]
    for conn in conns:
        conn.fence()
    assert mortal.terminate() == 0


def test_a_server_told_to_end_accepts_nobody_any_more(mortal):
    conn = mortal.connect()
    conn.send_text("slow||1||500")
    conn.fence()
    os.kill(mortal.pid, signal.SIGTERM)
    conn.await_close(messages=True)
    with pytest.raises(OSError):
        mortal.connect()
    conn.end()
