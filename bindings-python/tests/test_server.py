"""A server's life: options, ways to listen, start and shutdown, handshakes, closes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import websockets
from certificates import authority, signed
from etp_ws import (
    Accept,
    AckTimeout,
    Client,
    Conn,
    ConnectFailed,
    ConnectionClosed,
    Disconnect,
    EtpError,
    HandlerFailed,
    InvalidEvent,
    InvalidOption,
    InvalidState,
    ListenFailed,
    NoHandler,
    Reject,
    Request,
    Server,
)
from etp_ws.testing import connect

pytestmark = pytest.mark.anyio


def echo_server(**options: Any) -> Server[str, str]:
    server = Server(**options)
    server.on("echo", lambda conn, data: data)
    return server


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"max_message_size": -1}, "max_message_size is -1"),
    ({"max_message_size": "big"}, "max_message_size is 'big'"),
    ({"max_inflight": 0}, "max_inflight is 0"),
    ({"ping_interval": float("nan")}, "ping_interval is NaN"),
    ({"ack_timeout": -1.0}, "ack_timeout is -1"),
    ({"origins": ["example.org"]}, "example.org"),
    ({"origins": 3}, "origins is 3"),
    ({"origins": [3]}, "origins is"),
    ({"trusted_proxies": ["nonsense"]}, "nonsense"),
    ({"path": "ws"}, "ws"),
    ({"tls": "cert.pem"}, "tls is 'cert.pem'"),
    ({"max_connections": -5}, "max_connections is -5"),
]


@pytest.mark.parametrize(("options", "says"), BAD_OPTIONS)
async def test_an_option_that_can_t_be_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        Server(**options)


async def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="max_connection"):
        Server(max_connection=3)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["", "a||b", "a|", "__ack_x", "__etp", "x" * 257, "ä" * 129, "\ud800"])
async def test_a_name_that_can_t_be_is_refused_by_on(name: str) -> None:
    with pytest.raises(InvalidEvent):
        Server().on(name, lambda conn, data: None)


async def test_a_server_that_listens_says_where() -> None:
    server = echo_server(path="/events")
    assert repr(server) == "<Server not started>"
    async with server.start("127.0.0.1", 0) as started:
        assert started is server
        assert server.address is not None
        host, port = server.address
        assert (host, server.url) == ("127.0.0.1", f"ws://127.0.0.1:{port}/events")
        assert repr(server) == f"<Server {server.url}>"
        async with Client(server.url) as client:
            assert await client.emit_with_ack("echo", "hi") == "hi"
            with pytest.raises(ConnectFailed) as failed:
                await Client(f"ws://127.0.0.1:{port}/else").connect()
            assert failed.value.status == 404
    assert repr(server) == "<Server not started>"


async def test_localhost_and_ipv6_are_addresses() -> None:
    server = echo_server()
    for host in ("localhost", "::1"):
        async with server.start(host, 0), Client(server.url) as client:
            assert await client.emit_with_ack("echo", host) == host


async def test_a_port_that_is_taken_is_an_os_error_that_names_it_and_leaves_the_server_startable() -> None:
    server = echo_server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenFailed, match=f"127.0.0.1:{port}") as failed:
            await server.start(port=port)
        assert isinstance(failed.value, OSError)
    async with server.start(port=port), Client(server.url) as client:
        assert await client.emit_with_ack("echo", "hi") == "hi"


@pytest.mark.parametrize(
    ("host", "port"), [("no such host.invalid", 0), ("", 0), ("127.0.0.1", 70_000), ("127.0.0.1", -1)]
)
async def test_an_address_that_can_t_be_is_refused(host: str, port: int) -> None:
    with pytest.raises((InvalidOption, ListenFailed)):
        await Server().start(host, port)


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ListenFailed):
        await Server().start("192.0.2.1", 0)


async def test_a_unix_socket_is_served_and_goes_with_the_server(tmp_path: Path) -> None:
    server = echo_server()
    path = tmp_path / "etp.sock"
    async with server.start(unix=path):
        assert server.url == f"unix:{path}"
        assert server.address is None
        async with Client(server.url) as client:
            assert await client.emit_with_ack("echo", "hi") == "hi"
            assert server.conns()[0].request.peer is None
    assert not path.exists()


async def test_an_inherited_descriptor_and_a_socket_object_are_served_and_stay_the_caller_s(tmp_path: Path) -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
    listeners[1].bind(str(tmp_path / "own.sock"))
    listeners[1].listen()
    for listener in listeners:
        with listener:
            for where in ({"sock": listener}, {"fd": listener.fileno()}):
                server = echo_server()
                starting = server.start(**where)  # type: ignore[arg-type]
                async with starting, Client(lambda server=server: server.url) as client:  # type: ignore[misc]
                    assert await client.emit_with_ack("echo", "hi") == "hi"
            os.fstat(listener.fileno())


async def test_a_descriptor_that_is_no_listening_socket_is_refused() -> None:
    server = echo_server()
    with socket.socket() as not_listening, open(os.devnull) as file:
        for fd in (not_listening.fileno(), file.fileno(), 10_000, -1):
            with pytest.raises(ListenFailed, match=f"descriptor {fd}"):
                await server.start(fd=fd)
        with pytest.raises(ListenFailed, match="does not listen"):
            await server.start(sock=not_listening)
    with pytest.raises(ListenFailed):
        await server.start(sock=not_listening)
    async with server.start(port=0), Client(server.url) as client:
        assert await client.emit_with_ack("echo", "hi") == "hi"


async def test_tls_is_served_to_those_who_trust_it(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    own = signed(tmp_path, "server", ca)
    server = echo_server(tls=own)
    async with server.start(port=0):
        assert server.url.startswith("wss://127.0.0.1:")
        async with Client(server.url, ca=ca.cert) as client:
            assert await client.emit_with_ack("echo", "hi") == "hi"
        trusting = ssl.create_default_context(cafile=str(ca.cert))
        async with websockets.connect(server.url, ssl=trusting):
            pass
        with pytest.raises(ConnectFailed, match="certificate"):
            await Client(server.url).connect()
        with pytest.raises(ConnectFailed):
            await Client(server.url.replace("wss", "ws")).connect()


async def test_tls_files_that_are_missing_or_none_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for cert in ("missing.pem", "empty.pem"):
        with pytest.raises(InvalidOption, match=cert):
            server = Server(tls=(tmp_path / cert, tmp_path / "key.pem"))
            await server.start(port=0)


async def test_use_before_the_start_says_what_to_do() -> None:
    server = Server()
    for use in (
        lambda: server.emit("say", "x"),
        lambda: server.to("room"),
        lambda: server.members("room"),
        lambda: server.except_("room"),
    ):
        with pytest.raises(InvalidState, match="await server.start"):
            use()
    with pytest.raises(InvalidState, match="does not listen"):
        _ = server.url
    assert (server.conns(), server.rooms(), server.conn("x"), server.stats().connections) == ([], [], None, 0)
    await server.shutdown()
    await server.wait_closed()


async def test_a_second_start_is_refused_and_the_first_goes_on() -> None:
    server = echo_server()
    async with server.start(port=0):
        with pytest.raises(InvalidState, match="listens already, on ws://127.0.0.1:"):
            await server.start(port=0)
        async with Client(server.url) as client:
            assert await client.emit_with_ack("echo", "hi") == "hi"


async def test_after_a_shutdown_a_server_starts_anew() -> None:
    server = echo_server()
    for _ in range(3):
        await server.start(port=0)
        async with Client(server.url) as client:
            assert await client.emit_with_ack("echo", "hi") == "hi"
        waiting = asyncio.ensure_future(server.wait_closed())
        await asyncio.gather(server.shutdown(), server.shutdown())
        await waiting
        await server.shutdown()


async def test_run_inside_a_running_loop_says_what_to_do() -> None:
    with pytest.raises(InvalidState, match="await server.start"):
        Server().run(port=0)


async def test_a_shutdown_tells_clients_and_lets_handlers_reply() -> None:
    server = Server()
    waiting = asyncio.Event()

    @server.on("wait")
    async def wait(conn: Conn, data: str) -> str:
        waiting.set()
        await conn.closed()
        return "in time"

    async with server.start(port=0):
        ends: asyncio.Queue[Disconnect] = asyncio.Queue()
        client = Client(server.url, reconnect=False)
        client.on_disconnect(lambda end: ends.put_nowait(end))
        await client.connect()
        reply = asyncio.ensure_future(client.emit_with_ack("wait"))
        await waiting.wait()
        await server.shutdown()
        assert await reply == "in time"
        end = await ends.get()
        assert (end.code, end.reason, end.clean, end.normal) == (1000, "server shutdown", True, True)


async def test_on_upgrade_decides_with_status_headers_subprotocol_and_data() -> None:
    server = Server()

    @server.on_upgrade
    async def upgrade(request: Request) -> Accept:
        assert request.method == "GET"
        if request.path != "/ws" or request.query == "no":
            raise Reject(418, "short and stout", headers={"x-pot": "tea"})
        return Accept({"who": "ann"}, headers=[("set-cookie", "a=1"), ("set-cookie", "b=2")], protocol="chat")

    server.on("who", lambda conn, data: conn.data["who"])
    server.on_error(lambda conn, error: None)
    async with server.start(port=0):
        async with websockets.connect(server.url, subprotocols=["other", "chat"]) as raw:  # type: ignore[list-item]
            assert raw.subprotocol == "chat"
            assert raw.response is not None and raw.response.headers.get_all("set-cookie") == ["a=1", "b=2"]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(server.url + "?no")
        response = refused.value.response
        assert (response.status_code, response.headers["x-pot"]) == (418, "tea")
        assert bytes(response.body or b"").strip() == b"short and stout"


async def test_on_connect_that_raises_closes_with_1011() -> None:
    server = Server()
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    server.on_error(lambda conn, error: errors.put_nowait(error))

    @server.on_connect
    async def connected(conn: Conn) -> None:
        raise ValueError("no")

    async with server.start(port=0):
        async with websockets.connect(server.url) as raw:
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await raw.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
        error = await errors.get()
        assert isinstance(error, HandlerFailed) and repr(error.__cause__) == "ValueError('no')"


async def test_what_nobody_handles_goes_to_on_error() -> None:
    server = Server()
    errors: asyncio.Queue[tuple[Conn | None, EtpError]] = asyncio.Queue()
    server.on_error(lambda conn, error: errors.put_nowait((conn, error)))
    async with connect(server) as client:
        client.emit("say")
        conn, error = await errors.get()
        assert conn is server.conns()[0]
        assert isinstance(error, NoHandler) and error.code == "no_handler" and "say" in str(error)


async def test_a_connection_pings_drains_asks_and_closes() -> None:
    server = Server()
    async with connect(server, reconnect=False) as client:
        conn = server.conns()[0]
        client.on("who", lambda data: f"ann {data}")
        assert await conn.emit_with_ack("who", "?") == "ann ?"
        assert 0 <= await conn.ping() < 60
        await conn.drain()
        with pytest.raises(AckTimeout):
            await conn.emit_with_ack("nobody", timeout=0.01)
        for code, reason in ((999, ""), (1005, ""), (5000, ""), (1000, "x" * 124)):
            with pytest.raises(InvalidOption):
                conn.close(code, reason)
        assert conn.is_open
        closed = asyncio.ensure_future(conn.closed())
        conn.close(4001, "enough")
        conn.close(4002, "too late")
        await closed
        await client.wait_closed()
        for use in (conn.emit_with_ack("who"), conn.ping(), conn.drain()):
            with pytest.raises(ConnectionClosed) as ended:
                await use
            assert (ended.value.close_code, ended.value.close_reason) == (4001, "enough")
        with pytest.raises(ConnectionClosed):
            conn.emit("say", "x")


async def test_stats_count_what_was_done() -> None:
    server = echo_server()
    async with connect(server) as client:
        for _ in range(3):
            await client.emit_with_ack("echo", "hi")
        stats = server.stats()
        assert (stats.connections, stats.connects, stats.events_in, stats.handlers_in_flight) == (1, 1, 3, 0)
        assert stats.bytes_in > 0 and stats.bytes_out > 0
        assert client.stats().messages_out >= 3
