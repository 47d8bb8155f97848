"""`etp_ws.testing` and the pytest fixture: clients without ports."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from etp_ws import Accept, Client, Conn, ConnectionClosed, HandshakeFailed, InvalidState, Reject, Request, Server
from etp_ws.testing import connect

pytestmark = pytest.mark.anyio


async def test_path_headers_and_options_are_what_on_upgrade_sees() -> None:
    server = Server(codec="json")

    @server.on_upgrade
    async def upgrade(request: Request) -> Accept:
        return Accept([request.url, request.headers["x-user"], request.token, request.peer])

    async def token() -> str:
        return "fresh"

    server.on("get", lambda conn, data: conn.data)
    client = Client("memory:", "json", auth=token, headers={"X-User": "bob"})
    async with connect(server, client):
        assert await client.emit_with_ack("get") == ["/ws", "bob", "fresh", None]
    async with connect(server, path="/ws?room=1", headers={"X-User": "ann"}, auth="secret") as client:
        assert await client.emit_with_ack("get") == ["/ws?room=1", "ann", "secret", None]
        assert client.state == "connected"
    assert client.state == "closed"


async def test_a_refusal_raises_with_its_status() -> None:
    server = Server()

    @server.on_upgrade
    async def upgrade(request: Request) -> None:
        raise Reject(429, "later")

    with pytest.raises(HandshakeFailed) as failed:
        await connect(server)
    assert failed.value.status == 429


async def test_a_client_with_handlers_of_its_own_is_connected() -> None:
    server = Server()
    client = Client("ws://nowhere.example/ws")
    client.on("who", lambda data: "ann")
    joined = await connect(server, client)
    assert joined is client
    assert await server.conns()[0].emit_with_ack("who") == "ann"
    await client.close()


async def test_a_kick_ends_the_client_with_the_code() -> None:
    server = Server()
    async with connect(server) as client:
        server.conns()[0].close(4001, "out")
        await client.wait_closed()
        with pytest.raises(ConnectionClosed) as closed:
            await client.emit_with_ack("say")
        assert (closed.value.close_code, closed.value.close_reason) == (4001, "out")


async def test_the_fixture_is_the_same_function(etp_connect: Any) -> None:
    server = Server()
    server.on("say", lambda conn, data: data.upper())
    async with etp_connect(server) as client:
        assert await client.emit_with_ack("say", "hi") == "HI"


async def test_two_clients_meet_in_a_room_while_the_server_also_listens(etp_connect: Any) -> None:
    server = Server()
    server.on_connect(lambda conn: conn.join("room"))
    async with server.start(port=0), etp_connect(server) as ann, Client(server.url) as bob:
        heard = ann.events(), bob.events()
        assert server.to("room").emit("say", "hi") == 2
        assert [(await anext(events)).data for events in heard] == ["hi", "hi"]


def test_a_server_of_the_module_serves_loop_after_loop() -> None:
    server = Server()
    counts: list[int] = []

    @server.on("count")
    async def count(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        counts.append(len(server.conns()))
        return "counted"

    async def test() -> None:
        async with connect(server) as client:
            assert await client.emit_with_ack("count") == "counted"

    for _ in range(5):
        asyncio.run(test())
    assert counts == [1] * 5


async def test_a_client_can_t_connect_twice() -> None:
    server = Server()
    async with connect(server) as client:
        with pytest.raises(InvalidState, match="connected already"):
            await connect(server, client)


SAMPLE = """
import pytest
from etp_ws import Server

server = Server(codec="json")


@server.on("greet")
async def greet(conn, name):
    conn.join("greeted")
    return f"hi {name}"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["ann", "bob", "eve"])
async def test_greeting(etp_connect, name):
    async with etp_connect(server) as client:
        assert await client.emit_with_ack("greet", name) == f"hi {name}"
        assert server.member_count("greeted") == 1


@pytest.mark.anyio
async def test_left_connected(etp_connect):
    client = await etp_connect(server)
    assert await client.emit_with_ack("greet", "ann") == "hi ann"


@pytest.fixture
async def client(etp_connect):
    async with etp_connect(server) as client:
        yield client


@pytest.mark.anyio
async def test_client_of_a_fixture(client):
    assert await client.emit_with_ack("greet", "eve") == "hi eve"


def test_plain():
    pass
"""


def test_a_user_s_test_file_runs_with_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-W",
        "error",
    ]
    ran = subprocess.run([*command, "-k", "not trio"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 passed" in ran.stdout
