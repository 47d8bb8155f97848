"""The server of the peers' contract: every event that tests and benchmarks drive, as a user's program would serve it."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import time
from collections import Counter

from etp_ws import Conn, Disconnect, EtpError, Server

server = Server(codec="bytes", origins="*")
seen = Counter(connects=0, disconnects=0, errors=0, unknown=0)  # calls of the callbacks


@server.on_connect
def connected(conn: Conn) -> None:
    seen["connects"] += 1


@server.on_disconnect
def disconnected(conn: Conn, end: Disconnect) -> None:
    seen["disconnects"] += 1


@server.on_error
def failed(conn: Conn | None, error: EtpError) -> None:
    seen["errors"] += 1


@server.on_unknown_event
async def unknown(conn: Conn, name: str, data: bytes) -> bytes:
    seen["unknown"] += 1
    return f"unknown:{name}".encode()


@server.on("echo")
async def echo(conn: Conn, data: bytes) -> bytes:
    return data


@server.on("id")
async def own_id(conn: Conn, data: bytes) -> bytes:
    return conn.id.encode()


@server.on("url")
async def url(conn: Conn, data: bytes) -> bytes:
    return conn.request.url.encode()


@server.on("join")
async def join(conn: Conn, data: bytes) -> bytes:
    room = data.decode()
    conn.join(room)
    return b"%d" % server.member_count(room)


@server.on("leave")
async def leave(conn: Conn, data: bytes) -> bytes:
    room = data.decode()
    conn.leave(room)
    return b"%d" % server.member_count(room)


@server.on("rooms")
async def rooms(conn: Conn, data: bytes) -> bytes:
    return json.dumps(sorted(conn.rooms()), separators=(",", ":")).encode()


@server.on("shout")
async def shout(conn: Conn, data: bytes) -> bytes:
    room, payload = data.split(b"\n", 1)
    return b"%d" % server.to(room.decode()).emit("shout", payload)


@server.on("others")
async def others(conn: Conn, data: bytes) -> bytes:
    room, payload = data.split(b"\n", 1)
    return b"%d" % server.to(room.decode()).except_(conn).emit("shout", payload)


@server.on("set")
def set_value(conn: Conn, data: bytes) -> None:
    key, value = data.split(b"\n", 1)
    conn.data[key] = value


@server.on("get")
def get_value(conn: Conn, key: bytes) -> bytes | None:
    value: bytes | None = conn.data.get(key)
    return value


@server.on("slow")
async def slow(conn: Conn, millis: bytes) -> bytes:
    await asyncio.sleep(int(millis) / 1000)
    return b"done"


@server.on("block")  # beyond the contract: what a careless handler does to the event loop
def block(conn: Conn, millis: bytes) -> bytes:
    time.sleep(int(millis) / 1000)
    return b"done"


@server.on("fail")
async def fail(conn: Conn, data: bytes) -> None:
    raise RuntimeError("asked to fail")


@server.on("empty")
def empty(conn: Conn, data: bytes) -> None:
    pass


@server.on("ask")
async def ask(conn: Conn, data: bytes) -> bytes:
    try:
        answer: bytes = await conn.emit_with_ack("question", data, timeout=1.0)
    except EtpError as error:
        return f"error:{error.code}".encode()
    return answer


@server.on("close")
def close(conn: Conn, data: bytes) -> None:
    conn.close()


@server.on("seen")
async def tell_seen(conn: Conn, data: bytes) -> bytes:
    return json.dumps(seen).encode()


def listening(url: str) -> None:
    print(f"LISTENING {url}", flush=True)


async def serve(host: str, port: int) -> None:
    """Serves on a listener of the package's own."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with server.start(host, port):
        listening(server.url)
        await ended.wait()


def serve_asgi(host: str, port: int) -> None:
    """Serves as a part of a Starlette application, on uvicorn's listener and by its WebSocket implementation."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    class Uvicorn(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            listening(f"ws://{host}:{sock.getsockname()[1]}/ws")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await server.shutdown()  # handlers reply, clients are told 1000: uvicorn alone cuts them off with 1012
            await super().shutdown(sockets)

    app = Starlette(routes=[WebSocketRoute("/ws", server.asgi)])
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=64 << 20,  # far past `max_message_size`, so that this is the limit that counts
        ws_per_message_deflate=False,
        log_level="warning",
    )
    sock = socket.create_server((host, port))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn raises it once more when it has ended
    Uvicorn(config).run(sockets=[sock])


def main() -> None:
    parser = argparse.ArgumentParser(prog="run.py")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--asgi", action="store_true", help="under uvicorn instead of on a listener of its own")
    args = parser.parse_args()
    host, _, port = args.listen.rpartition(":")
    if args.asgi:
        serve_asgi(host, int(port))
    else:
        asyncio.run(serve(host, int(port)))


if __name__ == "__main__":
    main()
