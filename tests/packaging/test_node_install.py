"""The npm packages in empty projects: they install from a registry and work, or the loader says why they can't."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from distribution import NodePackage, NodePlatform
from node import Project

NODES = ("20", "26")

# What importing the package throws, as JSON.
LOAD = """
try {
  require("etp-ws");
  console.log("loaded");
} catch ({ name, code, message }) {
  console.log(JSON.stringify({ name, code, message }));
}
"""


def refusal(project: Project, before: str = "", node: str = "26") -> str:
    """What importing the package says, after a preparation in JavaScript."""
    told = json.loads(project.run("node", "-e", before + LOAD, node=node))
    assert (told["name"], told["code"]) == ("EtpError", "unsupported_platform")
    message: str = told["message"]
    return message


def cure(message: str) -> list[str]:
    """The arguments of npm at the end of a message."""
    return message.rpartition(": ")[2].removeprefix("rm -rf node_modules && ").split()[1:]


# --- Installed --------------------------------------------------------------------------------------------------------


def test_it_installs_in_an_empty_project_without_a_compiler_and_works(project: Project, platform: NodePlatform) -> None:
    assert [shutil.which(name, path=project.environment["PATH"]) for name in ("cc", "gcc", "clang", "make")] == [
        None
    ] * 4
    project.npm("install", "etp-ws")
    installed = sorted(path.name for path in (project.folder / "node_modules").iterdir() if path.name[0] != ".")
    assert installed == ["etp-ws", platform.name]
    for node in NODES:
        imported = project.run("node", "import.mjs", node=node).splitlines()
        assert imported == ['[{"hello":"ann"},1,[1],true]', "true connect_failed"]
        assert project.run("node", "require.cjs", node=node) == "hello ann hello bob\n"


def test_types_alone_load_nothing(project: Project) -> None:
    project.npm("install", "etp-ws", "--omit=optional")
    (project.folder / "types.mts").write_text(
        'import type { Server } from "etp-ws";\nlet server: Server | undefined;\nconsole.log(server);\n'
    )
    assert project.run("node", "types.mts") == "undefined\n"
    assert "not installed" in refusal(project)


def test_a_typescript_program_compiles_and_runs(projects: Project) -> None:
    folder = projects.folder / "empty"
    (folder / "package.json").write_text('{ "type": "module" }')
    tsc = projects.folder / "node_modules/typescript/bin/tsc"
    options = ["--strict", "--module", "nodenext", "--target", "es2022", "--types", "node", "--outDir", "empty/out"]
    projects.run("node", tsc, *options, "empty/program.ts")
    for node in NODES:
        assert projects.run("node", "empty/out/program.js", node=node) == "ann\n"
    # Current versions of Node read it as it is.
    assert projects.run("node", "empty/program.ts") == "ann\n"


# --- Not installed ----------------------------------------------------------------------------------------------------


def test_a_lock_file_written_for_another_platform_is_named_and_the_cure_completes_it(
    project: Project, package: NodePackage, platform: NodePlatform
) -> None:
    project.npm("install", "etp-ws", "--package-lock-only")
    lock = project.folder / "package-lock.json"
    whole = json.loads(lock.read_text())
    # As npm writes it beside the node_modules of a Mac.
    kept = {
        path: entry
        for path, entry in whole["packages"].items()
        if not path.startswith("node_modules/etp-ws-") or path.endswith("-darwin-arm64")
    }
    lock.write_text(json.dumps({**whole, "packages": kept}))
    project.npm("ci")
    message = refusal(project)
    assert f"package {platform.name} is not installed: package-lock.json does not name it" in message
    version = package.manifest["version"]
    assert cure(message) == ["install", f"etp-ws@{version}"]
    project.npm(*cure(message))
    assert json.loads(lock.read_text())["packages"] == whole["packages"]
    project.npm("ci")
    assert project.run("node", "require.cjs") == "hello ann hello bob\n"


def test_left_out_optional_dependencies_are_named_and_the_cure_installs_them(
    project: Project, platform: NodePlatform
) -> None:
    project.npm("install", "etp-ws", "--omit=optional")
    message = refusal(project)
    assert f"package {platform.name} is not installed: it is an optional dependency" in message
    assert "--omit=optional" in message
    assert cure(message) == ["install", "--include=optional"]
    project.npm(*cure(message))
    assert project.run("node", "require.cjs") == "hello ann hello bob\n"


def test_node_modules_of_another_platform_are_named_and_the_cure_installs_anew(
    project: Project, platform: NodePlatform
) -> None:
    project.npm("install", "etp-ws")
    modules = project.folder / "node_modules"
    other = modules / "etp-ws-darwin-arm64"
    (modules / platform.name).rename(other)
    (other / "package.json").write_text('{ "name": "etp-ws-darwin-arm64", "main": "etp-ws.node" }')
    message = refusal(project)
    assert f"package {platform.name} is not installed, but etp-ws-darwin-arm64 is" in message
    assert message.endswith(": rm -rf node_modules && npm ci")
    shutil.rmtree(modules)
    project.npm(*cure(message))
    assert project.run("node", "require.cjs") == "hello ann hello bob\n"


# --- Another platform -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", NODES)
def test_each_platform_asks_for_its_own_package(
    project: Project, platforms: dict[str, dict[str, str]], platform: NodePlatform, node: str
) -> None:
    project.npm("install", "etp-ws")
    for name, row in platforms.items():
        if name == platform.platform or row.get("libc") == "musl":
            continue
        faked = f'for (const [name, value] of [["platform", "{row["os"]}"], ["arch", "{row["cpu"]}"]])'
        faked += "Object.defineProperty(process, name, { value });"
        message = refusal(project, faked, node)
        assert message.startswith(f"etp-ws can't run on {name} (Node {node}.")
        assert f"package etp-ws-{name} is not installed, but {platform.name} is" in message


def test_a_node_that_was_linked_with_musl_asks_for_the_package_of_musl(
    project: Project, platform: NodePlatform
) -> None:
    project.npm("install", "etp-ws")
    # An executable that names musl's loader, as far as anybody reads it: a header, and one segment PT_INTERP.
    loader = b"/lib/ld-musl-x86_64.so.1\0"
    head = b"\x7fELF\x02\x01\x01".ljust(32, b"\0") + (64).to_bytes(8, "little")
    head = head.ljust(54, b"\0") + (56).to_bytes(2, "little") + (1).to_bytes(2, "little")
    segment = (3).to_bytes(8, "little") + (120).to_bytes(8, "little")
    segment = segment.ljust(32, b"\0") + len(loader).to_bytes(8, "little")
    (project.folder / "musl").write_bytes(head.ljust(64, b"\0") + segment.ljust(56, b"\0") + loader)
    message = refusal(project, 'process.execPath = "musl";')
    assert f"package etp-ws-{platform.platform.replace('gnu', 'musl')} is not installed" in message


def test_an_executable_that_nobody_may_read_is_taken_for_one_of_glibc(project: Project) -> None:
    project.npm("install", "etp-ws")
    assert project.run("node", "-e", 'process.execPath = "nowhere";' + LOAD) == "loaded\n"


@pytest.mark.parametrize(
    ("os", "arch", "cure"),
    [
        ("win32", "x64", "Windows is not supported yet. Run the program in WSL"),
        ("win32", "arm64", "Windows is not supported yet. Run the program in WSL"),
        ("freebsd", "x64", "Run the program in a container"),
        ("darwin", "ppc64", "Run the program in a container"),
    ],
)
def test_a_platform_without_binaries_is_named_with_a_way_out(
    project: Project, platforms: dict[str, dict[str, str]], os: str, arch: str, cure: str
) -> None:
    project.npm("install", "etp-ws")
    faked = f'for (const [name, value] of [["platform", "{os}"], ["arch", "{arch}"]])'
    message = refusal(project, faked + "Object.defineProperty(process, name, { value });")
    assert message.startswith(f"etp-ws can't run on {os}-{arch} (Node ")
    assert f"there are some for {', '.join(platforms)}" in message
    assert cure in message


def test_a_node_that_is_too_old_is_told_which_one_is_needed(project: Project) -> None:
    project.npm("install", "etp-ws")
    faked = 'Object.defineProperty(process, "versions", { value: { ...process.versions, napi: "7" } });'
    message = refusal(project, faked)
    assert "Node-API 7" in message
    assert message.endswith("Install Node 20.19, or 22.12 or newer.")


# --- Refused by the system --------------------------------------------------------------------------------------------


def damage(project: Project, platform: NodePlatform, binary: bytes) -> None:
    """Installs, and puts another binary in the place of this platform's."""
    project.npm("install", "etp-ws")
    (project.folder / "node_modules" / platform.name / "etp-ws.node").write_bytes(binary)


