"""The test vectors, as parameters of cases. `tests/vectors/README.md` says what an entry means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rawws import BINARY, TEXT, Message

FOLDER = Path(__file__).parent.parent / "vectors"


Wanted = Callable[[dict[str, Any]], bool]


def entries(file: str, wanted: Wanted = lambda entry: True, *, part: str | None = None) -> Iterator[dict[str, Any]]:
    content = json.loads((FOLDER / file).read_text())
    return filter(wanted, content if part is None else content[part])


def param(value: object, entry: dict[str, Any]) -> Any:
    return pytest.param(value, id=entry["why"].replace(" ", "-"))


def raw(entry: dict[str, Any], key: str) -> bytes:
    return bytes.fromhex(entry[f"{key}_hex"])


def name(entry: dict[str, Any]) -> str:
    return entry["name"] if "name" in entry else raw(entry, "name").decode()


@dataclass(frozen=True)
class Frame:
    """A well-formed event, and the message that carries it."""

    message: Message
    name: str
    id: str
    payload: bytes


def _frame(entry: dict[str, Any]) -> Frame:
    opcode = {"text": TEXT, "binary": BINARY}[entry["message"]]
    return Frame(Message(opcode, raw(entry, "frame")), name(entry), entry["ack_id"], raw(entry, "payload"))


def events_to_read() -> list[Any]:
    def wanted(entry: dict[str, Any]) -> bool:
        return "reply_to" not in entry and "reply_to_hex" not in entry

    return [param(_frame(entry), entry) for entry in entries("frames-read.json", wanted)]


def events_to_write() -> list[Any]:
    """Those whose id is 0 or the first of a connection: others can't be had from outside."""

    def wanted(entry: dict[str, Any]) -> bool:
        return entry["kind"] == "event" and entry["ack_id"] in ("0", "1")

    return [param(_frame(entry), entry) for entry in entries("frames-written.json", wanted)]


def malformed() -> list[Any]:
    """Messages outside the grammar: text where they are UTF-8, or else they would break WebSocket's rules, not ours."""
    return [param(_message(raw(entry, "frame")), entry) for entry in entries("frames-refused.json")]


def _message(data: bytes) -> Message:
    try:
        data.decode()
    except UnicodeDecodeError:
        return Message(BINARY, data)
    return Message(TEXT, data)


def names_refused() -> list[Any]:
    return [param(name(entry), entry) for entry in entries("names-refused.json")]


@dataclass(frozen=True)
class Replies:
    """Events that wait for a reply, what then comes in, and each one's reply: None if it gets none."""

    pending: list[str]
    received: list[Message]
    before: list[Message]
    """Those received before the first reply."""
    outcomes: list[bytes | None]


def replies() -> list[Any]:
    def all_of(entry: dict[str, Any]) -> Replies:
        outcomes: list[bytes | None] = [None] * len(entry["pending"])
        for received in entry["received"]:
            if received["outcome"] == "reply":
                outcomes[int(received["ack_id"]) - 1] = raw(received, "payload")
        received = [_message(raw(received, "frame")) for received in entry["received"]]
        are_replies = [received["outcome"] == "reply" for received in entry["received"]]
        return Replies(
            pending=[name(pending) for pending in entry["pending"]],
            received=received,
            before=received[: (are_replies + [True]).index(True)],
            outcomes=outcomes,
        )

    return [param(all_of(entry), entry) for entry in entries("replies.json")]


def disconnects() -> list[Any]:
    """Close codes and reasons of a server, and whether its client comes back."""

    def wanted(entry: dict[str, Any]) -> bool:
        return not entry["own_close"] and entry["code"] not in (1006, 1015)  # those that no close frame carries

    return [
        param((None if entry["code"] == 1005 else entry["code"], entry["reason"], entry["reconnect"]), entry)
        for entry in entries("reconnect.json", wanted, part="disconnects")
    ]


def dials() -> list[Any]:
    """HTTP statuses that a re-dial is answered with, and what follows."""
    return [
        param((entry["status"], entry["outcome"]), entry)
        for entry in entries("reconnect.json", lambda entry: entry["status"] is not None, part="dials")
    ]
