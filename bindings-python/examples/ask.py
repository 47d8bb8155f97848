"""A server that asks its clients: acknowledgments work in both directions.

    pip install etp-ws
    python ask.py

Server and clients are in this one file. It prints what they say and ends by itself.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from etp_ws import AckTimeout, Client, Conn, ConnectionClosed, Server

# The server

server = Server(codec="json")


@server.on("sit down")
async def sit_down(conn: Conn, name: str) -> str:
    conn.data["name"] = name
    conn.join("table")
    return f"welcome, {name}"


async def ask(conn: Conn, question: str) -> str:
    """What one client answers. Every question ends: with the answer, in time without one, or with the connection."""
    try:
        return str(await conn.emit_with_ack("question", question, timeout=0.5))
    except AckTimeout:
        return "(no answer in time)"
    except ConnectionClosed:
        return "(left)"


async def ask_everybody(question: str) -> dict[str, str]:
    """Asks all at the table at once, so that one who is slow holds up nobody."""
    conns = server.members("table")
    answers = await asyncio.gather(*(ask(conn, question) for conn in conns))
    return {conn.data["name"]: answer for conn, answer in zip(conns, answers, strict=True)}


# The clients


def guest(url: str, answer: str, thinks_for: float) -> Client:
    client = Client(url, codec="json")

    @client.on("question")
    async def think(question: str) -> str:
        await asyncio.sleep(thinks_for)
        return answer

    return client


async def main() -> None:
    async with server.start("127.0.0.1", 0), AsyncExitStack() as stack:
        for name, answer, thinks_for in [("ann", "tea", 0.0), ("bob", "coffee", 0.1), ("eve", "well...", 60.0)]:
            client = await stack.enter_async_context(guest(server.url, answer, thinks_for))
            print("server to", name, "-", await client.emit_with_ack("sit down", name))

        question = "Coffee or tea?"
        print("server to all -", question)
        for name, said in sorted((await ask_everybody(question)).items()):
            print(f"{name} - {said}")


if __name__ == "__main__":
    asyncio.run(main())
