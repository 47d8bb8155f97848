"""What the tests of the npm packages share: the tarballs, a registry, and projects that use them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from distribution import NodePackage, NodePlatform
from node import HANGS_AFTER, ROOT, Project
from registry import registry

PROJECTS = Path(__file__).parent / "projects"


@pytest.fixture(scope="session")
def package() -> NodePackage:
    return NodePackage(ROOT / "dist")


@pytest.fixture(scope="session")
def platform(package: NodePackage) -> NodePlatform:
    """The package of this machine's platform."""
    name = subprocess.run(
        ["node", "-p", "require('./bindings-node/lib/platform.js').platform()"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout.strip()
    (found,) = (one for one in NodePlatform.all(ROOT / "dist") if one.platform == name)
    return found


@pytest.fixture(scope="session")
def platforms() -> dict[str, dict[str, str]]:
    """The platforms that there are packages for."""
    table: dict[str, dict[str, str]] = json.loads((ROOT / "bindings-node/npm/platforms.json").read_text())
    return table


@pytest.fixture(scope="session")
def npm_registry(package: NodePackage, platform: NodePlatform, platforms: dict[str, dict[str, str]]) -> Iterator[str]:
    with registry([package, platform], platforms) as url:
        yield url


@pytest.fixture
def project(tmp_path: Path, npm_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """An empty project."""
    folder = tmp_path / "project"
    shutil.copytree(PROJECTS / "empty", folder)
    (folder / "package.json").write_text('{ "name": "empty", "version": "1.0.0" }')
    return Project.new(folder, npm_registry, tmp_path_factory.getbasetemp() / "npm")


@pytest.fixture(scope="session")
def projects(
    package: NodePackage, platform: NodePlatform, npm_registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """The projects of Jest, Nest, Next and the other runtimes, with all that they need; each has a folder."""
    built = ROOT / ".build/projects"
    ready = built / "ready"
    lock = PROJECTS / "package-lock.json"
    if not ready.exists() or ready.stat().st_mtime < lock.stat().st_mtime:
        built.mkdir(parents=True, exist_ok=True)
        for file in (lock, lock.with_name("package.json")):
            shutil.copy(file, built)
        # Their scripts fetch what comes as a package as well, or do nothing here.
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=built, check=True, timeout=HANGS_AFTER)
        ready.touch()
    folder = tmp_path_factory.mktemp("projects")
    shutil.copytree(PROJECTS, folder, dirs_exist_ok=True)
    shutil.copytree(built / "node_modules", folder / "node_modules", symlinks=True, copy_function=link)
    for tarball in (package, platform):
        subprocess.run([ROOT / "tests/node/unpack", folder / "node_modules", tarball.path], check=True)
    return Project.new(folder, npm_registry, tmp_path_factory.getbasetemp() / "npm")


def link(source: str, target: str) -> None:
    """Copies a file that nobody writes to."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
