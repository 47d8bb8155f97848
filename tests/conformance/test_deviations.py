"""That the table of deviations names cases that exist."""

from pathlib import Path

import pytest
from deviations import COLLECTED, HOSTS, ROLES, stale

HERE = Path(__file__).parent


@pytest.mark.parametrize("role", ROLES)
def test_every_deviation_names_a_case(request, role):
    files = {item.path for item in request.session.items}
    if any(file not in files for file in HERE.glob(f"test_{role}_*.py")):
        pytest.skip("not every case was collected")
    for (of, program), cases in request.config.stash[COLLECTED].items():
        if of == role:
            assert stale(ROLES[role].get(program, {}), cases) == [], program
            if role == "server":
                assert stale(HOSTS.get(program, {}), cases) == [], program
