"""Pairs of languages: what a server in one and a client in another must do together, by the contract of the test peers.

    pytest tests/pairs                                 every default pair
    pytest tests/pairs --pairs "go:rust rust:go"       SERVER:CLIENT, those pairs alone

`go` is the reference; a language of ours is any other. Where the reference deviates from what a test demands, the test says
so with `deviates`, and fails should the reference ever stop deviating.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from peers import ClientPeer, PeerError, ServerPeer  # noqa: E402

REFERENCE = "go"
DEFAULT_PAIRS = ["go:rust", "rust:go", "rust:rust", "go:go"]
DEVIATES_BY = (AssertionError, PeerError, pytest.fail.Exception)  # but never by a peer's crash


@dataclass(frozen=True)
class Pair:
    server: str
    client: str

    @property
    def our_server(self) -> bool:
        return self.server != REFERENCE

    @property
    def our_client(self) -> bool:
        return self.client != REFERENCE

    def __str__(self) -> str:
        return f"{self.server}:{self.client}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pairs", help="SERVER:CLIENT languages, separated by blanks or commas")
    parser.addini("pairs", "the default of --pairs", type="args", default=DEFAULT_PAIRS)


def pytest_configure(config: pytest.Config) -> None:
    _pairs(config)  # a list that is none ends the run here, not in each test
    config.addinivalue_line("markers", "only(which): the test is for pairs of which `which(pair)` is true")
    config.addinivalue_line(
        "markers", "deviates(because, server=None, client=None): the reference in these places fails the test, strictly"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pair" in metafunc.fixturenames:
        pairs = _pairs(metafunc.config)
        for only in metafunc.definition.iter_markers("only"):
            pairs = [pair for pair in pairs if only.args[0](pair)]
        metafunc.parametrize("pair", pairs, ids=str)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    of_pairs = [item for item in items if "pair" in getattr(item, "fixturenames", ())]
    pairless = [item for item in of_pairs if not isinstance(item.callspec.params["pair"], Pair)]  # `only` left none
    if pairless:
        items[:] = [item for item in items if item not in pairless]
        config.hook.pytest_deselected(items=pairless)
    for item in of_pairs:
        for mark in item.iter_markers("deviates"):
            if item not in pairless and _concerns(item.callspec.params["pair"], **mark.kwargs):
                item.add_marker(pytest.mark.xfail(strict=True, raises=DEVIATES_BY, reason=mark.args[0]))


@pytest.fixture
def server(pair: Pair) -> Iterator[ServerPeer]:
    """A server of the pair. It must end with status 0 when it is told to, whatever the test did to it."""
    with ServerPeer(pair.server) as peer:
        yield peer
        if peer.running:
            assert peer.terminate() == 0


@pytest.fixture
def dial(pair: Pair) -> Iterator[Callable[..., ClientPeer]]:
    """Starts clients of the pair, connected, that are stopped at the end of the test: `dial(server)`."""
    started: list[ClientPeer] = []

    def start(server: ServerPeer, query: str = "") -> ClientPeer:
        peer = ClientPeer(pair.client, server.url + query)
        started.append(peer)
        peer.wait_state("connected")
        return peer

    yield start
    for peer in started:
        peer.stop()


@pytest.fixture
def client(server: ServerPeer, dial: Callable[..., ClientPeer]) -> ClientPeer:
    """One connected client, for the tests that need no more."""
    return dial(server)


@pytest.fixture
def seen() -> Callable[[ClientPeer, str], int]:
    """A counter of the server's callbacks, as a client is told: `seen(client, "unknown")`."""
    return lambda client, what: json.loads(client.ack("seen"))[what]


def _pairs(config: pytest.Config) -> list[Pair]:
    chosen = config.getoption("pairs", default=None)
    words = chosen.replace(",", " ").split() if chosen else config.getini("pairs")
    pairs = []
    for word in words:
        server, colon, client = word.partition(":")
        if not (server and colon and client):
            raise pytest.UsageError(f"--pairs: {word!r} is not SERVER:CLIENT, as in go:rust")
        pairs.append(Pair(server, client))
    return pairs


def _concerns(pair: Pair, server: str | None = None, client: str | None = None) -> bool:
    return server in (None, pair.server) and client in (None, pair.client)
