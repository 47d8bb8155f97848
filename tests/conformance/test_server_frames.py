"""What a server reads and writes: frames, names, ack ids, payloads; and what it does with what is no frame."""

import pytest
import vectors
from harness import event
from rawws import BINARY, TEXT, Message, binary, text


@pytest.mark.parametrize("frame", vectors.events_to_read())
def test_a_frame_is_read(server, frame):
    conn = server.connect()
    before = conn.seen()["unknown"]
    conn.send(frame.message)
    if frame.id != "0":
        assert conn.receive() == text(f"__ack_{frame.name}||{frame.id}||unknown:{frame.name}")
    conn.expect_nothing()
    conn.expect_seen("unknown", before + 1)


def test_an_event_in_three_parts_has_a_payload(server):
    conn = server.connect()
    conn.send_text("echo||7||hello")
    assert conn.receive() == text("__ack_echo||7||hello")


def test_an_event_in_two_parts_has_none(server):
    conn = server.connect()
    conn.send_text("echo||8")
    assert conn.receive() == text("__ack_echo||8")


@pytest.mark.parametrize("opcode", [pytest.param(TEXT, id="text"), pytest.param(BINARY, id="binary")])
def test_text_and_binary_messages_are_read_alike(server, opcode):
    conn = server.connect()
    conn.send(Message(opcode, b"echo||1||hello"), Message(opcode, b"echo||2"))
    assert sorted(conn.receive_all(2)) == [text("__ack_echo||1||hello"), text("__ack_echo||2")]


@pytest.mark.parametrize("frame", ["empty||3||", "empty||3", "echo||3||", "echo||3", "set||3||key\nvalue"])
def test_an_empty_reply_has_two_parts(server, frame):
    conn = server.connect()
    conn.send_text(frame)
    name, _ = frame.split("||", 1)
    assert conn.receive() == text(f"__ack_{name}||3")


def test_an_event_is_written_in_three_parts(server):
    conn = server.connect()
    conn.join("room")
    conn.send_text("shout||0||room\nhello")
    assert conn.receive() == text("shout||0||hello")


def test_an_event_without_a_payload_is_written_in_three_parts(server):
    conn = server.connect()
    conn.join("room")
    conn.send_text("shout||0||room\n")
    assert conn.receive() == text("shout||0||")


def test_an_acknowledged_event_without_a_payload_is_written_in_three_parts(server):
    conn = server.connect()
    conn.send_text("ask||1||")
    assert conn.receive() == text("question||1||")


@pytest.mark.parametrize("id", ["1", "10", "4294967296", "9007199254740993", "9223372036854775807"])
def test_a_reply_echoes_the_id_byte_for_byte(server, id):
    conn = server.connect()
    conn.send_text(f"echo||{id}||x")
    assert conn.receive() == text(f"__ack_echo||{id}||x")


def test_an_event_with_id_0_gets_no_reply(server):
    conn = server.connect()
    conn.send_text("echo||0||x")
    conn.expect_nothing()


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("a||b", id="delimiter"),
        pytest.param("||", id="delimiter-alone"),
        pytest.param("||||", id="two-delimiters"),
        pytest.param("|", id="pipe"),
        pytest.param("|a|", id="pipes-around"),
        pytest.param("echo||1||x", id="a-frame"),
        pytest.param("a\nb\r\nc\n", id="newlines"),
        pytest.param("a\0b\0", id="NUL"),
        pytest.param(" \t ", id="blanks"),
        pytest.param("\ufeffmark", id="byte-order-mark"),
        pytest.param("żółć 事件 🎉", id="unicode"),
        pytest.param("\ufffe\uffff\U0010ffff", id="noncharacters"),
        pytest.param('{"a": [1, 2.5, null]}', id="json"),
    ],
)
def test_a_payload_comes_back_unchanged(server, payload):
    conn = server.connect()
    conn.send_text(f"echo||5||{payload}")
    assert conn.receive() == text(f"__ack_echo||5||{payload}")


@pytest.mark.parametrize("size", [1, 100, 125, 126, 127, 65_500, 65_535, 65_536, 70_000])
def test_a_payload_of_any_size_comes_back_unchanged(server, size):
    payload = "".join(chr(33 + i % 91) for i in range(size))
    conn = server.connect()
    conn.send_text(f"echo||5||{payload}")
    assert conn.receive() == text(f"__ack_echo||5||{payload}")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xff", id="ff"),
        pytest.param(b"\x00\xff\xfe||\n", id="mixed"),
        pytest.param("é".encode()[:1], id="half-a-letter"),
        pytest.param(b"\xed\xa0\x80", id="a-surrogate"),
        pytest.param(bytes(range(256)), id="every-byte"),
    ],
)
def test_a_payload_that_is_no_utf8_comes_back_in_a_binary_message(server, payload):
    conn = server.connect()
    conn.send_binary(event("echo", 5, payload))
    assert conn.receive() == binary(b"__ack_echo||5||" + payload)


