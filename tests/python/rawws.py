"""A WebSocket endpoint over a blocking socket, plain or TLS, for both roles, that does what it is told, right or wrong.

Libraries refuse to send what a peer must survive: unmasked frames, reserved bits, broken UTF-8, half a frame and then
silence, a frame in the same packet as the handshake. Here everything goes out as given, and what comes in is shown as
it came. Nothing is checked but what a reader of bytes can't do without; judging is left to the test.

Every wait ends with an event or, after `TIMEOUT` seconds, with an exception.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from tls import TlsSocket

TIMEOUT = 20.0
"""Seconds: generous, and still below the keepalive's 25, so that no timer of that kind ends a wait that should have
ended long before."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_RANDOM = object()

Headers = Iterable[tuple[str, str]]
Socket = socket.socket | TlsSocket


class Ended(Exception):
    """The TCP connection is over: `eof` for an orderly end, else `reset`."""

    def __init__(self, how: str) -> None:
        super().__init__(f"the connection ended: {how}")
        self.how = how


class Closed(Exception):
    """A close frame came where a message was awaited. `code` is None if the frame has none."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"the peer closed with {code} {reason!r}")
        self.code, self.reason = code, reason


class Refused(Exception):
    """The server answered the handshake with something other than 101; `.response` is its head."""

    def __init__(self, response: Head) -> None:
        super().__init__(f"the handshake was answered {response.first_line!r}")
        self.response = response


class Frame(NamedTuple):
    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    mask: bytes | None = None


class Message(NamedTuple):
    opcode: int
    data: bytes

    def __repr__(self) -> str:
        kind = {TEXT: "text", BINARY: "binary"}.get(self.opcode, str(self.opcode))
        if len(self.data) <= 300:
            return f"{kind}({self.data!r})"
        return f"{kind}({self.data[:100]!r}... {len(self.data)} bytes)"


def text(data: str | bytes) -> Message:
    return Message(TEXT, data.encode() if isinstance(data, str) else data)


def binary(data: str | bytes) -> Message:
    return Message(BINARY, data.encode() if isinstance(data, str) else data)


def masked(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask; its own inverse."""
    size = len(data)
    pad = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
    length: int | None = None,
) -> bytes:
    """The bytes of one frame. `rsv` is 0 to 7; `length` announces another size than the payload has."""
    size = len(payload) if length is None else length
    head = bytearray([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0 if mask is None else 0x80
    if size < 126:
        head.append(bit | size)
    elif size < 1 << 16:
        head.append(bit | 126)
        head += struct.pack("!H", size)
    else:
        head.append(bit | 127)
        head += struct.pack("!Q", size)
    if mask is None:
        return bytes(head) + payload
    return bytes(head) + mask + masked(payload, mask)


def close_payload(code: int | None, reason: str | bytes = "") -> bytes:
    if code is None:
        return b""
    return struct.pack("!H", code) + (reason.encode() if isinstance(reason, str) else reason)


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


@dataclass
class Head:
    """First line and headers of a request or a response, and `rest`: what came behind them in the same packets."""

    first_line: str
    headers: list[tuple[str, str]]
    rest: bytes = field(default=b"", repr=False)

    @property
    def status(self) -> int:
        return int(self.first_line.split()[1])

    @property
    def target(self) -> str:
        return self.first_line.split()[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return ", ".join(values) if values else None


class Wire:
    """A socket, and the bytes read from it that nobody has taken yet."""

    def __init__(self, sock: Socket, rest: bytes = b"") -> None:
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._buffer = bytearray(rest)

    def send_bytes(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Ended("reset") from error

    def _fill(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionResetError as error:
            raise Ended("reset") from error
        except TimeoutError as error:
            raise TimeoutError(f"nothing came in {self.sock.gettimeout():.0f} s") from error
        if not data:
            raise Ended("eof")
        self._buffer += data

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def read_head(self) -> Head:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill()
        lines = self.take(end + 4).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        return Head(lines[0], [(name, value.strip()) for name, _, value in pairs], bytes(self._buffer))

    def read_to_end(self) -> bytes:
        """Everything up to the end of the connection, however it ends."""
        try:
            while True:
                self._fill()
        except Ended:
            return self.take(len(self._buffer))

    def end(self) -> None:
        """Closes the socket in order (FIN)."""
        self.sock.close()

    def finish_writing(self) -> None:
        """Says that no more bytes come (FIN), and goes on reading. It may be over already."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Tears the connection (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Endpoint(Wire):
    """An established WebSocket connection. `masking` says whether frames go out masked: so in the client's role."""

    def __init__(self, sock: Socket, head: Head, *, masking: bool, rest: bytes = b"") -> None:
        super().__init__(sock, rest)
        self.head = head
        self.masking = masking
        self.pongs: list[bytes] = []

    def encode(self, opcode: int, payload: bytes = b"", *, mask: object = _RANDOM, **how: object) -> bytes:
        if mask is _RANDOM:
            mask = os.urandom(4) if self.masking else None
        return frame(opcode, payload, mask=mask, **how)  # type: ignore[arg-type]

    def send_frame(self, opcode: int, payload: bytes = b"", **how: object) -> None:
        self.send_bytes(self.encode(opcode, payload, **how))

    def send(self, *messages: Message) -> None:
        """Sends whole messages, all in one write."""
        self.send_bytes(b"".join(self.encode(message.opcode, message.data) for message in messages))

    def send_text(self, *messages: str | bytes) -> None:
        self.send(*map(text, messages))

    def send_binary(self, *messages: str | bytes) -> None:
        self.send(*map(binary, messages))

    def send_fragments(self, opcode: int, *pieces: bytes) -> None:
        """One message, a frame for each piece."""
        last = len(pieces) - 1
        self.send_bytes(
            b"".join(
                self.encode(CONTINUATION if index else opcode, piece, fin=index == last)
                for index, piece in enumerate(pieces)
            )
        )

    def ping(self, payload: bytes = b"") -> None:
        self.send_frame(PING, payload)

    def send_close(self, code: int | None = 1000, reason: str | bytes = "") -> None:
        self.send_frame(CLOSE, close_payload(code, reason))

    def receive_frame(self) -> Frame:
        first, second = self.take(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self.take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.take(8))
        mask = self.take(4) if second & 0x80 else None
        payload = self.take(size)
        if mask is not None:
            payload = masked(payload, mask)
        return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7, mask)

    def receive(self) -> Message:
        """The next whole message. Pings are answered, pongs kept in `pongs`; a close frame raises `Closed`."""
        opcode, data = None, b""
        while True:
            got = self.receive_frame()
            if got.opcode == PING:
                self.send_frame(PONG, got.payload)
            elif got.opcode == PONG:
                self.pongs.append(got.payload)
            elif got.opcode == CLOSE:
                raise self.closed(got)
            else:
                opcode = got.opcode if opcode is None else opcode
                data += got.payload
                if got.fin:
                    return Message(opcode, data)

    @staticmethod
    def closed(got: Frame) -> Closed:
        if len(got.payload) < 2:
            return Closed(None, "")
        return Closed(int.from_bytes(got.payload[:2], "big"), got.payload[2:].decode(errors="backslashreplace"))


E = TypeVar("E", bound=Endpoint)


def _dial(url: str) -> Socket:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None, url
    sock = socket.create_connection((parts.hostname, parts.port), TIMEOUT)
    return TlsSocket(sock) if parts.scheme == "wss" else sock


def new_key() -> str:
    return base64.b64encode(os.urandom(16)).decode()


def request(
    url: str,
    *,
    method: str = "GET",
    target: str | None = None,
    version: str = "HTTP/1.1",
    headers: Headers = (),
    without: Iterable[str] = (),
) -> bytes:
    """The bytes of a handshake request. `headers` come on top of the usual ones and take the place of a namesake."""
    parts = urlsplit(url)
    if target is None:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    wanted = [
        ("Host", parts.netloc),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", new_key()),
        ("Sec-WebSocket-Version", "13"),
    ]
    headers = list(headers)
    gone = {name.lower() for name, _ in headers} | {name.lower() for name in without}
    lines = [f"{method} {target} {version}"]
    lines += [f"{name}: {value}" for name, value in wanted if name.lower() not in gone]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def exchange(url: str, data: bytes) -> Head:
    """Sends bytes over a new connection and reads the head of the answer, which may come before everything is sent."""
    wire = Wire(_dial(url))
    try:
        with contextlib.suppress(Ended):
            wire.send_bytes(data)
        return wire.read_head()
    finally:
        wire.end()


def open_wire(url: str) -> Wire:
    """A connection to the server on which nothing has been said yet."""
    return Wire(_dial(url))


def connect(
    url: str,
    *,
    target: str | None = None,
    headers: Headers = (),
    first: bytes = b"",
    pieces: bool = False,
    endpoint: type[E] = Endpoint,  # type: ignore[assignment]
) -> E:
    """Dials and shakes hands.

    `first` goes out in the packet of the request, right behind it; `pieces` sends the request byte by byte.
    Raises `Refused` for any status but 101.
    """
    key = new_key()
    head = request(url, target=target, headers=[("Sec-WebSocket-Key", key), *headers])
    wire = Wire(_dial(url))
    try:
        if pieces:
            for byte in head:
                wire.send_bytes(bytes([byte]))
            wire.send_bytes(first)
        else:
            wire.send_bytes(head + first)
        response = wire.read_head()
        if response.status != 101:
            raise Refused(response)
        assert response.get("Sec-WebSocket-Accept") == accept_key(key), response
    except BaseException:
        wire.end()
        raise
    return endpoint(wire.sock, response, masking=True, rest=response.rest)


class Dialled(Wire):
    """A client's connection whose request has been read and not yet answered."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.request = self.read_head()

    def answer(self, status: str, headers: Headers = (), body: bytes = b"") -> None:
        """Writes a response as given, e.g. `503 Service Unavailable`."""
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
        self.send_bytes(("\r\n".join(lines) + "\r\n\r\n").encode() + body)

    def refuse(self, status: str, headers: Headers = ()) -> None:
        """Writes a response without a body and closes."""
        self.answer(status, [("Content-Length", "0"), ("Connection", "close"), *headers])
        self.end()

    def switching(self, headers: Headers = ()) -> bytes:
        """A correct 101; `headers` take the place of a namesake."""
        key = self.request.get("Sec-WebSocket-Key")
        assert key is not None, self.request
        wanted = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept_key(key))]
        headers = list(headers)
        gone = {name.lower() for name, _ in headers}
        lines = ["HTTP/1.1 101 Switching Protocols"]
        lines += [f"{name}: {value}" for name, value in wanted if name.lower() not in gone]
        lines += [f"{name}: {value}" for name, value in headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def accept(
        self,
        *,
        headers: Headers = (),
        first: bytes = b"",
        pieces: bool = False,
        endpoint: type[E] = Endpoint,  # type: ignore[assignment]
    ) -> E:
        """Answers 101. `first` goes out in the packet of the response; `pieces` sends the response byte by byte."""
        head = self.switching(headers)
        if pieces:
            for byte in head:
                self.send_bytes(bytes([byte]))
            self.send_bytes(first)
        else:
            self.send_bytes(head + first)
        return endpoint(self.sock, self.request, masking=False, rest=bytes(self._buffer))


class Listener:
    """A server's listening socket on a free port of the loopback interface."""

    def __init__(self, target: str = "/ws") -> None:
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._sock.settimeout(TIMEOUT)
        self.port: int = self._sock.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}{target}"

    def next(self) -> Dialled:
        """Waits for a client and reads its request."""
        sock, _ = self._sock.accept()
        return Dialled(sock)

    def close(self) -> None:
        self._sock.close()
