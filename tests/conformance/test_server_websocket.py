"""What a server makes of WebSocket itself: fragments, control frames, closing, and everything that RFC 6455 forbids."""

import os
import random

import pytest
import rawws
from harness import MIB, event, shredded
from rawws import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Ended, Message, close_payload, text

BROKEN = {
    "a-lone-ff": b"\xff",
    "a-lone-continuation": b"\x80",
    "an-overlong-slash": b"\xc0\xaf",
    "an-overlong-NUL": b"\xe0\x80\x80",
    "a-surrogate": b"\xed\xa0\x80",
    "beyond-unicode": b"\xf4\x90\x80\x80",
    "cut-short": b"\xe2\x82",
    "cut-by-a-letter": b"\xe2\x82a",
}


@pytest.mark.parametrize("broken", [pytest.param(data, id=name) for name, data in BROKEN.items()])
def test_a_text_message_of_broken_utf8_closes_with_1007(server, broken):
    conn = server.connect()
    conn.send_text(b"echo||1||" + broken)
    conn.expect_close(1007)


def test_broken_utf8_in_a_fragment_closes_with_1007(server):
    conn = server.connect()
    conn.send_fragments(TEXT, b"echo||1||good ", b"bad \xff", b" good")
    conn.expect_close(1007)


def test_broken_utf8_in_a_malformed_frame_closes_with_1007(server):
    conn = server.connect()
    conn.send_text(b"\xff")
    conn.expect_close(1007)


def test_a_letter_may_be_split_between_fragments(server):
    conn = server.connect()
    letters = "€🎉".encode()
    conn.send_fragments(TEXT, b"echo||1||", *(bytes([byte]) for byte in letters))
    assert conn.receive() == text(b"__ack_echo||1||" + letters)


def test_a_message_may_be_split_anywhere(server):
    conn = server.connect()
    frame = "echo||1||a||b €".encode()
    for cut in range(len(frame) + 1):
        conn.send_fragments(TEXT, frame[:cut], frame[cut:])
        assert conn.receive() == text("__ack_echo||1||a||b €"), cut


def test_empty_fragments_are_nothing_special(server):
    conn = server.connect()
    conn.send_fragments(TEXT, b"", b"", b"echo||1||x", b"", b"")
    assert conn.receive() == text("__ack_echo||1||x")


def test_bytes_may_come_one_by_one(server):
    conn = server.connect()
    for byte in conn.encode(TEXT, b"echo||1||hello"):
        conn.send_bytes(bytes([byte]))
    assert conn.receive() == text("__ack_echo||1||hello")


def test_messages_may_come_shredded(server):
    conn = server.connect()
    dice = random.Random(6455)
    payloads = [dice.randbytes(dice.choice([0, 1, 5, 125, 126, 300, 65_535, 65_536, 200_000])) for _ in range(60)]
    for payload in payloads:
        for piece in shredded(conn, [Message(BINARY, event("echo", 1, payload))], dice):
            conn.send_bytes(piece)
        assert conn.receive().data == event("__ack_echo", 1, payload).removesuffix(b"||" if not payload else b"")


def test_a_zero_mask_is_a_mask(server):
    conn = server.connect()
    conn.send_frame(TEXT, b"echo||1||x", mask=bytes(4))
    assert conn.receive() == text("__ack_echo||1||x")


def test_frames_of_a_server_are_not_masked(server):
    conn = server.connect()
    conn.ping(b"x")
    assert conn.receive_frame() == rawws.Frame(PONG, b"x", fin=True, rsv=0, mask=None)
    conn.send_text("echo||1||x")
    assert conn.receive_frame().mask is None


# What RFC 6455 forbids


@pytest.mark.parametrize("rsv", [1, 2, 4])
@pytest.mark.parametrize("opcode", [pytest.param(TEXT, id="text"), pytest.param(PING, id="ping")])
def test_a_reserved_bit_closes_with_1002(server, rsv, opcode):
    conn = server.connect()
    conn.send_frame(opcode, b"echo||1||x", rsv=rsv)
    conn.expect_close(1002)


