"""Connections without ports: a client for any server, over memory, with the same session, limits and outbox as over a
socket."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, overload

from ._client import Client
from ._handlers import Codec, _outcome
from ._server import Server
from ._signatures import In, Out
from ._types import _pairs

__all__ = ["connect"]


class Connecting(Generic[In, Out]):
    """A client that is to connect: await it, or ``async with``, which closes it."""

    def __init__(
        self,
        server: Server[Any, Any],
        client: Client[In, Out],
        path: str,
        headers: list[tuple[str, str]],
    ) -> None:
        self._server = server
        self._client = client
        self._path = path
        self._headers = headers

    async def _connect(self) -> Client[In, Out]:
        client = self._client
        # As a dial sends it.
        headers = [*client._options["headers"], *self._headers]
        if client._auth is not None:
            token = await _outcome(client._auth() if callable(client._auth) else client._auth)
            headers.append(("authorization", f"Bearer {token}"))
        core = self._server._attach()
        return await client._begin(lambda client, here: client.connect_to(here, core, self._path, headers))

    def __await__(self) -> Generator[Any, None, Client[In, Out]]:
        return self._connect().__await__()

    async def __aenter__(self) -> Client[In, Out]:
        return await self._connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()


@overload
def connect(
    server: Server[Any, Any],
    client: Client[In, Out],
    *,
    path: str = "/ws",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
) -> Connecting[In, Out]: ...
@overload
def connect(
    server: Server[Any, Any],
    client: None = None,
    *,
    path: str = "/ws",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    codec: Codec,
    **options: Any,
) -> Connecting[Any, Any]: ...
@overload
def connect(
    server: Server[In, Out],
    client: None = None,
    *,
    path: str = "/ws",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    **options: Any,
) -> Connecting[In, Out]: ...
def connect(
    server: Server[Any, Any],
    client: Client[Any, Any] | None = None,
    *,
    path: str = "/ws",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    **options: Any,
) -> Connecting[Any, Any]:
    """Connects a client to a server through memory: ``async with connect(server) as client:``, or
    ``client = await connect(server)``.

    The server need not listen; it is at work on the running loop from now on, until its ``shutdown``. ``path`` and
    ``headers`` are what ``on_upgrade`` will see. ``client`` is one with handlers of its own; without it one is made
    with the server's codec and ``options``. It never reconnects.

    Raises :exc:`HandshakeFailed` with the ``status`` of a refusal, and what :meth:`Client.connect` raises.
    """
    if client is None:
        options.setdefault("codec", server._handlers._codec)
        client = Client("memory:", **options)
    return Connecting(server, client, path, _pairs(headers))
