"""What may be a handler, what it may return, and in which order handlers run."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncIterator, Awaitable, Generator
from typing import Any

import pytest
from etp_ws import Conn, EtpError, HandlerFailed, InvalidPayload, Server
from etp_ws.testing import connect

pytestmark = pytest.mark.anyio


class Answer:
    """An object that can be awaited."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return self.answer


class Table:
    """Has handlers as methods, and is one."""

    async def method(self, conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        return f"method {data}"

    async def __call__(self, conn: Conn, data: str) -> str:
        return f"object {data}"


async def any_(greeting: str, conn: Conn, data: str) -> str:
    return f"{greeting} {data}"


def future_of(data: str) -> asyncio.Future[str]:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, f"future {data}")
    return future


FORMS: dict[str, Any] = {
    "function": lambda conn, data: f"function {data}",
    "future": lambda conn, data: future_of(data),
    "task": lambda conn, data: asyncio.create_task(any_("task", conn, data)),
    "object with __await__": lambda conn, data: Answer(f"object with __await__ {data}"),
    "method": Table().method,
    "object": Table(),
    "partial": functools.partial(any_, "partial"),
    "gather": lambda conn, data: asyncio.ensure_future(Answer(f"gather {data}")),
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_handler_may_be_anything_that_is_called(form: str) -> None:
    server = Server()
    server.on("say", FORMS[form])
    async with connect(server) as client:
        assert await client.emit_with_ack("say", "hi") == f"{form} hi"


async def test_the_decorator_returns_the_function_itself() -> None:
    server = Server()

    def handler(conn: Conn, data: str) -> str:
        return data

    assert server.on("say")(handler) is handler
    assert server.on("say", handler) is handler
    for decorator in (server.on_upgrade, server.on_connect, server.on_error, server.middleware):
        assert decorator(handler) is handler  # type: ignore[type-var]


async def test_what_is_no_function_is_no_handler() -> None:
    with pytest.raises(TypeError, match="the handler of event 'say' is to be a function, not int"):
        Server().on("say", 3)  # type: ignore[call-overload]


async def test_what_an_awaitable_raises_goes_to_on_error() -> None:
    server = Server()
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    server.on_error(lambda conn, error: errors.put_nowait(error))

    def failed_future(conn: Conn, data: str) -> Awaitable[str]:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ValueError("in a future"))
        return future

    server.on("fail", failed_future)
    async with connect(server) as client:
        client.emit("fail")
        error = await errors.get()
        assert isinstance(error, HandlerFailed)
        assert repr(error.__cause__) == "ValueError('in a future')"


async def test_a_result_of_the_wrong_type_names_the_handler_and_where_it_stands() -> None:
    server = Server()
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    server.on_error(lambda conn, error: errors.put_nowait(error))

    @server.on("say")
    async def say(conn: Conn, data: str) -> Any:
        return 3

    async with connect(server) as client:
        asking = asyncio.ensure_future(client.emit_with_ack("say"))
        error = await errors.get()
        assert isinstance(error, InvalidPayload)
        assert "say" in str(error)
        assert f"{__file__}:{say.__code__.co_firstlineno}" in str(error)
        assert "int" in str(error)
        asking.cancel()


async def test_handlers_start_in_the_order_of_arrival_and_run_at_once() -> None:
    server = Server()
    started: list[str] = []
    ended: list[str] = []
    last = asyncio.Event()

    @server.on("coroutine")
    async def coroutine(conn: Conn, data: str) -> None:
        started.append(data)
        if data == "99":
            last.set()
        await last.wait()
        ended.append(data)

    @server.on("function")
    def function(conn: Conn, data: str) -> None:
        started.append(data)
        ended.append(data)

    async with connect(server) as client:
        events = [("function" if number % 3 == 0 else "coroutine", str(number)) for number in range(99)]
        events.append(("coroutine", "99"))
        await asyncio.gather(*(client.emit_with_ack(event, data) for event, data in events))
    assert started == [data for _, data in events]
    assert sorted(ended) == sorted(started)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_burst_of_thousands_of_events_in_one_turn_is_handled_whole_and_in_order(waits: bool) -> None:
    server = Server(max_inflight=10_000)
    seen: list[int] = []
    done = asyncio.Event()
    many = 5_000

    @server.on("count")
    async def count(conn: Conn, data: str) -> None:
        seen.append(int(data))
        if waits and int(data) % 2:
            await asyncio.sleep(0)
        if len(seen) == many:
            done.set()

    async with connect(server) as client:
        for number in range(many):
            client.emit("count", str(number))
        await done.wait()
    assert seen == list(range(many))


