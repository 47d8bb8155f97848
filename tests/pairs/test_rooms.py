"""Rooms: three clients join, leave and hear each other."""

import json

import pytest
from peers import eventually


@pytest.fixture
def three(server, dial):
    return [dial(server) for _ in range(3)]


def test_joining_and_leaving_tell_how_many_are_there(three):
    assert [client.ack("join", b"lobby") for client in three] == [b"1", b"2", b"3"]
    assert three[0].ack("join", b"lobby") == b"3"  # a second time changes nothing
    assert three[0].ack("leave", b"lobby") == b"2"
    assert three[0].ack("leave", b"lobby") == b"2"
    assert three[1].ack("leave", b"lobby") == b"1"
    assert three[2].ack("leave", b"lobby") == b"0"
    assert three[2].ack("leave", b"never joined") == b"0"


def test_rooms_are_the_connections_own(three):
    anna, ben, _ = three
    names = ["b", "a", "комната || 😀", "two words"]
    for name in names:
        anna.ack("join", name.encode())
    ben.ack("join", b"a")
    assert json.loads(anna.ack("rooms")) == sorted(names)
    assert json.loads(ben.ack("rooms")) == ["a"]
    anna.ack("leave", b"a")
    assert json.loads(anna.ack("rooms")) == sorted(set(names) - {"a"})
    ben.ack("leave", b"a")
    assert ben.ack("rooms") == b"[]"


def test_shout_reaches_every_member_and_others_all_but_the_caller(three):
    anna, ben, carl = three
    anna.ack("join", b"lobby")
    ben.ack("join", b"lobby")
    assert anna.ack("shout", b"lobby\nfor both") == b"2"
    assert anna.ack("others", b"lobby\nfor ben") == b"1"
    assert carl.ack("others", b"lobby\nfrom outside") == b"2"
    # The last one closes the list for each: what it should not have heard would stand before it or be left over.
    carl.ack("join", b"lobby")
    assert carl.ack("shout", b"lobby\nlast") == b"3"
    assert _heard(anna, 3) == [b"for both", b"from outside", b"last"]
    assert _heard(ben, 4) == [b"for ben", b"for both", b"from outside", b"last"]
    assert _heard(carl, 1) == [b"last"]


@pytest.mark.parametrize(
    "payload",
    [b"", b"two\nlines", b"||1||", "😀".encode(), b"x" * 200_000],
    ids=["empty", "newline", "delimiter", "unicode", "200 kB"],
)
def test_what_is_shouted_arrives_unchanged(three, payload):
    for client in three:
        client.ack("join", b"lobby")
    assert three[0].ack("shout", b"lobby\n" + payload) == b"3"
    assert [client.next_event("shout") for client in three] == [payload] * 3


def test_a_room_without_members_is_no_error(client):
    assert client.ack("shout", b"nowhere\nhello") == b"0"


def test_who_left_hears_nothing_more(three):
    anna, ben, _ = three
    anna.ack("join", b"lobby")
    ben.ack("join", b"lobby")
    ben.ack("leave", b"lobby")
    assert anna.ack("shout", b"lobby\nwithout ben") == b"1"
    ben.ack("join", b"lobby")
    assert anna.ack("shout", b"lobby\nwith ben") == b"2"
    assert ben.next_event("shout") == b"with ben"


@pytest.mark.parametrize("end", ["close", "close_stdin", "kill"])
def test_a_disconnect_leaves_all_rooms(three, end):
    anna, ben, _ = three
    for client in (anna, ben):
        client.ack("join", b"lobby")
        client.ack("join", b"garden")
    if end == "close":
        ben.call("close")
    else:
        getattr(ben, end)()
    eventually(lambda: anna.ack("leave", b"garden"), b"0")
    assert anna.ack("shout", b"lobby\nalone") == b"1"


def test_every_shout_of_many_arrives_once(three):
    for client in three:
        client.ack("join", b"lobby")
    shouts = [f"{who}/{n}".encode() for who in range(3) for n in range(100)]
    for shout in shouts:
        three[int(shout[:1])].emit("shout", b"lobby\n" + shout)
    for client in three:
        assert _heard(client, len(shouts)) == sorted(shouts)


@pytest.mark.only(lambda pair: pair.our_server and pair.our_client)  # the reference gives each event its own goroutine
def test_plain_events_arrive_in_order(client):
    client.ack("join", b"lobby")
    shouts = [str(n).encode() for n in range(500)]
    for shout in shouts:
        client.emit("shout", b"lobby\n" + shout)
    assert [client.next_event("shout") for _ in shouts] == shouts


def _heard(client, count: int) -> list[bytes]:
    """The next `count` shouts, sorted (a client of the reference may handle them in any order), and none besides."""
    heard = [client.next_event("shout") for _ in range(count)]
    client.ack("echo")
    return sorted(heard + client.events("shout"))
