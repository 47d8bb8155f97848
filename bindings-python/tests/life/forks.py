"""Forks before anything has begun, and in the midst of work: a child that uses what is its parent's is told so."""

import asyncio
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

from etp_ws import Client, Conn, EtpError, Server

how = sys.argv[1]


async def serve_once(server: Server[str, str]) -> None:
    server.on("echo", lambda conn, data: data)
    async with server.start("127.0.0.1", 0), Client(server.url) as client:
        assert await client.emit_with_ack("echo", "hi") == "hi"


def serve_new() -> None:
    asyncio.run(serve_once(Server()))


def in_child(work: Callable[[], None]) -> int:
    """Forks; the child does its work and ends as a program does."""
    pid = os.fork()
    if pid == 0:
        work()
        sys.exit(0)
    return pid


def reap(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status


def before() -> None:
    """Made, but not begun: it works in the child, and in the parent."""
    server = Server()
    server.on("told", lambda conn, data: data)
    pids = [in_child(lambda: asyncio.run(serve_once(server))) for _ in range(2)]
    asyncio.run(serve_once(server))
    for pid in pids:
        reap(pid)
    process = multiprocessing.get_context("fork").Process(target=serve_new)
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode


def refused(work: Callable[[], Any], parent: int) -> None:
    try:
        result = work()
        if asyncio.iscoroutine(result):
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(result)
            finally:
                loop.close()
    except EtpError as error:
        text = str(error)
        assert error.code == "invalid_state", error.code
        assert str(parent) in text and str(os.getpid()) in text, text
        assert "in the child" in text and "spawn" in text, text
    else:
        raise AssertionError("it was let pass")


def use_everything(server: Server[str, str], client: Client[str, str], conn: Conn, parent: int) -> None:
    broadcasts = server.to, conn.to
    uses: list[Callable[[], Any]] = [
        lambda: server.emit("x"),
        lambda: server.to("room"),
        lambda: server.conns(),
        lambda: server.members("room"),
        lambda: server.member_count("room"),
        lambda: server.clear_room("room"),
        lambda: server.rooms(),
        lambda: server.stats(),
        lambda: server.conn("0" * 32),
        lambda: server.start("127.0.0.1", 0)._start(),
        lambda: server.shutdown(),
        lambda: conn.emit("x"),
        lambda: conn.emit_with_ack("x"),
        lambda: conn.ping(),
        lambda: conn.drain(),
        lambda: conn.closed(),
        lambda: conn.close(),
        lambda: conn.join("room"),
        lambda: conn.leave("room"),
        lambda: conn.rooms(),
        lambda: conn.to("room"),
        lambda: conn.id,
        lambda: conn.is_open,
        lambda: conn.request,
        lambda: client.emit("x"),
        lambda: client.emit_with_ack("x"),
        lambda: client.ping(),
        lambda: client.drain(),
        lambda: client.close(),
        lambda: client.connect(),
        lambda: client.stats(),
        lambda: client.state,
        lambda: client.conn,
        lambda: client.wait_closed(),
    ]
    for use in uses:
        refused(use, parent)
    # These are asked by debuggers and dictionaries: they say something, and do not hang.
    assert repr(server) and repr(conn) and conn == conn and hash(conn) == hash(conn) and broadcasts


def after() -> None:
    """From a plain function, while the loop of the parent stands still; the parent goes on serving."""
    parent = os.getpid()
    server = Server()
    found: asyncio.Queue[Conn] = asyncio.Queue()
    server.on_connect(found.put_nowait)
    server.on("echo", lambda conn, data: data)
    loop = asyncio.new_event_loop()
    client: Client[str, str]

    async def begin() -> tuple[Client[str, str], Conn]:
        await server.start("127.0.0.1", 0)
        return await Client(server.url).connect(), await found.get()

    client, conn = loop.run_until_complete(begin())

    def child() -> None:
        use_everything(server, client, conn, parent)
        serve_new()  # a new one works
        # The grandchild as well, and it is told of its parent's.
        reap(in_child(serve_new))
        gc.collect()

    for _ in range(3):
        pid = in_child(child)
        assert loop.run_until_complete(client.emit_with_ack("echo", "hi")) == "hi"
        reap(pid)
    processes = [multiprocessing.get_context("fork").Process(target=child) for _ in range(2)]
    for process in processes:
        process.start()
    assert loop.run_until_complete(client.emit_with_ack("echo", "hi")) == "hi"
    for process in processes:
        process.join()
        assert process.exitcode == 0, process.exitcode
    # What the children dropped was theirs alone.
    assert conn.is_open and loop.run_until_complete(client.ping()) >= 0
    loop.run_until_complete(client.close())
    loop.run_until_complete(server.shutdown())
    loop.close()


def within() -> None:
    """From a handler, in the midst of work and of logging, as `subprocess` and `multiprocessing` do it."""
    import logging

    logging.getLogger("etp_ws").setLevel(5)
    logging.getLogger("etp_ws").addHandler(logging.NullHandler())
    logging.getLogger("etp_ws").propagate = False
    parent = os.getpid()
    server = Server(wire_log=True)
    statuses: list[int] = []

    @server.on("fork")
    async def fork(conn: Conn, data: str) -> str:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                refused(lambda: conn.emit("x"), parent)
                asyncio._set_running_loop(None)
                if data == "new":
                    serve_new()
                status = 0
            finally:
                os._exit(status)
        statuses.append(os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]))
        return "forked"

    server.on("noise", lambda conn, data: data)

    async def noise(client: Client[str, str]) -> None:
        while True:
            await client.emit_with_ack("noise", "x" * 100)

    async def main() -> None:
        async with server.start("127.0.0.1", 0), Client(server.url) as client:
            makers = [asyncio.ensure_future(noise(client)) for _ in range(8)]
            for turn in range(20):
                assert await client.emit_with_ack("fork", "new" if turn % 2 else "", timeout=60.0) == "forked"
            for maker in makers:
                maker.cancel()
            await asyncio.gather(*makers, return_exceptions=True)

    asyncio.run(main())
    assert statuses == [0] * 20, statuses


def unwound() -> None:
    """From a handler that has emitted; the child ends by an exception, and does not write what the parent is to write."""
    parent = os.getpid()
    server = Server()
    heard: list[str] = []
    pids: list[int] = []

    @server.on("fork")
    async def fork(conn: Conn, data: str) -> str:
        conn.emit("hello", data)
        pid = os.fork()
        if pid == 0:
            # asyncio tells of the exception as it likes (3.13: a task that nobody asked); what counts is what is sent.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.exit(0)
        pids.append(pid)
        reap(pid)
        return "forked"

    async def main() -> None:
        async with server.start("127.0.0.1", 0), Client(server.url) as client:
            client.on("hello", heard.append)
            for turn in range(5):
                assert await client.emit_with_ack("fork", str(turn)) == "forked"

    try:
        asyncio.run(main())
    finally:
        if os.getpid() != parent:
            # What `asyncio.run` waits for in a child is the parent's to end.
            os._exit(0)
    assert heard == ["0", "1", "2", "3", "4"], heard
    assert len(pids) == 5


{"before": before, "after": after, "within": within, "unwound": unwound}[how]()
print("END")
