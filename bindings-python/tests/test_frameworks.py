"""`server.asgi` inside Starlette, FastAPI and Quart: their routes, middleware, dependencies and lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
import websockets
from etp_ws import Client, Conn, Disconnect, Reject, Rejected, Request, Server
from fastapi import Depends, FastAPI, Header, WebSocket, WebSocketException
from fastapi.routing import APIWebSocketRoute
from hosts import HOSTS, host
from quart import Quart
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("kind", HOSTS)]


class FromQuery(AuthenticationBackend):
    """Believes what the query says."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.query_params.get("user")
        return None if name is None else (AuthCredentials(["authenticated"]), SimpleUser(name))


async def test_in_starlette_on_upgrade_sees_the_user_and_session_of_middleware_in_front(kind: str) -> None:
    server = Server(codec="json")

    @server.on_upgrade
    async def upgrade(request: Request) -> dict[str, Any]:
        assert request.scope is not None
        if not request.scope["user"].is_authenticated:
            raise Reject(401)
        return {"user": request.scope["user"].display_name, "visits": request.scope["session"].get("visits")}

    server.on("whoami", lambda conn, data: conn.data)

    async def visit(request: HttpRequest) -> PlainTextResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return PlainTextResponse("welcome")

    app = Starlette(
        routes=[Route("/", visit), WebSocketRoute("/ws", server.asgi), Mount("/mounted", server.asgi)],
        middleware=[
            Middleware(SessionMiddleware, secret_key="not secret"),
            Middleware(AuthenticationMiddleware, backend=FromQuery()),
        ],
    )
    async with host(kind, app) as address:
        async with httpx.AsyncClient() as http:
            await http.get(f"http://{address}/")
            response = await http.get(f"http://{address}/")
            cookie = response.headers["set-cookie"].partition(";")[0]
        for path in ("/ws", "/mounted/below"):
            url = f"ws://{address}{path}"
            async with Client(f"{url}?user=ann", codec="json", headers={"Cookie": cookie}) as client:
                assert await client.emit_with_ack("whoami") == {"user": "ann", "visits": 2}
            with pytest.raises(Rejected):
                await Client(url, codec="json").connect()
        await server.shutdown()


async def current_user(websocket: WebSocket, authorization: Annotated[str | None, Header()] = None) -> str:
    """A dependency of FastAPI's: it lets ann in."""
    if authorization != "Bearer ann-secret":
        raise WebSocketException(1008, "log in first")
    return "ann"


async def test_in_fastapi_a_route_with_a_dependency_hands_its_websocket_over(kind: str) -> None:
    server = Server()
    ends: asyncio.Queue[Disconnect] = asyncio.Queue()

    @server.on_upgrade
    async def upgrade(request: Request) -> str:
        assert request.scope is not None
        return str(request.scope["state"]["user"])

    server.on("whoami", lambda conn, data: conn.data)
    server.on_disconnect(lambda conn, end: ends.put_nowait(end))
    app = FastAPI()

    @app.websocket("/ws")
    async def etp(websocket: WebSocket, user: Annotated[str, Depends(current_user)]) -> None:
        websocket.state.user = user
        await server.asgi(websocket.scope, websocket.receive, websocket.send)

    async with host(kind, app) as address:
        async with Client(f"ws://{address}/ws", auth="ann-secret") as client:
            assert await client.emit_with_ack("whoami") == "ann"
            server.emit("say", "hi")
        await ends.get()
        # One that goes without a word, while there is something to send.
        raw = await websockets.connect(f"ws://{address}/ws", additional_headers={"Authorization": "Bearer ann-secret"})
        raw.transport.abort()
        for _ in range(100):
            server.emit("say", "hi")
        await ends.get()
        with pytest.raises(Rejected) as rejected:
            await Client(f"ws://{address}/ws").connect()
        assert rejected.value.status == 403
        await server.shutdown()


@pytest.mark.parametrize("way", ["APIWebSocketRoute", "WebSocketRoute"])
async def test_in_fastapi_a_route_emits_to_rooms_and_the_lifespan_ends_the_server(kind: str, way: str) -> None:
    server = Server(codec="json")
    left = asyncio.Event()

    @server.on_connect
    async def connected(conn: Conn) -> None:
        conn.join("lobby")

    server.on_disconnect(lambda conn, end: left.set())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await server.shutdown()

    app = FastAPI(lifespan=lifespan)
    if way == "WebSocketRoute":
        app.router.routes.append(WebSocketRoute("/ws", server.asgi))
    else:

        async def etp(websocket: WebSocket) -> None:
            await server.asgi(websocket.scope, websocket.receive, websocket.send)

        app.router.routes.append(APIWebSocketRoute("/ws", etp))

    @app.post("/news")
    async def news(text: str) -> dict[str, int]:
        return {"reached": server.to("lobby").emit("news", text)}

    client_ends: asyncio.Queue[Disconnect] = asyncio.Queue()
    async with host(kind, app) as address:
        client = Client(f"ws://{address}/ws", codec="json", reconnect=False)
        client.on_disconnect(lambda end: client_ends.put_nowait(end))
        await client.connect()
        events = client.events("news")
        async with httpx.AsyncClient() as http:
            response = await http.post(f"http://{address}/news", params={"text": "hello"})
        assert response.json() == {"reached": 1}
        assert (await anext(events)).data == "hello"
        if kind == "hypercorn":
            await server.shutdown()
    end = await client_ends.get()
    assert end.code == (1000 if kind == "hypercorn" else 1012)
    await left.wait()
    assert repr(server) == "<Server not started>"


async def test_in_quart_the_application_is_wrapped(kind: str) -> None:
    server = Server()
    server.on("say", lambda conn, data: f"{data} in Quart")
    app = Quart(__name__)
    quart_app: Callable[..., Awaitable[Any]] = app.asgi_app

    async def with_etp(scope: Any, receive: Any, send: Any) -> None:
        mine = scope["type"] == "websocket" and scope["path"] == "/ws"
        await (server.asgi if mine else quart_app)(scope, receive, send)

    app.asgi_app = with_etp  # type: ignore[method-assign]
    app.after_serving(server.shutdown)

    @app.get("/")
    async def page() -> str:
        return "page"

    async with host(kind, app) as address:
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://{address}/")).text == "page"
        async with Client(f"ws://{address}/ws") as client:
            assert await client.emit_with_ack("say", "hi") == "hi in Quart"
    assert repr(server) == "<Server not started>"
