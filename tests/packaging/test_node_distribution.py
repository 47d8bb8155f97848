"""What `make dist` has packed for npm: what is inside, and that nothing is packed empty."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from distribution import NodePackage, NodePlatform
from node import ROOT

HOME = ROOT / "bindings-node"

# What the package holds, each at least once, and nothing else.
IN_THE_PACKAGE = (
    "LICENSE",
    "README.md",
    "package.json",
    "index.d.mts",
    "index.d.ts",
    "index.js",
    "index.mjs",
    "lib/*.js",
    "testing.d.mts",
    "testing.d.ts",
    "testing.js",
    "testing.mjs",
)


def test_the_package_holds_its_javascript_types_and_licence_and_nothing_else(package: NodePackage) -> None:
    assert [pattern for pattern in IN_THE_PACKAGE if not fnmatch.filter(package.sizes, pattern)] == []
    known = {name for pattern in IN_THE_PACKAGE for name in fnmatch.filter(package.sizes, pattern)}
    assert package.sizes.keys() - known == set()
    assert {f"lib/{path.name}" for path in (HOME / "lib").iterdir()} <= package.sizes.keys()


def test_the_package_of_a_platform_holds_its_binary_alone(platform: NodePlatform) -> None:
    assert platform.sizes.keys() == {"LICENSE", "package.json", "etp-ws.node"}
    assert platform.sizes["etp-ws.node"] > 500_000


def test_npm_chooses_the_binary_by_system_processor_and_c_library(
    platform: NodePlatform, platforms: dict[str, dict[str, str]]
) -> None:
    row = platforms[platform.platform]
    told = {field: platform.manifest.get(field) for field in ("os", "cpu", "libc")}
    assert told == {field: [row[field]] if field in row else None for field in ("os", "cpu", "libc")}


def test_package_loader_and_crate_know_the_same_platforms_and_version(
    package: NodePackage, platform: NodePlatform, platforms: dict[str, dict[str, str]]
) -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert package.manifest["version"] == platform.manifest["version"] == version[1]
    assert package.manifest["optionalDependencies"] == {f"etp-ws-{name}": version[1] for name in platforms}
    required = re.findall(r'"([\w-]+)": \(\) => require\("etp-ws-([\w-]+)"\)', package.files["lib/load.js"].decode())
    assert required == [(name, name) for name in platforms]


def test_what_is_published_needs_no_other_package_and_runs_no_script(
    package: NodePackage, platform: NodePlatform
) -> None:
    for one in (package, platform):
        assert one.manifest.keys() & {"dependencies", "devDependencies", "scripts", "private", "bin"} == set()
        assert (one.manifest["license"], one.manifest["engines"]) == ("MIT", {"node": "^20.19 || >=22.12"})
    assert package.manifest["peerDependenciesMeta"] == {
        name: {"optional": True} for name in package.manifest["peerDependencies"]
    }


def test_the_front_page_is_the_readme_and_its_links_lead_somewhere_from_anywhere(package: NodePackage) -> None:
    page = package.files["README.md"].decode()
    assert page == (HOME / "README.md").read_text()
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", prose, re.M)
    }
    targets = re.findall(r"\]\(([^)]+)\)", prose)
    assert [to for to in targets if not to.startswith("https://") and to.removeprefix("#") not in anchors] == []


def test_the_binary_runs_on_any_linux_of_the_last_decade(platform: NodePlatform) -> None:
    assert platform.platform.endswith("-gnu")
    assert (2, 2) <= platform.glibc() <= (2, 17)
    allowed = re.compile(r"(libc|libm|libdl|librt|libpthread|libgcc_s|ld-linux[-\w]*)\.so\.\d")
    assert [name for name in platform.libraries() if not allowed.fullmatch(name)] == []


def test_the_binary_is_stripped_and_shows_its_entry_alone(platform: NodePlatform) -> None:
    assert {name for name in platform.sections() if name.startswith((".debug", ".zdebug", ".symtab"))} == set()
    assert platform.exports() == {"napi_register_module_v1"}


def test_the_binary_says_nothing_of_the_machine_that_built_it(platform: NodePlatform) -> None:
    for folder in (ROOT, Path.home()):
        assert f"{folder}/".encode() not in platform.extension


# --- Never published empty --------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What packing reads, without any binary."""
    home = tmp_path / "tree/bindings-node"
    shutil.copytree(
        HOME, home, ignore=lambda folder, names: {"tests", "examples", "src"} | set(fnmatch.filter(names, "*.node"))
    )
    shutil.copy(ROOT / "LICENSE", tmp_path / "tree")
    return home


def pack(tree: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """How packing ends, what it says, and what it has packed."""
    out = tree.parent / "out"
    command = ["node", "npm/pack.mjs", str(out), *arguments]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr, sorted(path.name for path in out.glob("*"))


def test_platforms_without_a_binary_are_left_out_and_a_release_fails_without_one(
    tree: Path, platform: NodePlatform
) -> None:
    (tree / f"etp-ws.{platform.platform}.node").write_bytes(platform.extension)
    status, said, packed = pack(tree, "--all")
    assert (status, packed) == (1, [])
    assert "has no binary" in said and said.endswith("Nothing was packed.\n")
    status, said, packed = pack(tree)
    assert (status, said) == (0, "")
    assert [json.loads((tree / "package.json").read_text())["version"] in name for name in packed] == [True, True]


@pytest.mark.parametrize("wrong", [b"", b"no library", "other"])
def test_a_binary_of_another_platform_is_not_packed(tree: Path, platform: NodePlatform, wrong: bytes | str) -> None:
    arm = "linux-arm64-gnu" if platform.platform != "linux-arm64-gnu" else "linux-x64-gnu"
    (tree / f"etp-ws.{arm}.node").write_bytes(platform.extension if isinstance(wrong, str) else wrong)
    status, said, packed = pack(tree, arm)
    assert (status, packed) == (1, [])
    assert f"is no library for {arm}" in said
