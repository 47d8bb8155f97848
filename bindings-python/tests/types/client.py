"""What an editor says of clients. `# E:` marks a line that is to be an error; no other may be one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, assert_type

from etp_ws import Client, Conn, Disconnect, EtpError, Event, Reconnect, Server, State
from etp_ws.testing import connect

URL = "ws://127.0.0.1:8080/ws"

text = Client(URL)
structured = Client(URL, codec="json", reconnect=Reconnect(cap=5.0))
binary = Client(URL, "bytes", headers={"X-User": "ann"})


@dataclass
class Point:
    x: int
    y: int


def dump(point: Point) -> bytes:
    return json.dumps([point.x, point.y]).encode()


def load(data: bytes) -> tuple[int, int]:
    x, y = json.loads(data)
    return x, y


pair = Client(URL, codec=(dump, load))

# --- A codec says what comes and what may be sent ---------------------------------------------------------------------


async def asking() -> None:
    assert_type(await text.emit_with_ack("a", "b"), str)
    assert_type(await structured.emit_with_ack("a", {"b": [1, 2]}, timeout=1.0), Any)
    assert_type(await binary.emit_with_ack("a", memoryview(b"b")), bytes)
    assert_type(await pair.emit_with_ack("a", Point(1, 2)), tuple[int, int])
    text.emit("a")
    text.emit("a", 1)  # E:
    structured.emit("a", {1, 2})  # E:
    binary.emit("a", "b")  # E:
    pair.emit("a", (1, 2))  # E:
    await text.emit_with_ack("a", b"b")  # E:
    await binary.emit_with_ack("a", b"b", timeout="1 s")  # E:


# --- Handlers ---------------------------------------------------------------------------------------------------------


@text.on("async")
async def text_async(data: str) -> str:
    return data


@text.on("sync")
def text_sync(data: str, more: int = 0) -> None: ...


@text.on("wrong reply")  # E:
async def text_int(data: str) -> int:
    return len(data)


@text.on("as a server's")  # E:
async def text_conn(conn: Conn, data: str) -> str:
    return data


@structured.on("set")  # E:
def json_set(data: Any) -> set[int]:
    return {1}


@structured.on("list")
async def json_list(data: list[int]) -> list[int]:
    return data


@binary.on("text")  # E:
async def bytes_text(data: bytes) -> str:
    return data.decode()


@binary.on("bytes")
async def bytes_bytes(data: bytes) -> bytearray:
    return bytearray(data)


@pair.on("point")
def pair_point(data: tuple[int, int]) -> Point:
    return Point(*data)


@pair.on("wrong reply")  # E:
def pair_wrong(data: tuple[int, int]) -> tuple[int, int]:
    return data


text.on("lambda", lambda data: data.upper())
text.on("wrong", lambda data: len(data))  # E:


async def called_directly() -> None:
    assert_type(await text_async("a"), str)
    assert_type(text_sync("a", more=1), None)
    assert_type(pair_point((1, 2)), Point | None)


def any_client(client: Client) -> None:
    @client.on("anything")
    def anything(data: int) -> Point:
        return Point(data, data)

    @client.on("nothing")  # E:
    def nothing() -> None: ...


# --- Callbacks --------------------------------------------------------------------------------------------------------


@text.on_connect
async def connected() -> None: ...


@text.on_disconnect
def disconnected(end: Disconnect) -> None: ...


@text.on_error
def failed(error: EtpError) -> None: ...


@text.on_unknown_event
def unknown(name: str, data: str) -> str:
    return name


@text.middleware
async def around(name: str, data: str, call_next: Callable[[str, Any], Awaitable[Any]]) -> Any:
    return await call_next(name, data)


@text.on_connect  # E:
async def connected_conn(conn: Conn) -> None: ...


@text.on_disconnect  # E:
def disconnected_conn(conn: Conn, end: Disconnect) -> None: ...


@text.on_error  # E:
def failed_conn(conn: Conn | None, error: EtpError) -> None: ...


@text.on_unknown_event  # E:
def unknown_name(name: str) -> None: ...


@text.middleware  # E:
def around_sync(name: str, data: str, call_next: Callable[[str, Any], Awaitable[Any]]) -> str:
    return name


# --- Options, life, events --------------------------------------------------------------------------------------------


async def token() -> str:
    return "secret"


Client(token, auth=token, should_reconnect=lambda end: end.code != 4001)
Client(URL, codec="yaml")  # E:
Client(URL, queu=3)  # E:
Client(3)  # E:
Client(URL, reconnect=30.0)  # E:
Client(URL, should_reconnect=lambda code, reason: True)  # E:


async def life() -> None:
    async with text as connected_text:
        assert_type(connected_text, Client[str, str])
        assert_type(text.state, State)
        assert_type(text.conn, Conn | None)
        assert_type(await text.ping(), float)
    async for event in binary.events("news", buffer=10):
        assert_type(event, Event)


# --- In memory: a client of the server's codec ------------------------------------------------------------------------


async def in_memory(server: Server[str, str]) -> None:
    async with connect(server, path="/ws?room=1") as client:
        assert_type(client, Client[str, str])
    assert_type(await connect(server, text), Client[str, str])
    assert_type(await connect(server, pair), Client[tuple[int, int], Point])
    async with connect(server, codec="json") as other:
        assert_type(other, Client[Any, Any])
