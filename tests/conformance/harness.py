"""The two sides that the cases play: a client of a server under test, and the server of a client under test.

Both speak through `Peer`, a raw WebSocket endpoint with a few words of ETP. That nothing came is shown by a fence: a
question whose answer comes first.
"""

from __future__ import annotations

import json
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import rawws
from peers import ClientPeer, ServerPeer
from rawws import CLOSE, CONTINUATION, PING, PONG, Closed, Dialled, Ended, Endpoint, Listener, Message, Wire

MIB = 1 << 20


class Peer(Endpoint):
    """One connection to the program under test, which answers a `fence_event` with the payload it came with."""

    fence_event = "echo"

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._calls = 1_000_000
        self.inbox: deque[Message] = deque()

    def receive(self) -> Message:
        return self.inbox.popleft() if self.inbox else super().receive()

    def receive_all(self, count: int) -> list[Message]:
        return [self.receive() for _ in range(count)]

    def send_until_it_blocks(self, messages: Iterable[Message]) -> int:
        """Sends until the program has taken no more for a moment. How many it took; the last may stay a fragment."""
        sent = 0
        self.sock.settimeout(0.3)
        try:
            for message in messages:
                frame = memoryview(self.encode(message.opcode, message.data))
                while frame:
                    frame = frame[self.sock.send(frame) :]
                sent += 1
        except TimeoutError:
            pass
        finally:
            self.sock.settimeout(rawws.TIMEOUT)
        return sent

    def call(self, name: str, payload: bytes | str = b"") -> bytes:
        """Emits with an ack id of its own and returns the reply; what comes before it waits in `inbox`."""
        if isinstance(payload, str):
            payload = payload.encode()
        self._calls += 1
        head = f"__ack_{name}||{self._calls}".encode()
        self.send_text(f"{name}||{self._calls}||".encode() + payload)
        while True:
            _, data = message = super().receive()
            if data == head or data.startswith(head + b"||"):
                return data[len(head) + 2 :]
            self.inbox.append(message)

    def fence(self) -> None:
        """Waits until everything sent before has been handled, as far as it is handled in order."""
        assert self.call(self.fence_event, b"fence") == b"fence"

    def await_pong(self) -> None:
        """Waits until the program has answered a ping: it reads, and goes on reading."""
        self.ping(b"pong, please")
        while b"pong, please" not in self.pongs:
            got = self.receive_frame()
            assert got.opcode == PONG, got
            self.pongs.append(got.payload)

    def expect_nothing(self) -> None:
        """The connection lives, and nothing came before the answer to a question asked now."""
        self.fence()
        assert not self.inbox, f"unexpected: {self.inbox}"

    def expect_nothing_but_replies_to(self, name: str) -> None:
        """Like `expect_nothing`, of an event whose handler may reply or not."""
        self.fence()
        replies = [message for message in self.inbox if message.data.startswith(f"__ack_{name}||".encode())]
        assert list(self.inbox) == replies, f"unexpected: {self.inbox}"
        self.inbox.clear()

    def seen(self) -> dict[str, int]:
        return json.loads(self.call("seen"))

    def expect_seen(self, counter: str, count: int) -> None:
        """The counter reaches `count`: perhaps not at once, for handlers run beside each other."""
        for _ in range(200):
            seen = self.seen()[counter]
            if seen >= count:
                break
        assert seen == count, f"{counter}: {seen}, expected {count}"

    def join(self, room: str) -> int:
        return int(self.call("join", room))

    def expect_close(self, code: int | None, reason: str | None = None) -> None:
        """The next thing to come is a close frame, at once, and then the end.

        A ping goes out first: the program still answers it if it has not noticed that it should close.
        """
        with suppress(Ended):
            self.ping(b"are you alive?")
        self._expect_close(self.await_close(alive=b"are you alive?"), code, reason)

    def expect_close_in_time(self, code: int | None, reason: str | None = None) -> None:
        """The next thing to come is a close frame, as soon as a handler has called for it, and then the end."""
        self._expect_close(self.await_close(), code, reason)

    def _expect_close(self, got: Closed, code: int | None, reason: str | None) -> None:
        assert got.code == code, got
        assert reason is None or got.reason == reason, got
        with suppress(Ended):
            self.send_close(got.code)
        self.expect_end()

    def await_close(self, *, messages: bool = False, alive: bytes | None = None) -> Closed:
        """The close frame that the program sends. A pong of the payload `alive` shows that it will not."""
        try:
            while True:
                got = self.receive_frame()
                if got.opcode == CLOSE:
                    return self.closed(got)
                assert got.opcode != PONG or got.payload != alive, "the connection lives on"
                assert messages or got.opcode in (PING, PONG), f"a message came instead of a close frame: {got}"
        except Ended as error:
            raise AssertionError(f"no close frame: {error}") from error

    def expect_end(self, *, messages: bool = False) -> None:
        """The TCP connection is over, without another message."""
        with suppress(Ended):
            while True:
                got = self.receive_frame()
                assert messages or got.opcode in (CLOSE, PING, PONG), f"a frame after the close frame: {got}"
        self.sock.close()

    def close_in_order(self, code: int | None = 1000, reason: str = "") -> Closed:
        """Begins a closing handshake, reads to the program's close frame and closes the socket."""
        self.send_close(code, reason)
        got = self.await_close(messages=True)
        self.end()
        return got


