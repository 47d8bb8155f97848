"""What an editor says of handlers on servers. `# E:` marks a line that is to be an error; no other may be one."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, assert_type

from etp_ws import Accept, Broadcast, Conn, Disconnect, EtpError, Request, Server, Stats

text = Server()
also_text = Server("text", origins="*", ping_interval=None)
structured = Server(codec="json")
binary = Server(codec="bytes")


@dataclass
class Point:
    x: int
    y: int


def dump(point: Point) -> str:
    return json.dumps([point.x, point.y])


def load(data: bytes) -> tuple[int, int]:
    x, y = json.loads(data)
    return x, y


pair = Server(codec=(dump, load))

# --- A codec says what handlers get and may return --------------------------------------------------------------------

assert_type(also_text, Server[str, str])
assert_type(binary, Server[bytes, bytes | bytearray | memoryview])
assert_type(pair, Server[tuple[int, int], Point])

# --- Text -------------------------------------------------------------------------------------------------------------


@text.on("async")
async def text_async(conn: Conn, data: str) -> str:
    return data


@text.on("sync")
def text_sync(conn: Conn, data: str) -> str:
    return data


@text.on("maybe nothing")
async def text_maybe(conn: Conn, data: str) -> str | None:
    return data or None


@text.on("nothing")
def text_nothing(conn: Conn, data: str) -> None: ...


@text.on("more than is passed")
async def text_optional(conn: Conn, data: str, more: int = 0) -> str:
    return data * more


@text.on("wrong reply")  # E:
async def text_int(conn: Conn, data: str) -> int:
    return len(data)


@text.on("wrong reply, sync")  # E:
def text_int_sync(conn: Conn, data: str) -> int:
    return len(data)


@text.on("no conn")  # E:
async def text_no_conn(data: str) -> str:
    return data


@text.on("too many")  # E:
async def text_too_many(conn: Conn, name: str, data: str) -> str:
    return name + data


@text.on("wrong payload")  # E:
async def text_of_int(conn: Conn, data: int) -> str:
    return str(data)


@text.on("wrong order")  # E:
async def text_swapped(data: str, conn: Conn) -> str:
    return data


# --- What is decorated stays what it is -------------------------------------------------------------------------------


async def called_directly(conn: Conn) -> None:
    assert_type(await text_async(conn, "a"), str)
    assert_type(text_sync(conn=conn, data="a"), str)
    assert_type(await text_optional(conn, "a", more=3), str)
    assert_type(await pair_async(conn, (1, 2)), Point | None)


# --- JSON -------------------------------------------------------------------------------------------------------------


@structured.on("object")
async def json_object(conn: Conn, data: dict[str, int]) -> dict[str, int]:
    return data


@structured.on("list")
def json_list(conn: Conn, data: Any) -> list[str]:
    return [str(data)]


@structured.on("set")  # E:
async def json_set(conn: Conn, data: Any) -> set[int]:
    return {1}


@structured.on("object of a class")  # E:
def json_class(conn: Conn, data: Any) -> Point:
    return Point(1, 2)


@structured.on("no data")  # E:
async def json_no_data(conn: Conn) -> None: ...


# --- Bytes ------------------------------------------------------------------------------------------------------------


@binary.on("bytes")
async def bytes_bytes(conn: Conn, data: bytes) -> bytes:
    return data


@binary.on("view")
def bytes_view(conn: Conn, data: bytes) -> memoryview:
    return memoryview(data)


@binary.on("text")  # E:
async def bytes_text(conn: Conn, data: bytes) -> str:
    return data.decode()


@binary.on("of text")  # E:
async def bytes_of_text(conn: Conn, data: str) -> bytes:
    return data.encode()


# --- A pair of functions ----------------------------------------------------------------------------------------------


@pair.on("point")
async def pair_async(conn: Conn, data: tuple[int, int]) -> Point:
    return Point(*data)


@pair.on("sync")
def pair_sync(conn: Conn, data: tuple[int, int]) -> Point | None:
    return None


@pair.on("wrong reply")  # E:
async def pair_wrong(conn: Conn, data: tuple[int, int]) -> tuple[int, int]:
    return data


# --- Registered by a call ---------------------------------------------------------------------------------------------


class Handlers:
    async def method(self, conn: Conn, data: str) -> str:
        return data

    async def wrong(self, conn: Conn, data: str) -> bytes:
        return data.encode()


text.on("method", Handlers().method)
text.on("lambda", lambda conn, data: data.upper())
text.on("partial", functools.partial(text_optional, more=1))
text.on("wrong method", Handlers().wrong)  # E:
text.on("wrong count", lambda conn: "a")  # E:
structured.on("wrong", json_set)  # E:

# --- A server of any codec --------------------------------------------------------------------------------------------


def any_server(server: Server) -> None:
    assert_type(server, Server[Any, Any])

    @server.on("anything")
    async def anything(conn: Conn, data: int) -> Point:
        return Point(data, data)

    @server.on("no data")  # E:
    async def no_data(conn: Conn) -> None: ...


# --- Callbacks --------------------------------------------------------------------------------------------------------


@text.on_upgrade
async def upgrade(request: Request) -> str | Accept:
    return request.token or Accept(None, close=(4001, "log in first"))


@text.on_connect
def connected(conn: Conn) -> None: ...


@text.on_disconnect
async def disconnected(conn: Conn, end: Disconnect) -> None: ...


@text.on_error
def failed(conn: Conn | None, error: EtpError) -> None: ...


@text.on_unknown_event
async def unknown(conn: Conn, name: str, data: str) -> str:
    return name


@text.middleware
async def around(
    conn: Conn, name: str, data: str, call_next: Callable[[Conn, str, Any], Awaitable[Any]]
) -> Coroutine[Any, Any, str] | None:
    await call_next(conn, name, data)
    return None


@text.on_upgrade  # E:
def upgrade_conn(conn: Conn) -> None: ...


@text.on_connect  # E:
def connected_with(conn: Conn, request: Request) -> None: ...


@text.on_disconnect  # E:
def disconnected_alone(conn: Conn) -> None: ...


@text.on_error  # E:
def failed_always_with_conn(conn: Conn, error: EtpError) -> None: ...


@text.on_unknown_event  # E:
async def unknown_without_data(conn: Conn, name: str) -> None: ...


@text.middleware  # E:
async def around_nothing(conn: Conn, name: str, data: str) -> None: ...


# --- Options, emits, rooms --------------------------------------------------------------------------------------------

Server(codec="yaml")  # E:
Server(max_inflihgt=3)  # E:
Server(ping_interval="25 s")  # E:
Conn("0123")  # E:


async def rooms(server: Server[str, str], conn: Conn) -> None:
    assert_type(server.emit("news", "hi"), int)
    assert_type(server.to("a", "b").except_(conn, "c"), Broadcast)
    assert_type(conn.to("a").emit("news", {"any": "thing"}), int)
    assert_type(conn.to("a").conns(), list[Conn])
    assert_type(server.members("a"), list[Conn])
    assert_type(server.conn("0123"), Conn | None)
    assert_type(server.stats(), Stats)
    assert_type(conn.request, Request)
    assert_type(conn.request.headers.get("origin"), str | None)
    assert_type(await conn.ping(), float)
    server.emit("news", 3)  # E:
    server.to(3)  # E:
    conn.emit(3)  # E:
    conn.id = "a"  # E:


async def life(server: Server[str, str]) -> None:
    async with server.start("127.0.0.1", 0) as started:
        assert_type(started, Server[str, str])
    assert_type(await server.start(unix="/run/app.sock"), Server[str, str])
    assert_type(server.url, str)
    server.run(port="8080")  # E:
