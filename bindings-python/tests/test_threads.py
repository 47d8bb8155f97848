"""What other threads do while the event loop works."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from etp_ws import Client, Conn, OutboxFull, Server
from etp_ws._loop import pump

pytestmark = pytest.mark.anyio

THREADS = 8
EVENTS = 2000


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


async def in_threads(work: Callable[[int], None], count: int = THREADS) -> None:
    """Runs the work in threads of their own, with the thread's number."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    if failures:
        raise failures[0]


@pytest.mark.parametrize("way", ["conn", "server", "room", "client"])
async def test_what_threads_emit_arrives_whole_and_in_each_thread_s_order(way: str) -> None:
    server: Server[object, object] = Server("json", max_outbox=1 << 26)
    found: asyncio.Queue[Conn] = asyncio.Queue()
    got: list[list[int]] = [[] for _ in range(THREADS)]
    everything = asyncio.Event()

    def count(*args: object) -> None:
        thread, number = args[-1]  # type: ignore[misc]
        got[thread].append(number)
        if sum(map(len, got)) == THREADS * EVENTS:
            everything.set()

    server.on_connect(lambda conn: (conn.join("room"), found.put_nowait(conn)))
    server.on("event", count)
    server.on("echo", lambda conn, data: data)
    async with (
        server.start("127.0.0.1", 0),
        Client(server.url, "json", max_outbox=1 << 26) as client,
    ):
        client.on("event", count)
        conn = await found.get()

        def emit(thread: int) -> None:
            for number in range(EVENTS):
                match way:
                    case "conn":
                        conn.emit("event", [thread, number])
                    case "server":
                        assert server.emit("event", [thread, number]) == 1
                    case "room":
                        assert server.to("room").emit("event", [thread, number]) == 1
                    case "client":
                        client.emit("event", [thread, number])

        threads = asyncio.ensure_future(in_threads(emit))
        # The loop works meanwhile.
        echoes = 0
        while not threads.done():
            assert await client.emit_with_ack("echo", echoes, timeout=60.0) == echoes
            echoes += 1
        await threads
        await everything.wait()
        assert got == [list(range(EVENTS))] * THREADS
        assert echoes > 0


async def test_a_thread_that_emits_too_much_is_told_and_nothing_else_is_lost() -> None:
    server: Server[bytes, bytes] = Server("bytes", max_message_size=1 << 12, max_outbox=1 << 14)
    found: asyncio.Queue[Conn] = asyncio.Queue()
    server.on_connect(found.put_nowait)
    got: list[bytes] = []
    last = asyncio.Event()
    async with server.start("127.0.0.1", 0), Client(server.url, "bytes") as client:
        client.on("event", lambda data: got.append(data[:8]))
        client.on("last", lambda data: last.set())
        conn = await found.get()
        sent: list[bytes] = []

        def emit(thread: int) -> None:
            for number in range(500):
                data = number.to_bytes(8, "big")
                try:
                    conn.emit("event", data + bytes(1024))
                except OutboxFull:
                    continue
                sent.append(data)

        await in_threads(emit, 1)
        await conn.drain()
        conn.emit("last")
        await last.wait()
        assert got == sent and 0 < len(sent) < 500


async def test_threads_join_leave_and_broadcast_while_connections_come_and_go() -> None:
    server: Server[str, str] = Server()
    found: asyncio.Queue[Conn] = asyncio.Queue()
    server.on_connect(found.put_nowait)
    server.on("echo", lambda conn, data: data)
    over = threading.Event()
    async with server.start("127.0.0.1", 0), Client(server.url) as client:
        conn = await found.get()

        def churn(thread: int) -> None:
            room = f"room {thread}"
            while not over.is_set():
                conn.join(room)
                assert room in conn.rooms() and conn in server.members(room)
                assert server.to(room).emit("news", room) == 1
                conn.leave(room)
                assert room not in conn.rooms()
                assert server.member_count(room) == 0
                server.stats(), server.rooms()

        threads = asyncio.ensure_future(in_threads(churn, 4))
        client.on("news", lambda data: None)
        for number in range(200):
            async with Client(server.url) as other:
                assert await other.emit_with_ack("echo", str(number)) == str(number)
        over.set()
        await threads
        assert conn.rooms() == []


async def test_a_connection_is_one_object_with_one_data_whichever_thread_meets_it_first() -> None:
    server: Server[str, str] = Server()
    over = threading.Event()
    mine: dict[str, tuple[Conn, object]] = {}
    mistakes: list[str] = []
    ended = 0

    @server.on_upgrade
    def upgrade(request: object) -> list[object]:
        return [request]

    @server.on("hello")
    def hello(conn: Conn, data: str) -> str:
        if not isinstance(conn.data, list) or server.conn(conn.id) is not conn:
            mistakes.append(f"{conn!r} has {conn.data!r}")
        mine[conn.id] = (conn, conn.data)
        return data

    @server.on_disconnect
    def disconnected(conn: Conn, disconnect: object) -> None:
        nonlocal ended
        ended += 1
        if mine.pop(conn.id) != (conn, conn.data):
            mistakes.append(f"{conn!r} has become another")

    def look(thread: int) -> None:
        while not over.is_set():
            for conn in server.conns():
                known = mine.get(conn.id)
                differs = not isinstance(conn.data, list) or (known is not None and known[0] is not conn)
                # One that has ended may have been let go of in between.
                if differs and conn.is_open:
                    mistakes.append(f"{conn!r} is another in a thread")

    async with server.start("127.0.0.1", 0):
        threads = asyncio.ensure_future(in_threads(look, 3))

        async def come_and_go() -> None:
            for number in range(50):
                async with Client(server.url) as client:
                    assert await client.emit_with_ack("hello", str(number)) == str(number)

        await asyncio.gather(*(come_and_go() for _ in range(8)))
        while ended < 400:
            await asyncio.sleep(0)
        over.set()
        await threads
        assert mistakes == []
        # One of the server; no connection is kept.
        while pump().counts() != (1, 0, 0, 0):
            await asyncio.sleep(0)


async def test_no_python_runs_in_the_core_s_thread() -> None:
    server: Server[str, str] = Server()
    before = set(threading.enumerate()), set(sys._current_frames())
    seen: set[int] = set()

    def note(*_: object) -> None:
        seen.add(threading.get_ident())

    server.on("echo", lambda conn, data: data)
    threading.setprofile(note)
    threading.settrace(note)
    try:
        async with server.start("127.0.0.1", 0), Client(server.url) as client:
            assert await client.emit_with_ack("echo", "hi") == "hi"
            assert await client.ping() >= 0
            # The interpreter itself knows each thread that has run any Python.
            assert (set(threading.enumerate()), set(sys._current_frames())) == before
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
        threading.settrace(None)  # type: ignore[arg-type]
    assert seen == set()
