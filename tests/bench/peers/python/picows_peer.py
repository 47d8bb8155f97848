"""The benchmark's server on picows's core API and uvloop. Its callbacks can't await, so each message gets a task for its
async handler, as the documentation shows; with --callback an echo goes out from the callback itself."""

import argparse
import asyncio
import signal
import time
from collections import defaultdict

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

rooms: defaultdict[bytes, set[WSTransport]] = defaultdict(set)


class Listener(WSListener):
    def __init__(self, echo_at_once: bool) -> None:
        self.echo_at_once = echo_at_once
        self.loop = asyncio.get_running_loop()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
            return
        message = frame.get_payload_as_bytes()
        if self.echo_at_once and message.startswith(b"echo||"):
            transport.send(WSMsgType.TEXT, message)
        else:
            self.loop.create_task(handler(transport, message))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for members in rooms.values():
            members.discard(transport)


async def handler(transport: WSTransport, message: bytes) -> None:
    if message.startswith(b"echo||"):
        transport.send(WSMsgType.TEXT, message)
        return
    event, id, data = message.split(b"||", 2)
    match event:
        case b"slow":
            await asyncio.sleep(int(data) / 1000)
            answer = b"done"
        case b"block":
            time.sleep(int(data) / 1000)
            answer = b"done"
        case b"join":
            rooms[data].add(transport)
            answer = b"%d" % len(rooms[data])
        case b"shout":
            room, payload = data.split(b"\n", 1)
            delivery = b"shout||0||" + payload
            for member in rooms[room]:
                member.send(WSMsgType.TEXT, delivery)
            answer = b"%d" % len(rooms[room])
        case _:
            return
    transport.send(WSMsgType.TEXT, b"%b||%b||%b" % (event, id, answer))


async def main(host: str, port: int, echo_at_once: bool) -> None:
    server = await ws_create_server(lambda request: Listener(echo_at_once), host, port)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
    host, port = server.sockets[0].getsockname()
    print(f"LISTENING ws://{host}:{port}/", flush=True)
    await server.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--callback", action="store_true")
    args = parser.parse_args()
    host, port = args.listen.rsplit(":", 1)
    uvloop.run(main(host, int(port), args.callback))
