"""Programs of `life/`, each run in a process of its own: how it ends is looked at."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

LIFE = Path(__file__).parent / "life"
# How long a program may take before it hangs; a busy machine is no failure.
LIMIT = 90
# Anything of this in what a program says on its standard error is a failure.
BAD = (
    "Fatal Python error",
    "Aborted",
    "panicked",
    "Segmentation fault",
    "was never awaited",
    "was destroyed but it is pending",
    "never retrieved",
    "ResourceWarning",
    "DeprecationWarning",
    "Exception ignored",
)
# Development mode, and every warning is an error.
STRICT = ("-X", "dev", "-W", "error")
# CPython warns of any fork with threads, from 3.12 on: this very thing is what those programs are about.
FORKS = (*STRICT, "-W", "ignore:This process:DeprecationWarning")


# In the background of a shell Ctrl-C is ignored, and programs inherit that: these are to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Program:
    """A program at work."""

    def __init__(self, name: str, *args: str, flags: tuple[str, ...] = STRICT) -> None:
        self._limit = time.monotonic() + LIMIT
        self._process = subprocess.Popen(
            [sys.executable, *flags, str(LIFE / f"{name}.py"), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
        )
        self.said: list[str] = []

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def line(self, beginning: str) -> str:
        """The rest of the next line that begins so."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line.rstrip("\n"))
            if line.startswith(beginning):
                return line[len(beginning) :].strip()
        self.end(status=None)
        raise AssertionError(f"it never said {beginning!r}: {self.said}")

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, status: int | None = 0, allowed: tuple[str, ...] = ()) -> str:
        """Waits for its end, which has to be this one; answers what it said on its standard error."""
        try:
            out, err = self._process.communicate(timeout=max(1, self._limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            _, err = self._process.communicate()
            raise AssertionError(f"it hangs; its threads:\n{err}") from None
        self.said += out.splitlines()
        # Development mode tells of slow steps: on a busy machine all are.
        err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("Executing <"))
        bad = [line for line in BAD if line in err and line not in allowed]
        report = "\n".join([f"status {self._process.returncode}", *self.said, "--- standard error", err])
        assert not bad, f"{bad} in:\n{report}"
        if status is not None:
            assert self._process.returncode == status, report
        return err


def run(
    name: str, *args: str, status: int = 0, flags: tuple[str, ...] = STRICT, allowed: tuple[str, ...] = ()
) -> tuple[list[str], str]:
    """Runs a program to its end; answers its lines and its standard error."""
    with Program(name, *args, flags=flags) as program:
        err = program.end(status, allowed)
        return program.said, err


@contextlib.contextmanager
def peer(url: str) -> Iterator[ClientConnection]:
    """A connection that uses no code of ours."""
    with connect(url, open_timeout=LIMIT, close_timeout=LIMIT, ping_interval=None, proxy=None) as ws:
        yield ws


def ended(ws: ClientConnection) -> tuple[int | None, str]:
    """Waits for the end of a connection: the code and reason that came, or None where it was cut."""
    try:
        while True:
            ws.recv(timeout=LIMIT)
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd is not None else (None, "")
