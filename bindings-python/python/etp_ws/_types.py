"""Small values: what a handshake is answered with, how a connection ended, numbers for monitoring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from . import _etp_ws

__all__ = ["Accept", "Disconnect", "Event", "Headers", "Reconnect", "Reject", "Request", "Stats"]


class Headers(Mapping[str, str]):
    """Headers by their names, in any case. Of several with one name it shows the first; ``get_all`` has them all."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [(name.lower(), value) for name, value in pairs]

    def __getitem__(self, name: str) -> str:
        name = name.lower()
        for key, value in self._pairs:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    def __len__(self) -> int:
        return len(dict(self._pairs))

    def get_all(self, name: str) -> list[str]:
        """The values of all headers of this name."""
        name = name.lower()
        return [value for key, value in self._pairs if key == name]

    def __repr__(self) -> str:
        # Values may be secrets.
        return f"<Headers {', '.join(self)}>"


class Request(_etp_ws.RequestBase):
    """The HTTP request that a connection began with."""

    __slots__ = ("_headers", "scope")

    _headers: Headers
    scope: dict[str, Any] | None
    """In ``on_upgrade`` under an ASGI server: the ASGI scope, with what middleware in front has put there; else
    None."""

    def __new__(cls, seed: Any) -> Self:
        self = super().__new__(cls, seed)
        self.scope = None
        return self

    @property
    def headers(self) -> Headers:
        """The headers, by name in any case."""
        try:
            return self._headers
        except AttributeError:
            self._headers = Headers(self.header_list())
            return self._headers


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    if headers is None:
        return []
    if isinstance(headers, Mapping):
        # A mapping that is an iterable of pairs as well, its keys pairs of text: there is none.
        return list(headers.items())  # pyright: ignore[reportReturnType]
    return list(headers)


class Accept:
    """Lets a connection in: what ``on_upgrade`` may return.

    ``data`` becomes ``conn.data``; ``headers`` are added to the answer; ``protocol`` selects a subprotocol that the
    client offered; ``close`` is a code and reason to close with at once, which a browser's script can read where a
    status would be hidden from it.
    """

    __slots__ = ("close", "data", "headers", "protocol")

    def __init__(
        self,
        data: Any = None,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        protocol: str | None = None,
        close: tuple[int, str] | None = None,
    ) -> None:
        self.data = data
        self.headers = headers
        self.protocol = protocol
        self.close = close

    def _pairs(self) -> list[tuple[str, str]]:
        return _pairs(self.headers)

    def __repr__(self) -> str:
        return f"<Accept protocol={self.protocol!r} close={self.close!r}>"


class Reject(Exception):
    """Raised in ``on_upgrade``: turns a handshake away with an HTTP status.

    401 and 403 tell our clients not to come back; 429 and 503 to come back later, after a header ``Retry-After`` in
    seconds. A status below 400 or above 599 becomes 500.
    """

    def __init__(
        self,
        status: int,
        body: str | None = None,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers

    def _pairs(self) -> list[tuple[str, str]]:
        return _pairs(self.headers)


@dataclass(frozen=True, slots=True)
class Disconnect:
    """How a connection ended."""

    code: int
    """The close code (RFC 6455, 7.4): the peer's, or ours where we closed first; 1005 if the peer's close frame carried
    none, 1006 if there was no close frame."""
    reason: str
    """The close reason; empty where there was no close frame."""
    clean: bool
    """Whether the closing handshake finished."""
    normal: bool
    """Whether the code is 1000."""
    will_reconnect: bool = False
    """In a client: whether it dials again by itself."""


@dataclass(frozen=True, slots=True)
class Event:
    """A received event, from an iterator over events."""

    name: str
    data: Any


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How a client comes back: after a random time of at most ``base`` doubled with every attempt, up to ``cap``; anew
    after a connection that lived for ``reset_after``. Seconds."""

    base: float = 0.5
    cap: float = 30.0
    reset_after: float = 30.0


@dataclass(frozen=True, slots=True)
class Stats:
    """What a server or client has done and holds. Counts run from its start; sizes are in bytes."""

    connections: int = 0
    """Connections that are open now."""
    connects: int = 0
    """Connections that there ever were."""
    events_in: int = 0
    """Events received (replies are not events)."""
    messages_out: int = 0
    """Messages queued for sending so far: events, replies and control frames."""
    bytes_in: int = 0
    """Bytes received on connections, WebSocket framing included."""
    bytes_out: int = 0
    """Bytes that have left, WebSocket framing included."""
    acks_pending: int = 0
    """Acknowledgments awaited now."""
    acks_timed_out: int = 0
    """Acknowledgments that timed out."""
    stray_replies: int = 0
    """Replies that nobody waited for."""
    malformed_frames: int = 0
    """Received frames outside the grammar."""
    handshakes_failed: int = 0
    """Handshakes that were refused or broke off."""
    handlers_in_flight: int = 0
    """Handlers that run now."""
    bytes_queued: int = 0
    """Bytes in all outboxes now."""
    closes: dict[str, int] = field(default_factory=dict)
    """Ended connections by reason: what this side closed for (``ping timeout``, ``slow consumer``, ...), else the close
    code."""
