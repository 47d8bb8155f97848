"""Pings go out and are answered while the event loop is blocked: the core's thread does both."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
from programs import LIMIT, Program, peer

CONNECTIONS = 20
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def block(program: Program) -> tuple[int, int]:
    """Connects peers from a process of their own, which ping as well, and has the loop blocked far longer than that may
    take: how many peers there were, and how many connections were lost."""
    url = program.line("READY")
    with Program("peers", url, str(CONNECTIONS)) as peers:
        peers.line("CONNECTED")
        with peer(url) as ws:
            ws.send("block||0||")
            program.line("BLOCKED")
            program.line("FREE")
        peers.tell()
        lost = int(peers.line("LOST"))
        peers.end()
    program.tell()
    program.end()
    return CONNECTIONS, lost


def test_a_handler_that_blocks_the_loop_loses_no_connection() -> None:
    with Program("blocked", "own") as program:
        assert block(program) == (CONNECTIONS, 0)


@pytest.mark.parametrize("pinger", ["websockets", "uvicorn"])
def test_pings_from_within_the_loop_would_lose_them_all(pinger: str) -> None:
    """The control: the same handler and peers, where the loop itself has to send pings and answer them."""
    with Program("blocked", pinger) as program:
        assert block(program) == (CONNECTIONS, CONNECTIONS)


def test_a_peer_that_answers_no_ping_is_lost_while_the_loop_is_blocked() -> None:
    """The pings do go out: who does not answer is closed, and no Python runs meanwhile."""
    with Program("blocked", "own", "until told") as program:
        url = urlsplit(program.line("READY"))
        with peer(url.geturl()) as ws, socket.create_connection((url.hostname, url.port), timeout=LIMIT) as deaf:
            deaf.sendall(HANDSHAKE)
            received = deaf.recv(4096)
            assert received.startswith(b"HTTP/1.1 101 ")
            ws.send("block||0||")
            program.line("BLOCKED")
            while more := deaf.recv(4096):
                received += more
            assert received.endswith(b"\x03\xf3ping timeout"), received
        program.tell()
        program.line("FREE")
        program.tell()
        program.end()
