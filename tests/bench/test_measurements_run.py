"""The measurements themselves: that they run, that their file has what documents and plots take from it, and ratios."""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import allocators, backings, page
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


def test_a_guest_that_is_not_there_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        backings.main(["--guests", "c,cobol"])
    assert "--guests cobol: there is no such guest; there are c, c-256k, " in capsys.readouterr().err


def test_backings_are_shown_with_their_ratios_and_what_is_not_measured_is_left_open() -> None:
    report = Report()
    report.add("go, 1 connection", "BasePages", backings.CPU, [200.0, 400.0])
    report.add("go, 1 connection", "HugePages2Mi compact", backings.CPU, [100.0, 100.0])
    report.add("go, slot", "BasePages", backings.MEMORY, [8.0])
    assert f"| go, 1 connection: {backings.CPU} | 300 | 0.38x |  |" in page.backings_table(report).splitlines()
    assert page.memory_table(report).splitlines()[2:] == ["| go, slot |  |  | 8.00 |"]


def test_a_requests_latency_and_a_workers_memory_can_be_had() -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(0.01)
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert backings.median_milliseconds(f"http://127.0.0.1:{server.server_port}/", 3) >= 10
        server.shutdown()
    program = "import sys; block = b'x' * 50_000_000; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, "wasmpool_agent.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        assert backings.anonymous_bytes(os.getpid()) >= 50_000_000
        worker.communicate()
    assert backings.anonymous_bytes(os.getpid()) == 0
