"""The benchmark's server on websockets, as its documentation shows one: an async handler for each connection, on plain
asyncio. With --uvloop it runs on that."""

import argparse
import asyncio
import signal
import time
from collections import defaultdict

import websockets.speedups  # noqa: F401 - without its C extension it must not be measured
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def handler(websocket: ServerConnection) -> None:
    try:
        async for message in websocket:
            if message.startswith("echo||"):
                await websocket.send(message)
            else:
                await dispatch(websocket, *message.split("||", 2))
    except ConnectionClosed:
        pass
    finally:
        for members in rooms.values():
            members.discard(websocket)


async def dispatch(websocket: ServerConnection, event: str, id: str, data: str) -> None:
    match event:
        case "slow":
            # Awaited here it would hold up the connection's next message. asyncio has it while it sleeps or sends.
            asyncio.create_task(slow(websocket, id, data))
        case "block":
            time.sleep(int(data) / 1000)
            await websocket.send(f"block||{id}||done")
        case "join":
            rooms[data].add(websocket)
            await websocket.send(f"join||{id}||{len(rooms[data])}")
        case "shout":
            room, payload = data.split("\n", 1)
            broadcast(rooms[room], f"shout||0||{payload}")
            await websocket.send(f"shout||{id}||{len(rooms[room])}")


async def slow(websocket: ServerConnection, id: str, milliseconds: str) -> None:
    await asyncio.sleep(int(milliseconds) / 1000)
    await websocket.send(f"slow||{id}||done")


async def main(host: str, port: int) -> None:
    async with serve(handler, host, port, compression=None) as server:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
        host, port = server.sockets[0].getsockname()
        print(f"LISTENING ws://{host}:{port}/", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--uvloop", action="store_true")
    args = parser.parse_args()
    host, port = args.listen.rsplit(":", 1)
    if args.uvloop:
        import uvloop

        uvloop.run(main(host, int(port)))
    else:
        asyncio.run(main(host, int(port)))
