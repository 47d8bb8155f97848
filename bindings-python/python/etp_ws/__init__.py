"""Events, acknowledgments and rooms over WebSocket: a server and a client for asyncio, on a core in Rust.

The front page with a first program, all options and all errors is the package's README.
"""

from __future__ import annotations

import asyncio as _asyncio
import atexit as _atexit
import contextvars as _contextvars
import os as _os
import types as _types_module

from . import _supported as _supported  # isort: skip  # before anything that needs what it checks
from . import _etp_ws, _loop
from ._client import Client, ClientOptions, State
from ._conn import Broadcast, Conn
from ._errors import BY_CODE as _BY_CODE
from ._errors import (
    AckTimeout,
    ConnectFailed,
    ConnectionClosed,
    EtpError,
    HandlerFailed,
    HandshakeFailed,
    InternalError,
    InvalidEvent,
    InvalidOption,
    InvalidPayload,
    InvalidState,
    ListenFailed,
    MalformedFrame,
    MessageTooLarge,
    NoHandler,
    OutboxFull,
    Overflow,
    Rejected,
    TooManyAcks,
)
from ._handlers import Codec
from ._server import Server, ServerOptions
from ._types import Accept, Disconnect, Event, Headers, Reconnect, Reject, Request, Stats

__version__: str = _etp_ws.__version__

__all__ = [
    "Accept",
    "AckTimeout",
    "Broadcast",
    "Client",
    "ClientOptions",
    "Codec",
    "Conn",
    "ConnectFailed",
    "ConnectionClosed",
    "Disconnect",
    "EtpError",
    "Event",
    "HandlerFailed",
    "HandshakeFailed",
    "Headers",
    "InternalError",
    "InvalidEvent",
    "InvalidOption",
    "InvalidPayload",
    "InvalidState",
    "ListenFailed",
    "MalformedFrame",
    "MessageTooLarge",
    "NoHandler",
    "OutboxFull",
    "Overflow",
    "Reconnect",
    "Reject",
    "Rejected",
    "Request",
    "Server",
    "ServerOptions",
    "State",
    "Stats",
    "TooManyAcks",
]

_etp_ws.install(
    {
        "Conn": Conn,
        "Broadcast": Broadcast,
        "Request": Request,
        "Disconnect": Disconnect,
        "Accept": Accept,
        "Reject": Reject,
        "Stats": Stats,
        "errors": _BY_CODE,
        "work": _loop.work,
        "log_error": _loop.log_error,
        "drain_logs": _loop.drain_logs,
        "CoroutineType": _types_module.CoroutineType,
        "CancelledError": _asyncio.CancelledError,
        "copy_context": _contextvars.copy_context,
        "current_task": _asyncio.current_task,
    }
)
_atexit.register(_etp_ws.stop)
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(
        before=_etp_ws.before_fork,
        after_in_parent=_etp_ws.after_fork_in_parent,
        after_in_child=_loop.after_fork,
    )
