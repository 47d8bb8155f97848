"""Refuses the interpreters that this package can't work in, when it is imported there and before its core is loaded."""

from __future__ import annotations

import importlib
import sys
import sysconfig

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise ImportError(
        "etp_ws does not support free-threaded Python (a build without the GIL); use the ordinary build of the same version"
    )

# Python itself refuses only those that have a GIL of their own, and has no public name for what tells them apart.
_interpreters = importlib.import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
if _interpreters.get_current() != _interpreters.get_main():
    raise ImportError("etp_ws does not support subinterpreters; import it in the main interpreter, or use processes")
