"""What a client writes and reads: frames, names, ack ids, replies; and what it does with what is no frame."""

import pytest
import vectors
from harness import MIB, event
from rawws import BINARY, TEXT, Message, binary, text


@pytest.mark.parametrize("frame", vectors.events_to_write())
def test_an_event_is_written_as_a_frame(client, frame):
    conn = client.accept()
    client.do("emit" if frame.id == "0" else "ack", frame.name, frame.payload)
    assert conn.receive() == frame.message


def test_an_acknowledged_event_without_a_payload_is_written_in_three_parts(client):
    conn = client.accept()
    client.do("ack", "hello")
    assert conn.receive() == text("hello||1||")


def test_ids_are_counted_from_1_and_plain_events_take_none(client):
    conn = client.accept()
    for id in range(1, 5):
        client.emit("plain", b"x")
        assert conn.receive() == text("plain||0||x")
        acked = client.do("ack", "acked", b"x")
        assert conn.receive() == text(f"acked||{id}||x")
        conn.send_text(f"__ack_acked||{id}||{id}")
        assert client.outcome(acked) == b"%d" % id


def test_events_are_sent_in_the_order_of_the_calls(client):
    conn = client.accept()
    for number in range(1000):
        client.do("emit", "count", b"%d" % number)
    assert conn.receive_all(1000) == [text(f"count||0||{number}") for number in range(1000)]


@pytest.mark.parametrize(
    "payload",
    ["a||b", "||", "|", "\0\n\r", "żółć 🎉", "\ufeffmark"],
    ids=["delimiter", "delimiter-alone", "pipe", "control", "unicode", "byte-order-mark"],
)
def test_a_payload_is_sent_and_its_reply_read_unchanged(client, payload):
    conn = client.accept()
    acked = client.do("ack", "echo", payload.encode())
    assert conn.receive() == text(f"echo||1||{payload}")
    conn.send_text(f"__ack_echo||1||{payload}")
    assert client.outcome(acked) == payload.encode()


@pytest.mark.parametrize("cmd", ["emit", "ack"])
@pytest.mark.parametrize("name", vectors.names_refused())
def test_a_name_outside_the_grammar_is_refused_and_nothing_sent(client, cmd, name):
    conn = client.accept()
    refused = client.do(cmd, name, b"x", timeout_ms=1000)
    client.emit("fence", b"x")
    assert conn.receive() == text("fence||0||x")
    assert client.outcome(refused) == "invalid_event"


def test_a_refused_event_takes_no_id(client):
    conn = client.accept()
    assert client.outcome(client.do("ack", "a||b", b"x", timeout_ms=1000)) == "invalid_event"
    client.do("ack", "good", b"x")
    assert conn.receive() == text("good||1||x")


def test_a_message_of_1_mib_is_sent(client):
    conn = client.accept()
    payload = b"x" * (MIB - len(event("big")))
    client.emit("big", payload)
    assert conn.receive() == text(event("big", 0, payload))


@pytest.mark.parametrize("cmd", ["emit", "ack"])
def test_a_larger_message_is_refused_and_nothing_sent(client, cmd):
    conn = client.accept()
    refused = client.do(cmd, "big", b"x" * (MIB - len(event("big")) + 1), timeout_ms=1000)
    client.emit("fence", b"x")
    assert conn.receive() == text("fence||0||x")
    assert client.outcome(refused) == "message_too_large"


# Replies


@pytest.fixture
def asked(client):
    """A connection on which the client waits for the reply to `why||1||`, and how that came out."""
    conn = client.accept()
    acked = client.do("ack", "why", b"?", timeout_ms=3000)
    assert conn.receive() == text("why||1||?")
    return conn, lambda: client.outcome(acked)


def test_a_reply_is_the_outcome(asked):
    conn, outcome = asked
    conn.send_text("__ack_why||1||because")
    assert outcome() == b"because"


