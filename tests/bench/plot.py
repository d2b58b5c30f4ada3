"""Ratios as a picture: one group of bars for each case, one bar for each subject, 1 is the baseline."""

from pathlib import Path

import pygal
from pygal.style import CleanStyle

from tests.bench.report import Report


def draw(report: Report, unit: str, baseline: str, path: Path) -> None:
    """Of the rows in this unit, as SVG. Lower is better; the scale is logarithmic, so that 0.5 and 2 look alike."""
    rows = [row for row in report.rows if row.unit == unit]
    cases = list(dict.fromkeys(row.case for row in rows))
    chart = pygal.HorizontalBar(
        title=f"{unit}, as a ratio to {baseline} (lower is better)",
        style=CleanStyle,
        js=(),
        logarithmic=True,
        print_values=False,
        height=90 + 90 * len(cases),
        width=900,
        legend_at_bottom=True,
        order_min=-1,
    )
    chart.x_labels = cases
    for subject in dict.fromkeys(row.subject for row in rows):
        chart.add(subject, [report.ratio(case, subject, baseline) for case in cases])
    chart.render_to_file(str(path))
