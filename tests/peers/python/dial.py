"""The client of the peers' contract: commands as JSON lines on standard input, answers and events as JSON lines on
standard output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from etp_ws import Client, Disconnect, EtpError, Rejected

# What is to be said before `connect` has returned.
unsaid: list[dict[str, Any]] | None = []


def say(line: dict[str, Any]) -> None:
    if unsaid is not None:
        unsaid.append(line)
        return
    with contextlib.suppress(BrokenPipeError):  # nobody reads any more: there is nobody to tell
        print(json.dumps(line), flush=True)


def begin_to_say(first: dict[str, Any]) -> None:
    global unsaid
    waiting, unsaid = unsaid or [], None
    for line in [first, *waiting]:
        say(line)


def make_client(url: str) -> Client:
    client = Client(url, codec="bytes")

    @client.on_disconnect
    def disconnected(end: Disconnect) -> None:
        told = {
            "code": end.code,
            "reason": end.reason,
            "clean": end.clean,
            "normal": end.normal,
            "will_reconnect": end.will_reconnect,
        }
        say({"disconnected": told})
        if not end.will_reconnect:
            say({"state": "closed"})

    @client.on_error
    def failed(error: EtpError) -> None:
        print(error, file=sys.stderr, flush=True)
        if isinstance(error, Rejected):  # by a re-dial: the client has given up
            say({"error": error.code})
            say({"state": "closed"})

    @client.on("question")
    async def question(data: bytes) -> bytes:
        return data

    @client.on_unknown_event
    def unknown(name: str, data: bytes) -> None:
        say({"event": name, "data_hex": data.hex()})

    return client


async def obey(client: Client, command: dict[str, Any]) -> None:
    name = bytes.fromhex(command["name_hex"]).decode() if "name_hex" in command else command.get("name", "")
    data = bytes.fromhex(command.get("data_hex", ""))
    done = {"done": command["id"]}
    try:
        match command["do"]:
            case "emit":
                client.emit(name, data)
            case "ack":
                millis = command.get("timeout_ms")
                timeout = None if millis is None else millis / 1000
                reply: bytes = await client.emit_with_ack(name, data, timeout=timeout)
                done["data_hex"] = reply.hex()
            case "ping":
                await client.ping()
            case "drain":
                await client.drain()
            case "close":
                await client.close()
            case other:
                raise ValueError(f"unknown command {other!r}")
    except EtpError as error:
        done["error"] = error.code
    say(done)


async def main(url: str) -> int:
    client = make_client(url)
    try:
        await client.connect()
    except EtpError as error:
        print(error, file=sys.stderr, flush=True)
        begin_to_say({"error": error.code})
        return 1
    begin_to_say({"state": "connected"})
    # From now on it comes back by itself.
    client.on_connect(lambda: say({"state": "connected"}))
    async with asyncio.TaskGroup() as commands:
        # A command begins while the next line is being waited for: emits keep their order.
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            commands.create_task(obey(client, json.loads(line)))
        await client.close()
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: dial.py URL")
    sys.exit(asyncio.run(main(sys.argv[1])))
