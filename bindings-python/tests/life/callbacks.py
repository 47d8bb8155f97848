"""An exception in a callback: everything else goes on."""

import asyncio
import linecache
import logging
import sys
from typing import Any

from etp_ws import Client, Conn, ConnectFailed, EtpError, HandlerFailed, Server

which = sys.argv[1]
told = sys.argv[2] == "told"  # there is an `on_error`
at_server: asyncio.Queue[EtpError] = asyncio.Queue()
at_client: asyncio.Queue[EtpError] = asyncio.Queue()


class Records(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            failed = HandlerFailed(record.getMessage())
            failed.__cause__ = record.exc_info[1]
            logged.put_nowait(failed)


logged: asyncio.Queue[EtpError] = asyncio.Queue()
logging.getLogger("etp_ws").addHandler(Records())
logging.getLogger("etp_ws").propagate = False


def fail(*args: Any) -> Any:
    raise LookupError(which)  # the user's line


async def fail_later(*args: Any) -> Any:
    await asyncio.sleep(0)
    raise LookupError(which)  # the user's line


def refuse(data: Any) -> Any:
    if data in ("bad", b"bad"):
        raise LookupError(which)  # the user's line
    return data.encode() if isinstance(data, str) else data.decode()


def check(error: EtpError, code: str) -> None:
    cause = error.__cause__
    assert error.code == code, error.code
    assert isinstance(cause, LookupError) and cause.args == (which,), repr(cause)
    last = cause.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    assert last is not None and last.tb_frame.f_code.co_filename == __file__
    assert "the user's line" in linecache.getline(__file__, last.tb_lineno)


async def serve(server: Server[Any, Any], name: str, failing: Any) -> None:
    """The server's callback fails; then a second client is served."""
    if name == "on_error":
        # What fails is the callback that is told of failures: the log is told.
        server.on("bad", fail)
        server.on_error(failing)
    elif told:
        server.on_error(lambda conn, error: at_server.put_nowait(error))
    seen = logged if not told or name == "on_error" else at_server
    if name == "handler":
        server.on("bad", failing)
    elif name == "middleware":

        async def middleware(conn: Conn, event: str, data: Any, call_next: Any) -> Any:
            return await fail_later() if event == "bad" else await call_next(conn, event, data)

        server.middleware(middleware)
        server.on("bad", lambda conn, data: None)
    elif name == "on_unknown_event":
        server.on_unknown_event(failing)
    elif name in ("loads", "dumps"):
        server.on("bad" if name == "dumps" else "fine", lambda conn, data: "bad")
    elif name != "on_error":
        getattr(server, name)(failing)
    server.on("echo", lambda conn, data: data)

    async with server.start("127.0.0.1", 0):
        if name == "on_upgrade":
            try:
                await Client(server.url).connect()
            except ConnectFailed as error:
                assert error.status == 500 and which not in str(error), error
            check(await seen.get(), "handshake_failed" if told else "handler_failed")
            server.on_upgrade(lambda request: None)
        elif name == "on_connect":
            ends: asyncio.Queue[Any] = asyncio.Queue()
            client = Client(server.url, reconnect=False)
            client.on_disconnect(ends.put_nowait)
            await client.connect()
            assert (await ends.get()).code == 1011
            check(await seen.get(), "handler_failed")
            server.on_connect(lambda conn: None)
        elif name == "on_disconnect":
            await (await Client(server.url).connect()).close()
            check(await seen.get(), "handler_failed")
        elif name == "loads":
            async with Client(server.url) as client:
                client.emit("echo", "bad")
                check(await seen.get(), "invalid_payload" if told else "handler_failed")
                assert await client.emit_with_ack("echo", "good") == "good"
        else:
            async with Client(server.url) as client:
                client.emit("bad", "x") if name != "dumps" else asyncio.ensure_future(
                    client.emit_with_ack("bad", timeout=60.0)
                ).add_done_callback(lambda done: done.cancelled() or done.exception())
                check(await seen.get(), "handler_failed" if name != "dumps" or not told else "invalid_payload")
                assert await client.emit_with_ack("echo", "good") == "good"
        async with Client(server.url) as client:
            assert await client.emit_with_ack("echo", "good") == "good"


async def dial(name: str, failing: Any) -> None:
    """The client's callback fails."""
    server: Server[str, str] = Server()
    server.on("echo", lambda conn, data: data)
    server.on("kick", lambda conn, data: conn.close(4001, data))
    server.on("say", lambda conn, data: conn.emit("bad", "x"))
    async with server.start("127.0.0.1", 0):
        options: dict[str, Any] = {"url": failing} if name == "client.url" else {"url": server.url}
        if name in ("client.auth", "client.should_reconnect"):
            options[name.removeprefix("client.")] = failing
        client: Client[str, str] = Client(**options)
        if told and name != "client.on_error":
            client.on_error(at_client.put_nowait)
        seen = at_client if told and name != "client.on_error" else logged
        if name in ("client.url", "client.auth"):
            try:
                await client.connect()
            except ConnectFailed as error:
                check(error, "connect_failed")
            else:
                raise AssertionError("it connected")
            return
        if name in ("client.on_connect", "client.on_disconnect", "client.on_unknown_event", "client.on_error"):
            getattr(client, name.removeprefix("client."))(failing)
        if name in ("client.handler", "client.on_error"):
            client.on("bad", failing)
        if name == "client.middleware":

            async def middleware(event: str, data: Any, call_next: Any) -> Any:
                return await fail_later()

            client.middleware(middleware)
            client.on("bad", lambda data: None)
        if name == "client.on_connect":
            try:
                await client.connect()
            except ConnectFailed:
                check(await seen.get(), "handler_failed")
            else:
                raise AssertionError("it connected")
            return
        connected: asyncio.Queue[None] = asyncio.Queue()
        client.on_connect(lambda: connected.put_nowait(None))
        await client.connect()
        await connected.get()
        if name in ("client.on_disconnect", "client.should_reconnect"):
            client.emit("kick", "come back")
            check(await seen.get(), "handler_failed")
            await connected.get()  # the usual rule: it comes back
            while client.state != "connected":
                await asyncio.sleep(0)
        else:
            client.emit("say")
            check(await seen.get(), "handler_failed")
        assert await client.emit_with_ack("echo", "good") == "good"
        await client.close()


async def main() -> None:
    for failing in (fail, fail_later):
        if which.startswith("client."):
            if which == "client.should_reconnect" and failing is fail_later:
                continue
            await dial(which, failing)
        elif which in ("loads", "dumps"):
            pair = (refuse if which == "dumps" else str.encode, refuse if which == "loads" else bytes.decode)
            await serve(Server(pair), which, failing)
        else:
            await serve(Server(), which, failing)
    # These fail for the other clients as well.
    if which not in ("on_disconnect", "client.on_disconnect"):
        assert at_server.empty() and at_client.empty() and logged.empty()


asyncio.run(main())
print("END")
