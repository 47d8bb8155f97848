"""The pytest fixture of this package. It needs no plug-in for asyncio, and works with each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Connecting


@pytest.fixture
def etp_connect() -> Iterator[Any]:
    """Connects clients to servers without ports: ``async with etp_connect(server) as client:``, as
    :func:`etp_ws.testing.connect`.

    What the test leaves connected ends with it.
    """
    # Imported when it is first asked for: a test run that does not use it pays nothing.
    from .testing import connect

    made: list[Connecting] = []

    def etp_connect(server: Any, client: Any = None, **options: Any) -> Connecting:
        connecting = connect(server, client, **options)
        made.append(connecting)
        return connecting

    yield etp_connect
    for connecting in made:
        core = connecting._client._core
        if core is not None:
            core.stop()
