"""The npm packages in projects as their users have them: Jest, Nest, Next, and other runtimes than Node."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from node import HANGS_AFTER, Project


@pytest.mark.parametrize("workers", ["--maxWorkers=2", "--runInBand --detectOpenHandles"])
def test_jest_ends_by_itself_when_the_tests_have_shut_their_servers_down(projects: Project, workers: str) -> None:
    jest = projects.at("jest")
    said = jest.run("node", "../node_modules/jest/bin/jest.js", "--ci", *workers.split())
    assert re.search(r"^Test Suites: 2 passed, 2 total\nTests: +3 passed, 3 total$", said, re.MULTILINE), said
    assert not re.search("did not exit|failed to exit|open handle|leak", said), said


def test_nest_builds_and_shares_its_port(projects: Project) -> None:
    nest = projects.at("nest")
    nest.run("node", "../node_modules/typescript/bin/tsc", "--project", ".")
    assert nest.run("node", "dist/main.js") == 'hello ann {"connections":1}\n'


@contextmanager
def serving(project: Project, *command: str | Path) -> Iterator[IO[str]]:
    """A program that serves until SIGTERM, which ends it with status 0; its value is what it says."""
    with subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout
            process.send_signal(signal.SIGTERM)
            assert process.wait(HANGS_AFTER) == 0
        finally:
            process.kill()


# --- Next -------------------------------------------------------------------------------------------------------------


def host(says: Iterable[str]) -> str:
    """Where a server says that it listens, among other things that Next says."""
    return next(line for line in says if line.startswith("LISTENING ")).split()[1]


def test_next_builds_with_one_line_and_its_pages_and_routes_share_a_port(projects: Project) -> None:
    project = projects.at("next")
    project.run("node", "../node_modules/next/dist/bin/next", "build")
    # What a deployment copies: the trace of the route names the binary.
    trace = json.loads((project.folder / ".next/server/app/ask/route.js.nft.json").read_text())
    assert [file for file in trace["files"] if file.endswith("/etp-ws.node")] != []
    with serving(project.with_environment(NODE_ENV="production"), "node", "server.js") as says:
        said = project.run("node", "visit.js", host(says))
    assert said == "hello ann | a page | hello route | hello ann again\n"


def test_hot_reloading_of_next_stays_alive_beside_it(projects: Project) -> None:
    project = projects.at("next")
    with serving(project, "node", "server.js", "dev") as says:
        said = project.run("node", "visit.js", host(says), "dev")
    assert said == "hello ann | a page | hello route | hot: string | hello ann again\n"


# --- Other runtimes ---------------------------------------------------------------------------------------------------

RUNTIMES = {
    "bun": ("@oven/bun-*/bin/bun", []),
    "deno": ("@deno/*/deno", ["run", "--no-prompt", "--allow-ffi", "--allow-net", "--node-modules-dir=manual"]),
}


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, projects: Project) -> list[str | Path]:
    """How another runtime runs a program."""
    pattern, arguments = RUNTIMES[request.param]
    (executable,) = (projects.folder / "node_modules").glob(pattern)
    return [executable, *arguments]


def test_bun_and_deno_run_servers_and_clients(projects: Project, runtime: list[str | Path]) -> None:
    said = projects.run(*runtime, "runtimes/program.mjs").splitlines()
    assert said == ['listen: {"hello":"ann"}', 'attach: {"hello":"ann"} a page', "error: true connect_failed"]


def test_bun_and_deno_stay_alive_for_a_server_and_end_after_it(projects: Project, runtime: list[str | Path]) -> None:
    with serving(projects, *runtime, "runtimes/serve.mjs") as says:
        url = says.readline().strip()
        assert projects.run("node", "runtimes/visit.mjs", url) == "hello ann\n"
        assert [says.readline(), says.readline()] == ["error: handler_failed on purpose\n", "left: 1000\n"]


def test_deno_is_told_to_allow_the_binary(projects: Project) -> None:
    (deno,) = (projects.folder / "node_modules").glob("@deno/*/deno")
    said = projects.run(deno, "run", "--no-prompt", "--node-modules-dir=manual", "runtimes/serve.mjs", status=1)
    assert "etp-ws can't run on linux-" in said
    assert "(Deno 2." in said
    assert "this process may not load binaries. Allow it:" in said
    assert "deno run --allow-ffi" in said
