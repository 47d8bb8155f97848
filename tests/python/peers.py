"""The test peers as Python objects: `ServerPeer` and `ClientPeer`, one process each.

Both drive the programs of `tests/peers` (`run LANG` and `dial LANG URL`) and know no language: what a peer does is its
contract, what a test expects of it is the test's. Calls block, up to `WAIT` seconds; that limit only ever fails a test,
it is never part of what one asserts. A thread per client reads its lines, so nothing a peer writes can hold it up.

    with ServerPeer("go") as server, ClientPeer.start("rust", server.url) as client:
        assert client.ack("echo", b"hello") == b"hello"

        first = client.do("ack", name="slow", data=b"50")      # many may be outstanding
        second = client.do("ack", name="fail", timeout_ms=100)
        assert client.result(first)["data"] == b"done"
        assert client.result(second)["error"] == "ack_timeout"
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import queue
import random
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["ClientPeer", "PeerError", "PeerGone", "ServerPeer", "WAIT", "build", "eventually", "fixed_listen_address"]

WAIT = 30.0
"""Seconds after which any wait fails: generous, as two cores may be building something else."""

PEERS = Path(__file__).resolve().parent.parent / "peers"

T = TypeVar("T")


class PeerError(Exception):
    """A client's command ended with an error; `.code` is its code (`"ack_timeout"`)."""

    def __init__(self, code: str, line: dict[str, Any]) -> None:
        super().__init__(f"{code}: {line}")
        self.code = code


class PeerGone(Exception):
    """A peer's process ended while something was expected of it."""


@functools.cache
def build(lang: str) -> None:
    """Builds what is stale of `lang`'s peers, once in this process. Every peer started here does it first."""
    if os.environ.get("ETP_PEERS_BUILT") != "1":
        subprocess.run([PEERS / "run", "--build", lang], check=True)


def eventually(read: Callable[[], T], expected: T) -> None:
    """Asks again and again (`read` is a round trip to a peer) until the answer is the expected one.

    For what a peer does on its own time and no line tells, such as counting a disconnect.
    """
    deadline = time.monotonic() + WAIT
    while (got := read()) != expected:
        assert time.monotonic() < deadline, f"still {got!r} after {WAIT} s, expected {expected!r}"


def fixed_listen_address() -> str:
    """An address for a server that a test will restart on the same port.

    Below the ports that the system gives to outgoing connections: a client that dials an unused one of those again and
    again could be given that very port, and so be connected to itself.
    """
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return f"127.0.0.1:{port}"


def _start(program: str, *args: str, stdin: int) -> subprocess.Popen[str]:
    # The launchers exec, so the process id is the peer's own.
    return subprocess.Popen(
        [PEERS / program, *args],
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        bufsize=1,
        env={**os.environ, "ETP_PEERS_BUILT": "1"},
    )


def _end(process: subprocess.Popen[str]) -> int:
    """Waits for a process that was told to end; kills one that does not, and says so."""
    try:
        return process.wait(WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"{process.args} did not end within {WAIT} s and was killed") from None


class ServerPeer:
    """A server in `lang`, ready when the constructor returns. As a context manager it is terminated at the end.

    `extra` goes to the program as it is.
    """

    def __init__(self, lang: str, listen: str = "127.0.0.1:0", *extra: str) -> None:
        build(lang)
        self.lang = lang
        self._process = _start("run", lang, "--listen", listen, *extra, stdin=subprocess.DEVNULL)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.url = self._listening()
        except BaseException:
            self.stop()
            raise
        self.port = int(self.url.rsplit(":", 1)[1].split("/")[0])

    @classmethod
    def start(cls, lang: str, listen: str = "127.0.0.1:0", *extra: str) -> ServerPeer:
        return cls(lang, listen, *extra)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def listen(self) -> str:
        """The address it listens on, to start another one there."""
        return f"127.0.0.1:{self.port}"

    def terminate(self) -> int:
        """SIGTERM, as whoever runs a server ends it. Its exit status; the contract promises 0."""
        self._process.terminate()
        return _end(self._process)

    def ended(self) -> int:
        """Waits for its end, which it has been told of. Its exit status."""
        return _end(self._process)

    def kill(self) -> None:
        """SIGKILL: the server is gone without a word to its clients."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends it whatever its state, for fixtures: nothing happens if it has ended already."""
        if self.running:
            self.terminate()

    def __enter__(self) -> ServerPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _listening(self) -> str:
        try:
            line = self._lines.get(timeout=WAIT)
        except queue.Empty:
            raise AssertionError(f"the {self.lang} server printed no LISTENING line within {WAIT} s") from None
        if not line:
            raise PeerGone(f"the {self.lang} server ended with status {_end(self._process)} before it listened")
        word, _, url = line.strip().partition(" ")
        assert word == "LISTENING" and url.startswith(("ws://", "wss://")), f"the {self.lang} server printed {line!r}"
        return url


