"""Limits that a client's user can run into."""

import peers
import pytest
from harness import event
from rawws import text


def test_past_its_outbox_an_event_is_refused_and_no_other_is_lost(client, monkeypatch):
    monkeypatch.setattr(peers, "WAIT", 10)
    conn = client.accept()
    payload = "x" * 65_000
    accepted = []
    # 4 MiB, and what the kernel keeps.
    for number in range(500):
        outcome = client.outcome(client.do("emit", f"e{number}", payload.encode()))
        if outcome == "outbox_full":
            break
        assert outcome == b""
        accepted.append(number)
    else:
        raise AssertionError("32 MiB wait for a server that does not read")
    for number in accepted:
        assert conn.receive() == text(event(f"e{number}", 0, payload))
    assert client.outcome(client.do("drain")) == b""
    client.emit("after", b"x")
    assert conn.receive() == text("after||0||x")


@pytest.mark.parametrize("size", [1_000, 65_000, 1_000_000])
def test_a_server_that_reads_late_loses_no_answer(client, size):
    conn = client.accept()
    payload = b"x" * size
    sent = conn.send_until_it_blocks(text(event("question", id + 1, payload)) for id in range((32 << 20) // size))
    got = {message.data for message in conn.receive_all(sent)}
    assert got == {event("__ack_question", id + 1, payload) for id in range(sent)}


def test_past_its_open_acknowledgments_another_is_refused(client):
    conn = client.accept()
    acked = [client.do("ack", "why", b"?", timeout_ms=60_000) for _ in range(16_384)]
    assert set(conn.receive_all(16_384)) == {text(f"why||{id}||?") for id in range(1, 16_385)}
    assert client.outcome(client.do("ack", "why", b"?", timeout_ms=500)) == "too_many_acks"
    conn.send_text("__ack_why||1||because")
    assert client.outcome(acked[0]) == b"because"
    again = client.do("ack", "why", b"?")
    assert conn.receive() == text("why||16385||?")
    conn.close_in_order(1008)
    assert {client.outcome(id) for id in [*acked[1:], again]} == {"connection_closed"}
