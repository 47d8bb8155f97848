"""Rooms, broadcasts, and the objects of connections."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack

import pytest
from etp_ws import Client, Conn, Disconnect, InvalidEvent, InvalidPayload, MessageTooLarge, Server
from etp_ws.testing import connect

pytestmark = pytest.mark.anyio


class Meeting:
    """A server with three clients: ann and bob in "a", bob and eve in "b", and what they hear."""

    def __init__(self) -> None:
        self.server = Server(max_message_size=1024)
        self.heard: list[str] = []
        self.conns: dict[str, Conn] = {}
        self.clients: dict[str, Client[str, str]] = {}

    async def enter(self, stack: AsyncExitStack) -> Meeting:
        for name, rooms in [("ann", "a"), ("bob", "ab"), ("eve", "b")]:
            client = await stack.enter_async_context(connect(self.server))
            client.on("say", lambda data, name=name: self.heard.append(f"{name}: {data}"))  # type: ignore[misc]
            (conn,) = set(self.server.conns()) - set(self.conns.values())
            for room in rooms:
                conn.join(room)
            self.conns[name], self.clients[name] = conn, client
        return self

    async def hear(self) -> list[str]:
        """What was heard so far, in the order of names."""
        # Events keep their order: when the acknowledgment is here, so is what was emitted before it.
        for name, client in self.clients.items():
            client.on("sync", lambda data: None)
            await self.conns[name].emit_with_ack("sync")
        heard, self.heard = sorted(self.heard), []
        return heard


async def test_broadcasts_reach_each_member_of_their_rooms_once() -> None:
    async with AsyncExitStack() as stack:
        meeting = await Meeting().enter(stack)
        server, conns = meeting.server, meeting.conns
        assert server.emit("say", "all") == 3
        assert await meeting.hear() == ["ann: all", "bob: all", "eve: all"]
        assert server.to("a").emit("say", "a") == 2
        assert await meeting.hear() == ["ann: a", "bob: a"]
        assert server.to("a", "b").emit("say", "both") == 3
        assert await meeting.hear() == ["ann: both", "bob: both", "eve: both"]
        assert server.to("a", "b").except_(conns["ann"]).emit("say", "not ann") == 2
        assert await meeting.hear() == ["bob: not ann", "eve: not ann"]
        assert server.to("a").except_("b").emit("say", "only ann") == 1
        assert await meeting.hear() == ["ann: only ann"]
        assert server.except_(conns["ann"].id, conns["bob"]).emit("say", "only eve") == 1
        assert await meeting.hear() == ["eve: only eve"]
        assert conns["ann"].to("a").except_(conns["ann"]).emit("say", "from ann") == 1
        assert await meeting.hear() == ["bob: from ann"]
        assert server.to("nobody's").emit("say", "x") == 0
        assert server.to().emit("say", "x") == 0
        assert await meeting.hear() == []


async def test_rooms_are_looked_at_and_cleared() -> None:
    async with AsyncExitStack() as stack:
        meeting = await Meeting().enter(stack)
        server, conns = meeting.server, meeting.conns
        assert sorted(server.rooms()) == ["a", "b"]
        assert server.member_count("a") == 2
        assert set(server.members("a")) == {conns["ann"], conns["bob"]}
        assert set(server.to("b").except_(conns["bob"]).conns()) == {conns["eve"]}
        assert sorted(conns["bob"].rooms()) == ["a", "b"]
        conns["bob"].leave("a")
        conns["bob"].leave("never there")
        assert conns["bob"].rooms() == ["b"]
        server.clear_room("b")
        assert (server.member_count("b"), conns["bob"].rooms(), server.rooms()) == (0, [], ["a"])
        assert server.members("nobody's") == []


async def test_a_broadcast_that_can_t_be_sent_is_refused_and_reaches_nobody() -> None:
    async with AsyncExitStack() as stack:
        meeting = await Meeting().enter(stack)
        for name in ("", "a||b", "a|", "__ack_x", "__etp", "x" * 257, "\ud800"):
            with pytest.raises(InvalidEvent):
                meeting.server.emit(name, "x")
        with pytest.raises(InvalidPayload):
            meeting.server.to("a").emit("say", 3)  # type: ignore[arg-type]
        with pytest.raises(MessageTooLarge):
            meeting.server.to("a").emit("say", "x" * 2000)
        with pytest.raises(TypeError, match="except_ takes connections and names of rooms"):
            meeting.server.to("a").except_(3)  # type: ignore[arg-type]
        assert await meeting.hear() == []


async def test_a_connection_is_one_object_as_long_as_it_lives() -> None:
    server = Server()
    seen: list[Conn] = []

    @server.on_connect
    async def connected(conn: Conn) -> None:
        conn.data["number"] = 7
        conn.join("room")
        seen.append(conn)

    server.on("see", lambda conn, data: seen.append(conn))
    left: asyncio.Future[Conn] = asyncio.get_running_loop().create_future()

    @server.on_disconnect
    async def disconnected(conn: Conn, end: Disconnect) -> None:
        assert conn.rooms() == ["room"]
        assert not conn.is_open
        left.set_result(conn)

    async with connect(server) as client:
        await client.emit_with_ack("see")
        conn = server.conns()[0]
        assert conn is seen[0] is seen[1] is server.members("room")[0] is server.to("room").conns()[0]
        assert server.conn(conn.id) is conn
        assert len(conn.id) == 32 and int(conn.id, 16) >= 0
        assert conn.is_open and conn.id in repr(conn)
        seen.clear()
        del conn
        gc.collect()
        assert server.conns()[0].data == {"number": 7}
    conn = await left
    assert conn.data == {"number": 7}
    assert server.conn(conn.id) is None
    assert server.conn("no id") is None
    assert server.conns() == [] == server.rooms()


async def test_on_disconnect_is_given_the_object_that_handlers_saw_also_when_nobody_kept_it() -> None:
    server = Server()
    left = asyncio.Event()
    server.on("see", lambda conn, data: conn.data.update(seen="yes"))

    @server.on_disconnect
    async def disconnected(conn: Conn, end: Disconnect) -> None:
        assert conn.data == {"seen": "yes"}
        left.set()

    async with connect(server) as client:
        await client.emit_with_ack("see")
    await left.wait()


async def test_a_connection_that_has_ended_joins_nothing_and_is_reached_by_nothing() -> None:
    server = Server()
    async with connect(server) as client:
        conn = server.conns()[0]
        await client.close()
        await conn.closed()
        conn.join("room")
        assert server.member_count("room") == 0
        assert server.emit("say", "x") == 0
