"""What a client makes of WebSocket itself: masks, fragments, control frames, and everything that RFC 6455 forbids."""

import random

import pytest
from harness import MIB, event, shredded
from rawws import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Ended, Message, close_payload, text


def test_every_frame_is_masked_and_masks_differ(client):
    conn = client.accept()
    for _ in range(20):
        client.emit("hello", b"world")
    conn.ping(b"x")
    conn.send_text("question||1||x")
    frames = [conn.receive_frame() for _ in range(22)]
    assert all(frame.mask is not None for frame in frames)
    assert len({frame.mask for frame in frames}) > 20
    client.do("close")
    assert (close := conn.receive_frame()).opcode == CLOSE
    assert close.mask is not None


@pytest.mark.parametrize(
    "broken", [b"\xff", b"\xed\xa0\x80", b"\xe2\x82", b"\xc0\xaf"], ids=["ff", "a-surrogate", "cut-short", "overlong"]
)
def test_a_text_message_of_broken_utf8_closes_with_1007(client, broken):
    conn = client.accept()
    conn.send_text(b"say||0||" + broken)
    conn.expect_close(1007)


def test_a_masked_frame_closes_with_1002(client):
    conn = client.accept()
    conn.send_frame(TEXT, b"say||0||x", mask=b"mask")
    conn.expect_close(1002)


def test_a_masked_ping_closes_with_1002(client):
    conn = client.accept()
    conn.send_frame(PING, b"x", mask=b"mask")
    conn.expect_close(1002)


@pytest.mark.parametrize("rsv", [1, 2, 4])
def test_a_reserved_bit_closes_with_1002(client, rsv):
    conn = client.accept()
    conn.send_frame(TEXT, b"say||0||x", rsv=rsv)
    conn.expect_close(1002)


@pytest.mark.parametrize("opcode", [3, 7, 11, 15])
def test_a_reserved_opcode_closes_with_1002(client, opcode):
    conn = client.accept()
    conn.send_frame(opcode, b"say||0||x")
    conn.expect_close(1002)


@pytest.mark.parametrize("opcode", [pytest.param(PING, id="ping"), pytest.param(CLOSE, id="close")])
def test_a_control_frame_of_more_than_125_bytes_closes_with_1002(client, opcode):
    conn = client.accept()
    conn.send_frame(opcode, close_payload(1000) + bytes(124))
    conn.expect_close(1002)


def test_a_continuation_of_nothing_closes_with_1002(client):
    conn = client.accept()
    conn.send_frame(CONTINUATION, b"say||0||x")
    conn.expect_close(1002)


def test_a_message_within_a_message_closes_with_1002(client):
    conn = client.accept()
    conn.send_frame(TEXT, b"say||0||", fin=False)
    conn.send_frame(BINARY, b"say||0||x")
    conn.expect_close(1002)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_a_close_code_that_must_not_be_sent_closes_with_1002(client, code):
    conn = client.accept()
    conn.send_close(code)
    conn.expect_close(1002)


def test_a_message_of_1_mib_is_read(client):
    conn = client.accept()
    payload = b"x" * (MIB - len(event("say")))
    conn.send_text(event("say", 0, payload))
    assert client.next_event("say") == payload


def test_a_larger_message_closes_with_1009(client):
    conn = client.accept()
    conn.send_text(event("say", 0, b"x" * (MIB - len(event("say")) + 1)))
    conn.expect_close(1009)


def test_a_frame_that_announces_too_much_closes_with_1009_at_once(client):
    conn = client.accept()
    conn.send_frame(TEXT, b"", length=1 << 40)
    conn.finish_writing()
    assert conn.await_close().code == 1009
    conn.expect_end()


def test_a_message_may_be_split_anywhere(client):
    conn = client.accept()
    frame = "say||0||a||b €".encode()
    for cut in range(len(frame) + 1):
        conn.send_fragments(TEXT, frame[:cut], frame[cut:])
        assert client.next_event("say") == "a||b €".encode(), cut


def test_bytes_may_come_one_by_one(client):
    conn = client.accept()
    for byte in conn.encode(TEXT, b"say||0||hello"):
        conn.send_bytes(bytes([byte]))
    assert client.next_event("say") == b"hello"


@pytest.mark.parametrize("size", [0, 1, 110, 117, 118, 119, 65_000, 65_527, 65_528, 65_529, 300_000])
def test_a_payload_of_any_size_goes_out_and_comes_in_unchanged(client, size):
    conn = client.accept()
    payload = bytes(ord("0") + at % 75 for at in range(size))
    client.emit("size", payload)
    assert conn.receive() == text(event("size", 0, payload))
    conn.send_text(event("size", 0, payload))
    assert client.next_event("size") == payload


def test_messages_may_come_shredded(client):
    conn = client.accept()
    dice = random.Random(6455)
    for _ in range(40):
        payload = dice.randbytes(dice.choice([0, 1, 5, 125, 126, 300, 65_535, 65_536, 200_000]))
        for piece in shredded(conn, [Message(BINARY, event("say", 0, payload))], dice):
            conn.send_bytes(piece)
        assert client.next_event("say") == payload


@pytest.mark.parametrize("payload", [b"", b"\xff\x00", b"p" * 125], ids=["empty", "bytes", "125-bytes"])
def test_a_ping_is_answered_with_its_payload(client, payload):
    conn = client.accept()
    conn.ping(payload)
    got = conn.receive_frame()
    assert (got.opcode, got.payload) == (PONG, payload)


def test_a_ping_between_fragments_is_answered_before_the_message_is_complete(client):
    conn = client.accept()
    conn.send_frame(TEXT, b"say||0||a", fin=False)
    conn.ping(b"between")
    got = conn.receive_frame()
    assert (got.opcode, got.payload) == (PONG, b"between")
    conn.send_frame(CONTINUATION, b"b")
    assert client.next_event("say") == b"ab"


def test_a_ping_of_the_user_ends_with_its_pong(client):
    conn = client.accept()
    pinged = client.do("ping")
    got = conn.receive_frame()
    assert got.opcode == PING
    conn.send_frame(PONG, got.payload)
    assert client.outcome(pinged) == b""


def test_a_ping_of_the_user_ends_with_the_connection(client):
    conn = client.accept()
    pinged = client.do("ping")
    assert conn.receive_frame().opcode == PING
    conn.abort()
    assert client.outcome(pinged) == "connection_closed"


def test_a_pong_that_nobody_asked_for_is_ignored(client):
    conn = client.accept()
    conn.send_frame(PONG, b"hello")
    conn.expect_nothing()


def test_a_flood_of_pings_closes_with_1008(client):
    conn = client.accept()
    conn.send_bytes(b"".join(conn.encode(PING, b"%d" % number) for number in range(1100)))
    conn.expect_close(1008)


def test_a_drain_ends_when_everything_is_sent(client):
    conn = client.accept()
    for _ in range(100):
        client.do("emit", "hello", b"x" * 1000)
    drained = client.do("drain")
    assert conn.receive_all(100) == [text(event("hello", 0, "x" * 1000))] * 100
    assert client.outcome(drained) == b""


def test_random_bytes_do_no_harm(client):
    conn = client.accept()
    try:
        conn.send_bytes(random.Random(6455).randbytes(2000))
        conn.finish_writing()
    except (Ended, OSError):
        pass
    conn.read_to_end()
    conn.end()
    assert client.wait_disconnected()["normal"] is False
