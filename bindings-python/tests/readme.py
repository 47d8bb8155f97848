"""The programs in the package's README."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


@dataclass(frozen=True)
class Block:
    """A block of Python."""

    line: int
    code: str
    runs: bool
    """Whether it is to run as it is: not marked `no-run`."""

    def __str__(self) -> str:
        return f"line {self.line}"


def blocks() -> list[Block]:
    text = README.read_text()
    found = re.finditer(r"^```python( no-run)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(text.count("\n", 0, one.start()) + 2, one[2], one[1] is None) for one in found]
