"""Cancelling the tasks of handlers: by others, by themselves, and by a shutdown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from etp_ws import AckTimeout, Conn, Server
from etp_ws.testing import connect
from failures import Failures

pytestmark = pytest.mark.anyio


async def test_shield_keeps_what_it_shields_when_the_handler_is_cancelled() -> None:
    server = Server()
    failures = Failures(server)
    started, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def precious() -> None:
        started.set()
        await go_on.wait()
        ended.set()

    @server.on("save")
    async def save(conn: Conn, data: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        inner = asyncio.ensure_future(precious())
        tasks.append(inner)
        await asyncio.shield(inner)

    async with connect(server) as client:
        client.emit("save")
        await started.wait()
        tasks[0].cancel()
        assert isinstance((await failures.next()).__cause__, asyncio.CancelledError)
        assert not tasks[1].done()
        go_on.set()
        await ended.wait()


async def test_a_handler_that_others_cancel_costs_its_own_reply_only() -> None:
    server = Server()
    failures = Failures(server)
    waiting: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
    go_on = asyncio.Event()

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> str:
        task = asyncio.current_task()
        assert task is not None
        waiting.put_nowait(task)
        await go_on.wait()
        return data

    async with connect(server) as client:
        first = asyncio.ensure_future(client.emit_with_ack("wait", "first", timeout=0.5))
        task = await waiting.get()
        second = asyncio.ensure_future(client.emit_with_ack("wait", "second"))
        await waiting.get()
        task.cancel("enough")
        assert isinstance((await failures.next()).__cause__, asyncio.CancelledError)
        assert task.cancelled()
        go_on.set()
        assert await second == "second"
        with pytest.raises(AckTimeout):
            await first


async def test_a_handler_that_catches_its_cancellation_still_replies() -> None:
    server = Server()
    waiting: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> str:
        task = asyncio.current_task()
        assert task is not None
        waiting.put_nowait(task)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            return f"cancelled: {cancelled.args}"
        return "never"

    async with connect(server) as client:
        reply = asyncio.ensure_future(client.emit_with_ack("wait"))
        (await waiting.get()).cancel("enough")
        assert await reply == "cancelled: ('enough',)"


async def test_a_handler_that_cancels_itself_and_waits_is_cancelled() -> None:
    server = Server()
    failures = Failures(server)

    @server.on("give up")
    async def give_up(conn: Conn, data: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with connect(server) as client:
        client.emit("give up")
        assert isinstance((await failures.next()).__cause__, asyncio.CancelledError)


async def test_a_handler_that_cancels_itself_without_waiting_leaves_the_next_event_alone() -> None:
    server = Server()

    @server.on("give up")
    async def give_up(conn: Conn, data: str) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "gave up"

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        return "waited"

    async with connect(server) as client:
        events = ["give up", "wait", "give up", "give up", "wait", "wait"]
        replies = await asyncio.gather(*(client.emit_with_ack(event, timeout=5.0) for event in events))
        assert replies == ["gave up" if event == "give up" else "waited" for event in events]


async def test_a_task_that_a_handler_left_behind_is_no_other_handler_s() -> None:
    server = Server()
    left: list[asyncio.Task[Any]] = []

    @server.on("leave")
    async def leave(conn: Conn, data: str) -> str:
        task = asyncio.current_task()
        assert task is not None
        left.append(task)
        return "left"

    @server.on("cancel")
    async def cancel(conn: Conn, data: str) -> str:
        assert asyncio.current_task() not in left
        for task in left:
            task.cancel()
        await asyncio.sleep(0)
        return "cancelled"

    async with connect(server) as client:
        events = ["leave", "cancel", "leave", "leave", "cancel"]
        replies = await asyncio.gather(*(client.emit_with_ack(event, timeout=5.0) for event in events))
        assert replies == ["left" if event == "leave" else "cancelled" for event in events]
    assert len(set(left)) == 3


async def test_a_shutdown_cancels_handlers_that_do_not_end() -> None:
    server = Server(shutdown_timeout=0.2)
    waiting = asyncio.Event()
    ends: list[str] = []

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            ends.append(str(cancelled))
            raise

    async with connect(server) as client:
        client.emit("wait")
        await waiting.wait()
        await server.shutdown()
    assert ends == ["the server shuts down"]