@pytest.mark.parametrize("opcode", [pytest.param(TEXT, id="text"), pytest.param(PING, id="ping")])
def test_an_unmasked_frame_closes_with_1002(server, opcode):
    conn = server.connect()
    conn.send_frame(opcode, b"echo||1||x", mask=None)
    conn.expect_close(1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_a_reserved_opcode_closes_with_1002(server, opcode):
    conn = server.connect()
    conn.send_frame(opcode, b"echo||1||x")
    conn.expect_close(1002)


@pytest.mark.parametrize(
    "opcode", [pytest.param(PING, id="ping"), pytest.param(PONG, id="pong"), pytest.param(CLOSE, id="close")]
)
def test_a_control_frame_of_more_than_125_bytes_closes_with_1002(server, opcode):
    conn = server.connect()
    conn.send_frame(opcode, close_payload(1000) + bytes(124))
    conn.expect_close(1002)


def test_a_ping_in_fragments_closes_with_1002(server):
    conn = server.connect()
    conn.send_frame(PING, b"x", fin=False)
    conn.expect_close(1002)


def test_a_continuation_of_nothing_closes_with_1002(server):
    conn = server.connect()
    conn.send_frame(CONTINUATION, b"echo||1||x")
    conn.expect_close(1002)


@pytest.mark.parametrize("opcode", [pytest.param(TEXT, id="text"), pytest.param(BINARY, id="binary")])
def test_a_message_within_a_message_closes_with_1002(server, opcode):
    conn = server.connect()
    conn.send_frame(TEXT, b"echo||1||", fin=False)
    conn.send_frame(opcode, b"echo||2||x")
    conn.expect_close(1002)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_code_that_must_not_be_sent_closes_with_1002(server, code):
    conn = server.connect()
    conn.send_close(code)
    conn.expect_close(1002)


def test_half_a_close_code_closes_with_1002(server):
    conn = server.connect()
    conn.send_frame(CLOSE, b"\x03")
    conn.expect_close(1002)


def test_a_close_reason_of_broken_utf8_closes_with_1007(server):
    conn = server.connect()
    conn.send_close(1000, b"\xff")
    conn.expect_close(1007)


def test_what_follows_a_forbidden_frame_is_not_handled(server):
    conn, watcher = server.connect(), server.connect()
    watcher.join("room")
    conn.send_bytes(conn.encode(TEXT, b"echo||1||x", rsv=2) + conn.encode(TEXT, b"shout||0||room\nx"))
    conn.expect_close(1002)
    watcher.expect_nothing()


# Sizes


def test_a_message_of_1_mib_is_read(server):
    conn = server.connect()
    frame = event("set", 1, "key\n")
    conn.send_text(frame + b"x" * (MIB - len(frame)))
    assert conn.receive() == text("__ack_set||1")


def test_a_payload_of_nearly_1_mib_comes_back_unchanged(server):
    conn = server.connect()
    frame = event("echo", 1)
    payload = os.urandom(MIB // 2).hex().encode()[: MIB - len("__ack_") - len(frame)]
    conn.send_text(frame + payload)
    assert conn.receive() == text(b"__ack_" + frame + payload)


def test_a_reply_of_more_than_1_mib_is_not_sent_but_reported(server):
    conn = server.connect()
    before = conn.seen()["errors"]
    frame = event("echo", 1)
    conn.send_text(frame + b"x" * (MIB - len("__ack_") - len(frame) + 1))
    conn.expect_nothing()
    conn.expect_seen("errors", before + 1)


@pytest.mark.parametrize(
    ("total", "size"),
    [(10_000, 1), (MIB, 105), (MIB, 1000), (MIB, 65_536)],
    ids=["bytes", "105-bytes", "1000-bytes", "65536-bytes"],
)
def test_a_message_in_many_fragments_is_read(server, total, size):
    conn = server.connect()
    key = "k" * 20
    frame = event("set", 1, f"{key}\n")
    value = os.urandom(total).hex().encode()[: total - len(frame)]
    conn.send_fragments(TEXT, *((frame + value)[at : at + size] for at in range(0, total, size)))
    assert conn.receive() == text("__ack_set||1")
    assert conn.call("get", key) == value


def test_a_message_of_1_mib_and_1_byte_closes_with_1009(server):
    conn = server.connect()
    frame = event("set", 1, "key\n")
    conn.send_text(frame + b"x" * (MIB + 1 - len(frame)))
    conn.expect_close(1009)


def test_fragments_of_1_mib_and_1_byte_close_with_1009(server):
    conn = server.connect()
    frame = event("set", 1, "key\n")
    conn.send_fragments(TEXT, frame + b"x" * (MIB - len(frame)), b"x")
    conn.expect_close(1009)


def test_a_frame_that_announces_too_much_closes_with_1009_at_once(server):
    conn = server.connect()
    conn.send_frame(TEXT, b"", length=2 * MIB)
    conn.finish_writing()
    assert conn.await_close().code == 1009
    conn.expect_end()


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
def test_an_absurd_length_closes_the_connection(server, length):
    conn = server.connect()
    conn.send_frame(TEXT, b"", length=length)
    conn.finish_writing()
    assert conn.await_close().code in (1002, 1009)
    conn.expect_end()


def test_a_message_of_endless_empty_fragments_closes_with_1009(server):
    conn = server.connect()
    conn.send_frame(TEXT, b"", fin=False)
    empty = conn.encode(CONTINUATION, b"", fin=False)
    conn.send_bytes(empty * ((MIB + 65536) // len(empty) + 1))
    conn.expect_close(1009)


def test_a_long_life_is_never_punished(server):
    conn = server.connect()
    frame = event("set", 1, "key\n")
    for _ in range(8):
        conn.send_fragments(TEXT, frame, *[b"x" * 500] * ((MIB - len(frame)) // 500))
        assert conn.receive() == text("__ack_set||1")


# Pings


@pytest.mark.parametrize(
    "payload", [b"", b"x", b"\xff\x00 no text", b"p" * 125], ids=["empty", "short", "bytes", "125-bytes"]
)
def test_a_ping_is_answered_with_its_payload(server, payload):
    conn = server.connect()
    conn.ping(payload)
    assert conn.receive_frame() == (PONG, payload, True, 0, None)


def test_a_ping_is_answered_while_a_handler_runs(server):
    conn = server.connect()
    conn.send_text("slow||1||500")
    conn.ping(b"now")
    assert conn.receive_frame() == (PONG, b"now", True, 0, None)
    assert conn.receive() == text("__ack_slow||1||done")


def test_a_ping_between_fragments_is_answered_before_the_message_is_complete(server):
    conn = server.connect()
    conn.send_frame(TEXT, b"echo||1||a", fin=False)
    conn.ping(b"between")
    assert conn.receive_frame() == (PONG, b"between", True, 0, None)
    conn.send_frame(CONTINUATION, b"b")
    assert conn.receive() == text("__ack_echo||1||ab")


def test_a_pong_that_nobody_asked_for_is_ignored(server):
    conn = server.connect()
    conn.send_frame(PONG, b"hello")
    conn.send_frame(PONG, b"")
    conn.expect_nothing()


# Closing


@pytest.mark.parametrize(
    "code", [1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
)
def test_a_close_frame_is_answered_with_its_code(server, code):
    conn = server.connect()
    conn.send_close(code, "good bye")
    assert conn.await_close().code == code
    conn.expect_end()


def test_a_close_frame_without_a_code_is_answered(server):
    conn = server.connect()
    conn.send_close(None)
    assert conn.await_close().code in (None, 1000)
    conn.expect_end()


def test_a_close_frame_with_the_longest_reason_is_answered(server):
    conn = server.connect()
    conn.send_close(1000, "r" * 123)
    assert conn.await_close().code == 1000
    conn.expect_end()


def test_a_close_frame_between_fragments_is_answered(server):
    conn = server.connect()
    conn.send_frame(TEXT, b"echo||1||a", fin=False)
    conn.send_close(1000)
    assert conn.await_close().code == 1000
    conn.expect_end()


def test_a_close_frame_is_answered_while_a_handler_runs(server):
    conn = server.connect()
    conn.send_text("slow||1||200")
    conn.send_close(4000)
    assert conn.await_close().code == 4000
    conn.expect_end()


def test_what_came_before_a_close_frame_is_handled(server):
    conn, watcher = server.connect(), server.connect()
    watcher.join("room")
    shouts = b"".join(conn.encode(TEXT, b"shout||0||room\n%d" % number) for number in range(10))
    conn.send_bytes(shouts + conn.encode(CLOSE, close_payload(1000)))
    assert conn.await_close(messages=True).code == 1000
    assert sorted(watcher.receive_all(10)) == [text(f"shout||0||{number}") for number in range(10)]


def test_what_came_before_the_end_is_handled(server):
    conn, watcher = server.connect(), server.connect()
    watcher.join("room")
    conn.send_text(*(f"shout||0||room\n{number}" for number in range(10)))
    conn.end()
    assert sorted(watcher.receive_all(10)) == [text(f"shout||0||{number}") for number in range(10)]


def test_what_follows_a_close_frame_is_not_handled(server):
    conn, watcher = server.connect(), server.connect()
    watcher.join("room")
    conn.send_bytes(conn.encode(CLOSE, close_payload(1000)) + conn.encode(TEXT, b"shout||0||room\nx"))
    assert conn.await_close().code == 1000
    conn.expect_end()
    watcher.expect_nothing()


def test_close_closes_with_1000(server):
    conn = server.connect()
    conn.send_text("close||0||")
    conn.expect_close_in_time(1000, "")


def test_close_sends_what_was_emitted_before_it(server):
    for _ in range(50):
        conn = server.connect()
        conn.join("mine")
        conn.send_text("shout||0||mine\n1", "shout||0||mine\n2", "close||0||")
        assert conn.receive_all(2) == [text("shout||0||1"), text("shout||0||2")]
        assert conn.await_close().code == 1000
        conn.end()


# Whatever comes


def test_random_bytes_do_no_harm(server):
    dice = random.Random(6455)
    for _ in range(200):
        conn = server.connect()
        try:
            conn.send_bytes(dice.randbytes(dice.randrange(1, 2000)))
            conn.finish_writing()
        except (Ended, OSError):
            pass
        conn.read_to_end()
        conn.end()
    server.connect().fence()


def test_random_payloads_in_good_frames_do_no_harm(server):
    dice = random.Random(1)
    parts = [b"echo", b"||", b"|", b"0", b"1", b"__ack_", b"__etp", b"\n", b"\xff", b"\0", b"join", b"9" * 18]
    for _ in range(200):
        conn = server.connect()
        try:
            for _ in range(16):
                conn.send_binary(b"".join(dice.choices(parts, k=dice.randrange(8))))
            conn.finish_writing()
        except (Ended, OSError):
            pass
        conn.read_to_end()
        conn.end()
    server.connect().fence()