def test_a_glibc_that_is_too_old_is_told_which_one_is_needed(project: Project, platform: NodePlatform) -> None:
    newest = ".".join(map(str, platform.glibc()))
    needed = "9." + newest.partition(".")[2]
    damage(project, platform, platform.extension.replace(f"GLIBC_{newest}\0".encode(), f"GLIBC_{needed}\0".encode()))
    message = refusal(project)
    here = os.confstr("CS_GNU_LIBC_VERSION")
    assert here is not None
    assert f"its binary needs glibc {needed} or newer, and this system has {here.split()[1]}." in message


def test_a_binary_for_another_processor_is_told_apart(project: Project, platform: NodePlatform) -> None:
    machine = (183 if platform.extension[18] == 62 else 62).to_bytes(2, "little")
    damage(project, platform, platform.extension[:18] + machine + platform.extension[20:])
    message = refusal(project)
    assert "its binary is for another processor" in message
    assert message.endswith(": rm -rf node_modules && npm ci")


def test_a_binary_for_the_other_c_library_is_told_apart(project: Project, platform: NodePlatform) -> None:
    (libc,) = (name for name in platform.libraries() if name.startswith("libc."))
    # What musl's own is called is longer, so the reason stays: a library that this system does not have.
    damage(project, platform, platform.extension.replace(libc.encode() + b"\0", b"libc.so\0\0\0"))
    message = refusal(project)
    assert "its binary is for the other C library of Linux" in message


