"""Makes and ends many connections, clients or servers: says what is left of them, and what memory they took."""

import asyncio
import gc
import os
import sys
import time
import weakref
from typing import Any

from etp_ws import Client, Conn, Server, _etp_ws
from etp_ws._loop import pump
from etp_ws.testing import connect

what, first, all_of = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
AT_ONCE = 50


class Data:
    """What an application keeps with a connection, and that with it: a cycle."""

    conn: Conn


def live(*kinds: type) -> int:
    gc.collect()
    return sum(type(found) in kinds for found in gc.get_objects())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def make() -> Server[Any, Any]:
    server: Server[Any, Any] = Server("json")
    calls = {"connect": 0, "disconnect": 0}

    @server.on_upgrade
    def upgrade(request: object) -> Data:
        return Data()

    @server.on_connect
    async def connected(conn: Conn) -> None:
        calls["connect"] += 1
        conn.data.conn = conn
        conn.join("room")
        await asyncio.sleep(0)

    @server.on("hello")
    async def hello(conn: Conn, data: Any) -> Any:
        assert conn.data.conn is conn
        await asyncio.sleep(0)
        return data

    @server.on_disconnect
    def disconnected(conn: Conn, disconnect: object) -> None:
        calls["disconnect"] += 1
        assert conn.data.conn is conn

    server.calls = calls  # type: ignore[attr-defined]
    return server


async def one(server: Server[Any, Any], at_memory: bool) -> None:
    client: Client[Any, Any] = Client(server.url if not at_memory else "memory:", "json", reconnect=False)
    client.on("news", lambda data: client)  # a cycle as well

    async with connect(server, client) if at_memory else client:
        assert await client.emit_with_ack("hello", 1) == 1


async def many(server: Server[Any, Any], count: int, at_memory: bool) -> None:
    for _ in range(0, count, AT_ONCE):
        await asyncio.gather(*(one(server, at_memory) for _ in range(AT_ONCE)))
        # Cycles that wait for the collector are none of ours; how many there are at most would be chance.
        gc.collect(1)


async def settle(server: Server[Any, Any], connections: int) -> None:
    """Waits until the server's side has ended as well."""
    calls = server.calls  # type: ignore[attr-defined]
    while calls["disconnect"] < connections or pump().counts()[1:] != (0, 0, 0) or server.conns():
        await asyncio.sleep(0.01)
    assert calls == {"connect": connections, "disconnect": connections}, calls


async def connections(at_memory: bool) -> None:
    server = make()
    await server.start("127.0.0.1", 0)
    before = descriptors()
    await many(server, first, at_memory)
    await settle(server, first)
    gc.collect()
    memory = resident()
    await many(server, all_of - first, at_memory)
    await settle(server, all_of)
    left = live(Conn, Client, Data)
    print("LIVE", left)
    print("COUNTS", *pump().counts())
    while descriptors() > before:  # the core's thread closes them when it gets to it
        await asyncio.sleep(0.01)
    print("DESCRIPTORS", 0)
    print("MEMORY", memory, resident())
    print("ACKS", server.stats().acks_pending)
    await server.shutdown()
    print("AFTER", *pump().counts())


async def servers() -> None:
    seen: list[weakref.ref[Any]] = []

    async def some(count: int) -> None:
        for number in range(count):
            server = make()
            async with server.start("127.0.0.1", 0):
                await one(server, at_memory=number % 2 == 0)
            seen.append(weakref.ref(server))

    await some(1)
    before = descriptors()
    await some(first - 1)
    gc.collect()
    memory = resident()
    await some(all_of - first)
    left = live(Conn, Client, Data, Server, _etp_ws.ServerCore, _etp_ws.ClientCore, _etp_ws.Routes)
    print("LIVE", left + sum(found() is not None for found in seen))
    print("COUNTS", *pump().counts())
    while descriptors() > before:
        await asyncio.sleep(0.01)
    print("DESCRIPTORS", 0)
    print("MEMORY", memory, resident())


async def loops() -> None:
    """Inside one loop nothing: each is begun and ended by `run`, in `main`."""
    server = make()
    async with server.start("127.0.0.1", 0):
        await one(server, at_memory=False)


def never_started() -> None:
    """Servers and clients with a cycle through a closure."""
    seen: list[weakref.ref[Any]] = []
    for _ in range(all_of):
        server = make()
        server.on("self", lambda conn, data, server=server: server)
        server.middleware(lambda conn, name, data, call_next, server=server: call_next(conn, name, data))
        client: Client[Any, Any] = Client("ws://127.0.0.1:1/ws", "json")
        client.on("self", lambda data, client=client: client)
        seen += [weakref.ref(server), weakref.ref(client)]
    del server, client
    print("LIVE", live(Server, Client, _etp_ws.Routes) + sum(found() is not None for found in seen))


if what == "never started":
    never_started()
elif what == "loops":
    asyncio.run(loops())
    before = descriptors()
    for _ in range(first - 1):
        asyncio.run(loops())
    gc.collect()
    memory = resident()
    for _ in range(all_of - first):
        asyncio.run(loops())
    print("LIVE", live(Conn, Client, Data, Server))
    print("COUNTS", *_etp_ws.live(), 0, 0)
    while descriptors() > before:
        time.sleep(0.01)
    print("DESCRIPTORS", 0)
    print("MEMORY", memory, resident())
else:
    asyncio.run(servers() if what == "servers" else connections(at_memory=what == "memory"))
print("END")
