"""Connections in a process of their own, which pings and answers pings: says how many are lost when it is told to."""

import asyncio
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.protocol import State

url, count = sys.argv[1], int(sys.argv[2])


async def main() -> None:
    conns: list[ClientConnection] = []
    for _ in range(count):
        conns.append(
            await connect(
                url, ping_interval=1.0, ping_timeout=1.0, close_timeout=1.0, proxy=None, compression=None
            ).__aenter__()
        )
    readers = [asyncio.ensure_future(conn.recv()) for conn in conns]
    print("CONNECTED", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print("LOST", sum(conn.state is not State.OPEN for conn in conns), flush=True)
    for conn, reader in zip(conns, readers, strict=True):
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await conn.close()


asyncio.run(main())
