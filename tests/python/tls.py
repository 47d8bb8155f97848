"""TLS over a socket of which one thread may read while another writes, which `ssl.SSLSocket` does not promise."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any

RECORD = 1 << 14
"""The most that TLS encrypts in one go."""


class TlsSocket:
    """A client's end, as far as `rawws` uses a socket. Whoever answers is believed to be the right one."""

    def __init__(self, sock: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._sock = sock
        self._received, self._encrypted = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._encrypted)
        self._state = threading.Lock()  # never held while the socket is waited for
        self._sending = threading.Lock()
        try:
            self._shake_hands()
        except BaseException:
            sock.close()
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        while True:
            with self._state, contextlib.suppress(ssl.SSLWantReadError):
                try:
                    return self._tls.read(size)
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            self._receive()

    def send(self, data: bytes | memoryview) -> int:
        """Sends a part. After a timeout nothing more can be sent: what is encrypted has to follow."""
        part = data[:RECORD]
        self.sendall(part)
        return len(part)

    def sendall(self, data: bytes | memoryview) -> None:
        with self._sending:
            with self._state:
                self._tls.write(data)
            self._send_encrypted()

    def shutdown(self, how: int) -> None:
        """Says that no more comes, as TLS wants it: an end without that is an attack. Reading goes on."""
        assert how == socket.SHUT_WR
        with self._sending:
            with self._state, contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            self._send_encrypted()
        self._sock.shutdown(how)

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_encrypted()
                self._receive()
            else:
                return self._send_encrypted()

    def _send_encrypted(self) -> None:
        self._sock.sendall(self._encrypted.read())

    def _receive(self) -> None:
        data = self._sock.recv(1 << 18)
        with self._state:
            if data:
                self._received.write(data)
            else:
                self._received.write_eof()
