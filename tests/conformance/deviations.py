"""Where a program does otherwise than a case demands, and why: each is a strict expected failure.

By program as named on the command line, then by case: `name` for all its parameters, or `name[parameters]`.
"""

from __future__ import annotations

SERVERS: dict[str, dict[str, str]] = {"go": {}}
CLIENTS: dict[str, dict[str, str]] = {"go": {}}


def cause(table: dict[str, str], name: str, parameters: str) -> str | None:
    return table.get(f"{name}[{parameters}]") or table.get(name)
