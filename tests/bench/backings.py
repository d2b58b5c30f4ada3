"""What each backing costs the guests of each language: requests, making an instance, memory; the rounds alternating.

    .venv/bin/python -m tests.bench.backings [--quick] [--json FILE] [--guests c,rust,js,python]

c-256k to c-4m are the C program with so many bytes of initial contents that it hardly touches: what huge pages lose by
copying them is most for such a guest. The agents of a guest, one on each backing, run at once and idle while another is
measured. Those on huge pages need them, as root (`echo 800 > /proc/sys/vm/nr_hugepages`), and are left out without.

Rates are wrk's, one thread, on the same cores, as fast as answers come; CPU is the workers', which other work on the
machine changes little. Latencies are of requests that come one by one with pauses, so that an instance made ahead is
there for each; or, once the workload has been told to borrow all its slots (`instances: 0`), is there for none. Memory
is read in these two states, too.
"""

import argparse
import http.client
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from demo.host import MIB, huge_pages
from tests.bench.http import PAGES, RATE, Case, measure
from tests.bench.report import Report
from tests.bench.web_guests import web_guest
from tests.bench.web_servers import NotUpError, Server, agent, write_workload
from wasmpool_api.wasm import inspect

BASELINE: Final = "BasePages"
CPU: Final = "us of CPU per request"
LATENCY: Final = "p50 ms"
MEMORY: Final = "MiB"
SLOTS: Final = 16
PAUSE_SECONDS: Final = 0.03
STATE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Subject:
    """A backing as a pool's spec has it."""

    name: str
    backing: str
    address_space: str


SUBJECTS: Final = (
    Subject("HugePages2Mi compact", "HugePages2Mi", "2Gi"),
    Subject("HugePages2Mi guarded", "HugePages2Mi", "6Gi"),
    Subject(BASELINE, "BasePages", "6Gi"),
)


class StateError(Exception):
    """An agent did not come to what was asked of it."""


@dataclass
class Measured:
    """An agent on one backing, and one figure for each round of each case."""

    subject: Subject
    server: Server
    guest: str
    key: str
    directory: Path
    figures: dict[tuple[str, str], list[float]]

    def round(self, seconds: int, requests: int) -> None:
        """Rates and latency with instances made ahead, then latency and memory without. Raises StateError."""
        self._load(f"{self.guest}, 1 connection", 1, 1, seconds)
        # NB: which worker accepts how many of the connections differs each time, and with it the rate.
        self._load(f"{self.guest}, 8 connections", 8, seconds, 1)
        self._note(f"{self.guest}, an instance is ready", LATENCY, median_milliseconds(self.server.url, requests))
        ready, with_them = self._ready(), anonymous_bytes(self.server.pid)
        write_workload(self.server.workload, self.key, instances=0, burst=SLOTS)
        self._until_none_is_ready()
        if ready:
            each = (with_them - anonymous_bytes(self.server.pid)) / ready / MIB
            self._note(f"{self.guest}, a ready instance beside its slot", MEMORY, each)
        self._note(f"{self.guest}, the workers, after load", MEMORY, with_them / MIB)
        self._note(f"{self.guest}, none is ready", LATENCY, median_milliseconds(self.server.url, requests))
        write_workload(self.server.workload, self.key, instances=SLOTS, burst=0)
        end = time.monotonic() + STATE_SECONDS
        while not self._ready():
            if time.monotonic() > end:
                raise StateError(f"{self.subject.name}, {self.guest}: no instance was made ahead")
            time.sleep(0.2)

    def _load(self, case: str, connections: int, runs: int, seconds: int) -> None:
        spent, requests = cpu_seconds(self.server.pid), 0.0
        for _ in range(runs):
            found = measure(self.server, Case(self.guest, 0, connections), seconds, self.directory)
            if found.errors:
                raise StateError(f"{self.subject.name}, {self.guest}: {found.errors} requests failed")
            requests += found.rate * seconds
        self._note(case, RATE, requests / runs / seconds)
        self._note(case, CPU, (cpu_seconds(self.server.pid) - spent) / requests * 1e6)

    def _ready(self) -> int:
        time.sleep(1.0)  # NB: workers tell their counts now and then
        with urllib.request.urlopen(self.server.metrics_url, timeout=10) as answer:  # noqa: S310 - our own
            found = re.search(r"^wasmpool_http_ready\{.*\} (\S+)$", answer.read().decode(), re.MULTILINE)
        return int(float(found[1])) if found else 0

    def _until_none_is_ready(self) -> None:
        end = time.monotonic() + STATE_SECONDS
        while True:
            for _ in range(2 * SLOTS):  # over connections of their own, so that every worker gets some
                with urllib.request.urlopen(self.server.url, timeout=30) as answer:  # noqa: S310 - our own
                    answer.read()
            if not self._ready():
                return
            if time.monotonic() > end:
                raise StateError(f"{self.subject.name}, {self.guest}: instances were made ahead of borrowed slots")

    def _note(self, case: str, unit: str, value: float) -> None:
        self.figures.setdefault((case, unit), []).append(value)


