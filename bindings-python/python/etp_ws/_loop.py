"""What this package has on each event loop: one wake-up, and the tasks that await handlers."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, finalize

from . import _etp_ws

logger = logging.getLogger("etp_ws")

T = TypeVar("T")

# Wakes loops through a pair of sockets that they receive from, as those without `add_reader` are woken; tests set it.
force_plain = False

_pumps: WeakKeyDictionary[asyncio.AbstractEventLoop, _etp_ws.Pump] = WeakKeyDictionary()
# What a fork's child must not drop.
_foreign: list[object] = []


def pump() -> _etp_ws.Pump:
    """The running loop's."""
    loop = asyncio.get_running_loop()
    found = _pumps.get(loop)
    if found is None or found.closed:
        found = _pumps[loop] = _make(loop)
    return found


def _make(loop: asyncio.AbstractEventLoop) -> _etp_ws.Pump:
    _etp_ws.set_log_level(_level())
    # Python 3.12 and later: a handler begins in the very turn that its event is seen in.
    eager = sys.version_info >= (3, 12)

    def create_task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return loop.create_task(work, name="etp_ws")

    make_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = create_task
    if sys.version_info >= (3, 12):
        make_task = functools.partial(asyncio.Task, loop=loop, name="etp_ws", eager_start=True)
    elif _makes_plain_tasks(loop):
        # What its `create_task` comes to, with less in between.
        make_task = functools.partial(asyncio.Task, loop=loop, name="etp_ws")

    def make(plain: bool) -> _etp_ws.Pump:
        return _etp_ws.Pump(
            make_task, create_task, loop.get_task_factory, loop.create_future, loop.call_soon, eager, plain
        )

    if not force_plain:
        made = make(False)
        try:
            loop.add_reader(made.fd, made.reader())
        except NotImplementedError:
            made.close()
        else:
            return made
    made = make(True)
    sock = socket.socket(fileno=os.dup(made.fd))
    sock.setblocking(False)
    finalize(made, sock.close)
    end = _end(made)
    with suppress(StopIteration):
        anext(end).send(None)
    _begin_to_listen(loop, sock, made.reader(), end)
    return made


def _makes_plain_tasks(loop: asyncio.AbstractEventLoop) -> bool:
    create = getattr(type(loop), "create_task", None)
    return create is asyncio.BaseEventLoop.create_task or type(loop).__module__.partition(".")[0] == "uvloop"


async def _end(pump: _etp_ws.Pump) -> AsyncGenerator[None, None]:
    """Ended by the loop at its own end, after all tasks."""
    try:
        yield
    finally:
        pump.close()


def _begin_to_listen(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, reader: _etp_ws.Reader, end: AsyncGenerator[None, None]
) -> None:
    # Held by the loop alone, through what the task waits for: where that is closed without more ado the task goes too,
    # and the reader and the pump with it. Nobody misses it then.
    task = loop.create_task(_listen(loop, sock, reader, end), name="etp_ws wake-ups")
    task._log_destroy_pending = False  # type: ignore[attr-defined]


async def _listen(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, reader: _etp_ws.Reader, end: AsyncGenerator[None, None]
) -> None:
    try:
        while True:
            # First, for what a task before this one may have received when it was cancelled.
            reader()
            await loop.sock_recv(sock, 64)
    except asyncio.CancelledError:
        # `asyncio.run` cancels all tasks at its end, and then awaits them: what they await in turn comes through here.
        _begin_to_listen(loop, sock, reader, end)


async def wait(waiting: _etp_ws.Waiting[T]) -> T:
    """Awaits an outcome of the core's; cancelled, it gives it up."""
    try:
        return await waiting.future
    except asyncio.CancelledError:
        waiting.give_up()
        raise


async def work(runner: _etp_ws.Runner) -> None:
    """The coroutine of a task that awaits handlers."""
    await runner


def _level() -> int:
    level = min(logger.getEffectiveLevel(), logging.getLogger("etp_ws.wire").getEffectiveLevel())
    return max(0, min(level, 255))


def drain_logs() -> None:
    """Hands the core's records to `logging`."""
    records, dropped = _etp_ws.take_logs()
    for level, name, text in records:
        logging.getLogger(name).log(level, "%s", text)
    if dropped:
        logger.warning("%d log records were dropped: the event loop was busy", dropped)
    _etp_ws.set_log_level(_level())


# What strangers can cause is no error of this program.
_STRANGERS = frozenset({"handshake_failed", "connect_failed", "malformed_frame"})


def log_error(conn: object | None, error: Exception) -> None:
    """What becomes of errors when there is no `on_error`."""
    cause = error.__cause__
    level = logging.WARNING if cause is None and getattr(error, "code", "") in _STRANGERS else logging.ERROR
    where = "" if conn is None else f" {conn!r}"
    logger.log(level, "%s%s", error, where, exc_info=cause if cause is not None else None)


def after_fork() -> None:
    """In a fork's child: the parent's loops and connections are not ours."""
    global _pumps
    _etp_ws.after_fork()
    _foreign.append(_pumps)
    _pumps = WeakKeyDictionary()
