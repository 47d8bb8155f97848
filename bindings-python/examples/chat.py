"""A chat with rooms: a Starlette application that serves a page at `/` and ETP at `/ws`, on one port.
The page and its client are those of the repository: `make js-client` there builds the client.

    pip install etp-ws starlette "uvicorn[standard]"
    python chat.py

Then open http://127.0.0.1:8080 in two windows. `ADDR=127.0.0.1:9000` takes another port.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from etp_ws import Conn, Disconnect, Server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "js-client/examples/chat.html"
CLIENT = REPOSITORY / ".build/js-client/package/index.js"

# The page says what somebody typed as it is and everything else as JSON, so payloads are text here.
server = Server(codec="text")


@dataclass
class Guest:
    """Who somebody is, and where: kept with the connection as `conn.data["guest"]`."""

    name: str
    room: str


def names(room: str) -> list[str]:
    """The names of those in a room."""
    return [conn.data["guest"].name for conn in server.members(room)]


def tell_members(room: str) -> None:
    """Tells a room who is in it now."""
    server.to(room).emit("members", json.dumps(names(room)))


def short(text: str, what: str) -> str:
    text = text.strip()
    if not 0 < len(text) <= 40:
        raise ValueError(f"{what} is empty or longer than 40 characters")
    return text


def leave(conn: Conn) -> None:
    """Leaves the room, if there is one, and tells those who stay."""
    guest: Guest | None = conn.data.pop("guest", None)
    if guest is not None:
        conn.leave(guest.room)
        tell_members(guest.room)


@server.on("enter")
async def enter(conn: Conn, data: str) -> str:
    who = json.loads(data)
    # A handler that raises sends no reply, and the page says so.
    guest = Guest(name=short(who["name"], "the name"), room=short(who["room"], "the room"))
    leave(conn)
    conn.data["guest"] = guest
    conn.join(guest.room)
    tell_members(guest.room)
    return json.dumps({"room": guest.room, "members": names(guest.room)})


@server.on("say")
async def say(conn: Conn, text: str) -> None:
    guest: Guest | None = conn.data.get("guest")
    if guest is None:
        raise ValueError("enter a room first")
    server.to(guest.room).emit("said", json.dumps({"name": guest.name, "text": text}))


@server.on("leave")
def leave_room(conn: Conn, data: str) -> None:
    leave(conn)


@server.on("alive")
def alive(conn: Conn, data: str) -> None:
    """That it is answered is the answer."""


@server.on_disconnect
async def left(conn: Conn, end: Disconnect) -> None:
    leave(conn)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    await server.shutdown(timeout=3.0)


def missing(path: Path) -> str:
    return f"There is no {path}: `make js-client` in the repository builds what the page needs."


def file(path: Path, media_type: str) -> Response:
    """A file of the repository, or what to do where there is none."""
    if not path.exists():
        return PlainTextResponse(missing(path), status_code=404)
    return FileResponse(path, media_type=media_type, headers={"cache-control": "no-cache"})


async def page(request: Request) -> Response:
    return file(PAGE, "text/html")


async def client(request: Request) -> Response:
    return file(CLIENT, "text/javascript")


app = Starlette(
    routes=[Route("/", page), Route("/etp-ws-client.js", client), WebSocketRoute("/ws", server.asgi)],
    lifespan=lifespan,
)


def main() -> None:
    host, _, port = os.environ.get("ADDR", "127.0.0.1:8080").rpartition(":")
    sock = socket.create_server((host, int(port)))
    host, port = sock.getsockname()[:2]
    print(f"The chat is at http://{host}:{port} - open it in two windows, enter a room and talk.", flush=True)
    for path in (PAGE, CLIENT):
        if not path.exists():
            print(missing(path), file=sys.stderr)
    print("Ctrl-C ends it; the page comes back by itself when you start it again.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[sock])


if __name__ == "__main__":
    main()
