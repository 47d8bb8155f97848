"""What fails costs its own reply only, and whoever looks for the cause finds the line."""

from __future__ import annotations

import asyncio
import linecache
import logging
from typing import Any

import pytest
from etp_ws import AckTimeout, Client, Conn, EtpError, HandlerFailed, InvalidPayload, Server

pytestmark = pytest.mark.anyio

Errors = asyncio.Queue[tuple[Conn | None, EtpError]]


def raises(conn: Conn, data: Any) -> Any:
    raise LookupError("no such thing")  # this very line


async def raises_at_once(conn: Conn, data: Any) -> Any:
    raise LookupError("no such thing")  # this very line


async def raises_later(conn: Conn, data: Any) -> Any:
    await asyncio.sleep(0)
    raise LookupError("no such thing")  # this very line


async def raises_below(conn: Conn, data: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(raises_later(conn, data))


def last_line(error: BaseException) -> str:
    """The line that a traceback ends with."""
    traceback = error.__traceback__
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return linecache.getline(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)


def make(codec: Any = "json") -> tuple[Server[Any, Any], Errors]:
    server: Server[Any, Any] = Server(codec)
    errors: Errors = asyncio.Queue()
    server.on_error(lambda conn, error: errors.put_nowait((conn, error)))
    server.on("echo", lambda conn, data: data)
    return server, errors


async def refused(client: Client[Any, Any], name: str, errors: Errors) -> EtpError:
    """Emits an event that gets no reply; everything else on the connection goes on. Answers what `on_error` got."""
    asked = asyncio.ensure_future(client.emit_with_ack(name, 1, timeout=60.0))
    conn, error = await errors.get()
    assert conn is not None
    # What comes behind it is answered, so it would have been.
    assert await client.emit_with_ack("echo", "still here") == "still here"
    assert not asked.done()
    asked.cancel()
    assert errors.empty()
    return error


@pytest.mark.parametrize("handler", [raises, raises_at_once, raises_later])
async def test_a_handler_that_raises_sends_no_reply_and_on_error_gets_its_exception(handler: Any) -> None:
    server, errors = make()
    server.on("bad", handler)
    async with server.start("127.0.0.1", 0), Client(server.url, "json") as client:
        error = await refused(client, "bad", errors)
        assert type(error) is HandlerFailed and error.code == "handler_failed"
        assert isinstance(error.__cause__, LookupError)
        assert "this very line" in last_line(error.__cause__)
        assert '"bad"' in str(error) and "LookupError: no such thing" in str(error)


async def test_a_group_of_exceptions_is_the_cause_as_it_was_raised() -> None:
    server, errors = make()
    server.on("bad", raises_below)
    async with server.start("127.0.0.1", 0), Client(server.url, "json") as client:
        cause = (await refused(client, "bad", errors)).__cause__
        assert isinstance(cause, ExceptionGroup)
        assert "this very line" in last_line(cause.exceptions[0])


@pytest.mark.parametrize("handler", [raises, raises_at_once, raises_later])
async def test_without_on_error_the_log_has_the_traceback(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    server: Server[Any, Any] = Server("json")
    server.on("bad", handler)
    server.on("echo", lambda conn, data: data)
    with caplog.at_level(logging.ERROR, "etp_ws"):
        async with server.start("127.0.0.1", 0), Client(server.url, "json") as client:
            client.emit("bad")
            while not caplog.records:
                assert await client.emit_with_ack("echo", 1) == 1
    [record] = caplog.records
    assert record.name == "etp_ws" and record.levelno == logging.ERROR
    assert record.exc_info is not None and isinstance(record.exc_info[1], LookupError)
    assert "this very line" in last_line(record.exc_info[1])
    assert "this very line" in caplog.text


@pytest.mark.parametrize(
    ("codec", "value", "says"),
    [
        ("text", 1, "str"),
        ("bytes", "text", "bytes"),
        ("json", {1, 2}, "set"),
        ("json", float("nan"), "JSON"),
        ("json", "\ud800", "surrogate"),
        ("text", "\ud800", "surrogate"),
        ((lambda value: value, bytes), 1, "str or bytes"),
    ],
)
async def test_a_handler_that_returns_a_wrong_type_sends_no_reply(codec: Any, value: Any, says: str) -> None:
    server, errors = make(codec)
    server.on("bad", lambda conn, data: value)
    async with server.start("127.0.0.1", 0), Client(server.url, "bytes") as client:
        asked = asyncio.ensure_future(client.emit_with_ack("bad", b"1", timeout=60.0))
        _, error = await errors.get()
        assert type(error) is InvalidPayload, error
        assert says in f"{error} {error.__cause__}"
        # It names the function, and where that is.
        assert '"bad"' in str(error) and f"{__file__}:" in str(error)
        assert await client.emit_with_ack("echo", b'"1"') == b'"1"'
        assert not asked.done()
        asked.cancel()


async def test_a_handler_that_is_cancelled_sends_no_reply() -> None:
    server, errors = make()
    tasks: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()

    @server.on("bad")
    async def bad(conn: Conn, data: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.put_nowait(task)
        await asyncio.Event().wait()  # this very line

    async with server.start("127.0.0.1", 0), Client(server.url, "json") as client:
        asked = asyncio.ensure_future(client.emit_with_ack("bad", 1, timeout=60.0))
        other = asyncio.ensure_future(client.emit_with_ack("bad", 1, timeout=60.0))
        task = await tasks.get()
        survivor = await tasks.get()
        task.cancel("the application's")
        _, error = await errors.get()
        assert type(error) is HandlerFailed and isinstance(error.__cause__, asyncio.CancelledError)
        assert await client.emit_with_ack("echo", "still here") == "still here"
        assert task.cancelled() and not survivor.done()
        assert not asked.done() and not other.done()
        for one in (asked, other, survivor):
            one.cancel()


async def test_a_task_that_is_cancelled_before_its_first_step_costs_no_event() -> None:
    """As those are that an application cancels all at once."""
    loop = asyncio.get_running_loop()
    cancelled = []

    def factory(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **options)
        if work.__qualname__ == "work" and len(cancelled) < 3:
            cancelled.append(task)
            task.cancel()
        return task

    server, errors = make()
    async with server.start("127.0.0.1", 0), Client(server.url, "json") as client:
        loop.set_task_factory(factory)
        try:
            assert await client.emit_with_ack("echo", "still here") == "still here"
            assert await asyncio.gather(*(client.emit_with_ack("echo", n) for n in range(100))) == list(range(100))
        finally:
            loop.set_task_factory(None)
    assert len(cancelled) == 3 and errors.empty()


@pytest.mark.parametrize(
    ("codec", "payload"), [("text", b"\xff"), ("json", b"{"), ("json", b"NaN"), ((str, lambda data: 1 // 0), b"1")]
)
async def test_a_payload_that_does_not_decode_reaches_no_handler_and_gets_no_reply(codec: Any, payload: bytes) -> None:
    server, errors = make(codec)
    seen = []
    server.on("bad", lambda conn, data: seen.append(data))
    server.on("good", lambda conn, data: "ok")
    async with server.start("127.0.0.1", 0), Client(server.url, "bytes") as client:
        asked = asyncio.ensure_future(client.emit_with_ack("bad", payload, timeout=60.0))
        conn, error = await errors.get()
        assert conn is not None and type(error) is InvalidPayload and error.code == "invalid_payload"
        assert '"bad"' in str(error)
        assert await client.emit_with_ack("good", b"") is not None
        assert not asked.done() and not seen
        asked.cancel()


async def test_a_reply_that_does_not_decode_is_the_caller_s() -> None:
    server, errors = make("text")
    async with server.start("127.0.0.1", 0), Client(server.url, "json") as client:
        # `json` sends the text of a string in quotes; what comes back is taken out of them.
        assert await client.emit_with_ack("echo", "fine") == "fine"
        server.on("bad", lambda conn, data: "no JSON")
        with pytest.raises(InvalidPayload):
            await client.emit_with_ack("bad")
        with pytest.raises(AckTimeout):
            server.on("late", lambda conn, data: conn.closed())
            await client.emit_with_ack("late", timeout=0.01)
    assert errors.empty()
