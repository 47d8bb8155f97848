"""The examples run as their heads say."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from etp_ws import Client, Rejected
from test_commands import serving

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_ask_prints_what_server_and_clients_say() -> None:
    ran = subprocess.run([sys.executable, EXAMPLES / "ask.py"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "server to ann - welcome, ann",
        "server to bob - welcome, bob",
        "server to eve - welcome, eve",
        "server to all - Coffee or tea?",
        "ann - tea",
        "bob - coffee",
        "eve - (no answer in time)",
    ]


async def test_the_chat_serves_its_page_and_the_page_s_websocket() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        EXAMPLES / "chat.py",
        env={**os.environ, "ADDR": "127.0.0.1:0"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        url = line.split()[4]
        assert url.startswith("http://127.0.0.1:")
        transport = httpx.AsyncHTTPTransport(retries=5)
        async with httpx.AsyncClient(transport=transport) as http:
            page = await http.get(url)
        assert page.status_code == 200 and "/ws" in page.text
        async with Client(url.replace("http", "ws") + "/ws") as ann, Client(url.replace("http", "ws") + "/ws") as bob:
            heard = bob.events("said", "members")
            entered = await ann.emit_with_ack("enter", json.dumps({"name": "ann", "room": "tea"}))
            assert json.loads(entered) == {"room": "tea", "members": ["ann"]}
            await bob.emit_with_ack("enter", json.dumps({"name": "bob", "room": "tea"}))
            assert sorted(json.loads((await anext(heard)).data)) == ["ann", "bob"]
            await ann.emit_with_ack("say", "hello")
            assert json.loads((await anext(heard)).data) == {"name": "ann", "text": "hello"}
            await ann.close()
            assert json.loads((await anext(heard)).data) == ["bob"]
        process.terminate()
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_fastapi_example_lets_in_who_has_a_token_and_its_route_reaches_the_room() -> None:
    async with serving("uvicorn", "fastapi_auth:app", "--port", "0", cwd=EXAMPLES) as host:
        with pytest.raises(Rejected) as rejected:
            await Client(f"ws://{host.address}/ws", codec="json", auth="wrong").connect()
        assert rejected.value.status == 401
        async with (
            Client(f"ws://{host.address}/ws", codec="json", auth="ann-secret") as client,
            httpx.AsyncClient() as http,
        ):
            assert await client.emit_with_ack("whoami") == "ann"
            events = client.events("news")
            news = f"http://{host.address}/rooms/lobby/news"
            assert (await http.post(news, params={"text": "hello"})).status_code in (401, 403)
            answer = await http.post(news, params={"text": "hello"}, headers={"Authorization": "Bearer bob-secret"})
            assert answer.json() == {"reached": 1}
            assert (await anext(events)).data == {"from": "bob", "text": "hello"}
