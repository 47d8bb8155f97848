"""Names: which are events, and what becomes of those that are none."""

import pytest
from peers import PeerError, eventually


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("two words", id="a space"),
        pytest.param(" ", id="only a space"),
        pytest.param("a|b", id="a single pipe"),
        pytest.param("|a", id="a leading pipe"),
        pytest.param("line\nbreak\ttab\x00", id="control characters"),
        pytest.param('"quotes" \\ <&>', id="quotes"),
        pytest.param("событие-イベント-😀", id="unicode"),
        pytest.param("__ack", id="almost a reply"),
        pytest.param("n" * 250, id="250 bytes"),
        pytest.param("n" * 251, id="251 bytes"),
        pytest.param("n" * 256, id="256 bytes"),
        pytest.param("é" * 128, id="256 bytes of unicode"),
    ],
)
def test_a_name_arrives_unchanged_and_its_reply_is_found(client, name):
    assert client.ack(name).decode() == f"unknown:{name}"


NOT_NAMES = [
    pytest.param("", id="empty"),
    pytest.param("a||b", id="delimiter"),
    pytest.param("a|", id="a pipe at the end"),
    pytest.param("__ack_echo", id="a reply's"),
    pytest.param("__etp", id="reserved"),
    pytest.param("__etp_later", id="reserved prefix"),
    pytest.param("n" * 257, id="257 bytes"),
    pytest.param("é" * 128 + "n", id="257 bytes of unicode"),
]


@pytest.mark.parametrize("name", NOT_NAMES)
@pytest.mark.parametrize("how", ["emit", "ack"])
@pytest.mark.deviates("the reference sends any name", client="go")
def test_what_is_no_name_is_refused_to_its_caller(client, seen, name, how):
    assert client.call(how, name, b"data", timeout_ms=500).get("error") == "invalid_event"
    assert seen(client, "errors") == seen(client, "unknown") == 0


@pytest.mark.only(lambda pair: not pair.our_client)
def test_a_frame_of_a_broken_name_is_reported_and_dropped(client, seen):
    client.emit("a|", b"data")  # arrives as name "a", ack id "|0"
    client.emit("a||b", b"data")  # name "a", ack id "b"
    eventually(lambda: seen(client, "errors"), 2)
    assert seen(client, "unknown") == 0


@pytest.mark.parametrize("name", [pytest.param("", id="empty"), pytest.param("n" * 257, id="257 bytes")])
@pytest.mark.only(lambda pair: not pair.our_client)
@pytest.mark.deviates("the reference reads any name", server="go")
def test_an_event_whose_name_is_none_is_reported_and_dropped(client, seen, name):
    with pytest.raises(PeerError, match="ack_timeout"):
        client.ack(name, b"data", timeout_ms=500)
    assert (seen(client, "errors"), seen(client, "unknown")) == (1, 0)
