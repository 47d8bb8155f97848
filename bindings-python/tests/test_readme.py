"""The README's programs do what they say, each in a process of its own, in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from readme import README, Block, blocks

BLOCKS = blocks()


def run(block: Block, folder: Path) -> str:
    """What the program prints. It has to end well and to say nothing on its standard error, with every warning an error."""
    program = folder / "program.py"
    program.write_text(block.code)
    command = [sys.executable, "-X", "dev", "-W", "error", program.name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr) == (0, ""), f"{README.name}:{block.line}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_first_program_says_what_its_comments_promise(tmp_path: Path) -> None:
    lines = run(BLOCKS[0], tmp_path).splitlines()
    assert [line for line in lines if line.startswith("hello")] == ["hello ann", "hello bob"]
    assert "ann hears: bob is here" in lines
    assert [line for line in lines if re.fullmatch(r"alive: 0\.\d{6} s", line)]
    assert lines.count("left: 1000") == 2


@pytest.mark.parametrize("block", [block for block in BLOCKS[1:] if block.runs], ids=str)
def test_a_program_runs_as_it_is_printed(block: Block, tmp_path: Path) -> None:
    run(block, tmp_path)


def test_what_is_not_run_is_the_server_that_never_ends() -> None:
    assert [block.code.splitlines()[-1].split("(")[0] for block in BLOCKS if not block.runs] == ["server.run"]
