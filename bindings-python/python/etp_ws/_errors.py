"""What can go wrong, one class for each code; the codes are the same in every language."""

from __future__ import annotations

__all__ = [
    "AckTimeout",
    "ConnectFailed",
    "ConnectionClosed",
    "EtpError",
    "HandlerFailed",
    "HandshakeFailed",
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
    "Rejected",
    "TooManyAcks",
]


class EtpError(Exception):
    """The base of all errors of this package. ``code`` is the error's stable name, the same in every language."""

    code: str = "internal_error"


class ConnectionClosed(EtpError):
    """The connection is or gets closed. ``close_code`` and ``close_reason`` tell how, where it is known."""

    code = "connection_closed"
    close_code: int | None = None
    close_reason: str | None = None


class AckTimeout(EtpError, TimeoutError):
    """No reply by the deadline, or no pong."""

    code = "ack_timeout"


class OutboxFull(EtpError):
    """An ``emit`` past ``max_outbox``, or the client's ``queue`` is full. Nothing was queued; await ``drain()``."""

    code = "outbox_full"


class TooManyAcks(EtpError):
    """``max_pending_acks`` acknowledgments are awaited already."""

    code = "too_many_acks"


class MessageTooLarge(EtpError, ValueError):
    """The message is larger than ``max_message_size``."""

    code = "message_too_large"


class InvalidEvent(EtpError, ValueError):
    """The name is empty, longer than 256 bytes, contains ``||``, ends in ``|``, or begins with ``__ack_`` or
    ``__etp``."""

    code = "invalid_event"


class InvalidPayload(EtpError, ValueError):
    """The codec can't encode or decode the value; its own exception is the ``__cause__``."""

    code = "invalid_payload"


class InvalidOption(EtpError, ValueError):
    """A limit, address, URL, origin or TLS file that can't be."""

    code = "invalid_option"


class ListenFailed(EtpError, OSError):
    """The address is taken or forbidden."""

    code = "listen_failed"


class ConnectFailed(EtpError, OSError):
    """A dial led to no connection. ``status`` is the HTTP status that was answered, if one was."""

    code = "connect_failed"
    status: int | None = None


class Rejected(EtpError):
    """A dial was answered 401 or 403: ``status``."""

    code = "rejected"
    status: int | None = None


class MalformedFrame(EtpError):
    """Only to ``on_error``: a received frame is outside the grammar."""

    code = "malformed_frame"


class NoHandler(EtpError):
    """Only to ``on_error``: an event that nobody handles."""

    code = "no_handler"


class HandlerFailed(EtpError):
    """Only to ``on_error``: a handler or callback raised; its exception is the ``__cause__``."""

    code = "handler_failed"


class HandshakeFailed(EtpError):
    """Only to ``on_error``, without a connection: a handshake was refused or broke off. ``status`` is what was
    answered, if anything was."""

    code = "handshake_failed"
    status: int | None = None


class Overflow(EtpError):
    """An iterator over events fell behind its ``buffer``."""

    code = "overflow"


class InvalidState(EtpError, RuntimeError):
    """A use that can't be here: in the child of a fork, on another event loop, of a server that has not started."""

    code = "invalid_state"


class InternalError(EtpError):
    """A bug of this package. Please report it."""

    code = "internal_error"


BY_CODE: dict[str, type[EtpError]] = {
    error.code: error
    for error in (
        ConnectionClosed,
        AckTimeout,
        OutboxFull,
        TooManyAcks,
        MessageTooLarge,
        InvalidEvent,
        InvalidPayload,
        InvalidOption,
        ListenFailed,
        ConnectFailed,
        Rejected,
        MalformedFrame,
        NoHandler,
        HandlerFailed,
        HandshakeFailed,
        Overflow,
        InvalidState,
        InternalError,
    )
}