def median_milliseconds(url: str, requests: int) -> float:
    """Of so many requests over one connection, with a pause before each."""
    parts, took = urlsplit(url), list[float]()
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as connection:
        connection.connect()
        for _ in range(requests):
            time.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
            connection.request("GET", "/")
            connection.getresponse().read()
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def cpu_seconds(supervisor: int) -> float:
    """Of its workers, since they began; in ticks of 10 ms."""
    ticks = 0
    for worker in _workers(supervisor):
        stat = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
        ticks += int(stat[11]) + int(stat[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def anonymous_bytes(supervisor: int) -> int:
    """Of its workers, each page that several share in parts. Huge pages are none of it."""
    found = 0
    for worker in _workers(supervisor):
        rollup = Path(f"/proc/{worker}/smaps_rollup").read_text()
        lines = re.findall(r"^Pss_Anon:\s+(\d+) kB$", rollup, re.MULTILINE)
        found += sum(map(int, lines)) * 1024
    return found


def _workers(supervisor: int) -> list[int]:
    found = list[int]()
    for task in Path(f"/proc/{supervisor}/task").iterdir():
        children = map(int, (task / "children").read_text().split())
        found += [it for it in children if b"wasmpool_agent.worker" in Path(f"/proc/{it}/cmdline").read_bytes()]
    return found


def run_guest(name: str, rounds: int, seconds: int, requests: int, report: Report, directory: Path) -> None:
    """Adds rows for each case and backing that can be had. Raises StateError, NotUpError."""
    guest, pages = web_guest(name), PAGES[name]
    image = inspect(guest.read_bytes()).data_bytes
    slot_bytes = pages * 65536
    with ExitStack() as stack:
        agents = list[Measured]()
        for subject in SUBJECTS:
            free = huge_pages()
            if subject.backing != BASELINE and free.free * free.page_bytes < SLOTS * slot_bytes:
                sys.stderr.write(f"{name}: {subject.name} is left out: {free.free} huge pages are free\n")
                continue
            where = directory / f"{name}-{subject.name.replace(' ', '-')}"
            where.mkdir()
            try:
                server = stack.enter_context(
                    agent(
                        where,
                        guest,
                        backing=subject.backing,
                        address_space=subject.address_space,
                        memory_pages=pages,
                        slots=SLOTS,
                    )
                )
            except NotUpError:
                sys.stderr.write((where / "agent.log").read_text()[-2000:])
                raise
            agents.append(Measured(subject, server, name, guest.name, directory, {}))
        for number in range(rounds):
            for each in agents if number % 2 == 0 else agents[::-1]:
                each.round(seconds, requests)
    for each in agents:
        for (case, unit), runs in each.figures.items():
            report.add(case, each.subject.name, unit, runs)
        report.add(f"{name}, image", each.subject.name, MEMORY, [image / MIB])
        report.add(f"{name}, slot", each.subject.name, MEMORY, [slot_bytes / MIB])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m tests.bench.backings`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backings", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--guests", default=",".join(PAGES), help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run; default %(default)s")
    parser.add_argument("--requests", type=int, default=40, help="of each latency; default %(default)s")
    parsed = parser.parse_args(arguments)
    unknown = [it for it in parsed.guests.split(",") if it not in PAGES]
    if unknown:
        parser.error(f"--guests {unknown[0]}: there is no such guest; there are {', '.join(PAGES)}")
    rounds, seconds, requests = (1, 1, 5) if parsed.quick else (parsed.rounds, parsed.seconds, parsed.requests)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="wasmpool-bench-") as directory:
        for guest in parsed.guests.split(","):
            run_guest(guest, rounds, seconds, requests, report, Path(directory))
            if parsed.json is not None:
                report.write(parsed.json)
    for unit in (RATE, CPU, LATENCY, MEMORY):
        sys.stdout.write(report.table(unit, [BASELINE]) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
