"""The Autobahn cases against this crate's WebSocket, in both roles: none may fail.

    pytest tests/autobahn -s                  prints what each role came to

`kosoku` runs the cases of the Autobahn TestSuite; `etp-autobahn` is the echo that they expect, through the crate's own
handshake, codec, link and outbox. The cases of compression (12.* and 13.*) are left out: there is none.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver
from kosoku.cases import CASES

ROOT = Path(__file__).resolve().parents[2]
COMPRESSION = ["12.*", "13.*"]
EXPECTED = sorted(case for case in CASES if case.split(".")[0] not in ("12", "13"))
# Behaviour and close: what the suite leaves open has neither.
ACCEPTED = {("OK", "OK"), ("NON-STRICT", "OK"), ("INFORMATIONAL", "OK"), ("INFORMATIONAL", "INFORMATIONAL")}

# Ends a run that hangs; no result depends on it.
PATIENCE = 1200.0


@pytest.fixture(scope="module")
def program() -> Path:
    if os.environ.get("ETP_AUTOBAHN_BUILT") != "1":
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "etp-autobahn"], cwd=ROOT, check=True)
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "etp-autobahn"


@contextmanager
def echo_server(program: Path) -> Iterator[str]:
    """The echo as a server; answers its URL."""
    with subprocess.Popen([program, "server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        word, url = process.stdout.readline().split()
        assert word == "LISTENING"
        yield url
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def check(role: str, results: list) -> None:
    """Every case ran, and none failed."""
    behaviors = Counter(result.behavior.value for result in results)
    closes = Counter(result.behavior_close.value for result in results)
    print(f"\n{role}: {len(results)} cases, behavior {dict(behaviors)}, close {dict(closes)}")
    failed = [
        f"{result.case_id}: {result.behavior.value} ({result.result}), "
        f"close {result.behavior_close.value} ({result.result_close}): {result.description}"
        for result in results
        if (result.behavior.value, result.behavior_close.value) not in ACCEPTED
    ]
    assert not failed, "\n".join([f"{role}: {len(failed)} failed", *failed])
    # A run of none must not pass.
    assert len(EXPECTED) == 301
    assert sorted(result.case_id for result in results) == EXPECTED


def test_the_server_passes(program: Path) -> None:
    async def run(url: str) -> list:
        return await asyncio.wait_for(run_fuzzingclient(url, exclude_cases=COMPRESSION), PATIENCE)

    with echo_server(program) as url:
        try:
            results = asyncio.run(run(url))
        except FailureError as failure:
            results = failure.results
    check("server", results)


def test_the_client_passes(program: Path) -> None:
    async def run() -> list:
        async with run_fuzzingserver(exclude_cases=COMPRESSION, port=0) as server:
            url = f"ws://{server.address}:{server.port}"
            client = await asyncio.create_subprocess_exec(program, "client", url)
            code = await asyncio.wait_for(client.wait(), PATIENCE)
            assert code == 0
            return await asyncio.wait_for(server.get_result(), PATIENCE)

    try:
        results = asyncio.run(run())
    except FailureError as failure:
        results = failure.results
    check("client", results)