@pytest.mark.parametrize("frame", ["__ack_why||1", "__ack_why||1||"], ids=["two-parts", "three-parts"])
def test_an_empty_reply_is_an_outcome_without_data(asked, frame):
    conn, outcome = asked
    conn.send_text(frame)
    assert outcome() == b""


def test_a_reply_in_a_binary_message_is_read(asked):
    conn, outcome = asked
    conn.send_binary(b"__ack_why||1||\xff\x00")
    assert outcome() == b"\xff\x00"


def test_a_reply_in_fragments_is_read(asked):
    conn, outcome = asked
    conn.send_fragments(TEXT, b"__ack", b"_why|", b"|1||", b"", b"because")
    assert outcome() == b"because"


def test_a_reply_with_an_unknown_id_is_dropped(asked):
    conn, outcome = asked
    conn.send_text("__ack_why||2||wrong", "__ack_why||0||wrong", "__ack_why||9223372036854775807||wrong")
    conn.send_text("__ack_why||1||right")
    assert outcome() == b"right"


def test_a_reply_with_a_pending_id_and_another_name_is_dropped(asked):
    conn, outcome = asked
    conn.send_text("__ack_how||1||wrong", "__ack_wh||1||wrong", "__ack_why2||1||wrong", "__ack___ack_why||1||wrong")
    conn.send_text("__ack_why||1||right")
    assert outcome() == b"right"


def test_an_event_with_a_pending_id_is_no_reply(asked):
    conn, outcome = asked
    conn.send_text("why||1||wrong")
    conn.expect_nothing_but_replies_to("why")
    conn.send_text("__ack_why||1||right")
    assert outcome() == b"right"


def test_a_malformed_reply_is_no_reply(asked):
    conn, outcome = asked
    conn.send_text("__ack_why||01||wrong")
    conn.expect_nothing()
    conn.send_text("__ack_why||1||right")
    assert outcome() == b"right"


def test_the_first_reply_wins(client, asked):
    conn, outcome = asked
    conn.send_text("__ack_why||1||first", "__ack_why||1||second")
    assert outcome() == b"first"
    conn.expect_nothing()
    acked = client.do("ack", "why", b"?")
    assert conn.receive() == text("why||2||?")
    conn.send_text("__ack_why||1||third", "__ack_why||2||right")
    assert client.outcome(acked) == b"right"


def calls_and_what_comes_of_them(client, names, received):
    conn = client.accept()
    acked = []
    for name in names:
        acked.append(client.do("ack", name, b"?"))
        conn.receive()
    conn.send(*received)
    conn.fence()
    conn.close_in_order(1008)
    return [client.outcome(id) for id in acked]


@pytest.mark.parametrize("case", vectors.replies())
def test_a_call_gets_its_own_reply_or_none(client, case):
    outcomes = calls_and_what_comes_of_them(client, case.pending, case.received)
    assert outcomes == ["connection_closed" if reply is None else reply for reply in case.outcomes]


@pytest.mark.parametrize("case", vectors.replies())
def test_a_call_takes_nothing_else_for_its_reply(client, case):
    outcomes = calls_and_what_comes_of_them(client, case.pending, case.before)
    assert outcomes == ["connection_closed"] * len(case.pending)


def test_replies_find_their_events_in_any_order(client):
    conn = client.accept()
    acked = {b"%d" % number: client.do("ack", "echo", b"%d" % number) for number in range(50)}
    asked = [message.data.split(b"||") for message in conn.receive_all(50)]
    assert sorted(int(id) for _, id, _ in asked) == list(range(1, 51))
    conn.send_text(*(b"__ack_echo||%s||%s" % (id, payload) for _, id, payload in reversed(asked)))
    assert {payload: client.outcome(id) for payload, id in acked.items()} == {payload: payload for payload in acked}


