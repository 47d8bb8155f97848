"""The server as an ASGI application: the host server speaks HTTP and WebSocket, the core everything above."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import _etp_ws
from ._errors import EtpError
from ._loop import logger, pump, wait

if TYPE_CHECKING:
    from ._server import Server

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["Asgi"]


class Asgi:
    """An ASGI 3 application for the ``websocket`` scope, mounted in Starlette, FastAPI, Quart or served as it is.

    Pings, message sizes and compression are the host server's to set; ``origins``, ``on_upgrade`` and all other limits
    hold. Where it is the whole application, the end of its lifespan shuts the server down.
    """

    def __init__(self, server: Server[Any, Any]) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "http":
            await _upgrade_required(send)
        else:
            raise NotImplementedError(f"ASGI scope {kind!r}")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._server._attach()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._server.shutdown()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        core = self._server._attach()
        here = pump()
        if (await receive())["type"] != "websocket.connect":
            return
        admitted = await wait(core.admit(here, _target(scope), _headers(scope), _peer(scope), scope))
        if not isinstance(admitted, _etp_ws.Admitted):
            await _refuse(scope, send, *admitted)
            return
        protocol = None
        headers = []
        for name, value in admitted.headers():
            if name == b"sec-websocket-protocol":
                protocol = value.decode("latin-1")
            else:
                headers.append((name, value))
        await send({"type": "websocket.accept", "subprotocol": protocol, "headers": headers})
        await _carry(admitted.begin(), here, receive, send)


async def _carry(link: _etp_ws.Link, here: _etp_ws.Pump, receive: Receive, send: Send) -> None:
    """Carries messages both ways until one side has ended."""
    peer_ended = False

    async def inward() -> None:
        nonlocal peer_ended
        try:
            while True:
                message = await receive()
                if message["type"] == "websocket.receive":
                    text = message.get("text")
                    room = link.text(text) if text is not None else link.binary(message["bytes"])
                    if not room:
                        await wait(link.ready(here))
                elif message["type"] == "websocket.disconnect":
                    peer_ended = True
                    code = message.get("code", 1005)
                    if code is None or code == 1005:
                        link.close(1005, "")
                    elif code in (1006, 1015):
                        link.end()
                    else:
                        link.close(code, message.get("reason") or "")
                    return
        except Exception as error:
            lost(error)
            link.end()

    async def outward() -> None:
        while messages := await wait(link.recv(here)):
            for message in messages:
                if isinstance(message, str):
                    await send({"type": "websocket.send", "text": message})
                elif isinstance(message, bytes):
                    await send({"type": "websocket.send", "bytes": message})
                elif message[0] == "ping":
                    # The host server's pings keep the connection alive.
                    link.pong(message[1])
                elif not peer_ended:
                    _, code, reason = message
                    await send({"type": "websocket.close", "code": 1000 if code == 1005 else code, "reason": reason})
                    # The host server finishes the closing handshake.
                    link.close(code, reason)

    def lost(error: Exception) -> None:
        # Host servers and frameworks may raise when the peer has gone, each by a class of its own.
        logger.debug("an ASGI connection was lost: %r", error)

    reading = asyncio.ensure_future(inward())
    try:
        await outward()
    except EtpError:
        raise
    except Exception as error:
        lost(error)
    finally:
        link.end()
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading


def _target(scope: Scope) -> str:
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else quote(scope["path"])
    # Some servers leave the query in.
    path = path.partition("?")[0] or "/"
    query = scope.get("query_string", b"")
    return f"{path}?{query.decode('latin-1')}" if query else path


def _headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    headers = list(scope["headers"])
    # uvicorn's wsproto keeps the subprotocols for itself.
    offered = scope.get("subprotocols")
    if offered and not any(name.lower() == b"sec-websocket-protocol" for name, _ in headers):
        headers.append((b"sec-websocket-protocol", ", ".join(offered).encode("latin-1")))
    return headers


def _peer(scope: Scope) -> tuple[str, int] | None:
    client = scope.get("client")
    if not client or not client[1]:
        return None
    return str(client[0]), int(client[1])


async def _refuse(scope: Scope, send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        # The host server answers 403.
        await send({"type": "websocket.close", "code": 1008, "reason": body.decode("utf-8", "replace")[:120]})


async def _upgrade_required(send: Send) -> None:
    body = b"this is a WebSocket endpoint: send a WebSocket handshake\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
    ]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": body})
