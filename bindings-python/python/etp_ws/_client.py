"""The client."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypedDict, Unpack, overload

from . import _etp_ws
from ._conn import Conn
from ._errors import ConnectionClosed, InvalidOption, InvalidState, Overflow
from ._handlers import Codec, Handlers, _outcome
from ._loop import pump, wait
from ._signatures import (
    AnyClientHandler,
    AsyncClientHandler,
    BytesClientHandler,
    BytesLike,
    ClientHandler,
    ClientMiddleware,
    In,
    Json,
    JsonClientHandler,
    OnClientConnect,
    OnClientDisconnect,
    OnClientError,
    OnClientUnknownEvent,
    Out,
    StrPath,
    SyncClientHandler,
    TextClientHandler,
    Untyped,
)
from ._types import Disconnect, Event, Reconnect, Stats, _pairs

__all__ = ["Client", "ClientOptions", "State"]

State = Literal["connecting", "connected", "reconnecting", "closed"]

Text = Callable[[], str | Awaitable[str]]

# Inside `on_connect`: whose, and its connection. What is emitted there goes before all that waits.
_connecting: contextvars.ContextVar[tuple[Client[Any, Any], Conn] | None] = contextvars.ContextVar(
    "etp_ws_connecting", default=None
)


class ClientOptions(TypedDict, total=False):
    """A client's options; durations are in seconds, sizes in bytes. :class:`Client` says what each does, and shows the
    defaults."""

    auth: str | Text | None
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None
    ca: StrPath | None
    client_cert: tuple[StrPath, StrPath] | None
    reconnect: bool | Reconnect
    should_reconnect: Callable[[Disconnect], bool] | None
    queue: int
    dial_timeout: float
    max_message_size: int
    max_inflight: int
    max_outbox: int
    max_pending_acks: int
    ack_timeout: float
    ping_interval: float | None
    ping_timeout: float
    close_timeout: float
    wire_log: bool


class _On(Protocol[In, Out]):
    """The decorator that ``on`` returns where the codec is a pair of functions."""

    @overload
    def __call__(self, handler: AsyncClientHandler[In, Out], /) -> AsyncClientHandler[In, Out]: ...
    @overload
    def __call__(self, handler: SyncClientHandler[In, Out], /) -> SyncClientHandler[In, Out]: ...


class Client(Generic[In, Out]):
    """A client. It comes back by itself after a lost connection, unless it was told not to.

    :param url: ``ws://host:port/path``, ``wss://...``, ``unix:`` and a path, or a function, sync or async, that is
        asked for it at each dial.
    :param codec: ``"text"`` (``str``), ``"json"``, ``"bytes"``, or a pair of functions ``(dumps, loads)``.
    :param auth: a token, or a function, sync or async, that is asked for it at each dial; sent as ``Authorization:
        Bearer``.
    :param headers: further headers of each handshake.
    :param ca: a PEM file of certificates to trust instead of the system's.
    :param client_cert: PEM files of a certificate chain of its own and its key.
    :param reconnect: whether and how to come back.
    :param should_reconnect: decides after which ends to come back, instead of the usual rule: all but its own close,
        1008, and 1000 with a reason other than ``server shutdown``.
    :param queue: events that may wait while away; with 0 ``emit`` raises :exc:`ConnectionClosed` then.
    :param dial_timeout: seconds for one dial: name, TCP, TLS and handshake together.
    :param max_message_size: largest message in either direction, bytes.
    :param max_inflight: handlers at once; then events wait.
    :param max_outbox: bytes that may wait to be sent.
    :param max_pending_acks: acknowledgments awaited at once.
    :param ack_timeout: seconds until ``emit_with_ack`` gives up, unless it says otherwise.
    :param ping_interval: seconds of silence until a ping; None turns them off.
    :param ping_timeout: seconds until the connection is closed when nothing answers.
    :param close_timeout: seconds for a close, flush included.
    :param wire_log: log every message with the beginning of its payload, to the logger ``etp_ws.wire`` at level 5.
    """

    @overload
    def __init__(
        self: Client[str, str], url: str | Text, codec: Literal["text"] = "text", **options: Unpack[ClientOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: Client[Any, Json], url: str | Text, codec: Literal["json"], **options: Unpack[ClientOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: Client[bytes, BytesLike],
        url: str | Text,
        codec: Literal["bytes"],
        **options: Unpack[ClientOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        url: str | Text,
        codec: tuple[Callable[[Out], str | bytes], Callable[[bytes], In]],
        **options: Unpack[ClientOptions],
    ) -> None: ...
    def __init__(
        self,
        url: str | Text,
        codec: Codec = "text",
        *,
        auth: str | Text | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        ca: StrPath | None = None,
        client_cert: tuple[StrPath, StrPath] | None = None,
        reconnect: bool | Reconnect = True,
        should_reconnect: Callable[[Disconnect], bool] | None = None,
        queue: int = 0,
        dial_timeout: float = 10.0,
        max_message_size: int = 1024 * 1024,
        max_inflight: int = 256,
        max_outbox: int = 4 * 1024 * 1024,
        max_pending_acks: int = 16384,
        ack_timeout: float = 10.0,
        ping_interval: float | None = 25.0,
        ping_timeout: float = 10.0,
        close_timeout: float = 5.0,
        wire_log: bool = False,
    ) -> None:
        if not isinstance(url, str) and not callable(url):
            raise InvalidOption("url is to be a string or a function that returns one")
        if reconnect is True:
            reconnect = Reconnect()
        self._handlers = Handlers(codec, client=True)
        self._routes = self._handlers._routes
        self._url = url
        self._options: dict[str, Any] = {
            "headers": _pairs(headers),
            "ca": ca,
            "client_cert": client_cert,
            "reconnect": None if reconnect is False else (reconnect.base, reconnect.cap, reconnect.reset_after),
            "queue": queue,
            "dial_timeout": dial_timeout,
            "max_message_size": max_message_size,
            "max_inflight": max_inflight,
            "max_outbox": max_outbox,
            "max_pending_acks": max_pending_acks,
            "ack_timeout": ack_timeout,
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
            "wire_log": wire_log,
        }
        _etp_ws.ClientCore.check(self._options)
        self._auth = auth
        if auth is not None:
            self._routes.set_callback("auth", auth if callable(auth) else lambda: auth)
        if should_reconnect is not None:
            self._should_reconnect = should_reconnect
            self._routes.set_callback("should_reconnect", self._decide)
        # Where the core has to ask for it: what `should_reconnect` answers comes first.
        self._asks = callable(url) or should_reconnect is not None
        self._routes.set_callback("url", url if callable(url) else lambda: url)
        self._core: _etp_ws.ClientCore | None = None
        self._dialling = False
        # Tasks that run `on_disconnect`.
        self._ending: set[asyncio.Task[Any] | None] = set()
        self._taps: list[_Events] = []

    # --- Handlers and callbacks ------------------------------------------------------------------------------------

    @overload
    def on(
        self: Client[Untyped, Untyped], name: str, handler: None = None
    ) -> Callable[[AnyClientHandler], AnyClientHandler]: ...
    # Three that the last decorator stands for as well: its result is less exact.
    @overload
    def on(  # type: ignore[overload-overlap]
        self: Client[str, str], name: str, handler: None = None
    ) -> Callable[[TextClientHandler], TextClientHandler]: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self: Client[bytes, BytesLike], name: str, handler: None = None
    ) -> Callable[[BytesClientHandler], BytesClientHandler]: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self: Client[Any, Json], name: str, handler: None = None
    ) -> Callable[[JsonClientHandler], JsonClientHandler]: ...
    @overload
    def on(self, name: str, handler: None = None) -> _On[In, Out]: ...
    @overload
    def on(self, name: str, handler: ClientHandler[In, Out]) -> ClientHandler[In, Out]: ...
    def on(self, name: str, handler: Any = None) -> Any:
        """Handles an event: ``(data)``, sync or async; what it returns is the acknowledgment, None an empty one.

        A decorator, or called with the handler. A second ``on`` of the same name replaces the first; it may be called
        at any time.

        Raises :exc:`InvalidEvent`.
        """

        def decorate(handler: Any) -> Any:
            self._handlers._register(name, handler)
            return handler

        return decorate if handler is None else decorate(handler)

    def off(self, name: str) -> None:
        """Takes the handler of an event away."""
        self._handlers._remove(name)

    def on_connect(self, f: OnClientConnect) -> OnClientConnect:
        """Called, without arguments, at each new connection: log in and join rooms here. No event is handled before it
        has ended, and what waits in the ``queue`` goes out after what it emits. If it raises, the connection is closed
        with 1011."""

        async def connected(conn: Conn) -> None:
            token = _connecting.set((self, conn))
            try:
                await _outcome(f())
            finally:
                _connecting.reset(token)

        self._handlers._callback("on_connect", f)
        self._routes.set_callback("on_connect", connected)
        return f

    def on_disconnect(self, f: OnClientDisconnect) -> OnClientDisconnect:
        """Called with the :class:`Disconnect` of each connection that has ended; ``will_reconnect`` tells what
        follows."""

        async def disconnected(disconnect: Disconnect) -> None:
            task = asyncio.current_task()
            self._ending.add(task)
            try:
                await _outcome(f(disconnect))
            finally:
                self._ending.discard(task)

        self._handlers._callback("on_disconnect", f)
        self._routes.set_callback("on_disconnect", disconnected)
        return f

    def on_error(self, f: OnClientError) -> OnClientError:
        """Called with the :class:`EtpError` of what has no caller to be told. Without it errors are logged."""
        self._handlers._callback("on_error", f)
        return f

    def on_unknown_event(self, f: OnClientUnknownEvent) -> OnClientUnknownEvent:
        """Handles events that have no handler: ``(name, data)``. What it returns is the acknowledgment."""
        self._handlers._callback("on_unknown_event", f)
        return f

    def middleware(self, f: ClientMiddleware) -> ClientMiddleware:
        """Wraps every event: ``async def f(name, data, call_next): return await call_next(name, data)``. The first
        added is the outermost."""
        self._handlers._add_middleware(f)
        return f

    def _decide(self, disconnect: Disconnect) -> bool:
        reason = disconnect.reason
        # The usual rule, for a function that fails; its exception goes to `on_error`.
        again = disconnect.code != 1008 and not (disconnect.code == 1000 and reason not in ("", "server shutdown"))
        try:
            again = bool(self._should_reconnect(disconnect))
        finally:
            if not again and self._core is not None:
                self._core.stop()
        return again

    # --- Life ------------------------------------------------------------------------------------------------------

    async def connect(self) -> Client[In, Out]:
        """Connects: one attempt, which says why it failed. When it returns, ``on_connect`` has ended.

        Raises :exc:`ConnectFailed` (also if ``on_connect`` raised, whose own exception goes to ``on_error``),
        :exc:`Rejected`, :exc:`InvalidOption`. Cancelling gives the attempt up. A client that was closed may connect
        anew.
        """
        return await self._begin(lambda core, here: core.connect(here, None if self._asks else str(self._url)))

    async def _begin(
        self, connect: Callable[[_etp_ws.ClientCore, _etp_ws.Pump], _etp_ws.Waiting[None]]
    ) -> Client[In, Out]:
        if self._dialling or (self._core is not None and self._core.state not in (None, "closed")):
            raise InvalidState(f"this client is {self.state} already")
        here = pump()
        core = self._core = _etp_ws.ClientCore(self._routes, self._options, here)
        self._dialling = True
        try:
            try:
                waiting = connect(core, here)
            except BaseException:
                core.discard()
                raise
            await wait(waiting)
        except BaseException:
            self._core = None
            raise
        finally:
            self._dialling = False
        return self

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes and waits for the end: what was emitted before is sent, ``close_timeout`` in all, and ``on_disconnect``
        ends. A client that is not connected does nothing.

        Raises :exc:`InvalidOption` if the code can't be sent or the reason is longer than 123 bytes of UTF-8.
        Cancelled, the closing goes on.
        """
        core = self._core
        if core is not None and core.state not in (None, "closed"):
            await wait(core.close(pump(), code, reason))
            others = [task for task in self._ending if task is not None and task is not asyncio.current_task()]
            if others:
                await asyncio.wait(others)

    async def wait_closed(self) -> None:
        """Waits until the client is over: closed, rejected, or told not to come back. Cancelling loses nothing."""
        core = self._core
        if core is not None and core.state not in (None, "closed"):
            await wait(core.ask_closed(pump()))

    async def __aenter__(self) -> Client[In, Out]:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def state(self) -> State:
        """Where the client is in its life: ``connecting``, ``connected``, ``reconnecting`` or ``closed``, which it is
        before ``connect`` as well."""
        state = None if self._core is None else self._core.state
        if state is None:
            return "connecting" if self._dialling else "closed"
        return state

    @property
    def conn(self) -> Conn | None:
        """The connection of the moment, if there is one."""
        direct = self._direct()
        if direct is not None:
            return direct
        return None if self._core is None else self._core.conn()

    def _direct(self) -> Conn | None:
        connecting = _connecting.get()
        return connecting[1] if connecting is not None and connecting[0] is self else None

    # --- Events ----------------------------------------------------------------------------------------------------

    def _at_work(self) -> _etp_ws.ClientCore:
        if self._core is None:
            raise ConnectionClosed("the client is not connected")
        return self._core

    def emit(self, name: str, data: Out | None = None) -> None:
        """Emits an event. When it returns the event is queued: it is sent in order, at most once. Works from any
        thread.

        Raises :exc:`ConnectionClosed` (while away, unless there is a ``queue``), :exc:`OutboxFull` (also when that
        queue is full), :exc:`MessageTooLarge`, :exc:`InvalidEvent`, :exc:`InvalidPayload`.
        """
        direct = self._direct()
        if direct is not None:
            direct.emit(name, data)
        else:
            self._at_work().emit(name, data)

    async def emit_with_ack(self, name: str, data: Out | None = None, timeout: float | None = None) -> In:
        """Emits an event and awaits the acknowledgment: exactly one outcome, decided at most 100 ms after the deadline.

        ``timeout`` is in seconds; without it the option ``ack_timeout`` holds. One whose connection ends is not sent
        again: it ends with :exc:`ConnectionClosed`. Raises :exc:`AckTimeout`, :exc:`TooManyAcks`, :exc:`InvalidPayload`
        if the reply can't be decoded, and what :meth:`emit` raises. Cancelling gives the acknowledgment up; the event
        itself may have been sent.
        """
        direct = self._direct()
        target = self._at_work() if direct is None else direct
        reply: In = await wait(target.ask(pump(), name, data, timeout))
        return reply

    async def ping(self) -> float:
        """Sends a ping and awaits the pong: the round-trip time in seconds.

        Raises :exc:`ConnectionClosed`, and :exc:`AckTimeout` after the option ``ping_timeout``. Cancelling ignores the
        pong.
        """
        direct = self._direct()
        return await wait((self._at_work() if direct is None else direct).ask_ping(pump()))

    async def drain(self) -> None:
        """Waits until at most half of ``max_outbox`` is queued. Raises :exc:`ConnectionClosed`. Cancelling loses
        nothing."""
        direct = self._direct()
        await wait((self._at_work() if direct is None else direct).ask_drain(pump()))

    def events(self, *names: str, buffer: int = 1024) -> AsyncIterator[Event]:
        """An iterator over events of these names, or all: each is a copy and gets no reply. It ends with the client.

        At most ``buffer`` events wait; one more ends it with :exc:`Overflow`. It begins with this call. A plain event
        that only an iterator takes is not unknown.
        """
        return _Events(self, frozenset(names), buffer)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    def stats(self) -> Stats:
        """What the client has done and holds at this moment, over all its connections."""
        return Stats() if self._core is None else self._core.stats()

    def __repr__(self) -> str:
        return f"<Client {self.state}>"


