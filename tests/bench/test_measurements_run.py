"""The measurements themselves: that they run, that their file has what documents and plots take from it, and ratios."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import allocators
from tests.bench.report import Report

CASE = "instantiate-drop"


def test_a_quick_run_writes_figures_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, picture = tmp_path / "figures.json", tmp_path / "figures.svg"
    assert allocators.main(["--quick", "--json", str(figures), "--svg", str(picture), CASE]) == 0
    written = json.loads(figures.read_text())
    assert {"machine", "versions", "rows"} == set(written)
    assert written["versions"]["wasmtime"]
    rows = {(it["case"], it["subject"], it["unit"]): it for it in written["rows"]}
    for manner in ("1 thread", "2 threads", "2 processes"):
        for subject in ("on-demand", "wasmtime-pool", "wasmtime-pool-resident", "base-pages"):
            row = rows[f"{CASE}, {manner}", subject, allocators.MICROSECONDS]
            assert len(row["runs"]) == 3
            assert min(row["runs"]) <= row["median"] <= max(row["runs"])
            assert min(row["runs"]) > 0
    assert f"| {CASE}, 2 processes | base-pages |" in capsys.readouterr().out
    root = ElementTree.fromstring(picture.read_text())  # noqa: S314 - our own
    assert len(root.findall("{*}rect")) > 12
    assert Report.read(figures).ratio(f"{CASE}, 1 thread", "on-demand", "on-demand") == 1


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    report = Report()
    report.add("case", "fast", "us", [1.0, 2.0, 30.0])
    report.add("case", "slow", "us", [2.0, 8.0, 40.0])
    assert report.ratio("case", "fast", "slow") == 0.5
    assert report.ratio("case", "fast", "missing") is None
    assert "| case | fast | 2 | 0.50 |" in report.table("us", ["slow"])


def test_a_ratio_is_of_rows_in_the_same_unit() -> None:
    report = Report()
    for subject, rate, latency in (("fast", 100.0, 1.0), ("slow", 50.0, 8.0)):
        report.add("case", subject, "requests/s", [rate])
        report.add("case", subject, "ms", [latency])
    assert report.ratio("case", "slow", "fast", "ms") == 8
    assert "| case | slow | 50 | 0.50 |" in report.table("requests/s", ["fast"])
    assert "| case | slow | 8 | 8.00 |" in report.table("ms", ["fast"])


def test_a_case_that_is_not_there_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        allocators.main(["dirty-1KiB"])
    assert "CASE dirty-1KiB: there is no such case; there are no-memory, instantiate-drop, " in capsys.readouterr().err
