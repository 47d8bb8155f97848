"""A server whose handler blocks its event loop for 5 s, or until told; an argument says whose pings there are."""

import asyncio
import logging
import sys
import threading
import time
from typing import Any

whose = sys.argv[1]
# The control's host tells of each connection that it loses.
logging.disable(logging.CRITICAL)
told = threading.Event()


def block() -> None:
    print("BLOCKED", flush=True)
    if "until told" in sys.argv:
        told.wait()
    else:
        time.sleep(5.0)


async def until_told() -> None:
    def read() -> None:
        sys.stdin.readline()
        told.set()
        if "until told" in sys.argv:
            sys.stdin.readline()

    await asyncio.to_thread(read)


async def own() -> None:
    from etp_ws import Conn, Server

    server = Server(ping_interval=1.0, ping_timeout=1.0)

    @server.on("block")
    def blocking(conn: Conn, data: str) -> None:
        block()
        asyncio.get_running_loop().call_later(0, print, "FREE")

    async with server.start("127.0.0.1", 0):
        print("READY", server.url, flush=True)
        await until_told()


async def websockets() -> None:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed

    async def handle(ws: ServerConnection) -> None:
        try:
            async for message in ws:
                if str(message).startswith("block"):
                    block()
                    print("FREE", flush=True)
        except ConnectionClosed:
            pass

    async with serve(handle, "127.0.0.1", 0, ping_interval=1.0, ping_timeout=1.0, compression=None) as server:
        host, port = next(iter(server.sockets)).getsockname()[:2]
        print("READY", f"ws://{host}:{port}/ws", flush=True)
        await until_told()


async def uvicorn() -> None:
    import uvicorn as host
    from etp_ws import Conn, Server

    server = Server(ping_interval=1.0, ping_timeout=1.0)

    @server.on("block")
    async def blocking(conn: Conn, data: str) -> None:
        block()
        print("FREE", flush=True)

    app: Any = server.asgi
    config = host.Config(
        app, port=0, ws="websockets-sansio", ws_ping_interval=1.0, ws_ping_timeout=1.0, log_level="critical"
    )
    serving = host.Server(config)
    task = asyncio.ensure_future(serving.serve())
    while not serving.started:
        await asyncio.sleep(0)
    port = serving.servers[0].sockets[0].getsockname()[1]
    print("READY", f"ws://127.0.0.1:{port}/ws", flush=True)
    await until_told()
    serving.should_exit = True
    await task


asyncio.run({"own": own, "websockets": websockets, "uvicorn": uvicorn}[whose]())
