"""See the package's docstring."""

import argparse
import difflib
import sys
from pathlib import Path

from charts.generate.fleet import fleet
from charts.generate.outputs import outputs
from charts.generate.panels import to_json

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write or compare; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m charts.generate", description="Generated parts of the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a file is out of date")
    check: bool = parser.parse_args().check
    stale = 0
    for path, wanted in outputs(REPOSITORY, {"fleet": to_json(fleet())}).items():
        present = path.read_text() if path.exists() else None
        if present == wanted:
            continue
        stale += 1
        name = path.relative_to(REPOSITORY)
        if check:
            sys.stdout.writelines(difference(present or "", wanted or "", str(name)))
        elif wanted is None:
            path.unlink()
            sys.stdout.write(f"removed {name}\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted)
            sys.stdout.write(f"wrote {name}\n")
    if check and stale:
        sys.stdout.write(f"{stale} files are out of date: run python -m charts.generate\n")
    return 1 if check and stale else 0


def difference(present: str, wanted: str, name: str) -> list[str]:
    """The first 40 lines of a unified diff."""
    lines = difflib.unified_diff(
        present.splitlines(keepends=True), wanted.splitlines(keepends=True), name, f"{name} (generated)"
    )
    return list(lines)[:40]


if __name__ == "__main__":
    sys.exit(main())
