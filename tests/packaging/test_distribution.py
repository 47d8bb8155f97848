"""What `make dist` has made: what is inside, and that it installs and works where there is nothing but Python."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from distribution import Sdist, Wheel

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
VERSIONS = ("3.11", "3.12", "3.13")
HANGS_AFTER = 600


@pytest.fixture(scope="module")
def wheel() -> Wheel:
    return Wheel(DIST)


@pytest.fixture(scope="module")
def sdist() -> Sdist:
    return Sdist(DIST)


# --- What is inside ---------------------------------------------------------------------------------------------------

# What a wheel holds, each at least once, and nothing else.
IN_THE_WHEEL = (
    "etp_ws/*.py",
    "etp_ws/_etp_ws.abi3.so",
    "etp_ws/_etp_ws.pyi",
    "etp_ws/py.typed",
    "etp_ws-*.dist-info/METADATA",
    "etp_ws-*.dist-info/RECORD",
    "etp_ws-*.dist-info/WHEEL",
    "etp_ws-*.dist-info/entry_points.txt",
    "etp_ws-*.dist-info/licenses/LICENSE",
    "etp_ws-*.dist-info/sboms/*.cyclonedx.json",
)


def test_the_wheel_holds_the_package_its_types_and_licence_and_nothing_else(wheel: Wheel) -> None:
    assert [pattern for pattern in IN_THE_WHEEL if not fnmatch.filter(wheel.sizes, pattern)] == []
    known = {name for pattern in IN_THE_WHEEL for name in fnmatch.filter(wheel.sizes, pattern)}
    assert wheel.sizes.keys() - known == set()


def test_every_module_of_the_package_is_in_the_wheel(wheel: Wheel) -> None:
    sources = (ROOT / "bindings-python/python/etp_ws").iterdir()
    assert {f"etp_ws/{path.name}" for path in sources if path.is_file()} <= wheel.sizes.keys()


def test_one_wheel_serves_all_versions_on_any_linux_of_the_last_decade(wheel: Wheel) -> None:
    assert "-cp311-abi3-manylinux2014_" in wheel.path.name
    assert wheel.glibc() <= (2, 17)


def test_the_extension_needs_nothing_but_the_c_library(wheel: Wheel) -> None:
    allowed = re.compile(r"(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux[-\w]*)\.so\.\d")
    assert [name for name in wheel.libraries() if not allowed.fullmatch(name)] == []


def test_the_extension_is_stripped_and_shows_its_entry_alone(wheel: Wheel) -> None:
    assert {name for name in wheel.sections() if name.startswith((".debug", ".zdebug", ".symtab"))} == set()
    assert wheel.exports() == {"PyInit__etp_ws"}


def test_the_extension_says_nothing_of_the_machine_that_built_it(wheel: Wheel) -> None:
    for folder in (ROOT, Path.home()):
        assert f"{folder}/".encode() not in wheel.extension


def test_the_metadata_says_what_it_is_and_where_it_comes_from(wheel: Wheel) -> None:
    told = wheel.metadata
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert (told["Name"], told["Version"]) == ("etp-ws", version[1])
    assert told["License-Expression"] == "MIT"
    assert told["License-File"] == "LICENSE"
    assert told["Author"]
    assert told["Requires-Python"] == ">=3.11"
    assert told.get_all("Requires-Dist") is None
    assert {f"Programming Language :: Python :: {version}" for version in VERSIONS} <= set(
        told.get_all("Classifier") or ()
    )
    links = dict(link.split(", ") for link in told.get_all("Project-URL") or ())
    assert links.keys() == {"Repository", "Changelog", "Issues"}


def test_the_front_page_is_the_readme_and_its_links_lead_somewhere_from_anywhere(wheel: Wheel) -> None:
    assert wheel.metadata["Description-Content-Type"].startswith("text/markdown")
    page = wheel.metadata.get_payload()
    assert isinstance(page, str)
    assert page.strip() == (ROOT / "bindings-python/README.md").read_text().strip()
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", prose, re.M)
    }
    targets = re.findall(r"\]\(([^)]+)\)", prose)
    assert targets
    assert [to for to in targets if not to.startswith("https://") and to.removeprefix("#") not in anchors] == []


def test_the_source_distribution_holds_the_core_and_the_lock_file(sdist: Sdist) -> None:
    core = {str(path.relative_to(ROOT)) for path in (ROOT / "core/src").rglob("*.rs")}
    binding = {str(path.relative_to(ROOT)) for path in (ROOT / "bindings-python/src").rglob("*.rs")}
    assert core | binding | {"Cargo.toml", "Cargo.lock", "pyproject.toml", "LICENSE", "README.md"} <= sdist.names
    assert [name for name in sdist.names if "/target/" in name or name.endswith((".so", ".pyc"))] == []


# --- Installed --------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
import etp_ws
from etp_ws import Client, Server

server = Server(codec="json")


@server.on("greet")
async def greet(conn, name):
    conn.join("greeted")
    await asyncio.sleep(0)
    return {"hello": name}


async def main():
    async with server.start("127.0.0.1", 0), Client(server.url, codec="json") as client:
        reply = await client.emit_with_ack("greet", "ann")
        told = asyncio.ensure_future(anext(client.events("news")))
        await asyncio.sleep(0)
        reached = server.to("greeted").emit("news", [1])
        print(reply, reached, (await told).data)


asyncio.run(main())
print(etp_ws.__version__, etp_ws.__file__.startswith(sys.prefix), "%d.%d" % sys.version_info[:2])
"""


