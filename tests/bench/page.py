"""The tables of docs/benchmarks.md and its picture, from the figures beside it.

.venv/bin/python -m tests.bench.page          after `make bench` or tests.bench.backings has written new figures
"""

from pathlib import Path
from typing import Final

from tests.bench import backings
from tests.bench.plot import draw
from tests.bench.report import Report
from tests.bench.subjects import SUBJECTS

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
FIGURES: Final = ROOT / "docs" / "benchmarks" / "allocators.json"
PICTURE: Final = ROOT / "docs" / "benchmarks" / "allocators.svg"
BACKINGS: Final = ROOT / "docs" / "benchmarks" / "backings.json"
BASELINE: Final = "wasmtime-pool"


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


def backings_table(report: Report) -> str:
    """Of requests: the figure on base pages, and the ratios to it."""
    others = [it.name for it in backings.SUBJECTS if it.name != backings.BASELINE]
    lines = [f"| case | {backings.BASELINE} | {' | '.join(others)} |", "|---|--:|" + "--:|" * len(others)]
    for row in report.rows:
        if row.subject != backings.BASELINE or row.unit == backings.MEMORY:
            continue
        ratios = [report.ratio(row.case, it, backings.BASELINE, row.unit) for it in others]
        shown = " | ".join("" if it is None else f"{it:.2f}x" for it in ratios)
        lines.append(f"| {row.case}: {row.unit} | {_rounded(row.median)} | {shown} |")
    return "\n".join(lines) + "\n"


def memory_table(report: Report) -> str:
    """Of each guest and backing, in MiB."""
    names = [it.name for it in backings.SUBJECTS]
    lines = [f"| MiB | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    for case in dict.fromkeys(row.case for row in report.rows if row.unit == backings.MEMORY):
        found = [report.find(case, it, backings.MEMORY) for it in names]
        shown = ["" if it is None else f"{round(it.median, 2) + 0.0:.2f}" for it in found]
        lines.append(f"| {case} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def page(text: str, allocators: Report, of_backings: Report) -> str:
    """The page with its tables made anew."""
    for name, made in (
        ("table", table(allocators)),
        ("backings", backings_table(of_backings)),
        ("memory of backings", memory_table(of_backings)),
    ):
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{made}{end}{rest.partition(end)[2]}"
    return text


def main() -> int:
    """Writes both; exit code 0."""
    report = Report.read(FIGURES)
    PAGE.write_text(page(PAGE.read_text(), report, Report.read(BACKINGS)))
    draw(report, "us per life", BASELINE, PICTURE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
