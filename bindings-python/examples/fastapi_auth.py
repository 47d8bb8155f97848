"""A FastAPI application with ETP at `/ws`: a token is checked before there is a connection, a route emits to a room.

    pip install etp-ws fastapi "uvicorn[standard]"
    uvicorn fastapi_auth:app

In a second terminal a client, which waits for news; in a third whoever has some:

    python fastapi_auth.py
    curl -X POST -H "Authorization: Bearer bob-secret" "http://127.0.0.1:8000/rooms/lobby/news?text=hello"

Pages of this application's own origin may connect; name others with `Server(origins=["https://example.org"])`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from etp_ws import Client, Conn, Reject, Request, Server
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.routing import WebSocketRoute


@dataclass(frozen=True)
class User:
    name: str


async def find_user(token: str | None) -> User | None:
    """Stands for your database, or for the check of a signature."""
    return {"ann-secret": User("ann"), "bob-secret": User("bob")}.get(token or "")


# ETP

server = Server(codec="json")


@server.on_upgrade
async def authenticate(request: Request) -> User:
    # A client's `auth`, or what a page sends: new WebSocket(url, ["etp", "etp.auth." + base64url(token)]).
    user = await find_user(request.token)
    if user is None:
        raise Reject(401)
    return user  # from now on this is `conn.data`


@server.on_connect
async def connected(conn: Conn) -> None:
    conn.join("lobby")


@server.on("whoami")
async def whoami(conn: Conn, data: None) -> str:
    user: User = conn.data
    return user.name


# HTTP


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await server.shutdown()


app = FastAPI(lifespan=lifespan)
app.router.routes.append(WebSocketRoute("/ws", server.asgi))


async def current_user(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> User:
    user = await find_user(bearer.credentials)
    if user is None:
        raise HTTPException(401)
    return user


@app.post("/rooms/{room}/news")
async def news(room: str, text: str, user: Annotated[User, Depends(current_user)]) -> dict[str, int]:
    return {"reached": server.to(room).emit("news", {"from": user.name, "text": text})}


# A client


async def main() -> None:
    async with Client("ws://127.0.0.1:8000/ws", codec="json", auth="ann-secret") as client:
        print("I am", await client.emit_with_ack("whoami"))
        async for event in client.events("news"):
            print(f"{event.data['from']}: {event.data['text']}")


if __name__ == "__main__":
    asyncio.run(main())