async def test_a_burst_leaves_turns_to_other_callbacks_of_the_loop() -> None:
    server = Server(max_inflight=10_000)
    seen = 0
    at_turns: set[int] = set()
    done = asyncio.Event()

    @server.on("count")
    def count(conn: Conn, data: str) -> None:
        nonlocal seen
        seen += 1
        if seen == 5_000:
            done.set()

    async with connect(server) as client:
        for _ in range(5_000):
            client.emit("count")
        while not done.is_set():
            at_turns.add(seen)
            await asyncio.sleep(0)
    between = sorted(at_turns | {5_000})
    assert max(after - before for before, after in zip(between, between[1:], strict=False)) <= 1024


async def test_async_generators_of_handlers_are_closed() -> None:
    server = Server()
    closed: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    @server.on("first")
    async def first(conn: Conn, data: str) -> str:
        async for number in numbers():
            return str(number)
        return "none"

    async with connect(server) as client:
        assert await client.emit_with_ack("first") == "0"
        gc.collect()
        while not closed:
            await asyncio.sleep(0)


async def test_a_second_handler_replaces_the_first_and_off_takes_it_away() -> None:
    server = Server()
    server.on_unknown_event(lambda conn, name, data: f"no {name}")
    async with connect(server) as client:
        assert await client.emit_with_ack("say") == "no say"
        server.on("say", lambda conn, data: "first")
        assert await client.emit_with_ack("say") == "first"
        server.on("say", lambda conn, data: "second")
        assert await client.emit_with_ack("say") == "second"
        server.off("say")
        server.off("never there")
        assert await client.emit_with_ack("say") == "no say"


async def test_middleware_wraps_every_event_the_first_added_outermost() -> None:
    server = Server()
    calls: list[str] = []

    @server.middleware
    async def outer(conn: Conn, name: str, data: str, call_next: Any) -> Any:
        calls.append(f"outer {name}")
        return f"<{await call_next(conn, name, data)}>"

    server.on("say", lambda conn, data: data)

    @server.middleware
    async def inner(conn: Conn, name: str, data: str, call_next: Any) -> Any:
        calls.append(f"inner {name}")
        return f"[{await call_next(conn, name, data.upper())}]"

    @server.on_unknown_event
    async def unknown(conn: Conn, name: str, data: str) -> str:
        return f"no {name} {data}"

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        return data

    async with connect(server) as client:
        assert await client.emit_with_ack("say", "hi") == "<[HI]>"
        assert await client.emit_with_ack("wait", "hi") == "<[HI]>"
        assert await client.emit_with_ack("nothing", "hi") == "<[no nothing HI]>"
    assert calls == [f"{which} {event}" for event in ("say", "wait", "nothing") for which in ("outer", "inner")]


async def test_middleware_that_does_not_call_on_replies_in_the_handler_s_place() -> None:
    server = Server()
    server.on("say", lambda conn, data: "never")

    @server.middleware
    async def guard(conn: Conn, name: str, data: str, call_next: Any) -> Any:
        return "guarded" if data == "secret" else await call_next(conn, name, data)

    async with connect(server) as client:
        assert await client.emit_with_ack("say", "secret") == "guarded"
        assert await client.emit_with_ack("say", "else") == "never"
