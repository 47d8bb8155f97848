"""Context variables: each connection has a context of its own, which begins as that of whoever started the server."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from etp_ws import Client, Conn, Disconnect, EtpError, Request, Server
from etp_ws.testing import connect

pytestmark = pytest.mark.anyio

who: ContextVar[str] = ContextVar("who", default="nobody")
where: ContextVar[str] = ContextVar("where", default="nowhere")


async def test_handlers_see_what_on_upgrade_and_on_connect_of_their_connection_set() -> None:
    server = Server()
    ends: asyncio.Queue[str] = asyncio.Queue()

    @server.on_upgrade
    async def upgrade(request: Request) -> None:
        await asyncio.sleep(0)
        who.set(request.query or "")

    @server.on_connect
    async def connected(conn: Conn) -> None:
        await asyncio.sleep(0)
        where.set(f"room of {who.get()}")

    @server.on("coroutine")
    async def coroutine(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        return f"{who.get()} in {where.get()}"

    @server.on("function")
    def function(conn: Conn, data: str) -> str:
        return f"{who.get()} in {where.get()}"

    @server.on("task")
    async def task(conn: Conn, data: str) -> str:
        return await asyncio.create_task(coroutine(conn, data))

    @server.on("thread")
    async def thread(conn: Conn, data: str) -> str:
        return await asyncio.to_thread(function, conn, data)

    @server.on_unknown_event
    async def unknown(conn: Conn, name: str, data: str) -> str:
        return await coroutine(conn, data)

    @server.on_disconnect
    async def disconnected(conn: Conn, end: Disconnect) -> None:
        ends.put_nowait(who.get())

    async with server.start(port=0):
        async with connect(server, path="/ws?ann") as ann, connect(server, path="/ws?bob") as bob:
            for name, client in [("ann", ann), ("bob", bob)] * 2:
                for event in ("coroutine", "function", "task", "thread", "anything"):
                    assert await client.emit_with_ack(event) == f"{name} in room of {name}"
        assert {await ends.get(), await ends.get()} == {"ann", "bob"}
    assert who.get() == "nobody"


async def test_what_a_handler_sets_the_next_handlers_of_its_connection_see_and_no_others() -> None:
    server = Server()

    @server.on("set")
    async def set_(conn: Conn, data: str) -> None:
        who.set(data)

    @server.on("set after a wait")
    async def set_later(conn: Conn, data: str) -> None:
        await asyncio.sleep(0)
        who.set(data)

    @server.on("get")
    async def get(conn: Conn, data: str) -> str:
        return who.get()

    async with connect(server) as ann, connect(server) as bob:
        await ann.emit_with_ack("set", "ann")
        assert await ann.emit_with_ack("get") == "ann"
        await ann.emit_with_ack("set after a wait", "eve")
        assert await ann.emit_with_ack("get") == "eve"
        assert await bob.emit_with_ack("get") == "nobody"


async def test_handlers_inherit_the_context_of_the_start() -> None:
    server = Server()

    @server.on("get")
    async def get(conn: Conn, data: str) -> str:
        return who.get()

    token = who.set("starter")
    try:
        await server.start(port=0)
    finally:
        who.reset(token)
    try:
        async with Client(server.url) as client:
            assert await client.emit_with_ack("get") == "starter"
    finally:
        await server.shutdown()


async def test_a_token_that_a_handler_kept_resets_its_variable_after_a_wait() -> None:
    server = Server()

    @server.on("swap")
    async def swap(conn: Conn, data: str) -> str:
        token = who.set("inside")
        await asyncio.sleep(0)
        inside = who.get()
        who.reset(token)
        return f"{inside}, then {who.get()}"

    async with connect(server) as client:
        assert await client.emit_with_ack("swap") == "inside, then nobody"


async def test_on_error_sees_what_the_connection_of_the_error_has_set() -> None:
    server = Server()
    seen: asyncio.Queue[str] = asyncio.Queue()

    @server.on("fail")
    async def fail(conn: Conn, data: str) -> None:
        who.set("ann")
        raise ValueError

    @server.on_error
    async def failed(conn: Conn | None, error: EtpError) -> None:
        seen.put_nowait(who.get())

    async with connect(server) as client:
        client.emit("fail")
        assert await seen.get() == "ann"


async def test_a_client_s_handlers_inherit_the_context_of_connect() -> None:
    server = Server()
    seen: asyncio.Queue[Any] = asyncio.Queue()
    async with server.start(port=0):
        client = Client(server.url)

        @client.on("say")
        async def say(data: str) -> str:
            await asyncio.sleep(0)
            return who.get()

        token = who.set("caller")
        await client.connect()
        who.reset(token)
        seen.put_nowait(await server.conns()[0].emit_with_ack("say"))
        await client.close()
    assert await seen.get() == "caller"
