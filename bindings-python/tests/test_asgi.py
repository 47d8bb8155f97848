"""`server.asgi` under real hosts and over real sockets: events both ways, refusals, closes, large and many messages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import websockets
from etp_ws import (
    Accept,
    Client,
    Conn,
    ConnectFailed,
    Disconnect,
    EtpError,
    HandshakeFailed,
    MessageTooLarge,
    Reject,
    Rejected,
    Request,
    Server,
)
from hosts import HOSTS, host

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("kind", HOSTS)]


async def test_events_and_acknowledgments_pass_both_ways(kind: str) -> None:
    server = Server(codec="json")

    @server.on("greet")
    async def greet(conn: Conn, data: Any) -> Any:
        return {"hello": data, "again": await conn.emit_with_ack("who")}

    async with (
        host(kind, server.asgi) as address,
        Client(f"ws://{address}/any/path?room=1", codec="json", headers={"X-User": "ann"}) as client,
    ):
        client.on("who", lambda data: "ann")
        assert await client.emit_with_ack("greet", [1, "two"]) == {"hello": [1, "two"], "again": "ann"}
        request = server.conns()[0].request
        assert (request.path, request.query, request.headers["x-user"]) == ("/any/path", "room=1", "ann")
        assert request.peer is not None and request.peer[0] == "127.0.0.1"
        assert 0 < await client.ping() < 60
        assert 0 < await server.conns()[0].ping() < 60


async def test_on_upgrade_sees_the_token_and_the_scope(kind: str) -> None:
    server = Server()
    seen: list[Any] = []

    @server.on_upgrade
    async def upgrade(request: Request) -> Accept:
        assert request.scope is not None
        seen.append((request.token, request.scope["type"], request.scope["path"]))
        return Accept("ann", headers={"x-served-by": "etp"}, protocol="chat" if "chat" in offered(request) else None)

    server.on("whoami", lambda conn, data: conn.data)
    async with host(kind, server.asgi) as address:
        async with Client(f"ws://{address}/ws", auth="secret") as client:
            assert await client.emit_with_ack("whoami") == "ann"
        async with websockets.connect(f"ws://{address}/ws", subprotocols=["chat"]) as raw:  # type: ignore[list-item]
            assert raw.subprotocol == "chat"
            assert raw.response is not None and raw.response.headers["x-served-by"] == "etp"
        # As a page sends its token: base64url("secret").
        async with websockets.connect(f"ws://{address}/ws", subprotocols=["etp", "etp.auth.c2VjcmV0"]) as raw:  # type: ignore[list-item]
            assert raw.subprotocol == "etp"
    assert seen == [(token, "websocket", "/ws") for token in ("secret", None, "secret")]


def offered(request: Request) -> str:
    return request.headers.get("sec-websocket-protocol", "")


async def test_a_page_of_another_origin_gets_403(kind: str) -> None:
    server = Server(origins=["https://example.org"])
    server.on_error(lambda conn, error: None)
    async with host(kind, server.asgi) as address:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"ws://{address}/ws", origin="https://evil.example")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
        async with websockets.connect(f"ws://{address}/ws", origin="https://example.org"):  # type: ignore[arg-type]
            pass


async def test_a_rejection_reaches_the_client_with_its_status_body_and_headers(kind: str) -> None:
    server = Server()
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    server.on_error(lambda conn, error: errors.put_nowait(error))

    @server.on_upgrade
    async def upgrade(request: Request) -> None:
        raise Reject(429, "too many of you", headers={"retry-after": "7"})

    async with host(kind, server.asgi) as address:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"ws://{address}/ws")
        response = refused.value.response
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert b"too many of you" in (response.body or b"")
        with pytest.raises(ConnectFailed) as failed:
            await Client(f"ws://{address}/ws").connect()
        assert failed.value.status == 429
        error = await errors.get()
        assert isinstance(error, HandshakeFailed) and error.status == 429


async def test_401_is_rejected_and_an_exception_in_on_upgrade_is_a_500(kind: str) -> None:
    server = Server()
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    server.on_error(lambda conn, error: errors.put_nowait(error))

    @server.on_upgrade
    def upgrade(request: Request) -> None:
        if request.token is None:
            raise Reject(401)
        raise ZeroDivisionError("secret text")

    async with host(kind, server.asgi) as address:
        with pytest.raises(Rejected) as rejected:
            await Client(f"ws://{address}/ws").connect()
        assert rejected.value.status == 401
        await errors.get()
        with pytest.raises(ConnectFailed) as failed:
            await Client(f"ws://{address}/ws", auth="x").connect()
        assert failed.value.status == 500
        assert "secret" not in str(failed.value)
        assert isinstance((await errors.get()).__cause__, ZeroDivisionError)


async def test_codes_of_closes_pass_both_ways(kind: str) -> None:
    server = Server()
    ends: asyncio.Queue[Disconnect] = asyncio.Queue()
    server.on_disconnect(lambda conn, end: ends.put_nowait(end))

    @server.on("close me")
    async def close(conn: Conn, data: str) -> None:
        conn.emit("last", "words")
        conn.close(4001, "enough")

    async with host(kind, server.asgi) as address:
        client_ends: asyncio.Queue[Disconnect] = asyncio.Queue()
        words: asyncio.Queue[str] = asyncio.Queue()
        client = Client(f"ws://{address}/ws", reconnect=False)
        client.on_disconnect(lambda end: client_ends.put_nowait(end))
        client.on("last", lambda data: words.put_nowait(data))
        await client.connect()
        client.emit("close me")
        assert await words.get() == "words"
        end = await client_ends.get()
        assert (end.code, end.reason, end.clean) == (4001, "enough", True)
        end = await ends.get()
        assert (end.code, end.reason) == (4001, "enough")

        async with Client(f"ws://{address}/ws") as other:
            await other.close(4002, "bye")
        end = await ends.get()
        # Hypercorn keeps the peer's code and reason for itself.
        assert (end.code, end.reason) == ((1006, "") if kind == "hypercorn" else (4002, "bye"))


async def test_a_peer_that_goes_without_a_close_frame_is_a_disconnect(kind: str) -> None:
    server = Server()
    ends: asyncio.Queue[Disconnect] = asyncio.Queue()
    server.on_disconnect(lambda conn, end: ends.put_nowait(end))
    async with host(kind, server.asgi) as address:
        raw = await websockets.connect(f"ws://{address}/ws")
        await raw.send("hello||0|")
        raw.transport.abort()
        # Some hosts tell it as a close frame without a code.
        assert (await ends.get()).code in (1005, 1006)
        assert server.conns() == []


async def test_accept_with_a_close_code_lets_a_page_read_it(kind: str) -> None:
    server = Server()
    server.on_upgrade(lambda request: Accept(None, close=(4001, "log in first")))
    async with host(kind, server.asgi) as address:
        raw = await websockets.connect(f"ws://{address}/ws")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await raw.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "log in first")


async def test_large_messages_and_bytes_pass_unchanged(kind: str) -> None:
    server = Server(codec="bytes", max_message_size=4 * 1024 * 1024)
    server.on("echo", lambda conn, data: data)
    async with (
        host(kind, server.asgi) as address,
        Client(f"ws://{address}/ws", codec="bytes", max_message_size=4 * 1024 * 1024) as client,
    ):
        for payload in (bytes(range(256)), b"\xff\xfe", b"", bytes(range(256)) * 12288, b"text"):
            assert await client.emit_with_ack("echo", payload) == payload


async def test_a_message_past_max_message_size_closes_with_1009(kind: str) -> None:
    server = Server(max_message_size=1024)
    async with host(kind, server.asgi) as address:
        raw = await websockets.connect(f"ws://{address}/ws")
        await raw.send("say||0|" + "x" * 2000)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await raw.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        async with Client(f"ws://{address}/ws") as client:
            client.on("x", lambda data: None)
            with pytest.raises(MessageTooLarge):
                server.emit("x", "x" * 2000)


async def test_ten_thousand_messages_pass_each_way_in_order(kind: str) -> None:
    many = 10_000
    server = Server(codec="json")
    seen: list[int] = []

    @server.on("up")
    async def up(conn: Conn, data: Any) -> None:
        seen.append(data["n"])

    @server.on("down")
    async def down(conn: Conn, data: Any) -> int:
        for number in range(many):
            conn.emit("number", {"n": number, "filler": "x" * 100})
            if number % 500 == 0:
                await conn.drain()
        return many

    async with host(kind, server.asgi) as address, Client(f"ws://{address}/ws", codec="json") as client:
        numbers = client.events("number", buffer=many)
        assert await client.emit_with_ack("down", timeout=60.0) == many
        for number in range(many):
            assert (await anext(numbers)).data["n"] == number
        for number in range(many):
            client.emit("up", {"n": number, "filler": "x" * 100})
            if number % 500 == 0:
                await client.drain()
        await client.emit_with_ack("down", timeout=60.0)
    assert seen == list(range(many))


async def test_a_raw_peer_speaks_the_protocol_of_the_wire(kind: str) -> None:
    server = Server(codec="json")
    server.on("add", lambda conn, data: sum(data))
    async with host(kind, server.asgi) as address, websockets.connect(f"ws://{address}/ws") as raw:
        await raw.send("add||7||[1,2,3]")
        name, ack, payload = str(await raw.recv()).split("||")
        assert (ack, json.loads(payload)) == ("7", 6)
        assert name.startswith("__ack_")


async def test_a_plain_http_request_is_told_to_upgrade(kind: str) -> None:
    import httpx

    server = Server()
    async with host(kind, server.asgi) as address, httpx.AsyncClient() as http:
        response = await http.get(f"http://{address}/ws")
        assert response.status_code == 426
        assert response.headers["upgrade"] == "websocket"
        assert "WebSocket" in response.text


async def test_the_end_of_the_host_ends_the_server(kind: str) -> None:
    server = Server()
    ended = asyncio.Event()
    server.on_disconnect(lambda conn, end: ended.set())
    client_ends: asyncio.Queue[Disconnect] = asyncio.Queue()
    async with host(kind, server.asgi) as address:
        client = Client(f"ws://{address}/ws")
        client.on_disconnect(lambda end: client_ends.put_nowait(end))
        await client.connect()
        if kind == "hypercorn":
            # From Python 3.12 on it waits for its connections to end by themselves.
            await server.shutdown()
    end = await client_ends.get()
    assert end.will_reconnect
    assert (end.code, end.reason) == ((1000, "server shutdown") if kind == "hypercorn" else (1012, ""))
    await client.close()
    await ended.wait()
    assert server.conns() == []
    assert repr(server) == "<Server not started>"


async def test_a_shutdown_before_the_host_s_tells_clients(kind: str) -> None:
    server = Server()
    client_ends: asyncio.Queue[Disconnect] = asyncio.Queue()
    async with host(kind, server.asgi) as address:
        client = Client(f"ws://{address}/ws", reconnect=False)
        client.on_disconnect(lambda end: client_ends.put_nowait(end))
        await client.connect()
        await server.shutdown()
        end = await client_ends.get()
        assert (end.code, end.reason) == (1000, "server shutdown")
