"""Events, acknowledgments and rooms over WebSocket: a server and a client for asyncio, on a core in Rust.

The front page with a first program, all options and all errors is the package's README.
"""

from __future__ import annotations

import sysconfig as _sysconfig

if _sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise ImportError("etp_ws does not support free-threaded Python (a build without the GIL); use the ordinary build of the same version")

import asyncio as _asyncio
import atexit as _atexit
import contextvars as _contextvars
import os as _os
import types as _types_module

from . import _etp_ws, _loop
from ._client import Client, ClientOptions, State
from ._conn import Broadcast, Conn
from ._errors import *  # noqa: F403
from ._errors import BY_CODE as _BY_CODE
from ._errors import __all__ as _errors
from ._handlers import Codec
from ._server import Server, ServerOptions
from ._types import Accept, Disconnect, Event, Headers, Reconnect, Reject, Request, Stats

__version__: str = _etp_ws.__version__

__all__ = [  # noqa: PLE0604
    "Accept",
    "Broadcast",
    "Client",
    "ClientOptions",
    "Codec",
    "Conn",
    "Disconnect",
    "Event",
    "Headers",
    "Reconnect",
    "Reject",
    "Request",
    "Server",
    "ServerOptions",
    "State",
    "Stats",
    *_errors,
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
    }
)
_atexit.register(_etp_ws.stop)
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(after_in_child=_loop.after_fork)
