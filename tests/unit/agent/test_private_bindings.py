"""Wasmtime's private names may change with any release: one module uses them, and the supervisor loads none of it.

import-linter sees modules, not the submodules of other distributions; so the first of these is held here.
"""

import re
import subprocess
import sys
from pathlib import Path

import wasmpool_agent

PACKAGE = Path(wasmpool_agent.__file__).parent
PRIVATE = re.compile(r"wasmtime\._|from wasmtime import _|import_module\(.wasmtime\._")


def test_only_one_module_uses_private_names_of_wasmtime() -> None:
    users = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if PRIVATE.search(path.read_text())}
    assert users == {"wasmtime_private.py"}


def test_the_process_of_the_supervisor_has_no_wasmtime_in_it() -> None:
    program = (
        "import sys, wasmpool_agent.cli, wasmpool_agent.kube, wasmpool_agent.supervisor.service; "
        "sys.exit('wasmtime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
