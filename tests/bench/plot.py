"""Ratios as a picture: one group of bars for each case, one bar for each subject, on a logarithmic scale."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from tests.bench.report import Report

_COLOURS: Final = ("#8c8c8c", "#c44e52", "#dd8452", "#4c72b0", "#55a868", "#937860")
_LABELS, _WIDTH, _BAR, _GAP, _TOP = 210, 640, 10, 14, 56
_TICKS: Final = (0.03, 0.1, 0.3, 1, 3, 10, 30)


def draw(report: Report, unit: str, baseline: str, path: Path) -> None:
    """Of the rows in this unit, as SVG; a bar begins at the baseline, 1, and goes left where it takes less."""
    rows = [row for row in report.rows if row.unit == unit]
    cases = list(dict.fromkeys(row.case for row in rows))
    subjects = [it for it in dict.fromkeys(row.subject for row in rows) if it != baseline]
    height = _TOP + len(cases) * (len(subjects) * _BAR + _GAP) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LABELS + _WIDTH + 60} {height}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(8, 16, f"{unit}, as a ratio to {baseline}: left of the line is faster"),
        *_legend(subjects),
        *_scale(height),
        *_bars(report, cases, subjects, baseline),
        "</svg>",
    ]
    path.write_text("\n".join(lines) + "\n")


def _x(ratio: float) -> float:
    low, high = math.log(_TICKS[0]), math.log(_TICKS[-1])
    share = (math.log(ratio) - low) / (high - low)
    return _LABELS + _WIDTH * min(1.0, max(0.0, share))


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(subjects: list[str]) -> Iterator[str]:
    for number, subject in enumerate(subjects):
        x = 8 + number * 130
        yield f'<rect x="{x}" y="24" width="10" height="10" fill="{_COLOURS[number % len(_COLOURS)]}"/>'
        yield _text(x + 14, 33, subject)


def _scale(height: int) -> Iterator[str]:
    for tick in _TICKS:
        colour = "#000" if tick == 1 else "#ddd"
        yield f'<line x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="{_TOP - 4}" y2="{height - 6}" stroke="{colour}"/>'
        yield _text(_x(tick), _TOP - 8, f"{tick:g}", "middle")


def _bars(report: Report, cases: list[str], subjects: list[str], baseline: str) -> Iterator[str]:
    y = float(_TOP)
    for case in cases:
        yield _text(_LABELS - 8, y + len(subjects) * _BAR / 2 + 4, case, "end")
        for number, subject in enumerate(subjects):
            ratio = report.ratio(case, subject, baseline)
            if ratio is not None:
                left, right = sorted((_x(ratio), _x(1)))
                colour = _COLOURS[number % len(_COLOURS)]
                place = f'x="{left:.1f}" y="{y:.1f}" width="{right - left:.1f}" height="{_BAR - 2}"'
                yield f'<rect {place} fill="{colour}"/>'
                yield _text(max(right, _x(1)) + 4, y + _BAR - 2, f"{ratio:.2f}")
            y += _BAR
        y += _GAP
