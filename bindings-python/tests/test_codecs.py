"""Payloads: what each codec makes of values, and what becomes of those that it can't make anything of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from etp_ws import Client, EtpError, InvalidOption, InvalidPayload, Server
from etp_ws.testing import connect

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def reversed_bytes(value: list[int]) -> bytes:
    """A codec of our own: the numbers backwards."""
    return bytes(reversed(value))


def reversed_list(data: bytes) -> list[int]:
    if data == b"\xff":
        raise KeyError("no 255 alone")
    return list(reversed(data))


PAIR = (reversed_bytes, reversed_list)

VALUES: list[tuple[Any, list[tuple[Any, Any]]]] = [
    ("text", [("", ""), (None, ""), ("ä€😀", "ä€😀"), ("a||b\0\n", "a||b\0\n"), ("x" * 100_000, "x" * 100_000)]),
    (
        "json",
        [(None, None), (0, 0), ("", ""), ([1, 2.5, True, {"ä": None}], [1, 2.5, True, {"ä": None}]), ((1, 2), [1, 2])],
    ),
    (
        "bytes",
        [
            (b"", b""),
            (None, b""),
            (b"\xff\0||", b"\xff\0||"),
            (bytearray(b"ab"), b"ab"),
            (memoryview(b"abcd")[::2], b"ac"),
        ],
    ),
    (PAIR, [([1, 2, 255], [1, 2, 255]), ([], None), (None, None)]),
]


@pytest.mark.parametrize(("codec", "values"), VALUES)
async def test_values_arrive_as_the_codec_makes_them_both_ways(codec: Any, values: list[tuple[Any, Any]]) -> None:
    server = Server(codec)
    seen: list[Any] = []

    @server.on("echo")
    async def echo(conn: Any, data: Any) -> Any:
        seen.append(data)
        return await conn.emit_with_ack("back", data)

    async with connect(server) as client:
        client.on("back", lambda data: data)
        for value, arrives in values:
            assert await client.emit_with_ack("echo", value) == arrives
    assert seen == [arrives for _, arrives in values]


BAD: list[tuple[Any, Any, str]] = [
    ("text", 3, "int"),
    ("text", b"bytes", "bytes"),
    ("text", "\ud800", "UTF-8"),
    ("json", float("nan"), "encode"),
    ("json", float("inf"), "encode"),
    ("json", {1, 2}, "encode"),
    ("json", "\ud800", "UTF-8"),
    ("bytes", "text", "str"),
    ("bytes", 3, "int"),
    (PAIR, "text", "encode"),
    ((lambda value: 3, reversed_list), [1], "str or bytes"),
]


@pytest.mark.parametrize(("codec", "value", "says"), BAD)
async def test_a_value_that_the_codec_can_t_write_is_refused_to_its_caller(codec: Any, value: Any, says: str) -> None:
    server = Server(codec)
    async with connect(server) as client:
        conn = server.conns()[0]
        for emit in (client.emit, conn.emit, server.emit, server.to("room").emit):
            with pytest.raises(InvalidPayload, match=says):
                emit("say", value)
        for ask in (client.emit_with_ack, conn.emit_with_ack):
            with pytest.raises(InvalidPayload, match=says):
                await ask("say", value)


async def test_the_codec_s_own_exception_is_the_cause() -> None:
    server = Server(codec="json")
    async with connect(server) as client:
        with pytest.raises(InvalidPayload) as refused:
            client.emit("say", {1, 2})
        assert isinstance(refused.value.__cause__, TypeError)


RECEIVED: list[tuple[Any, bytes]] = [
    ("text", b"\xff"),
    ("json", b"{"),
    ("json", b"NaN"),
    ("json", b"\xff"),
    (PAIR, b"\xff"),
]


@pytest.mark.parametrize(("codec", "payload"), RECEIVED)
async def test_a_payload_that_the_codec_can_t_read_reaches_on_error_and_no_handler(codec: Any, payload: bytes) -> None:
    server = Server(codec)
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    called: list[Any] = []
    server.on_error(lambda conn, error: errors.put_nowait(error))
    server.on("say", lambda conn, data: called.append(data))
    async with connect(server, Client("memory:", "bytes")) as client:
        asking = asyncio.ensure_future(client.emit_with_ack("say", payload))
        error = await errors.get()
        assert isinstance(error, InvalidPayload)
        assert "say" in str(error)
        assert not asking.done()
        asking.cancel()
    assert called == []


async def test_a_reply_that_the_codec_can_t_read_raises_where_it_was_awaited() -> None:
    server = Server("bytes")
    server.on("say", lambda conn, data: b"\xff")
    async with connect(server, Client("memory:", "text")) as client:
        with pytest.raises(InvalidPayload):
            await client.emit_with_ack("say")


@pytest.mark.parametrize("codec", ["yaml", 3, (reversed_bytes,), (1, 2), None])
def test_what_is_no_codec_is_refused_with_a_list_of_those_there_are(codec: Any) -> None:
    for make in (lambda: Server(codec), lambda: Client("ws://127.0.0.1:1/ws", codec)):
        with pytest.raises(InvalidOption, match='"text", "json", "bytes" or a pair of functions'):
            make()
