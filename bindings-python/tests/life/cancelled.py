"""Cancels what awaits the core: nothing is left behind, and the connection works on."""

import asyncio
from typing import Any

from etp_ws import Client, Conn, OutboxFull, Server
from etp_ws._loop import pump

server = Server(codec="bytes", max_outbox=1 << 20)
found: asyncio.Queue[Conn] = asyncio.Queue()
asked: asyncio.Queue[None] = asyncio.Queue()


@server.on_connect
def connected(conn: Conn) -> None:
    found.put_nowait(conn)


@server.on("never")
async def never(conn: Conn, data: bytes) -> None:
    asked.put_nowait(None)
    await conn.closed()


@server.on("echo")
def echo(conn: Conn, data: bytes) -> bytes:
    return data


async def cancel(waits: Any) -> None:
    task = asyncio.ensure_future(waits)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    assert (await asyncio.gather(task, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def main() -> None:
    async with server.start("127.0.0.1", 0), Client(server.url, codec="bytes") as client:
        conn = await found.get()
        client.on("never", lambda data: conn.closed())  # of the same process: it waits

        for _ in range(20):
            await cancel(client.emit_with_ack("never", timeout=60.0))
            await cancel(conn.emit_with_ack("never", timeout=60.0))
            await cancel(client.wait_closed())
            await cancel(conn.closed())
        for _ in range(20):
            await asked.get()
        # A deadline is a cancellation from within.
        for emitter in (client, conn):
            try:
                async with asyncio.timeout(0.01):
                    await emitter.emit_with_ack("never", timeout=60.0)
            except TimeoutError:
                pass
            else:
                raise AssertionError("it was answered")
        assert server.stats().acks_pending == 0, server.stats()
        assert client.stats().acks_pending == 0, client.stats()
        assert await client.emit_with_ack("echo", b"still here") == b"still here"

    # A peer that does not read: `drain` waits, and is cancelled.
    async with server.start("127.0.0.1", 0):
        reader, writer = await asyncio.open_connection(*(server.address or ()))
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        conn = await found.get()
        try:
            while True:
                conn.emit("filler", bytes(1 << 16))
                await asyncio.sleep(0)
        except OutboxFull:
            pass
        for _ in range(20):
            await cancel(conn.drain())
        draining = asyncio.ensure_future(conn.drain())
        while not draining.done():
            await reader.read(1 << 16)
        await draining
        conn.emit("last")
        sites, conns, tasks, items = pump().counts()
        assert (sites, conns, items) == (1, 1, 0), pump().counts()
        writer.transport.abort()
        writer.close()
    assert pump().counts() == (0, 0, 0, 0), pump().counts()


asyncio.run(main())
print("END")
