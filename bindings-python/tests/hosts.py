"""ASGI hosts for tests, on the event loop of the test: uvicorn with each of its WebSocket implementations, hypercorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import uvicorn

HOSTS = ["uvicorn websockets-sansio", "uvicorn websockets", "uvicorn wsproto", "hypercorn"]


@asynccontextmanager
async def host(kind: str, app: Any, **options: Any) -> AsyncIterator[str]:
    """Serves an application; gives the address, ``127.0.0.1:port``."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    serving = _hypercorn if kind == "hypercorn" else _uvicorn
    async with serving(listener, app, kind, options):
        yield address


@asynccontextmanager
async def _uvicorn(listener: socket.socket, app: Any, kind: str, options: dict[str, Any]) -> AsyncIterator[None]:
    implementation = kind.partition(" ")[2]
    config = uvicorn.Config(app, log_config=None, ws=implementation, timeout_graceful_shutdown=10, **options)
    server = uvicorn.Server(config)
    # The test's process keeps its signals.
    task = asyncio.create_task(server._serve([listener]))
    try:
        while not server.started:
            if task.done():
                await task
            await asyncio.sleep(0.001)
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def _hypercorn(listener: socket.socket, app: Any, kind: str, options: dict[str, Any]) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    for name, value in options.items():
        setattr(config, name, value)
    stop = asyncio.Event()
    task = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        yield
    finally:
        stop.set()
        await task
