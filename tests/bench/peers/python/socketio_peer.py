"""The benchmark's server on python-socketio, as its documentation shows one: an ASGI application, here under uvicorn."""

import argparse
import asyncio
import signal
import socket
import sys
import time
from collections import defaultdict

import socketio
import uvicorn

sio = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], cors_allowed_origins="*")
rooms: defaultdict[str, set[str]] = defaultdict(set)  # who is in a room, which the library doesn't count


@sio.event
async def echo(sid: str, data: str) -> str:
    return data


@sio.event
async def slow(sid: str, milliseconds: str) -> str:
    await asyncio.sleep(int(milliseconds) / 1000)
    return "done"


@sio.event
def block(sid: str, milliseconds: str) -> str:
    time.sleep(int(milliseconds) / 1000)
    return "done"


@sio.event
async def join(sid: str, room: str) -> str:
    await sio.enter_room(sid, room)
    rooms[room].add(sid)
    return str(len(rooms[room]))


@sio.event
async def shout(sid: str, data: str) -> str:
    room, payload = data.split("\n", 1)
    await sio.emit("shout", payload, room=room)
    return str(len(rooms[room]))


@sio.event
def disconnect(sid: str, reason: str) -> None:
    for members in rooms.values():
        members.discard(sid)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:0")
    host, port = parser.parse_args().listen.rsplit(":", 1)
    config = uvicorn.Config(
        socketio.ASGIApp(sio),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
        ws_per_message_deflate=False,
    )
    listener = socket.create_server((host, int(port)), backlog=config.backlog)
    # uvicorn hands the signal on when it has ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    host, port = listener.getsockname()
    print(f"LISTENING ws://{host}:{port}/socket.io/?EIO=4&transport=websocket", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
