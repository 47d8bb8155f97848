"""Event loops without `add_reader`, and loops that come and go."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import etp_ws
import pytest
from etp_ws import Client, Conn, InvalidState, Server
from etp_ws.testing import connect


class NoReaders(asyncio.SelectorEventLoop):
    """As the proactor of Windows: it receives from sockets, and watches no descriptors."""

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any:
        raise NotImplementedError

    async def sock_recv(self, sock: Any, n: int) -> bytes:
        # The selector loop's own rests on its `add_reader`.
        future: asyncio.Future[bytes] = self.create_future()

        def readable() -> None:
            self._remove_reader(sock.fileno())  # type: ignore[attr-defined]
            if not future.done():
                future.set_result(sock.recv(n))

        self._add_reader(sock.fileno(), readable)  # type: ignore[attr-defined]
        return await future


def make_server() -> Server[str, str]:
    server = Server()

    @server.on("say")
    async def say(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        return data

    @server.on("ask")
    async def ask(conn: Conn, data: str) -> str:
        return str(await conn.emit_with_ack("question", data))

    return server


async def converse(server: Server[str, str]) -> None:
    async with server.start(port=0), Client(server.url) as ann, Client(server.url) as bob:
        ann.on("question", lambda data: f"answer to {data}")
        bob.on("question", lambda data: f"bob to {data}")
        numbers = [str(number) for number in range(2_000)]
        assert await asyncio.gather(*(ann.emit_with_ack("say", number) for number in numbers)) == numbers
        assert await ann.emit_with_ack("ask", "x") == "answer to x"
        assert await bob.emit_with_ack("ask", "x") == "bob to x"
        assert 0 < await ann.ping() < 60


def test_a_loop_that_watches_no_descriptors_is_woken_through_sockets() -> None:
    with asyncio.Runner(loop_factory=NoReaders) as runner:
        for _ in range(3):
            runner.run(converse(make_server()))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_second_wake_up_works_on_any_loop(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvloop

    monkeypatch.setattr(etp_ws._loop, "force_plain", True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(converse(make_server()))


@pytest.mark.parametrize("plain", [False, True])
def test_loops_that_end_leave_no_task_and_no_queue_behind(plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etp_ws._loop, "force_plain", plain)
    gc.collect()
    before = etp_ws._etp_ws.live()[0]
    warned: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: warned.append(context))
        await converse(make_server())

    for _ in range(5):
        asyncio.run(main())
    gc.collect()
    assert etp_ws._etp_ws.live()[0] == before
    assert warned == []


def test_a_server_serves_one_loop_after_the_other() -> None:
    server = make_server()
    for _ in range(3):
        asyncio.run(converse(server))


def test_a_server_left_running_by_a_loop_that_ended_starts_on_the_next() -> None:
    server = make_server()

    async def leave() -> None:
        await server.start(port=0)
        await Client(server.url, reconnect=False).connect()

    asyncio.run(leave())
    asyncio.run(converse(server))


def test_a_server_on_two_loops_at_once_is_refused() -> None:
    server = make_server()

    async def main() -> None:
        async with server.start(port=0):

            async def other() -> None:
                with pytest.raises(InvalidState, match="listens already, on ws://127.0.0.1"):
                    await server.start(port=0)
                with pytest.raises(InvalidState, match="another event loop"):
                    await connect(server)

            await asyncio.to_thread(asyncio.run, other())
            # The first goes on.
            async with Client(server.url) as client:
                assert await client.emit_with_ack("say", "hi") == "hi"

    asyncio.run(main())


def test_several_loops_in_one_process_have_servers_and_clients_of_their_own() -> None:
    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, converse(make_server())) for _ in range(4)))

    asyncio.run(main())


def test_a_client_of_one_loop_speaks_with_a_server_of_another() -> None:
    server = make_server()

    async def main() -> None:
        async with server.start(port=0):

            async def other() -> str:
                async with Client(server.url) as client:
                    return await client.emit_with_ack("say", "hi")

            assert await asyncio.to_thread(asyncio.run, other()) == "hi"

    asyncio.run(main())
