"""A server's connections, and broadcasts to them."""

from __future__ import annotations

from typing import Any

from . import _etp_ws
from ._loop import pump, wait

__all__ = ["Broadcast", "Conn"]


class Conn(_etp_ws.ConnBase):
    """One connection. It lives until one side closes it, whoever holds this object.

    Everything but what is awaited may be called from any thread.
    """

    __slots__ = ("_data",)

    _data: Any

    @property
    def data(self) -> Any:
        """Anything that lives with the connection: what ``on_upgrade`` returned, or else a dict that is empty at first.
        It may be set."""
        try:
            return self._data
        except AttributeError:
            self._data = {}
            return self._data

    @data.setter
    def data(self, data: Any) -> None:
        self._data = data

    async def emit_with_ack(self, name: str, data: Any = None, timeout: float | None = None) -> Any:
        """Emits an event and awaits the acknowledgment: exactly one outcome, decided at most 100 ms after the deadline.

        ``timeout`` is in seconds; without it the option ``ack_timeout`` holds. Raises :exc:`AckTimeout`,
        :exc:`ConnectionClosed` as soon as the connection ends, :exc:`TooManyAcks`, :exc:`InvalidPayload` if the reply
        can't be decoded, and what :meth:`emit` raises.

        Cancelling gives the acknowledgment up; the event itself may have been sent.
        """
        return await wait(self.ask(pump(), name, data, timeout))

    async def ping(self) -> float:
        """Sends a ping and awaits the pong: the round-trip time in seconds.

        Raises :exc:`ConnectionClosed`, and :exc:`AckTimeout` after the option ``ping_timeout``. Cancelling ignores the
        pong. Under an ASGI server it is the way to that server and back.
        """
        return await wait(self.ask_ping(pump()))

    async def drain(self) -> None:
        """Waits until at most half of ``max_outbox`` is queued: flow control for those who emit much.

        Raises :exc:`ConnectionClosed`. Cancelling loses nothing.
        """
        await wait(self.ask_drain(pump()))

    async def closed(self) -> None:
        """Waits until closing has begun, whoever began it: how a handler learns that its peer has left. Cancelling
        loses nothing."""
        await wait(self.ask_closed(pump()))


class Broadcast(_etp_ws.BroadcastBase):
    """A broadcast in the making: ``server.to("a", "b").except_(conn).emit("say", "hi")``. Rooms are a union: a
    connection in several of them gets the message once."""

    __slots__ = ()
