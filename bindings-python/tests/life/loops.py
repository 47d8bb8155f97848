"""Event loops that come and go under one server, several at once, and connections used from another loop's thread."""

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import etp_ws._loop
import uvloop
from etp_ws import Client, Conn, EtpError, InvalidState, Server, _etp_ws
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

how, kind = sys.argv[1:]
new_loop: Callable[[], asyncio.AbstractEventLoop] = (
    uvloop.new_event_loop if kind == "uvloop" else asyncio.new_event_loop
)
etp_ws._loop.force_plain = kind == "plain"


def run(main: Any) -> Any:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


server = Server(shutdown_timeout=5.0)
connects = disconnects = 0


@server.on_connect
def connected(conn: Conn) -> None:
    global connects
    connects += 1


@server.on_disconnect
def disconnected(conn: Conn, disconnect: object) -> None:
    global disconnects
    disconnects += 1


@server.on("echo")
async def echo(conn: Conn, data: str) -> str:
    await asyncio.sleep(0)
    return data


def serve_and_leave(by_hand: bool) -> None:
    """The loop is closed under the server; its peer learns of the end."""

    stack = contextlib.ExitStack()

    async def begin() -> Any:
        await server.start("127.0.0.1", 0)
        peer = connect(server.url, ping_interval=None, proxy=None)
        ws = await asyncio.to_thread(stack.enter_context, peer)
        ws.send("echo||1||hi")
        assert str(await asyncio.to_thread(ws.recv)).endswith("||hi")
        return ws

    if by_hand:
        loop = new_loop()
        asyncio.set_event_loop(loop)
        ws = loop.run_until_complete(begin())
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        asyncio.set_event_loop(None)
        if kind == "plain":
            gc.collect()  # what such a loop waits for knows itself
    else:
        ws = run(begin())
    with stack:
        try:
            ws.recv()
        except ConnectionClosedOK as end:
            assert end.rcvd is not None and (end.rcvd.code, end.rcvd.reason) == (1000, "server shutdown"), end
        else:
            raise AssertionError("something came")


def again() -> None:
    for _ in range(3):
        serve_and_leave(by_hand=False)
    serve_and_leave(by_hand=True)

    async def graceful() -> None:
        async with server.start("127.0.0.1", 0), Client(server.url) as client:
            assert await client.emit_with_ack("echo", "hi") == "hi"

    run(graceful())
    gc.collect()
    assert connects == 5, connects
    assert _etp_ws.live() == (0, 0), _etp_ws.live()


def several() -> None:
    """Four threads with a loop and two servers each, and a client of every server in every thread."""
    urls: list[str] = []
    failures: list[BaseException] = []
    begun, done = threading.Barrier(5), threading.Barrier(4)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        threads = set()
        mine = [Server(), Server()]
        for one in mine:

            @one.on("where")
            async def where(conn: Conn, data: str) -> str:
                await asyncio.sleep(0)
                threads.add(threading.get_ident())
                assert asyncio.get_running_loop() is loop
                return data + data

            await one.start("127.0.0.1", 0)
            urls.append(one.url)
        await asyncio.to_thread(begun.wait)
        for url in urls:
            async with Client(url) as client:
                replies = await asyncio.gather(*(client.emit_with_ack("where", str(n)) for n in range(50)))
                assert replies == [str(n) * 2 for n in range(50)]
        await asyncio.to_thread(done.wait)
        assert threads == {threading.get_ident()}
        for one in mine:
            await one.shutdown()

    def thread() -> None:
        try:
            run(work())
        except BaseException as error:
            failures.append(error)
            begun.abort()
            done.abort()

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for one in threads:
        one.start()
    begun.wait()
    for one in threads:
        one.join()
    if failures:
        raise failures[0]
    gc.collect()
    assert _etp_ws.live() == (0, 0), _etp_ws.live()


def elsewhere() -> None:
    """A connection of this loop, used from the loop of another thread."""
    found: asyncio.Queue[Any] = asyncio.Queue()

    async def other(conn: Conn) -> list[Any]:
        replies = await asyncio.gather(*(conn.emit_with_ack("ask", str(n), timeout=30.0) for n in range(100)))
        assert await conn.ping() >= 0
        await conn.drain()
        try:
            await server.start("127.0.0.1", 0)
        except InvalidState as error:
            assert isinstance(error, EtpError)
        else:
            raise AssertionError("a server listens twice")
        conn.close(4000, "from afar")
        await conn.closed()
        return replies

    async def main() -> None:
        server.on_connect(found.put_nowait)
        async with server.start("127.0.0.1", 0):
            client = Client(server.url, reconnect=False)
            client.on("ask", lambda data: data + data)
            ends: asyncio.Queue[Any] = asyncio.Queue()
            client.on_disconnect(ends.put_nowait)
            await client.connect()
            replies = await asyncio.to_thread(run, other(await found.get()))
            assert replies == [str(n) * 2 for n in range(100)]
            end = await ends.get()
            assert (end.code, end.reason) == (4000, "from afar")

    run(main())


def behind() -> None:
    """A task behind the main one ends gracefully when all tasks are cancelled at the end of `run`."""
    ended = []

    async def serve(begun: asyncio.Event) -> None:
        try:
            async with server.start("127.0.0.1", 0), Client(server.url) as client:
                client.emit("echo")
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(await client.emit_with_ack("echo", "to the last"))
        finally:
            ended.append(str(connects - disconnects))

    async def main() -> None:
        begun = asyncio.Event()
        tasks.append(asyncio.ensure_future(serve(begun)))
        await begun.wait()

    tasks: list[Any] = []
    run(main())
    assert ended == ["to the last", "0"], (ended, tasks)
    tasks.clear()
    gc.collect()
    assert _etp_ws.live() == (0, 0), _etp_ws.live()


{"again": again, "behind": behind, "several": several, "elsewhere": elsewhere}[how]()
print("END")