class ClientPeer:
    """A client in `lang` that dials `url`; `wait_state("connected")` tells when it is there (`ClientPeer.start` does both).

    As a context manager it is stopped at the end. Every method may be called from any thread.
    `lines` is all that it has written, in order, for tests of an order between lines of different kinds.
    """

    def __init__(self, lang: str, url: str, *extra: str) -> None:
        build(lang)
        self.lang = lang
        self.lines: list[dict[str, Any]] = []
        self._process = _start("dial", lang, url, *extra, stdin=subprocess.PIPE)
        self._ids = itertools.count(1)
        self._writing = threading.Lock()
        # Everything below belongs to this condition; the reading thread fills it, callers take from it.
        self._changed = threading.Condition()
        self._ended = False
        self._results: dict[int, dict[str, Any]] = {}
        self._events: dict[str, deque[bytes]] = {}
        self._states: deque[str] = deque()
        self._disconnects: deque[dict[str, Any]] = deque()
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    def start(cls, lang: str, url: str, *extra: str) -> ClientPeer:
        """Starts a client and returns it connected."""
        client = cls(lang, url, *extra)
        try:
            client.wait_state("connected")
        except BaseException:
            client.stop()
            raise
        return client

    @property
    def pid(self) -> int:
        return self._process.pid

    # Commands

    def do(self, cmd: str, name: str | None = None, data: bytes | None = None, timeout_ms: int | None = None) -> int:
        """Starts `emit`, `ack`, `ping`, `drain` or `close` and returns its id at once, for `result`."""
        command: dict[str, Any] = {"do": cmd, "id": next(self._ids)}
        if name is not None:
            command["name"] = name
        if data is not None:
            command["data_hex"] = data.hex()
        if timeout_ms is not None:
            command["timeout_ms"] = timeout_ms
        with self._writing:
            assert self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps(command) + "\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError) as error:
                raise PeerGone(f"the {self.lang} client takes no more commands: {error}") from None
        return command["id"]

    def result(self, id: int) -> dict[str, Any]:
        """The outcome of a command, once: `{"done": id, "data": b".."}` or `{"done": id, "error": "ack_timeout"}`."""
        return self._wait(lambda: self._results.pop(id, None), f"the result of command {id}")

    def call(
        self, cmd: str, name: str | None = None, data: bytes | None = None, timeout_ms: int | None = None
    ) -> dict[str, Any]:
        """`do` and `result` in one."""
        return self.result(self.do(cmd, name, data, timeout_ms))

    def emit(self, name: str, data: bytes = b"") -> None:
        """Emits without an acknowledgment. Raises `PeerError`."""
        self._value(self.call("emit", name, data))

    def ack(self, name: str, data: bytes = b"", timeout_ms: int = int(WAIT * 1000)) -> bytes:
        """Emits with an acknowledgment and returns the reply. Raises `PeerError` (`.code == "ack_timeout"`)."""
        return self._value(self.call("ack", name, data, timeout_ms))

    # What arrives by itself: each is taken once, in order

    def next_event(self, name: str) -> bytes:
        """The payload of the next `name` event that the client received and did not answer itself."""
        return self._wait(lambda: self._pop(self._events.get(name)), f"an event {name!r}")

    def events(self, name: str) -> list[bytes]:
        """The payloads of the `name` events that are there already; never waits."""
        with self._changed:
            taken = list(self._events.get(name, ()))
            self._events.pop(name, None)
        return taken

    def wait_state(self, state: str) -> None:
        """Waits until the client says that it is in this state (`"connected"`); states before it are passed over."""
        while self._wait(lambda: self._pop(self._states), f"the state {state!r}") != state:
            pass

    def wait_disconnected(self) -> dict[str, Any]:
        """The next `disconnected`: `code`, `reason`, `clean`, `normal`, `will_reconnect`."""
        return self._wait(lambda: self._pop(self._disconnects), "a disconnect")

    # Ends

    def close_stdin(self) -> int:
        """Ends its commands, on which the client closes its connection and exits. Its exit status; the contract says 0."""
        with self._writing:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        return _end(self._process)

    def kill(self) -> None:
        """SIGKILL: the client is gone without a word to the server."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends it whatever its state, for fixtures: nothing happens if it has ended already."""
        if self._process.poll() is None:
            self.close_stdin()

    def __enter__(self) -> ClientPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Detail

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            try:
                line = json.loads(text)
                if "data_hex" in line:
                    line["data"] = bytes.fromhex(line.pop("data_hex"))
            except (ValueError, TypeError):
                line = {"not of the contract": text}
            with self._changed:
                self._file(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _file(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if "done" in line:
            self._results[line["done"]] = line
        elif "event" in line:
            self._events.setdefault(line["event"], deque()).append(line.get("data", b""))
        elif "state" in line:
            self._states.append(line["state"])
        elif "disconnected" in line:
            self._disconnects.append(line["disconnected"])

    def _wait(self, take: Callable[[], T | None], what: str) -> T:
        deadline = time.monotonic() + WAIT
        with self._changed:
            while (got := take()) is None:
                if self._ended:
                    raise PeerGone(f"the {self.lang} client ended without {what}; {self._last()}")
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"the {self.lang} client did not give {what} within {WAIT} s; {self._last()}")
            return got

    def _last(self) -> str:
        return f"its last lines: {[_short(line) for line in self.lines[-10:]]}"

    @staticmethod
    def _pop(items: deque[T] | None) -> T | None:
        return items.popleft() if items else None

    @staticmethod
    def _value(line: dict[str, Any]) -> bytes:
        if "error" in line:
            raise PeerError(line["error"], line)
        return line.get("data", b"")


def _short(line: dict[str, Any]) -> str:
    text = repr(line)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
