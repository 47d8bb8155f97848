"""The server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypedDict, Unpack, overload

from . import _etp_ws
from ._asgi import Asgi
from ._conn import Broadcast, Conn
from ._errors import InvalidOption, InvalidState, ListenFailed
from ._handlers import Codec, Handlers
from ._loop import logger, pump, wait
from ._signatures import (
    AnyHandler,
    AsyncHandler,
    BytesHandler,
    BytesLike,
    Handler,
    In,
    Json,
    JsonHandler,
    Middleware,
    OnConnect,
    OnDisconnect,
    OnError,
    OnUnknownEvent,
    OnUpgrade,
    Out,
    StrPath,
    SyncHandler,
    TextHandler,
    Untyped,
)
from ._types import Stats

__all__ = ["Server", "ServerOptions"]


class ServerOptions(TypedDict, total=False):
    """A server's options; durations are in seconds, sizes in bytes. :class:`Server` says what each does, and shows the
    defaults."""

    origins: Iterable[str] | None
    hosts: Iterable[str] | None
    path: str
    tls: tuple[StrPath, StrPath] | None
    trusted_proxies: Iterable[str]
    max_message_size: int
    max_inflight: int
    max_inflight_total: int
    max_outbox: int
    max_pending_acks: int
    ack_timeout: float
    ping_interval: float | None
    ping_timeout: float
    handshake_timeout: float
    upgrade_timeout: float
    max_connections: int | None
    close_timeout: float
    shutdown_timeout: float
    wire_log: bool


class _On(Protocol[In, Out]):
    """The decorator that ``on`` returns where the codec is a pair of functions."""

    @overload
    def __call__(self, handler: AsyncHandler[In, Out], /) -> AsyncHandler[In, Out]: ...
    @overload
    def __call__(self, handler: SyncHandler[In, Out], /) -> SyncHandler[In, Out]: ...


class Server(Generic[In, Out]):
    """A server. ``In`` is what handlers get, ``Out`` what they may return, both by the codec.

    :param codec: ``"text"`` (``str``), ``"json"``, ``"bytes"``, or a pair of functions ``(dumps, loads)``.
    :param origins: which web pages may connect: exact origins, ``https://*.example.org``, ``null``, or ``"*"`` alone.
        By default a page may connect to the host and port that it came from. Requests without an Origin, from anything
        but a browser, are always allowed.
    :param hosts: under which names a page may reach our own listener on a loopback address; by default ``localhost``,
        ``127.0.0.1``, ``[::1]``.
    :param path: the path of our own listener.
    :param tls: PEM files of the certificate chain and its key, for our own listener.
    :param trusted_proxies: addresses or networks whose ``X-Forwarded-For`` is believed.
    :param max_message_size: largest message in either direction, bytes.
    :param max_inflight: handlers at once on a connection; then events wait.
    :param max_inflight_total: handlers at once on all connections.
    :param max_outbox: bytes that may wait to be sent on a connection.
    :param max_pending_acks: acknowledgments awaited at once on a connection.
    :param ack_timeout: seconds until ``emit_with_ack`` gives up, unless it says otherwise.
    :param ping_interval: seconds of silence until a ping; None turns them off.
    :param ping_timeout: seconds until the connection is closed when nothing answers.
    :param handshake_timeout: seconds for a handshake on our own listener, TLS included.
    :param upgrade_timeout: seconds for ``on_upgrade``.
    :param max_connections: connections at once.
    :param close_timeout: seconds for a close, flush included.
    :param shutdown_timeout: seconds for a shutdown; handlers get four fifths of it, then are cancelled.
    :param wire_log: log every message with the beginning of its payload, to the logger ``etp_ws.wire`` at level 5.

    Raises :exc:`InvalidOption` for a value that can't be.
    """

    @overload
    def __init__(self: Server[str, str], codec: Literal["text"] = "text", **options: Unpack[ServerOptions]) -> None: ...
    @overload
    def __init__(self: Server[Any, Json], codec: Literal["json"], **options: Unpack[ServerOptions]) -> None: ...
    @overload
    def __init__(self: Server[bytes, BytesLike], codec: Literal["bytes"], **options: Unpack[ServerOptions]) -> None: ...
    @overload
    def __init__(
        self,
        codec: tuple[Callable[[Out], str | bytes], Callable[[bytes], In]],
        **options: Unpack[ServerOptions],
    ) -> None: ...
    def __init__(
        self,
        codec: Codec = "text",
        *,
        origins: Iterable[str] | None = None,
        hosts: Iterable[str] | None = None,
        path: str = "/ws",
        tls: tuple[StrPath, StrPath] | None = None,
        trusted_proxies: Iterable[str] = (),
        max_message_size: int = 1024 * 1024,
        max_inflight: int = 256,
        max_inflight_total: int = 65536,
        max_outbox: int = 4 * 1024 * 1024,
        max_pending_acks: int = 16384,
        ack_timeout: float = 10.0,
        ping_interval: float | None = 25.0,
        ping_timeout: float = 10.0,
        handshake_timeout: float = 10.0,
        upgrade_timeout: float = 5.0,
        max_connections: int | None = None,
        close_timeout: float = 5.0,
        shutdown_timeout: float = 10.0,
        wire_log: bool = False,
    ) -> None:
        self._handlers = Handlers(codec, client=False)
        self._options: dict[str, Any] = {
            "origins": names("origins", origins),
            "hosts": names("hosts", hosts),
            "path": path,
            "tls": tls,
            "trusted_proxies": names("trusted_proxies", trusted_proxies),
            "max_message_size": max_message_size,
            "max_inflight": max_inflight,
            "max_inflight_total": max_inflight_total,
            "max_outbox": max_outbox,
            "max_pending_acks": max_pending_acks,
            "ack_timeout": ack_timeout,
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "handshake_timeout": handshake_timeout,
            "upgrade_timeout": upgrade_timeout,
            "max_connections": max_connections,
            "close_timeout": close_timeout,
            "shutdown_timeout": shutdown_timeout,
            "wire_log": wire_log,
        }
        _etp_ws.ServerCore.check(self._options)
        self._core: _etp_ws.ServerCore | None = None
        self._pump: _etp_ws.Pump | None = None
        self._closed: asyncio.Event | None = None
        self._url: str | None = None
        self._address: tuple[str, int] | None = None
        self._asgi = Asgi(self)

    # --- Handlers and callbacks ------------------------------------------------------------------------------------

    @overload
    def on(self: Server[Untyped, Untyped], name: str, handler: None = None) -> Callable[[AnyHandler], AnyHandler]: ...
    # Three that the last decorator stands for as well: its result is less exact.
    @overload
    def on(  # type: ignore[overload-overlap]
        self: Server[str, str], name: str, handler: None = None
    ) -> Callable[[TextHandler], TextHandler]: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self: Server[bytes, BytesLike], name: str, handler: None = None
    ) -> Callable[[BytesHandler], BytesHandler]: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self: Server[Any, Json], name: str, handler: None = None
    ) -> Callable[[JsonHandler], JsonHandler]: ...
    @overload
    def on(self, name: str, handler: None = None) -> _On[In, Out]: ...
    @overload
    def on(self, name: str, handler: Handler[In, Out]) -> Handler[In, Out]: ...
    def on(self, name: str, handler: Any = None) -> Any:
        """Handles an event: ``(conn, data)``, sync or async; what it returns is the acknowledgment, None an empty one.

        A decorator, or called with the handler. A second ``on`` of the same name replaces the first; it may be called
        at any time. An exception sends no reply and goes to ``on_error``. A plain function runs on the event loop: use
        ``asyncio.to_thread`` for what blocks.

        Raises :exc:`InvalidEvent`.
        """

        def decorate(handler: Any) -> Any:
            self._handlers._register(name, handler)
            return handler

        return decorate if handler is None else decorate(handler)

    def off(self, name: str) -> None:
        """Takes the handler of an event away."""
        self._handlers._remove(name)

    def on_upgrade(self, f: OnUpgrade) -> OnUpgrade:
        """Called with every handshake's :class:`Request`, before a connection exists: authentication belongs here.

        What it returns becomes ``conn.data``; or it returns an :class:`Accept`, or raises :class:`Reject`. Any other
        exception is a 500. Bounded by the option ``upgrade_timeout``. Context variables that it sets are seen by the
        connection's handlers.
        """
        self._handlers._callback("on_upgrade", f)
        return f

    def on_connect(self, f: OnConnect) -> OnConnect:
        """Called with each new :class:`Conn`. No event of it is handled before this has ended; if it raises, the
        connection is closed with 1011."""
        self._handlers._callback("on_connect", f)
        return f

    def on_disconnect(self, f: OnDisconnect) -> OnDisconnect:
        """Called once with each :class:`Conn` that has ended, and its :class:`Disconnect`. ``conn.rooms()`` still tells
        its last rooms."""
        self._handlers._callback("on_disconnect", f)
        return f

    def on_error(self, f: OnError) -> OnError:
        """Called with a :class:`Conn` or None, and the :class:`EtpError` of what has no caller to be told. Without it
        errors are logged."""
        self._handlers._callback("on_error", f)
        return f

    def on_unknown_event(self, f: OnUnknownEvent) -> OnUnknownEvent:
        """Handles events that have no handler: ``(conn, name, data)``. What it returns is the acknowledgment."""
        self._handlers._callback("on_unknown_event", f)
        return f

    def middleware(self, f: Middleware) -> Middleware:
        """Wraps every event: ``async def f(conn, name, data, call_next): return await call_next(conn, name, data)``.
        The first added is the outermost."""
        self._handlers._add_middleware(f)
        return f

    # --- Life ------------------------------------------------------------------------------------------------------

    def _attach(self) -> _etp_ws.ServerCore:
        """The server at work on the running loop; it begins to be if need be."""
        here = pump()
        if self._core is not None and self._pump is not None and not self._pump.closed:
            if self._pump is not here:
                raise InvalidState("this server is at work on another event loop; a server has one at a time")
            return self._core
        self._core = _etp_ws.ServerCore(self._handlers._routes, self._options, here)
        self._pump = here
        self._closed = asyncio.Event()
        self._url = self._address = None
        return self._core

    def start(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        unix: StrPath | None = None,
        sock: socket.socket | None = None,
        fd: int | None = None,
    ) -> Starting[In, Out]:
        """Begins to serve: ``await server.start(...)``, or ``async with server.start(...):``, which shuts the server
        down at its end.

        Port 0 lets the system choose: see ``url``. ``unix`` is the path of a Unix socket to make; ``sock`` a listening
        socket and ``fd`` the number of one, which are copied and stay the caller's. A server listens in one place.
        After a shutdown it may start anew.

        Raises :exc:`ListenFailed` if the address is taken or forbidden, :exc:`InvalidOption` if it is none. Cancelling
        binds nothing.
        """
        return Starting(self, host, port, unix, sock, fd)

    async def _start(
        self, host: str, port: int, unix: StrPath | None, sock: socket.socket | None, fd: int | None
    ) -> None:
        if self._url is not None and self._pump is not None and not self._pump.closed:
            raise InvalidState(f"this server listens already, on {self._url}")
        core = self._attach()
        here = pump()
        if sock is not None or fd is not None:
            with _copy(sock.fileno() if sock is not None else fd) as copy:
                binding = core.bind_fd(here, copy.fileno(), copy.family == getattr(socket, "AF_UNIX", None))
        elif unix is not None:
            binding = core.bind_unix(here, unix)
        else:
            binding = core.bind(
                here, f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
            )
        self._url, self._address = await wait(binding)
        logger.info("listening on %s", self._url)

    @property
    def url(self) -> str:
        """The URL to dial from this machine, once the server listens: ``ws://127.0.0.1:8080/ws``, or ``unix:`` and a
        path."""
        if self._url is None:
            raise InvalidState("the server does not listen")
        return self._url

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port that the server listens on; None for a Unix socket."""
        self.url  # noqa: B018
        return self._address

    async def shutdown(self, timeout: float | None = None) -> None:
        """Ends the server within ``timeout`` seconds; by default the option ``shutdown_timeout``.

        Accepting stops, received events are dropped, own pending acknowledgments end with :exc:`ConnectionClosed`,
        ``conn.closed()`` fires; handlers get four fifths of the time, then are cancelled; what is queued is sent, and
        every connection closed with 1000 ``server shutdown``, or cut at the end of the time. Cancelled, the shutdown
        goes on. A server that is not at work does nothing.
        """
        core, here = self._core, self._pump
        if core is None or here is None or here.closed:
            self._core = self._pump = None
            self._url = self._address = None
            return
        await wait(core.shutdown(pump(), timeout))
        if self._core is core:
            self._core = self._pump = None
            self._url = self._address = None
        if self._closed is not None:
            self._closed.set()

    async def wait_closed(self) -> None:
        """Waits until a shutdown has ended. Cancelling loses nothing."""
        if self._core is not None and self._closed is not None:
            await self._closed.wait()

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        unix: StrPath | None = None,
        sock: socket.socket | None = None,
        fd: int | None = None,
    ) -> None:
        """Serves until Ctrl-C, SIGTERM or a shutdown: ``start`` on an event loop of its own. The signals shut the
        server down gracefully, then this returns. In another thread than the main one signals are the application's
        matter.

        Raises what ``start`` raises, and :exc:`InvalidState` where an event loop runs already.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise InvalidState("an event loop runs here already: await server.start(...)")
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(self._serve(host, port, unix, sock, fd))

    async def _serve(
        self, host: str, port: int, unix: StrPath | None, sock: socket.socket | None, fd: int | None
    ) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        main = threading.current_thread() is threading.main_thread()
        # Before anybody can know that the server listens.
        with contextlib.suppress(NotImplementedError):
            if main:
                loop.add_signal_handler(signal.SIGTERM, stop.set)
        try:
            await self.start(host, port, unix=unix, sock=sock, fd=fd)
            ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self.wait_closed())]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
        finally:
            # A second signal ends the process at once.
            with contextlib.suppress(NotImplementedError):
                if main:
                    loop.remove_signal_handler(signal.SIGTERM)
            await self.shutdown()

    # --- Connections and rooms -------------------------------------------------------------------------------------

    def _at_work(self) -> _etp_ws.ServerCore:
        if self._core is None:
            raise InvalidState("the server has not started: await server.start(...), or mount server.asgi")
        return self._core

    def emit(self, name: str, data: Out | None = None) -> int:
        """Emits to every connection; returns how many it was queued for. Works from any thread.

        Raises :exc:`InvalidEvent`, :exc:`InvalidPayload`, :exc:`MessageTooLarge`; nothing is sent then.
        """
        return self._at_work().emit(name, data)

    def to(self, *rooms: str) -> Broadcast:
        """A broadcast to the members of rooms: ``server.to("a", "b").emit("news", "hi")``."""
        return self._at_work().to(rooms)

    def except_(self, *whom: Conn | str) -> Broadcast:
        """A broadcast to everybody but these connections, or the members of these rooms."""
        return self._at_work().everyone().except_(*whom)

    def members(self, room: str) -> list[Conn]:
        """The members of a room."""
        return self._at_work().members(room)

    def member_count(self, room: str) -> int:
        """How many members a room has."""
        return self._at_work().member_count(room)

    def clear_room(self, room: str) -> None:
        """Makes all members leave a room."""
        self._at_work().clear_room(room)

    def conns(self) -> list[Conn]:
        """All connections; none if the server is not at work."""
        return [] if self._core is None else self._core.conns()

    def conn(self, id: str) -> Conn | None:
        """The connection of this id, if it is open."""
        return None if self._core is None else self._core.conn(id)

    def rooms(self) -> list[str]:
        """The names of all rooms that have members."""
        return [] if self._core is None else self._core.rooms()

    def stats(self) -> Stats:
        """What the server has done and holds at this moment."""
        return Stats() if self._core is None else self._core.stats()

    @property
    def asgi(self) -> Asgi:
        """An ASGI 3 application for the ``websocket`` scope:
        ``app.routes.append(WebSocketRoute("/ws", server.asgi))``."""
        return self._asgi

    def __repr__(self) -> str:
        return f"<Server {self._url or ('at work' if self._core is not None else 'not started')}>"


class Starting(Generic[In, Out]):
    """A server that is to start: await it, or ``async with``."""

    def __init__(
        self,
        server: Server[In, Out],
        host: str,
        port: int,
        unix: StrPath | None,
        sock: socket.socket | None,
        fd: int | None,
    ) -> None:
        self._server = server
        self._where = (host, port, unix, sock, fd)

    async def _start(self) -> Server[In, Out]:
        server = self._server
        try:
            await server._start(*self._where)
        except Exception:
            # Nothing of it may linger: it could not begin.
            if server._url is None and not server.conns():
                await server.shutdown(1.0)
            raise
        return server

    def __await__(self) -> Generator[Any, None, Server[In, Out]]:
        return self._start().__await__()

    async def __aenter__(self) -> Server[In, Out]:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.shutdown()


def names(option: str, value: Iterable[str] | None) -> list[str] | None:
    """A list of names; a lone string is one name."""
    if value is None:
        return None
    listed: list[str] = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    if not all(isinstance(name, str) for name in listed):
        raise InvalidOption(f"{option} is {value!r}; it is a list of strings")
    return listed


def _copy(fd: int | None) -> socket.socket:
    """A copy of a listening socket's descriptor."""
    try:
        copy = os.dup(-1 if fd is None else fd)
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            raise
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.close()
            raise ListenFailed(f"the socket of descriptor {fd} does not listen: call its listen() before")
    except ListenFailed:
        raise
    except OSError as error:
        raise ListenFailed(f"descriptor {fd} is no listening socket: {error}") from error
    return sock