def shredded(conn: Peer, messages: list[Message], dice: random.Random) -> Iterator[bytes]:
    """The bytes of messages in fragments of any size with pings among them, cut into writes of any size."""
    stream = b""
    for message in messages:
        cuts = sorted(dice.choices(range(len(message.data) + 1), k=dice.randrange(5)))
        ends = [*cuts, len(message.data)]
        for index, (start, end) in enumerate(zip([0, *cuts], ends, strict=True)):
            opcode = CONTINUATION if index else message.opcode
            stream += conn.encode(opcode, message.data[start:end], fin=index == len(ends) - 1)
            if not dice.randrange(4):
                stream += conn.encode(PING, dice.randbytes(dice.randrange(126)))
    while stream:
        size = dice.choice([1, 2, 3, 7, 100, 5_000, 100_000])
        yield stream[:size]
        stream = stream[size:]


class Server:
    """A server under test, shared by all cases. Each begins and ends without a connection, so it sees only its own."""

    def __init__(self, program: list[str]) -> None:
        self.program = program
        self._process = self._start()
        self._open: list[Wire] = []
        self._probes = 0

    def _start(self) -> ServerPeer:
        self._probes = 0
        lang, *arguments = self.program
        return ServerPeer(lang, "127.0.0.1:0", *arguments)

    @property
    def url(self) -> str:
        return self._process.url

    def another(self) -> Server:
        """A second process of the same program, for a case that ends it."""
        return Server(self.program)

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> int:
        return self._process.terminate()

    def ended(self) -> int:
        return self._process.ended()

    def stop(self) -> None:
        self._process.stop()

    def connect(self, **how: Any) -> Peer:
        """Opens a connection, as `rawws.connect` does."""
        return self._keep(rawws.connect(self.url, endpoint=Peer, **how))

    def open_wire(self) -> Wire:
        return self._keep(rawws.open_wire(self.url))

    def exchange(self, data: bytes | None = None, **request: Any) -> rawws.Head:
        """The answer to bytes, or to a handshake request that differs as told from a good one."""
        return rawws.exchange(self.url, rawws.request(self.url, **request) if data is None else data)

    def settle(self) -> dict[str, int]:
        """Waits until every connection that the case has ended is counted as such; the counters without our own probes.

        The probe asks again and again, each time after the last answer: there is no event to wait for.
        """
        self._open = [wire for wire in self._open if wire.sock.fileno() >= 0]
        live = len([wire for wire in self._open if isinstance(wire, Peer)])
        probe = rawws.connect(self.url, endpoint=Peer)
        self._probes += 1
        late = threading.Event()
        timer = threading.Timer(rawws.TIMEOUT, late.set)
        timer.start()
        try:
            while (seen := probe.seen())["connects"] - seen["disconnects"] != live + 1:
                assert not late.is_set(), f"with {live} connections and a probe of ours alive, the server counts {seen}"
            # Handlers that outlived their connection may have an error to report; it is not the next case's.
            for _ in range(20):
                seen = probe.seen()
        finally:
            timer.cancel()
            probe.end()
        return {
            **seen,
            "connects": seen["connects"] - self._probes,
            "disconnects": seen["disconnects"] - self._probes + 1,
        }

    def clean_up(self) -> None:
        """Ends the case's connections. Each must be counted exactly once, whatever happened on it."""
        for wire in self._open:
            wire.end()
        self._open = []
        self.settle()

    def ensure_running(self) -> None:
        """Starts another process if the last case has ended this one."""
        try:
            rawws.open_wire(self.url).end()
        except ConnectionRefusedError:
            self._process.stop()
            self._process = self._start()

    def _keep(self, wire: Any) -> Any:
        self._open.append(wire)
        return wire


class Called(Peer):
    """A connection from a client under test."""

    fence_event = "question"


class Client(ClientPeer):
    """A client under test, and the listener that it dials."""

    def __init__(self, program: list[str], listener: Listener) -> None:
        self.program = program
        self.listener = listener
        self._accepted: list[Wire] = []
        lang, *arguments = program
        super().__init__(lang, listener.url, *arguments)

    def dialled(self) -> Dialled:
        """Its next request, read and unanswered."""
        dialled = self.listener.next()
        self._accepted.append(dialled)
        return dialled

    def accept(self, **how: Any) -> Called:
        """Answers its next request with 101 and waits until it says that it is connected."""
        conn = self.dialled().accept(endpoint=Called, **how)
        self.wait_state("connected")
        return conn

    def failure(self) -> str:
        """The code of the error with which it gave up."""

        def first() -> str | None:
            return next((line["error"] for line in self.lines if "error" in line and "done" not in line), None)

        return self._wait(first, "an error")

    def outcome(self, id: int) -> bytes | str:
        """The reply to a command, or the code of its error."""
        line = self.result(id)
        return line["error"] if "error" in line else line.get("data", b"")

    def end_commands(self) -> None:
        """Ends its commands, and does not wait for its end: it has a connection to close first."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def clean_up(self) -> None:
        for wire in self._accepted:
            wire.end()
        self.listener.close()
        self.kill()


def event(name: str, id: int | str = 0, payload: bytes | str = b"") -> bytes:
    """An event's frame, in three parts."""
    return f"{name}||{id}||".encode() + (payload.encode() if isinstance(payload, str) else payload)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
