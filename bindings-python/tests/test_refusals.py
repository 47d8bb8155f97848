"""Interpreters that the package does not support get an error that says so, at the import."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> str:
    """The program's standard output; it has to end well."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FREE_THREADED = """
import sysconfig

true_value = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: 1 if name == "Py_GIL_DISABLED" else true_value(name)
try:
    import etp_ws
except ImportError as error:
    print(error)
import sys

print("etp_ws._etp_ws" in sys.modules)
"""


def test_free_threaded_python_is_refused_before_the_core_is_loaded() -> None:
    said, loaded = run(FREE_THREADED).splitlines()
    assert "free-threaded" in said
    assert "use the ordinary build" in said
    assert loaded == "False"


# In a subinterpreter, whose exceptions come out as text: printed there, since the modules for it differ by version.
INSIDE = """
try:
    import etp_ws
except ImportError as error:
    import os
    os.write(1, str(error).encode() + b"\\\\n")
else:
    import os
    os.write(1, b"imported\\\\n")
"""

SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
FIRST
inside = interpreters.create(KIND)
failed = interpreters.run_string(inside, '''PROGRAM''')
assert failed is None, failed
interpreters.destroy(inside)

import etp_ws
etp_ws.Server()
print("the main one works")
"""


def kinds() -> list[str]:
    """The kinds of interpreters that this version can make: with the main one's GIL, and with one of its own."""
    if sys.version_info >= (3, 13):
        return ["'legacy'", "'isolated'"]
    return ["isolated=False", "isolated=True"]


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("first", ["", "import etp_ws"], ids=["before the main one's", "after the main one's"])
def test_an_import_in_a_subinterpreter_is_refused(kind: str, first: str) -> None:
    program = SUBINTERPRETER.replace("PROGRAM", INSIDE).replace("KIND", kind).replace("FIRST", first)
    refusal, main = run(program).splitlines()
    assert refusal == "etp_ws does not support subinterpreters; import it in the main interpreter, or use processes"
    assert main == "the main one works"
