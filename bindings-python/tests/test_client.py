"""A client's life: dialling, coming back, what waits meanwhile, and its iterators."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from etp_ws import (
    Client,
    Conn,
    ConnectFailed,
    ConnectionClosed,
    Disconnect,
    EtpError,
    Event,
    HandlerFailed,
    InvalidOption,
    InvalidState,
    OutboxFull,
    Overflow,
    Reconnect,
    Reject,
    Rejected,
    Request,
    Server,
)
from etp_ws.testing import connect

pytestmark = pytest.mark.anyio

SOON = Reconnect(base=0.001, cap=0.01)

BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"queue": -1}, "queue is -1"),
    ({"dial_timeout": -1.0}, "dial_timeout is -1"),
    ({"ca": 3}, "ca is 3"),
    ({"client_cert": "cert.pem"}, "client_cert is 'cert.pem'"),
    ({"max_outbox": "big"}, "max_outbox is 'big'"),
    ({"reconnect": Reconnect(base=-1.0)}, "reconnect"),
]


@pytest.mark.parametrize(("options", "says"), BAD_OPTIONS)
async def test_an_option_that_can_t_be_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        Client("ws://127.0.0.1:1/ws", **options)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/ws", "nonsense", "", "ws://"])
async def test_a_url_that_can_t_be_is_refused(url: str) -> None:
    with pytest.raises(InvalidOption):
        await Client(url).connect()


async def test_what_is_no_url_is_refused_at_once() -> None:
    with pytest.raises(InvalidOption, match="url is to be a string or a function"):
        Client(3)  # type: ignore[call-overload]


async def test_nobody_listening_is_connect_failed_and_an_os_error() -> None:
    client = Client("ws://127.0.0.1:1/ws")
    with pytest.raises(ConnectFailed, match="127.0.0.1:1") as failed:
        await client.connect()
    assert isinstance(failed.value, OSError)
    assert (failed.value.status, client.state) == (None, "closed")


async def test_use_before_connect_says_so_and_a_second_connect_is_refused() -> None:
    server = Server()
    let_in = asyncio.Event()

    @server.on_upgrade
    async def upgrade(request: Request) -> None:
        await let_in.wait()

    async with server.start(port=0):
        client = Client(server.url)
        assert (client.state, client.conn, repr(client)) == ("closed", None, "<Client closed>")
        with pytest.raises(ConnectionClosed, match="not connected"):
            client.emit("say")
        await client.close()
        await client.wait_closed()
        for _ in range(2):
            connecting = asyncio.ensure_future(client.connect())
            await asyncio.sleep(0)
            assert client.state == "connecting"
            let_in.set()
            await connecting
            let_in.clear()
            assert client.state == "connected" and client.conn is not None
            with pytest.raises(InvalidState, match="connected already"):
                await client.connect()
            await client.close()
            assert client.state == "closed" and client.conn is None


async def async_token() -> str:
    await asyncio.sleep(0)
    return "secret"


@pytest.mark.parametrize("auth", ["secret", lambda: "secret", async_token])
async def test_auth_is_sent_as_a_bearer_token_and_headers_as_they_are(auth: Any) -> None:
    server = Server()
    seen: list[Any] = []

    @server.on_upgrade
    async def upgrade(request: Request) -> None:
        seen.append((request.token, request.headers["authorization"], request.headers.get_all("x-a")))

    async with server.start(port=0), Client(server.url, auth=auth, headers=[("X-A", "1"), ("X-A", "2")]):
        pass
    assert seen == [("secret", "Bearer secret", ["1", "2"])]


async def test_auth_or_a_url_that_fails_fails_the_connect_with_its_cause() -> None:
    def fails() -> str:
        raise ValueError("no token today")

    for client in (Client("ws://127.0.0.1:1/ws", auth=fails), Client(fails), Client(lambda: 3)):  # type: ignore
        with pytest.raises(ConnectFailed) as failed:
            await client.connect()
        assert isinstance(failed.value.__cause__, (ValueError, TypeError))


async def test_a_client_comes_back_after_a_restart_and_asks_for_url_and_token_anew() -> None:
    server = Server()
    tokens: list[str | None] = []
    server.on_upgrade(lambda request: tokens.append(request.token))
    server.on("echo", lambda conn, data: data)
    dials = 0

    def url() -> str:
        return server.url

    async def token() -> str:
        nonlocal dials
        dials += 1
        return f"token {dials}".replace(" ", "-")

    connects: asyncio.Queue[None] = asyncio.Queue()
    ends: asyncio.Queue[Disconnect] = asyncio.Queue()
    client = Client(url, auth=token, reconnect=SOON)
    client.on_connect(lambda: connects.put_nowait(None))
    client.on_disconnect(lambda end: ends.put_nowait(end))
    client.on_error(lambda error: None)
    await server.start(port=0)
    async with client:
        await connects.get()
        first = client.conn
        for _ in range(2):
            await server.shutdown()
            end = await ends.get()
            assert end.will_reconnect
            while client.state != "reconnecting":
                await asyncio.sleep(0)
            with pytest.raises(ConnectionClosed):
                client.emit("echo", "lost")
            await server.start(port=0)
            await connects.get()
            assert await client.emit_with_ack("echo", "back") == "back"
        assert client.conn is not None and client.conn != first
    await server.shutdown()
    assert tokens[0] == "token-1" and len(set(tokens)) == len(tokens) == 3


async def test_should_reconnect_decides_and_a_kick_with_a_reason_ends_it_by_default() -> None:
    server = Server()
    async with server.start(port=0):
        asked: list[Disconnect] = []

        def not_after_4001(end: Disconnect) -> bool:
            asked.append(end)
            return end.code != 4001

        connects: asyncio.Queue[None] = asyncio.Queue()
        client = Client(server.url, reconnect=SOON, should_reconnect=not_after_4001)
        client.on_connect(lambda: connects.put_nowait(None))
        ends: asyncio.Queue[Disconnect] = asyncio.Queue()
        client.on_disconnect(lambda end: ends.put_nowait(end))
        await client.connect()
        await connects.get()
        server.conns()[0].close(4000, "again")
        assert (await ends.get()).will_reconnect
        await connects.get()
        server.conns()[0].close(4001, "never again")
        assert not (await ends.get()).will_reconnect
        await client.wait_closed()
        assert client.state == "closed"
        assert [end.code for end in asked] == [4000, 4001]

        kicked = Client(server.url, reconnect=SOON)
        kicked.on_disconnect(lambda end: ends.put_nowait(end))
        await kicked.connect()
        server.conns()[0].close(1000, "kicked")
        assert not (await ends.get()).will_reconnect
        await kicked.wait_closed()


async def test_a_rejected_reconnect_ends_the_client() -> None:
    server = Server()
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    server.on_error(lambda conn, error: None)
    async with server.start(port=0):
        client = Client(server.url, reconnect=SOON)
        client.on_error(lambda error: errors.put_nowait(error))
        await client.connect()

        @server.on_upgrade
        def upgrade(request: Request) -> None:
            raise Reject(403)

        server.conns()[0].close(1001)
        await client.wait_closed()
        error = await errors.get()
        assert isinstance(error, Rejected) and error.status == 403


async def test_what_waits_in_the_queue_is_sent_after_the_login_of_the_new_connection() -> None:
    server = Server()
    seen: list[str] = []
    away, login_may_end = asyncio.Event(), asyncio.Event()

    @server.on("login")
    async def login(conn: Conn, data: str) -> str:
        await asyncio.sleep(0)
        seen.append(f"login {data}")
        return "welcome"

    all_said = asyncio.Event()

    @server.on("say")
    def say(conn: Conn, data: str) -> None:
        seen.append(data)
        if data == "2":
            all_said.set()

    logins: asyncio.Queue[str] = asyncio.Queue()
    async with server.start(port=0):
        client = Client(server.url, queue=3, reconnect=SOON)

        @client.on_connect
        async def log_in() -> None:
            await login_may_end.wait()
            logins.put_nowait(await client.emit_with_ack("login", "ann"))

        client.on_disconnect(lambda end: away.set())
        login_may_end.set()
        async with client:
            assert await logins.get() == "welcome"
            login_may_end.clear()
            server.conns()[0].close(1001)
            await away.wait()
            for number in range(3):
                client.emit("say", str(number))
            with pytest.raises(OutboxFull):
                client.emit("say", "one too many")
            login_may_end.set()
            assert await logins.get() == "welcome"
            await all_said.wait()
    assert seen == ["login ann", "login ann", "0", "1", "2"]


async def test_on_connect_that_raises_fails_the_connect_and_tells_on_error() -> None:
    server = Server()
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    async with server.start(port=0):
        client = Client(server.url)
        client.on_error(lambda error: errors.put_nowait(error))

        @client.on_connect
        async def connected() -> None:
            raise ValueError("no")

        with pytest.raises(ConnectFailed):
            await client.connect()
        error = await errors.get()
        assert isinstance(error, HandlerFailed) and repr(error.__cause__) == "ValueError('no')"


async def test_middleware_and_unknown_events_of_a_client() -> None:
    server = Server()
    async with connect(server) as client:

        @client.middleware
        async def shout(name: str, data: str, call_next: Any) -> Any:
            return f"{await call_next(name, data.upper())}!"

        @client.on_unknown_event
        async def unknown(name: str, data: str) -> str:
            return f"no {name} {data}"

        client.on("say", lambda data: data)
        conn = server.conns()[0]
        assert await conn.emit_with_ack("say", "hi") == "HI!"
        assert await conn.emit_with_ack("else", "hi") == "no else HI!"
        client.off("say")
        assert await conn.emit_with_ack("say", "hi") == "no say HI!"


async def test_iterators_give_copies_of_their_events_and_end_with_the_client() -> None:
    server = Server()
    handled: list[str] = []
    async with connect(server) as client:
        client.on("a", lambda data: handled.append(data))
        only_b, everything = client.events("b"), client.events()
        conn = server.conns()[0]
        for name, data in [("a", "1"), ("b", "2"), ("c", "3"), ("b", "4")]:
            conn.emit(name, data)
        conn.close(1000, "that was all")
        assert [event async for event in only_b] == [Event("b", "2"), Event("b", "4")]
        assert [event.data async for event in everything] == ["1", "2", "3", "4"]
    assert handled == ["1"]


async def test_an_iterator_that_falls_behind_its_buffer_ends_with_overflow_after_what_it_holds() -> None:
    server = Server()
    async with connect(server) as client:
        client.on("sync", lambda data: None)
        events = client.events("say", buffer=2)
        conn = server.conns()[0]
        for number in range(4):
            conn.emit("say", str(number))
        await conn.emit_with_ack("sync")
        assert [(await anext(events)).data, (await anext(events)).data] == ["0", "1"]
        with pytest.raises(Overflow, match="buffer"):
            await anext(events)


async def test_close_sends_what_was_emitted_and_its_code() -> None:
    server = Server()
    seen: list[str] = []
    ends: asyncio.Queue[Disconnect] = asyncio.Queue()
    server.on("say", lambda conn, data: seen.append(data))
    server.on_disconnect(lambda conn, end: ends.put_nowait(end))
    async with server.start(port=0):
        client = await Client(server.url).connect()
        for code, reason in ((999, ""), (1006, ""), (1000, "x" * 124)):
            with pytest.raises(InvalidOption):
                await client.close(code, reason)
        for number in range(100):
            client.emit("say", str(number))
        await client.close(4001, "done")
        end = await ends.get()
        assert (end.code, end.reason, end.clean) == (4001, "done", True)
    assert seen == [str(number) for number in range(100)]


async def test_close_waits_for_on_disconnect_to_end() -> None:
    server = Server()
    client = Client("memory:")
    ended = []

    @client.on_disconnect
    async def disconnected(disconnect: Disconnect) -> None:
        await asyncio.sleep(0.05)
        await client.close()  # which does not wait for itself
        ended.append(disconnect.code)

    async with connect(server, client):
        pass
    assert ended == [1000]
    await server.shutdown()
