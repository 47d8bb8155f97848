"""The command lines of hosts: an application served as it is, and reloaded."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from etp_ws import Client, Disconnect, Reconnect

pytestmark = pytest.mark.anyio

APP = """
from etp_ws import Server

server = Server()


@server.on("version")
async def version(conn, data):
    return "{version}"
"""


RUNNING = re.compile(rb"running on http://(127\.0\.0\.1:\d+)")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Host:
    """A host that runs: its address, its process, and what it says from now on."""

    def __init__(self, address: str, process: asyncio.subprocess.Process) -> None:
        self.address = address
        self.process = process
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def accepts(self) -> None:
        """Waits until it listens, which it does a moment after it has said so."""
        while True:
            try:
                _, writer = await asyncio.open_connection(*self.address.split(":"))
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                return writer.close()

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.put_nowait(line)

    async def says(self, text: bytes) -> None:
        while text not in await self.lines.get():
            pass


@asynccontextmanager
async def serving(module: str, *arguments: str, cwd: Path) -> AsyncIterator[Host]:
    """Runs a host, as its command line does, until it is ready."""
    command = [sys.executable, "-m", module, *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    told = b""
    try:
        while not ((found := RUNNING.search(told)) and b"startup complete" in told):
            line = await process.stderr.readline()
            assert line, told.decode()
            told += line
        host = Host(found[1].decode(), process)
        await host.accepts()
        listening = asyncio.create_task(host.listen())
        yield host
        if process.returncode is None:
            process.terminate()
        await listening
        await process.wait()
    finally:
        if process.returncode is None:
            # With the processes that it has made.
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def test_uvicorn_serves_server_asgi_by_its_name_and_sigterm_ends_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(version=1))
    ends: asyncio.Queue[Disconnect] = asyncio.Queue()
    async with serving("uvicorn", "app:server.asgi", "--port", "0", cwd=tmp_path) as host:
        client = Client(f"ws://{host.address}/ws", reconnect=False)
        client.on_disconnect(lambda end: ends.put_nowait(end))
        await client.connect()
        assert await client.emit_with_ack("version") == "1"
        host.process.terminate()
        assert (await ends.get()).code == 1012


async def test_a_client_comes_back_by_itself_when_uvicorn_reloads(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP.format(version=1))
    arguments = ["app:server.asgi", "--port", "0", "--reload", "--reload-dir", "."]
    async with serving("uvicorn", *arguments, cwd=tmp_path) as host:
        connects: asyncio.Queue[None] = asyncio.Queue()
        client = Client(f"ws://{host.address}/ws", reconnect=Reconnect(base=0.01, cap=0.1))
        client.on_connect(lambda: connects.put_nowait(None))
        async with client:
            await connects.get()
            assert await client.emit_with_ack("version") == "1"
            reloading = asyncio.ensure_future(host.says(b"Reloading"))
            # What is written before the reloader's first look it does not see.
            while not reloading.done():
                app.write_text(APP.format(version="2, longer"))
                await asyncio.wait([reloading], timeout=1.0)
            await connects.get()
            assert await client.emit_with_ack("version") == "2, longer"
