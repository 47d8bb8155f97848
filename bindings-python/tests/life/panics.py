"""A panic of the core is an exception like others."""

import asyncio

from etp_ws import Client, EtpError, InternalError, Server, _etp_ws


def panic() -> None:
    try:
        _etp_ws._panic_for_tests()
    except Exception as error:
        assert isinstance(error, EtpError) and isinstance(error, InternalError), repr(error)
        assert error.code == "internal_error", error.code
        assert "a panic for tests" in str(error), error
    else:
        raise AssertionError("no exception")


async def main() -> None:
    server = Server()
    errors: asyncio.Queue[EtpError] = asyncio.Queue()
    server.on("panic", lambda conn, data: _etp_ws._panic_for_tests())
    server.on("echo", lambda conn, data: data)
    server.on_error(lambda conn, error: errors.put_nowait(error))
    async with server.start("127.0.0.1", 0), Client(server.url) as client:
        panic()
        client.emit("panic")
        error = await errors.get()
        assert error.code == "handler_failed" and isinstance(error.__cause__, InternalError)
        assert await client.emit_with_ack("echo", "still here") == "still here"


panic()
asyncio.run(main())
print("END")
