"""Runs every case against every program named on the command line.

    pytest tests/conformance --server rust --server go --client rust --client go

A program is a language of `tests/peers`, or one with arguments of its own: `--server "python --asgi"`. A case that
takes `server` or `client` runs once for each, and does not know which. What a program does otherwise, and why, stands
in `deviations.py`. `--long` adds the cases that wait for the limits of many seconds.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))

import deviations  # noqa: E402
import rawws  # noqa: E402
from deviations import COLLECTED, ROLES, Case  # noqa: E402
from harness import Client, Server  # noqa: E402
from rawws import Listener  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    for role in ROLES:
        parser.addoption(
            f"--{role}",
            action="append",
            metavar="PROGRAM",
            help=f'a {role} to test: a language of tests/peers, with arguments if need be (default: "rust" and "go")',
        )
    parser.addoption("--long", action="store_true", help="run the cases that wait for limits of up to a minute, too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: waits for a limit of many seconds; runs with --long only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for role in ROLES:
        if role in metafunc.fixturenames:
            programs = metafunc.config.getoption(role) or ["rust", "go"]
            metafunc.parametrize(role, programs, ids=programs, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    collected: dict[tuple[str, str], list[Case]] = {}
    elsewhere: list[pytest.Item] = []
    for item in items:
        for role, table in ROLES.items():
            if isinstance(item, pytest.Function) and hasattr(item, "callspec") and role in item.callspec.params:
                program = item.callspec.params[role]
                case = case_id(item, program)
                collected.setdefault((role, program), []).append(case)
                if cause := deviations.cause(table.get(program, {}), *case):
                    item.add_marker(pytest.mark.xfail(reason=cause, strict=True))
                if role == "server" and deviations.cause(deviations.HOSTS.get(program, {}), *case):
                    elsewhere.append(item)
        if item.get_closest_marker("long") and not config.getoption("long"):
            item.add_marker(pytest.mark.skip(reason="waits for many seconds: --long"))
    config.stash[COLLECTED] = collected
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if item not in elsewhere]


def case_id(item: pytest.Function, program: str) -> Case:
    name = item.originalname.removeprefix("test_")
    rest = item.callspec.id
    if rest == program:
        return name, ""
    if rest.startswith(f"{program}-"):
        return name, rest.removeprefix(f"{program}-")
    return name, rest.removesuffix(f"-{program}")


# A case that is expected to fail mostly waits for what never comes: so many seconds, instead of `rawws.TIMEOUT`.
FAILS_WITHIN = 5.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    patience = rawws.TIMEOUT
    if item.get_closest_marker("xfail"):
        rawws.TIMEOUT = FAILS_WITHIN
    try:
        return (yield)
    finally:
        rawws.TIMEOUT = patience


@pytest.fixture(scope="session")
def _browser(pytestconfig: pytest.Config) -> Iterator[None]:
    """One Chromium for all dials of this process: each has a page for itself in it."""
    if not any(program.startswith("browser") for program in pytestconfig.getoption("--client") or []):
        yield
        return
    peers = Path(__file__).parent.parent / "peers"
    node = Path(__file__).parent.parent.parent / ".build" / "node" / os.environ.get("ETP_NODE", "20") / "bin" / "node"
    program = [node, peers / "browser" / "shared.mjs"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        os.environ["ETP_BROWSER"] = process.stdout.readline().strip()
        yield
        del os.environ["ETP_BROWSER"]
        process.stdin.close()


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[str, Server]]:
    running: dict[str, Server] = {}
    yield running
    for server in running.values():
        server.stop()


@pytest.fixture
def server(request: pytest.FixtureRequest, _servers: dict[str, Server]) -> Iterator[Server]:
    """A server under test, with no connection open."""
    program = request.param
    if program not in _servers:
        _servers[program] = Server(shlex.split(program))
    server = _servers[program]
    server.ensure_running()
    yield server
    server.clean_up()


@pytest.fixture
def client(request: pytest.FixtureRequest, _browser: None) -> Iterator[Client]:
    """A client under test that has begun to dial its listener."""
    client = Client(shlex.split(request.param), Listener())
    yield client
    client.clean_up()
