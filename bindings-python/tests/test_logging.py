"""The core's logs are `logging`'s, under `etp_ws`, and come through the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest
from etp_ws import Client, Server

pytestmark = pytest.mark.anyio


class Records(logging.Handler):
    """Keeps records; awaits one."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.threads: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.threads.add(threading.get_ident())

    def of(self, name: str) -> list[str]:
        return [record.getMessage() for record in self.records if record.name == name]


@pytest.fixture
def records() -> Iterator[Records]:
    handler = Records()
    loggers = [logging.getLogger("etp_ws"), logging.getLogger("etp_ws.wire")]
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(handler)
    yield handler
    loggers[0].removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def make(**options: bool) -> Server[str, str]:
    server = Server(**options)  # type: ignore[arg-type]
    server.on("echo", lambda conn, data: data)
    return server


async def exchange(server: Server[str, str]) -> None:
    async with server.start("127.0.0.1", 0), Client(server.url) as client:
        for _ in range(3):
            assert await client.emit_with_ack("echo", "a payload of this test") == "a payload of this test"


async def test_each_message_is_logged_to_the_wire_s_logger_when_asked_for(records: Records) -> None:
    logging.getLogger("etp_ws.wire").setLevel(5)
    await exchange(make(wire_log=True))
    wire = records.of("etp_ws.wire")
    assert sum("a payload of this test" in text for text in wire) >= 3, wire
    assert {record.levelno for record in records.records if record.name == "etp_ws.wire"} == {5}


@pytest.mark.parametrize("level", [5, logging.DEBUG, logging.INFO])
async def test_nothing_shows_a_payload_unless_it_is_asked_for(level: int, records: Records) -> None:
    logging.getLogger("etp_ws").setLevel(level)
    await exchange(make())
    assert records.of("etp_ws") and not records.of("etp_ws.wire")
    assert not any("a payload of this test" in record.getMessage() for record in records.records)


async def test_by_default_only_what_deserves_a_warning_is_logged(records: Records) -> None:
    await exchange(make(wire_log=True))
    assert records.records == []


async def test_a_handshake_that_breaks_off_is_logged_without_the_loop_s_doing(records: Records) -> None:
    """What the core logs by itself, on its own thread, comes through the loop, in the loop's thread."""
    logging.getLogger("etp_ws").setLevel(logging.DEBUG)
    server = make()
    async with server.start("127.0.0.1", 0):
        reader, writer = await asyncio.open_connection(*(server.address or ()))
        writer.write(b"no HTTP at all\r\n\r\n")
        await reader.read()
        writer.close()
        while not any(record.levelno >= logging.WARNING for record in records.records):
            await asyncio.sleep(0.01)
    assert records.threads == {threading.get_ident()}
    assert all(record.name == "etp_ws" or record.name.startswith("etp_ws.") for record in records.records)


async def test_a_level_may_change_while_the_server_works(records: Records) -> None:
    logger = logging.getLogger("etp_ws.wire")
    server = make(wire_log=True)
    async with server.start("127.0.0.1", 0), Client(server.url) as client:
        assert await client.emit_with_ack("echo", "unseen") == "unseen"
        assert records.records == []
        logger.setLevel(5)
        # The core learns of it within a second.
        while not any("seen by now" in text for text in records.of("etp_ws.wire")):
            assert await client.emit_with_ack("echo", "seen by now") == "seen by now"
        logger.setLevel(logging.WARNING)
        logged = 1
        while logged:
            records.records.clear()
            await client.emit_with_ack("echo", "seen no more")
            await client.emit_with_ack("echo", "seen no more")
            logged = len(records.records)
