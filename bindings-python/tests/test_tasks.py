"""Handlers are tasks of the event loop: what asyncio and anyio do with tasks, they do with handlers."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import pytest
from etp_ws import Conn, Server
from etp_ws.testing import connect
from failures import Failures

pytestmark = pytest.mark.anyio


async def test_a_handler_s_task_is_the_same_before_and_after_it_waits() -> None:
    server = Server()

    @server.on("who")
    async def who(conn: Conn, data: str) -> str:
        before = asyncio.current_task()
        await asyncio.sleep(0)
        after = asyncio.current_task()
        assert type(before) is asyncio.Task
        assert before in asyncio.all_tasks()
        assert not before.done()
        return str(before is after)

    async with connect(server) as client:
        assert await client.emit_with_ack("who") == "True"


async def test_a_handler_that_waits_has_a_task_named_after_its_event() -> None:
    server = Server()

    @server.on("say")
    async def say(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    async with connect(server) as client:
        assert "say" in await client.emit_with_ack("say")


async def test_handlers_that_wait_have_a_task_each() -> None:
    server = Server()
    tasks: list[object] = []
    all_here = asyncio.Event()

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> None:
        tasks.append(asyncio.current_task())
        if len(tasks) == 50:
            all_here.set()
        await all_here.wait()

    async with connect(server) as client:
        await asyncio.gather(*(client.emit_with_ack("wait") for _ in range(50)))
    assert len(set(tasks)) == 50


async def test_asyncio_timeout_ends_a_wait_inside_a_handler() -> None:
    server = Server()

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> str:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            return f"timed out, cancelling {task.cancelling()}"
        return "never"

    async with connect(server) as client:
        assert await client.emit_with_ack("wait") == "timed out, cancelling 0"


async def test_wait_for_ends_a_wait_and_cancels_what_it_waited_for() -> None:
    server = Server()
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> str:
        try:
            await asyncio.wait_for(forever(), 0.001)
        except TimeoutError:
            return str(cancelled.is_set())
        return "never"

    async with connect(server) as client:
        assert await client.emit_with_ack("wait") == "True"


async def test_a_task_group_inside_a_handler_runs_its_tasks_and_raises_what_they_raise() -> None:
    server = Server()

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    @server.on("sum")
    async def add(conn: Conn, data: str) -> str:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(double(number)) for number in range(10)]
        return str(sum(task.result() for task in tasks))

    @server.on("fail")
    async def group_fails(conn: Conn, data: str) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.Event().wait()
        except* ValueError as raised:
            conn.data["raised"] = repr(raised.exceptions[0])
        return str(conn.data["raised"])

    async with connect(server) as client:
        assert await client.emit_with_ack("sum") == "90"
        assert await client.emit_with_ack("fail") == "ValueError('no')"


async def test_anyio_cancel_scopes_and_task_groups_work_inside_a_handler() -> None:
    server = Server()

    @server.on("scope")
    async def scope(conn: Conn, data: str) -> str:
        with anyio.move_on_after(0.001) as timed:
            await anyio.sleep_forever()
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.001):
                await anyio.sleep_forever()
        done: list[int] = []

        async def child(number: int) -> None:
            await anyio.sleep(0)
            done.append(number)
            if number == 2:
                group.cancel_scope.cancel()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(child, number)
        in_thread = await anyio.to_thread.run_sync(lambda: "thread")
        return f"{timed.cancelled_caught} {sorted(done)} {group.cancel_scope.cancelled_caught} {in_thread}"

    async with connect(server) as client:
        for _ in range(3):
            assert await client.emit_with_ack("scope") == "True [0, 1, 2] True thread"


async def test_the_loop_s_exception_handler_hears_nothing_of_handlers_that_fail() -> None:
    server = Server()
    failures = Failures(server)
    heard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: heard.append(context))
    try:

        @server.on("raise")
        async def raises(conn: Conn, data: str) -> None:
            raise ValueError("at once")

        @server.on("raise later")
        async def raises_later(conn: Conn, data: str) -> None:
            await asyncio.sleep(0)
            raise ValueError("later")

        @server.on("raise plainly")
        def raises_plainly(conn: Conn, data: str) -> None:
            raise ValueError("plainly")

        async with connect(server) as client:
            for event in ("raise", "raise later", "raise plainly"):
                client.emit(event)
            causes = {str((await failures.next()).__cause__) for _ in range(3)}
        assert causes == {"at once", "later", "plainly"}
    finally:
        loop.set_exception_handler(before)
    assert heard == []


async def test_debug_mode_of_the_loop_changes_nothing() -> None:
    server = Server()

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        return data

    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    try:
        async with connect(server) as client:
            replies = await asyncio.gather(*(client.emit_with_ack("wait", str(number)) for number in range(20)))
            assert replies == [str(number) for number in range(20)]
    finally:
        loop.set_debug(False)


async def test_a_task_factory_of_the_loop_makes_the_tasks_of_handlers() -> None:
    server = Server()
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[Any]] = []

    class OwnTask(asyncio.Task[Any]):
        pass

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        task = OwnTask(work, loop=loop, **options)
        made.append(task)
        return task

    @server.on("who")
    async def who(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        return type(asyncio.current_task()).__name__

    async with connect(server) as client:
        loop.set_task_factory(factory)
        try:
            assert await client.emit_with_ack("who") == "OwnTask"
        finally:
            loop.set_task_factory(None)
        assert made
        assert await client.emit_with_ack("who") == "Task"


if sys.version_info >= (3, 12):

    async def test_the_eager_task_factory_makes_the_tasks_of_handlers() -> None:
        server = Server()
        loop = asyncio.get_running_loop()

        @server.on("add")
        async def add(conn: Conn, data: str) -> str:
            waited = await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
            return f"{data}: {sum(waited)}"

        # uvloop hands the factory an argument that it does not take.
        if type(loop).__module__.startswith("uvloop"):
            factory = asyncio.create_eager_task_factory(lambda work, **options: asyncio.Task(work, **options))
            loop.set_task_factory(lambda loop, work, *, eager_start=None, **options: factory(loop, work, **options))
        else:
            loop.set_task_factory(asyncio.eager_task_factory)
        try:
            async with connect(server) as client:
                replies = await asyncio.gather(*(client.emit_with_ack("add", str(number)) for number in range(30)))
                assert replies == [f"{number}: 3" for number in range(30)]
        finally:
            loop.set_task_factory(None)