@pytest.mark.parametrize("binary", [b"", b"\x7fELF", b"no library at all" * 100])
def test_a_damaged_binary_is_told_apart(project: Project, platform: NodePlatform, binary: bytes) -> None:
    damage(project, platform, binary)
    message = refusal(project)
    assert re.search("its file is damaged|no library", message)
    assert "rm -rf node_modules" in message


def test_a_binary_that_loads_and_is_no_addon_is_reported_as_it_comes(project: Project, platform: NodePlatform) -> None:
    damage(project, platform, platform.extension.replace(b"napi_register_module_v1", b"napi_register_module_v0"))
    message = refusal(project)
    assert f"package {platform.name} can't be loaded: Module did not self-register" in message


def test_a_binary_of_another_version_is_told_apart(project: Project, platform: NodePlatform) -> None:
    project.npm("install", "etp-ws")
    manifest = project.folder / "node_modules/etp-ws/package.json"
    told = json.loads(manifest.read_text())
    was = told["version"]
    manifest.write_text(json.dumps(told | {"version": "99.1.2"}))
    message = refusal(project)
    assert f"package {platform.name} is {was}, and etp-ws is 99.1.2" in message
    assert message.endswith("npm install etp-ws@99.1.2")


def test_a_process_that_may_not_load_binaries_is_told_how_to_allow_it(project: Project) -> None:
    project.npm("install", "etp-ws")
    for forbidding in (["--no-addons"], ["--permission", "--allow-fs-read=*"]):
        told = json.loads(project.run("node", *forbidding, "-e", LOAD))
        assert told["code"] == "unsupported_platform"
        assert "this process may not load binaries. Allow it: node --allow-addons" in told["message"]
    allowed = project.run("node", "--permission", "--allow-fs-read=*", "--allow-addons", "-e", LOAD)
    assert allowed.startswith("loaded\n")


def test_the_cause_is_kept(project: Project, platform: NodePlatform) -> None:
    damage(project, platform, b"")
    said = project.run("node", "-e", 'try { require("etp-ws") } catch (error) { console.log(error.cause.code) }')
    assert said == "ERR_DLOPEN_FAILED\n"
