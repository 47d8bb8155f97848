"""What type checkers say of the programs in `types/`: an error at each line that is marked `# E:`, and nowhere else."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import etp_ws
import pytest
from etp_ws import Client, ClientOptions, Server, ServerOptions
from readme import blocks

PROGRAMS = sorted((Path(__file__).parent / "types").glob("*.py"))
# The checkers have an environment of their own; what they look at is the interpreter that runs this test.
TOOLS = Path(__file__).parents[2] / ".venv/bin"

# Of programs, run in a folder: file, line and message of each error.
Checker = Callable[[Path, Iterable[Path]], Iterable[tuple[str, int, str]]]


def run(folder: Path, *command: object) -> str:
    """Runs a checker in a folder of its own: no configuration is found from there."""
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(folder: Path, programs: Iterable[Path]) -> Iterator[tuple[str, int, str]]:
    out = run(folder, TOOLS / "mypy", "--strict", "--output=json", "--python-executable", sys.executable, *programs)
    for line in filter(None, out.splitlines()):
        found = json.loads(line)
        if found["severity"] == "error":
            yield Path(found["file"]).name, found["line"], found["message"]


def pyright(folder: Path, programs: Iterable[Path]) -> Iterator[tuple[str, int, str]]:
    out = run(folder, TOOLS / "pyright", "--outputjson", "--pythonpath", sys.executable, *programs)
    for found in json.loads(out)["generalDiagnostics"]:
        if found["severity"] != "information":
            yield Path(found["file"]).name, found["range"]["start"]["line"] + 1, found["message"]


CHECKERS = pytest.mark.parametrize("checker", [mypy, pyright])


@CHECKERS
def test_the_marked_lines_are_errors_and_no_others(checker: Checker, tmp_path: Path) -> None:
    marked = {
        (program.name, number)
        for program in PROGRAMS
        for number, line in enumerate(program.read_text().splitlines(), 1)
        if line.endswith("  # E:")
    }
    found = {(name, line): message for name, line, message in checker(tmp_path, PROGRAMS)}
    assert marked, "nothing would be tested"
    assert {at: message for at, message in found.items() if at not in marked} == {}
    assert marked - found.keys() == set()


@CHECKERS
def test_the_programs_of_the_readme_are_typed(checker: Checker, tmp_path: Path) -> None:
    programs = [tmp_path / f"line_{block.line}.py" for block in blocks()]
    for program, block in zip(programs, blocks(), strict=True):
        program.write_text(block.code)
    assert list(checker(tmp_path, programs)) == []


@pytest.mark.parametrize(
    ("options", "constructor", "others"),
    [(ServerOptions, Server.__init__, {"codec"}), (ClientOptions, Client.__init__, {"url", "codec"})],
    ids=["server", "client"],
)
def test_the_options_are_the_parameters_of_the_constructor(
    options: type, constructor: Callable[..., None], others: set[str]
) -> None:
    parameters: Mapping[str, inspect.Parameter] = inspect.signature(constructor).parameters
    named = typing.get_type_hints(options)
    assert list(named) == [name for name in parameters if name not in {"self", *others}]
    hints = typing.get_type_hints(constructor)
    assert named == {name: hints[name] for name in named}
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in named)


def test_the_stub_describes_what_users_call_in_the_words_of_the_module() -> None:
    """Editors show the stub's words; `help` shows the module's."""
    module = etp_ws._etp_ws
    stub = ast.parse(Path(module.__file__).with_name("_etp_ws.pyi").read_text())
    classes = [one for one in stub.body if isinstance(one, ast.ClassDef) and one.name.endswith("Base")]
    stubbed = {
        (cls.name, one.name): " ".join((ast.get_docstring(one) or "").split())
        for cls in classes
        for one in cls.body
        if isinstance(one, ast.FunctionDef) and not one.name.startswith(("_", "ask"))
    }
    real = {(cls, name): getattr(getattr(module, cls), name).__doc__ for cls, name in stubbed}
    assert len(classes) == 3
    assert stubbed == {at: " ".join(doc.split()) for at, doc in real.items()}
