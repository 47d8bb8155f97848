"""The shapes of handlers and callbacks, for type checkers. What is decorated stays exactly what it is, so it is a type
variable, bound by what it must look like; and since a bound can't depend on the codec, there is one for each."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ._conn import Conn
from ._errors import EtpError
from ._types import Disconnect, Request

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # What a codec makes of payloads, and what it takes. `Server` alone is `Server[Any, Any]`.
    In = TypeVar("In", default=Any)
    Out = TypeVar("Out", default=Any)
else:
    from typing import TypeVar

    In = TypeVar("In")
    Out = TypeVar("Out")

StrPath: TypeAlias = str | os.PathLike[str]
Json: TypeAlias = None | bool | int | float | str | list[Any] | tuple[Any, ...] | Mapping[str, object]
BytesLike: TypeAlias = bytes | bytearray | memoryview

Reply: TypeAlias = Out | None | Awaitable[Out | None]
Handler: TypeAlias = Callable[[Conn, In], Reply[Out]]
AsyncHandler: TypeAlias = Callable[[Conn, In], Coroutine[Any, Any, Out | None]]
SyncHandler: TypeAlias = Callable[[Conn, In], Out | None]
ClientHandler: TypeAlias = Callable[[In], Reply[Out]]
AsyncClientHandler: TypeAlias = Callable[[In], Coroutine[Any, Any, Out | None]]
SyncClientHandler: TypeAlias = Callable[[In], Out | None]


class Untyped:
    """No codec's: an overload for it is taken by ``Server[Any, Any]`` alone, which would match any other as well."""


AnyHandler = TypeVar("AnyHandler", bound=Callable[[Conn, Any], Any])
TextHandler = TypeVar("TextHandler", bound=Callable[[Conn, str], Reply[str]])
BytesHandler = TypeVar("BytesHandler", bound=Callable[[Conn, bytes], Reply[BytesLike]])
JsonHandler = TypeVar("JsonHandler", bound=Callable[[Conn, Any], Reply[Json]])

AnyClientHandler = TypeVar("AnyClientHandler", bound=Callable[[Any], Any])
TextClientHandler = TypeVar("TextClientHandler", bound=Callable[[str], Reply[str]])
BytesClientHandler = TypeVar("BytesClientHandler", bound=Callable[[bytes], Reply[BytesLike]])
JsonClientHandler = TypeVar("JsonClientHandler", bound=Callable[[Any], Reply[Json]])

# Callbacks, sync or async.
OnUpgrade = TypeVar("OnUpgrade", bound=Callable[[Request], object])
OnConnect = TypeVar("OnConnect", bound=Callable[[Conn], object])
OnDisconnect = TypeVar("OnDisconnect", bound=Callable[[Conn, Disconnect], object])
OnError = TypeVar("OnError", bound=Callable[[Conn | None, EtpError], object])
OnUnknownEvent = TypeVar("OnUnknownEvent", bound=Callable[[Conn, str, Any], Any])
Middleware = TypeVar(
    "Middleware", bound=Callable[[Conn, str, Any, Callable[[Conn, str, Any], Awaitable[Any]]], Awaitable[Any]]
)

OnClientConnect = TypeVar("OnClientConnect", bound=Callable[[], object])
OnClientDisconnect = TypeVar("OnClientDisconnect", bound=Callable[[Disconnect], object])
OnClientError = TypeVar("OnClientError", bound=Callable[[EtpError], object])
OnClientUnknownEvent = TypeVar("OnClientUnknownEvent", bound=Callable[[str, Any], Any])
ClientMiddleware = TypeVar(
    "ClientMiddleware", bound=Callable[[str, Any, Callable[[str, Any], Awaitable[Any]]], Awaitable[Any]]
)
