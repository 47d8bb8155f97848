"""What has ended leaves nothing behind: no object, no descriptor, no memory."""

from __future__ import annotations

import pytest
from programs import run


def measure(*args: str) -> dict[str, list[int]]:
    # Development mode's allocator keeps what it likes.
    said, _ = run("garbage", *args, flags=("-W", "error"))
    assert said[-1] == "END"
    return {name: [int(number) for number in rest.split()] for name, _, rest in (line.partition(" ") for line in said)}


def check(found: dict[str, list[int]], at_work: int) -> None:
    assert found["LIVE"] == [0]
    # Servers and clients at work, connections, tasks, items that wait.
    assert found["COUNTS"] == [at_work, 0, 0, 0]
    assert found["DESCRIPTORS"] == [0]
    before, after = found["MEMORY"]
    assert after - before <= max(before // 20, 2 * 1024 * 1024), f"{before} bytes have become {after}"


@pytest.mark.parametrize("way", ["connections", "memory"])
def test_ten_thousand_connections_leave_nothing(way: str) -> None:
    """Over sockets and through memory, with all callbacks, a cycle through `conn.data`, and a client each."""
    found = measure(way, "2000", "10000")
    check(found, at_work=1)
    assert found["ACKS"] == [0]
    assert found["AFTER"] == [0, 0, 0, 0]


def test_servers_that_come_and_go_leave_nothing() -> None:
    check(measure("servers", "50", "250"), at_work=0)


def test_event_loops_that_come_and_go_leave_nothing() -> None:
    check(measure("loops", "50", "250"), at_work=0)


def test_servers_and_clients_that_never_start_are_collected_with_their_handlers() -> None:
    assert measure("never started", "0", "500")["LIVE"] == [0]
