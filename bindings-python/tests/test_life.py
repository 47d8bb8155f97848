"""How programs end, and what they survive: each in a process of its own, several times over."""

from __future__ import annotations

import signal

import pytest
from programs import FORKS, Program, ended, peer, run

# Each program runs so often; all of them together run more than 200 times.
TIMES = 2

again = pytest.mark.parametrize("time", range(TIMES))
often = pytest.mark.parametrize("time", range(3 * TIMES))
SHUTDOWN = (1000, "server shutdown")


@often
@pytest.mark.parametrize(
    ("how", "status"),
    [("return", 0), ("raise", 1), ("exit", 3), ("by hand", 0)],
)
def test_a_program_ends_with_its_server_in_a_global_and_its_peers_are_told(how: str, status: int, time: int) -> None:
    with Program("left_open", how) as program, peer(program.line("READY")) as ws:
        program.tell()
        assert ended(ws) == SHUTDOWN
        program.end(status)


@often
@pytest.mark.parametrize("how", ["handler", "handler-late", "handler-plain"])
def test_a_handler_may_exit_the_program(how: str, time: int) -> None:
    with Program("left_open", how) as program, peer(program.line("READY")) as ws:
        program.tell()
        assert ended(ws) == SHUTDOWN
        # As with any task that raises SystemExit: asyncio says so.
        program.end(3, allowed=("never retrieved",))


@again
@pytest.mark.parametrize("how", ["clients only", "pending"])
def test_a_program_ends_with_open_clients(how: str, time: int) -> None:
    said, _ = run("left_open", how)
    assert said[-1].startswith("END")


@often
@pytest.mark.parametrize("where", ["run", "wait"])
def test_ctrl_c_ends_run_gracefully(where: str, time: int) -> None:
    with Program("interrupted", where) as program, peer(program.line("READY")) as ws:
        if where != "run":
            ws.send(f"{where}||1||")
            program.line("IN")
        program.signal(signal.SIGINT)
        assert ended(ws) == SHUTDOWN
        assert program.end() == ""
        assert sum(line.startswith("LEFT") for line in program.said) == 1
        assert ("CANCELLED" in program.said) is (where == "wait")
        assert program.said[-1] == "END [] <Server not started>"


@often
@pytest.mark.parametrize("where", ["block", "block later"])
def test_ctrl_c_twice_ends_a_handler_that_blocks(where: str, time: int) -> None:
    with Program("interrupted", where) as program, peer(program.line("READY")) as ws:
        ws.send(f"{where}||1||")
        program.line("IN")
        program.signal(signal.SIGINT)
        program.line("ONCE")
        program.signal(signal.SIGINT)
        assert ended(ws) == SHUTDOWN
        err = program.end(allowed=("never retrieved",))
        assert "KeyboardInterrupt" in err
        assert program.said[-1].startswith("END")


@often
def test_ctrl_c_ends_an_emit_with_ack_that_waits(time: int) -> None:
    with Program("interrupted", "ack") as program:
        program.line("IN")
        program.signal(signal.SIGINT)
        program.end()
        assert "INTERRUPTED" in program.said
        assert program.said[-1] == "END [] <Server not started>"


@often
@pytest.mark.parametrize("where", ["run", "sleep", "wait"])
def test_sigterm_ends_run_gracefully(where: str, time: int) -> None:
    with Program("interrupted", where) as program, peer(program.line("READY")) as ws:
        if where != "run":
            ws.send(f"{where}||1||")
            program.line("IN")
        program.signal(signal.SIGTERM)
        assert ended(ws) == SHUTDOWN
        assert program.end() == ""
        # A handler gets its time, and is cancelled where that is not enough.
        assert ("SLEPT" in program.said) is (where == "sleep")
        assert ("CANCELLED" in program.said) is (where == "wait")
        assert program.said[-1] == "END [] <Server not started>"


@again
@pytest.mark.parametrize("told", ["told", "untold"])
@pytest.mark.parametrize(
    "callback",
    [
        "on_upgrade",
        "on_connect",
        "on_disconnect",
        "on_error",
        "on_unknown_event",
        "handler",
        "middleware",
        "loads",
        "dumps",
        "client.url",
        "client.auth",
        "client.should_reconnect",
        "client.on_connect",
        "client.on_disconnect",
        "client.on_error",
        "client.on_unknown_event",
        "client.handler",
        "client.middleware",
    ],
)
def test_an_exception_in_a_callback_costs_nothing_else(callback: str, told: str, time: int) -> None:
    run("callbacks", callback, told)


@again
@pytest.mark.parametrize("kind", ["asyncio", "uvloop", "plain"])
@pytest.mark.parametrize("how", ["again", "behind", "several", "elsewhere"])
def test_event_loops_come_and_go(how: str, kind: str, time: int) -> None:
    run("loops", how, kind)


@often
@pytest.mark.parametrize("how", ["before", "after", "within", "unwound"])
def test_a_fork_uses_what_is_its_own_and_is_told_of_what_is_not(how: str, time: int) -> None:
    run("forks", how, flags=FORKS)


@often
def test_what_is_cancelled_leaves_nothing_behind(time: int) -> None:
    run("cancelled")


@again
def test_a_panic_is_an_exception(time: int) -> None:
    run("panics", allowed=("panicked",))
