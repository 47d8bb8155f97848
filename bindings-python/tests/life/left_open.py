"""Ends with its server alive in a global, with open connections, waiting handlers and unanswered acknowledgments."""

import asyncio
import sys

from etp_ws import Client, Conn, Server

how = sys.argv[1]
server = Server(shutdown_timeout=5.0)
clients: list[Client[str, str]] = []
waiting: list[asyncio.Task[str]] = []
everything: asyncio.Future[None]


@server.on("stay")
async def stay(conn: Conn, data: str) -> None:
    await asyncio.Event().wait()


@server.on("ask")
async def ask(conn: Conn, data: str) -> None:
    everything.set_result(None)
    await conn.emit_with_ack("question", timeout=60.0)


@server.on("exit")
async def leave(conn: Conn, data: str) -> None:
    if data == "late":
        await asyncio.sleep(0)
    sys.exit(3)


@server.on("exit at once")
def leave_at_once(conn: Conn, data: str) -> None:
    sys.exit(3)


async def main() -> None:
    global everything
    everything = asyncio.get_running_loop().create_future()
    await server.start("127.0.0.1", 0)
    print("READY", server.url)
    for _ in range(3):
        clients.append(await Client(server.url).connect())
        await clients[-1].ping()
    clients[0].emit("stay")
    clients[1].emit("ask")  # which this client never answers: it has no handler, and says so to nobody
    clients[1].on_error(lambda error: None)
    if how != "pending":
        waiting.append(asyncio.ensure_future(clients[0].emit_with_ack("stay")))
    await everything
    await asyncio.to_thread(sys.stdin.readline)
    if how == "raise":
        raise LookupError("the program's own")
    if how == "exit":
        sys.exit(3)
    if how.startswith("handler"):
        clients[2].emit({"handler": "exit", "handler-late": "exit", "handler-plain": "exit at once"}[how], how[8:])
        await asyncio.Event().wait()


if how == "by hand":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
elif how == "clients only":

    async def only() -> None:
        async with Server(shutdown_timeout=1.0).start("127.0.0.1", 0) as other:
            other.on("stay", stay)
            client = await Client(other.url).connect()
            clients.append(client)
            client.emit("stay")

    asyncio.run(only())
else:
    asyncio.run(main())
print("END", server)
