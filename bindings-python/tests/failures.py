"""What a server's `on_error` was told, for tests to await."""

from __future__ import annotations

import asyncio
from typing import Any

from etp_ws import Conn, EtpError, Server


class Failures:
    """A server's `on_error`, and what it was told."""

    def __init__(self, server: Server[Any, Any]) -> None:
        self.errors: asyncio.Queue[EtpError] = asyncio.Queue()
        server.on_error(self.failed)

    async def failed(self, conn: Conn | None, error: EtpError) -> None:
        self.errors.put_nowait(error)

    async def next(self) -> EtpError:
        return await self.errors.get()
