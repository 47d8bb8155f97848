"""What this package has on each event loop: one wake-up, and the tasks that await handlers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

from . import _etp_ws

logger = logging.getLogger("etp_ws")

# Wakes loops through a pair of sockets that they receive from, as those without `add_reader` are woken; tests set it.
force_plain = False

_pumps: WeakKeyDictionary[asyncio.AbstractEventLoop, _etp_ws.Pump] = WeakKeyDictionary()
_last: tuple[asyncio.AbstractEventLoop, _etp_ws.Pump] | None = None
# What a fork's child must not drop.
_foreign: list[object] = []


def pump() -> _etp_ws.Pump:
    """The running loop's."""
    loop = asyncio.get_running_loop()
    last = _last
    if last is not None and last[0] is loop and not last[1].closed:
        return last[1]
    return _pump(loop)


def _pump(loop: asyncio.AbstractEventLoop) -> _etp_ws.Pump:
    found = _pumps.get(loop)
    if found is None or found.closed:
        found = _pumps[loop] = _make(loop)
    return found


def _make(loop: asyncio.AbstractEventLoop) -> _etp_ws.Pump:
    _etp_ws.set_log_level(_level())
    # Python 3.12 and later: a handler begins in the very turn that its event is seen in.
    eager = sys.version_info >= (3, 12)

    def create_task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if sys.version_info >= (3, 12) and loop.get_task_factory() is None:
            return asyncio.Task(work, loop=loop, name="etp_ws", eager_start=True)
        return loop.create_task(work, name="etp_ws")

    def make(plain: bool) -> _etp_ws.Pump:
        return _etp_ws.Pump(create_task, loop.create_future, loop.call_soon, eager, plain)

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
    # The loop holds tasks weakly; the pump's own end is this task's.
    task = loop.create_task(_listen(loop, sock, made.reader()), name="etp_ws wake-ups")
    _listeners[made] = task
    return made


_listeners: WeakKeyDictionary[_etp_ws.Pump, asyncio.Task[None]] = WeakKeyDictionary()


async def _listen(loop: asyncio.AbstractEventLoop, sock: socket.socket, reader: _etp_ws.Reader) -> None:
    with sock:
        while True:
            await loop.sock_recv(sock, 64)
            reader()


async def wait(waiting: _etp_ws.Waiting) -> Any:
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
    level = logging.WARNING if getattr(error, "code", "") in _STRANGERS else logging.ERROR
    cause = error.__cause__
    where = "" if conn is None else f" {conn!r}"
    logger.log(level, "%s%s", error, where, exc_info=cause if cause is not None else None)


def after_fork() -> None:
    """In a fork's child: the parent's loops and connections are not ours."""
    global _pumps, _listeners, _last
    _etp_ws.after_fork()
    _foreign.extend((_pumps, _listeners, _last))
    _pumps = WeakKeyDictionary()
    _listeners = WeakKeyDictionary()
    _last = None