def python(version: str, folder: Path) -> Path:
    """A bare virtual environment of a Python version."""
    subprocess.run([ROOT / "tests/python/venv", version, folder], check=True, timeout=HANGS_AFTER)
    return folder / "bin/python"


def check(interpreter: Path, version: str, expected: str) -> None:
    """Runs a server and a client in an environment that has nothing else, without anything on its path."""
    done = subprocess.run(
        [interpreter, "-X", "dev", "-W", "error", "-c", PROGRAM],
        cwd=interpreter.parent,
        env={"PATH": str(interpreter.parent)},
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.splitlines() == ["{'hello': 'ann'} 1 [1]", f"{expected} True {version}"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_installs_and_works_without_a_compiler_or_an_index(
    version: str, wheel: Wheel, tmp_path: Path
) -> None:
    interpreter = python(version, tmp_path / "venv")
    environment = {"PATH": str(interpreter.parent), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    assert shutil.which("cc", path=environment["PATH"]) is None
    install = [interpreter, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel.path]
    subprocess.run(install, check=True, env=environment, timeout=HANGS_AFTER)
    check(interpreter, version, wheel.metadata["Version"])


def test_the_source_distribution_builds_and_works_by_itself(sdist: Sdist, wheel: Wheel, tmp_path: Path) -> None:
    version = VERSIONS[0]
    interpreter = python(version, tmp_path / "venv")
    # Pinned as all that these tests use, and quick to build. To cargo these are the repository's crates, and it goes by
    # the age of files, which in the archive is of long ago: so in a folder of its own, and as of now.
    source = tmp_path / "source"
    with tarfile.open(sdist.path) as archive:
        archive.extractall(
            source, filter=lambda member, path: tarfile.data_filter(member, path).replace(mtime=time.time())
        )
    (source,) = source.iterdir()
    environment = {
        **os.environ,
        "PIP_CONSTRAINT": str(ROOT / "tests/python/requirements.txt"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "MATURIN_PEP517_ARGS": "--profile dev --config profile.dev.opt-level=0 --config profile.dev.debug=false",
        "CARGO_TARGET_DIR": str(ROOT / ".build/sdist"),
    }
    install = [interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir", source]
    subprocess.run(install, check=True, env=environment, cwd=tmp_path, timeout=HANGS_AFTER)
    check(interpreter, version, wheel.metadata["Version"])
