"""What servers and clients share: codecs, handlers, callbacks and middleware."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from . import _etp_ws
from ._errors import InvalidOption

__all__ = ["Codec"]

Codec = Literal["text", "json", "bytes"] | tuple[Callable[[Any], "str | bytes"], Callable[[bytes], Any]]
"""How payloads become Python values: ``str``, JSON by the standard library, ``bytes``, or a pair of functions: one
makes ``str`` or ``bytes`` of a value, the other a value of ``bytes``."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_dumps = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_loads = json.JSONDecoder(parse_constant=_no_constant).decode


def make_routes(codec: Codec, client: bool) -> _etp_ws.Routes:
    """The table of handlers for a codec."""
    if isinstance(codec, tuple):
        if len(codec) == 2 and all(map(callable, codec)):
            return _etp_ws.Routes("pair", *codec, client=client)
    elif codec == "json":
        return _etp_ws.Routes("json", _dumps, _loads, client=client)
    elif codec == "text" or codec == "bytes":
        return _etp_ws.Routes(codec, client=client)
    raise InvalidOption(f'codec is {codec!r}; it is "text", "json", "bytes" or a pair of functions (dumps, loads)')


class Handlers:
    """Handlers by event, callbacks, and middleware around every event."""

    def __init__(self, codec: Codec, client: bool) -> None:
        self._codec = codec
        self._routes = make_routes(codec, client)
        self._client = client
        self._by_event: dict[str, Callable[..., Any]] = {}
        self._unknown: Callable[..., Any] | None = None
        self._middleware: list[Callable[..., Any]] = []

    def _register(self, name: str, handler: Callable[..., Any]) -> None:
        _check(handler, f"the handler of event {name!r}")
        self._routes.set_handler(name, self._wrapped(handler, name))
        self._by_event[name] = handler

    def _remove(self, name: str) -> None:
        self._routes.remove_handler(name)
        self._by_event.pop(name, None)

    def _callback(self, name: _etp_ws._Callback, f: Callable[..., Any]) -> None:
        _check(f, name)
        if name == "on_unknown_event":
            self._unknown = f
            f = self._wrapped_unknown(f)
        self._routes.set_callback(name, f)

    def _add_middleware(self, middleware: Callable[..., Any]) -> None:
        _check(middleware, "middleware")
        self._middleware.append(middleware)
        for name, handler in self._by_event.items():
            self._routes.set_handler(name, self._wrapped(handler, name))
        if self._unknown is not None:
            self._routes.set_callback("on_unknown_event", self._wrapped_unknown(self._unknown))

    def _chain(self, last: Callable[..., Any]) -> Callable[..., Any]:
        # The first that was added is the outermost.
        for middleware in reversed(self._middleware):
            last = _around(middleware, last)
        return last

    def _wrapped(self, handler: Callable[..., Any], name: str) -> Callable[..., Any]:
        if not self._middleware:
            return handler
        if self._client:

            async def of_client(_name: str, data: Any) -> Any:
                return await _outcome(handler(data))

            chain = self._chain(of_client)

            def call(data: Any) -> Any:
                return chain(name, data)

            setattr(call, "__wrapped__", handler)  # noqa: B010
            return call

        async def of_server(conn: Any, _name: str, data: Any) -> Any:
            return await _outcome(handler(conn, data))

        chain = self._chain(of_server)

        def call_with(conn: Any, data: Any) -> Any:
            return chain(conn, name, data)

        setattr(call_with, "__wrapped__", handler)  # noqa: B010
        return call_with

    def _wrapped_unknown(self, f: Callable[..., Any]) -> Callable[..., Any]:
        if not self._middleware:
            return f

        async def unknown(*args: Any) -> Any:
            return await _outcome(f(*args))

        return self._chain(unknown)


def _around(middleware: Callable[..., Any], last: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return middleware(*args, last)

    return call


async def _outcome(returned: Any | Awaitable[Any]) -> Any:
    return await returned if inspect.isawaitable(returned) else returned


def _check(f: Any, what: str) -> None:
    if not callable(f):
        raise TypeError(f"{what} is to be a function, not {type(f).__name__}")