def test_a_utf8_payload_that_came_in_a_binary_message_comes_back_in_a_text_message(server):
    conn = server.connect()
    conn.send_binary("echo||5||żółć")
    assert conn.receive() == text("__ack_echo||5||żółć")


def test_a_broadcast_that_is_no_utf8_goes_out_in_a_binary_message(server):
    conn = server.connect()
    conn.join("room")
    conn.send_binary(b"shout||0||room\n\xff\x00")
    assert conn.receive() == binary(b"shout||0||\xff\x00")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("n" * 256, id="256-bytes"),
        pytest.param("€" * 85 + "n", id="256-bytes-of-euro-signs"),
        pytest.param("a b\tc", id="blanks"),
        pytest.param("__ACK_x", id="a-reply-in-capitals"),
        pytest.param("x__ack_y", id="a-prefix-inside"),
        pytest.param("constructor", id="constructor"),
        pytest.param("__proto__", id="__proto__"),
        pytest.param("n", id="1-byte"),
    ],
)
def test_a_name_is_answered_by_the_reply_of_that_name(server, name):
    conn = server.connect()
    conn.send_text(f"{name}||9||x")
    assert conn.receive() == text(f"__ack_{name}||9||unknown:{name}")


def test_names_differ_in_case_and_blanks(server):
    conn = server.connect()
    for name in ["Echo", "echo ", " echo", "ECHO"]:
        assert conn.call(name, "x") == f"unknown:{name}".encode()


def test_an_unknown_event_is_counted_and_its_callbacks_result_is_the_reply(server):
    conn = server.connect()
    before = conn.seen()["unknown"]
    conn.send_text("nobody||3||x")
    assert conn.receive() == text("__ack_nobody||3||unknown:nobody")
    conn.expect_seen("unknown", before + 1)


def test_an_unknown_event_with_id_0_is_counted_and_not_answered(server):
    conn = server.connect()
    before = conn.seen()["unknown"]
    conn.send_text("nobody||0||x")
    conn.expect_nothing()
    conn.expect_seen("unknown", before + 1)


def test_a_handler_that_fails_sends_no_reply(server):
    conn = server.connect()
    conn.send_text("fail||4||")
    conn.expect_nothing()


def test_a_handler_that_fails_is_reported_and_the_connection_lives(server):
    conn = server.connect()
    before = conn.seen()["errors"]
    conn.send_text("fail||4||", "fail||0||")
    conn.expect_nothing()
    conn.expect_seen("errors", before + 2)


@pytest.mark.parametrize("message", vectors.malformed())
def test_a_malformed_frame_is_dropped_and_reported_and_the_connection_lives(server, message):
    conn = server.connect()
    before = conn.seen()
    conn.send(message)
    conn.expect_nothing()
    conn.expect_seen("errors", before["errors"] + 1)
    conn.expect_seen("unknown", before["unknown"])


def test_events_around_a_malformed_frame_are_handled(server):
    conn = server.connect()
    conn.send_text("set||1||key\nbefore", "no frame")
    assert conn.receive() == text("__ack_set||1")
    conn.send_text("no frame", "get||2||key")
    assert conn.receive() == text("__ack_get||2||before")


def test_16_malformed_frames_are_borne(server):
    conn = server.connect()
    conn.send_text(*["no frame"] * 16)
    conn.expect_nothing()


def test_17_malformed_frames_in_a_row_close_the_connection(server):
    conn = server.connect()
    conn.send_text(*["no frame"] * 17)
    conn.expect_close(1008, "malformed frames")


def test_17_malformed_frames_among_good_ones_close_the_connection(server):
    conn = server.connect()
    for _ in range(16):
        conn.send_text("no frame")
        conn.fence()
    conn.send_text("no frame")
    conn.expect_close(1008, "malformed frames")


def test_malformed_frames_are_counted_by_the_connection(server):
    first, second = server.connect(), server.connect()
    for conn in (first, second):
        conn.send_text(*["no frame"] * 16)
    first.expect_nothing()
    second.expect_nothing()


def test_the_extension_channel_is_read_and_ignored(server):
    conn = server.connect()
    before = conn.seen()
    conn.send_text(*["__ack___etp||0||hello||2"] * 20, "__ack___etp||0||", "__ack___etp||0")
    conn.send_binary(b"__ack___etp||0||\xff\x00")
    conn.expect_nothing()
    after = conn.seen()
    assert (after["errors"], after["unknown"]) == (before["errors"], before["unknown"])