class _Events(AsyncIterator[Event]):
    """An iterator over events: see :meth:`Client.events`."""

    def __init__(self, client: Client[Any, Any], names: frozenset[str], buffer: int) -> None:
        self._client = client
        self._names = names
        self._buffer = buffer
        self._events: deque[Event] = deque()
        self._overflow = False
        self._wake: asyncio.Future[None] | None = None
        self._over: asyncio.Task[None] | None = None
        client._taps.append(self)
        self._set()

    def _set(self) -> None:
        self._client._routes.set_taps([tap._put for tap in self._client._taps])

    def _put(self, name: str, data: Any) -> None:
        if self._overflow or (self._names and name not in self._names):
            return
        if len(self._events) >= self._buffer:
            self._overflow = True
        else:
            self._events.append(Event(name, data))
        self._rouse()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _stop(self) -> None:
        if self in self._client._taps:
            self._client._taps.remove(self)
            self._set()
        if self._over is not None:
            self._over.cancel()

    async def __anext__(self) -> Event:
        if self._over is None:
            self._over = asyncio.ensure_future(self._client.wait_closed())
            self._over.add_done_callback(lambda _: self._rouse())
        while True:
            if self._events:
                return self._events.popleft()
            if self._overflow:
                self._stop()
                raise Overflow(f"more than {self._buffer} events waited for this iterator (buffer)")
            if self._over.done():
                self._stop()
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    async def aclose(self) -> None:
        """Ends the iterator; events that wait are dropped."""
        self._stop()
        self._events.clear()

    def __del__(self) -> None:
        if self._over is not None and not self._over.done() and not self._over.get_loop().is_closed():
            self._over.cancel()
