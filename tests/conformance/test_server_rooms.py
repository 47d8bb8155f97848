"""Rooms: who is in them, who gets what is said in them, and that nobody stays in them who has left."""

import json

import pytest
from harness import event
from rawws import TEXT, text


@pytest.fixture
def trio(server):
    """Three connections in the room `room`."""
    conns = [server.connect() for _ in range(3)]
    for number, conn in enumerate(conns, 1):
        assert conn.join("room") == number
    return conns


def test_a_connection_begins_in_no_room(server):
    assert json.loads(server.connect().call("rooms")) == []


def test_a_connections_rooms_are_told(server):
    conn = server.connect()
    for room in ["b", "a", "ż", "a b", "||"]:
        conn.join(room)
    assert json.loads(conn.call("rooms")) == sorted(["b", "a", "ż", "a b", "||"])
    conn.call("leave", "a")
    assert json.loads(conn.call("rooms")) == sorted(["b", "ż", "a b", "||"])


def test_joining_twice_counts_once(server):
    conn = server.connect()
    assert [conn.join("room"), conn.join("room")] == [1, 1]


def test_leaving_counts_who_is_left(trio):
    assert [conn.call("leave", "room") for conn in trio] == [b"2", b"1", b"0"]


def test_leaving_a_room_that_one_is_not_in_does_nothing(server, trio):
    conn = server.connect()
    assert conn.call("leave", "room") == b"3"
    assert conn.call("leave", "nowhere") == b"0"


def test_a_broadcast_reaches_each_member_once_the_caller_too(trio):
    assert trio[0].call("shout", "room\nhello") == b"3"
    for conn in trio:
        assert conn.receive() == text("shout||0||hello")
        conn.expect_nothing()


def test_a_broadcast_to_the_others_does_not_reach_the_caller(trio):
    assert trio[0].call("others", "room\nhello") == b"2"
    for conn in trio[1:]:
        assert conn.receive() == text("shout||0||hello")
        conn.expect_nothing()
    trio[0].expect_nothing()


def test_who_is_no_member_may_broadcast_and_gets_nothing(server, trio):
    outsider = server.connect()
    assert outsider.call("shout", "room\nhello") == b"3"
    assert outsider.call("others", "room\nhello") == b"3"
    outsider.expect_nothing()
    for conn in trio:
        assert conn.receive_all(2) == [text("shout||0||hello")] * 2
        conn.expect_nothing()


def test_a_broadcast_to_an_empty_room_reaches_nobody(server):
    conn = server.connect()
    assert conn.call("shout", "nowhere\nhello") == b"0"
    conn.expect_nothing()


def test_who_has_left_gets_nothing(trio):
    trio[1].call("leave", "room")
    assert trio[0].call("shout", "room\nhello") == b"2"
    trio[1].expect_nothing()
    for conn in (trio[0], trio[2]):
        assert conn.receive() == text("shout||0||hello")


def test_rooms_do_not_mix(server, trio):
    other = server.connect()
    other.join("other")
    trio[0].call("shout", "room\nhello")
    other.expect_nothing()
    assert other.call("shout", "other\nhello") == b"1"
    trio[1].fence()
    assert list(trio[1].inbox) == [text("shout||0||hello")]


def test_a_payload_may_hold_newlines_and_delimiters(trio):
    trio[0].call("others", "room\na\nb||c||")
    assert trio[1].receive() == text("shout||0||a\nb||c||")


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000, 1_000_000])
def test_a_payload_of_any_size_reaches_all(trio, size):
    payload = b"0123456789" * (size // 10 + 1)
    trio[0].call("shout", b"room\n" + payload[:size])
    for conn in trio:
        assert conn.receive() == text(event("shout", 0, payload[:size]))


def test_broadcasts_of_two_callers_keep_each_ones_order(trio):
    for number in range(500):
        for caller in trio[:2]:
            assert caller.call("others", f"room\n{trio.index(caller)}:{number}") == b"2"
    got = [message.data.rsplit(b"||", 1)[1].split(b":") for message in trio[2].receive_all(1000)]
    for caller in (b"0", b"1"):
        assert [int(number) for who, number in got if who == caller] == list(range(500))


def test_a_room_name_is_freed_when_it_is_empty(server):
    first = server.connect()
    first.join("room")
    first.close_in_order()
    server.settle()
    assert server.connect().join("room") == 1


@pytest.mark.parametrize("how", ["close_in_order", "end", "abort"])
def test_who_disconnects_leaves_all_rooms(server, trio, how):
    leaver = trio[0]
    leaver.join("another")
    getattr(leaver, how)()
    server.settle()
    assert trio[1].call("shout", "room\nhello") == b"2"
    assert trio[1].join("another") == 1


@pytest.mark.parametrize("how", ["end", "abort"])
def test_who_leaves_right_after_joining_stays_in_no_room(server, how):
    # Rooms of this case alone: a server that fails here keeps its ghosts.
    rooms = [f"left by {how} {number}" for number in range(10)]
    for _ in range(300):
        conn = server.connect()
        conn.send_text(*(f"join||0||{room}" for room in rooms * 10))
        getattr(conn, how)()
    server.settle()
    observer = server.connect()
    assert [observer.join(room) for room in rooms] == [1] * 10


def test_who_breaks_the_protocol_right_after_joining_stays_in_no_room(server):
    for _ in range(300):
        conn = server.connect()
        joins = b"".join(conn.encode(TEXT, b"join||0||left by a broken rule") for _ in range(100))
        conn.send_bytes(joins + conn.encode(TEXT, b"x", rsv=1))
        conn.expect_close(1002)
    server.settle()
    assert server.connect().join("left by a broken rule") == 1


def test_members_that_tear_their_connections_do_not_disturb_a_broadcast(server, trio):
    leavers = [server.connect() for _ in range(20)]
    for conn in leavers:
        conn.join("room")
    for number in range(200):
        trio[0].send_text(f"shout||{number + 1}||room\n{number}")
        if number % 10 == 0:
            leavers.pop().abort()
    replies = 0
    while replies < 200:
        replies += trio[0].receive().data.startswith(b"__ack_shout||")
    for conn in trio[1:]:
        conn.fence()
        assert sorted(conn.inbox) == sorted(text(f"shout||0||{number}") for number in range(200))
