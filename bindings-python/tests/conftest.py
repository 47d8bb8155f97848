"""What all tests of the package share: each async test runs on asyncio and on uvloop, and none may hang."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator

import pytest

# Far beyond what a test takes on a busy machine.
HANGS_AFTER = 120.0


def pytest_configure(config: pytest.Config) -> None:
    # An exception that nobody could be told is a failure of the test that caused it.
    for warning in ("pytest.PytestUnraisableExceptionWarning", "pytest.PytestUnhandledThreadExceptionWarning"):
        config.addinivalue_line("filterwarnings", f"error::{warning}")


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A test that hangs ends the run, with a traceback of every thread."""
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}
