"""The table of docs/benchmarks.md and its picture, from the figures beside it.

.venv/bin/python -m tests.bench.page          after `make bench` has written new figures
"""

from pathlib import Path
from typing import Final

from tests.bench.plot import draw
from tests.bench.report import Report
from tests.bench.subjects import SUBJECTS

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
FIGURES: Final = ROOT / "docs" / "benchmarks" / "allocators.json"
PICTURE: Final = ROOT / "docs" / "benchmarks" / "allocators.svg"
BASELINE: Final = "wasmtime-pool"
_BEGIN, _END = "<!-- table -->\n", "<!-- end of table -->\n"


def table(report: Report) -> str:
    """One line for each case: the baseline's median, and everybody's ratio to it."""
    lines = [
        f"| case | {BASELINE} | " + " | ".join(it for it in SUBJECTS if it != BASELINE) + " |",
        "|---|--:|" + "--:|" * (len(SUBJECTS) - 1),
    ]
    for case in dict.fromkeys(row.case for row in report.rows if row.unit.startswith(("us", "ms"))):
        base = report.find(case, BASELINE)
        if base is None:
            continue
        ratios = [report.ratio(case, it, BASELINE) for it in SUBJECTS if it != BASELINE]
        shown = " | ".join("" if it is None else f"{it:.2f}x" for it in ratios)
        lines.append(f"| {case} | {base.median:.3g} {base.unit.split()[0]} | {shown} |")
    return "\n".join(lines) + "\n"


def page(text: str, report: Report) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{table(report)}{_END}{after}"


def main() -> int:
    """Writes both; exit code 0."""
    report = Report.read(FIGURES)
    PAGE.write_text(page(PAGE.read_text(), report))
    draw(report, "us per life", BASELINE, PICTURE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
