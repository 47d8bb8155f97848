"""Is interrupted in `run`, in a handler that waits, in one that blocks, or in a client's `emit_with_ack`."""

import asyncio
import sys
import time
from typing import Any

from etp_ws import Client, Conn, Server

where = sys.argv[1]


class Listening(Server[str, str]):
    """Says where it listens, as soon as it does."""

    async def _start(self, *place: Any) -> None:
        await super()._start(*place)
        print("READY", self.url, flush=True)


server = Listening(shutdown_timeout=1.0)


@server.on("wait")
async def wait(conn: Conn, data: str) -> str:
    print("IN wait", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("CANCELLED", flush=True)
    return "never"


@server.on("sleep")
async def sleep(conn: Conn, data: str) -> str:
    print("IN sleep", flush=True)
    await asyncio.sleep(0.2)
    print("SLEPT", flush=True)
    return "slept"


@server.on("block")
def block(conn: Conn, data: str) -> None:
    print("IN block", flush=True)
    told = False
    while True:
        time.sleep(0.01)
        if not told and any(task.cancelling() for task in asyncio.all_tasks()):
            told = True
            print("ONCE", flush=True)


@server.on("block later")
async def block_later(conn: Conn, data: str) -> None:
    await asyncio.sleep(0)
    block(conn, data)


@server.on_disconnect
def left(conn: Conn, disconnect: object) -> None:
    print("LEFT", disconnect, flush=True)


async def ask() -> None:
    async with server.start("127.0.0.1", 0), Client(server.url) as client:
        await client.emit_with_ack("wait", timeout=60.0)


if where == "ack":
    try:
        asyncio.run(ask())
    except KeyboardInterrupt:
        print("INTERRUPTED")
else:
    server.run("127.0.0.1", 0)
print("END", server.conns(), server)