def test_no_reply_by_the_deadline_is_ack_timeout(client):
    conn = client.accept()
    acked = client.do("ack", "why", b"?", timeout_ms=200)
    conn.receive()
    assert client.outcome(acked) == "ack_timeout"


def test_a_reply_after_the_deadline_is_dropped(client):
    conn = client.accept()
    acked = client.do("ack", "why", b"?", timeout_ms=200)
    conn.receive()
    assert client.outcome(acked) == "ack_timeout"
    conn.send_text("__ack_why||1||late")
    acked = client.do("ack", "why", b"?", timeout_ms=10_000)
    assert conn.receive() == text("why||2||?")
    conn.send_text("__ack_why||2||right")
    assert client.outcome(acked) == b"right"


def test_replies_that_nobody_waits_for_are_not_malformed(client):
    conn = client.accept()
    conn.send_text(*(f"__ack_echo||{id}||stray" for id in range(1, 40)))
    conn.expect_nothing()


def test_the_extension_channel_is_read_and_ignored(client):
    conn = client.accept()
    conn.send_text(*["__ack___etp||0||hello||2"] * 20, "__ack___etp||0")
    conn.send_binary(b"__ack___etp||0||\xff")
    conn.expect_nothing()


# Events from the server


@pytest.mark.parametrize("frame", vectors.events_to_read())
def test_an_event_is_read(client, frame):
    conn = client.accept()
    conn.send(frame.message)
    assert client.next_event(frame.name) == frame.payload


@pytest.mark.parametrize("opcode", [pytest.param(TEXT, id="text"), pytest.param(BINARY, id="binary")])
def test_text_and_binary_messages_are_read_alike(client, opcode):
    conn = client.accept()
    conn.send(Message(opcode, b"say||0||hello"))
    assert client.next_event("say") == b"hello"


def test_20_000_events_are_handled_in_the_order_of_arrival(client):
    conn = client.accept()
    conn.send_text(*(f"count||0||{number}" for number in range(20_000)))
    assert [client.next_event("count") for _ in range(20_000)] == [b"%d" % number for number in range(20_000)]


def test_a_question_is_answered_with_its_id(client):
    conn = client.accept()
    for id in ["5", "9007199254740993", "9223372036854775807"]:
        conn.send_text(f"question||{id}||hello")
        assert conn.receive() == text(f"__ack_question||{id}||hello")


def test_a_question_that_is_no_utf8_is_answered_in_a_binary_message(client):
    conn = client.accept()
    conn.send_binary(b"question||5||\xff")
    assert conn.receive() == binary(b"__ack_question||5||\xff")


def test_an_empty_answer_has_two_parts(client):
    conn = client.accept()
    conn.send_text("question||5||")
    assert conn.receive() == text("__ack_question||5")


def test_ids_of_the_two_directions_are_apart(client):
    conn = client.accept()
    acked = client.do("ack", "question", b"mine")
    assert conn.receive() == text("question||1||mine")
    conn.send_text("question||1||yours")
    assert conn.receive() == text("__ack_question||1||yours")
    conn.send_text("__ack_question||1||answer")
    assert client.outcome(acked) == b"answer"


# What is no frame


@pytest.mark.parametrize("message", vectors.malformed())
def test_a_malformed_frame_is_dropped_and_the_connection_lives(client, message):
    conn = client.accept()
    conn.send(message)
    conn.expect_nothing()
    conn.send_text("say||0||after")
    assert client.next_event("say") == b"after"
    conn.close_in_order(1008)
    client.wait_disconnected()
    assert [line for line in client.lines if "event" in line] == [{"event": "say", "data": b"after"}]


def test_16_malformed_frames_are_borne(client):
    conn = client.accept()
    conn.send_text(*["no frame"] * 16)
    conn.expect_nothing()


def test_17_malformed_frames_in_a_row_close_the_connection(client):
    conn = client.accept()
    conn.send_text(*["no frame"] * 17)
    conn.expect_close(1008, "malformed frames")
