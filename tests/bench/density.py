"""What small HTTP workloads cost in memory: many of them in one agent, against as many `wasmtime serve` processes.

    .venv/bin/python -m tests.bench.density [--quick] [--json FILE] [--workloads N] [--servers N]

As root: each side runs in a memory cgroup of its own. Every workload answers one request, then all are idle. The other
side is a process each without its pod, so what a pod adds (its pause container, its shim, its cgroups) is left out in
its favour. Slots are on huge pages where enough of them are free (256 for 1,000 workloads), and counted in full, used
or not; else on ordinary pages, of which only those count that were touched.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import yaml

from demo.host import huge_pages
from tests.bench.memory_groups import Charge, memory_group
from tests.bench.report import Report
from tests.bench.web_guests import web_guest
from tests.bench.web_servers import AGENT, wasmtime_binary

KIB: Final = 1024
UNIT: Final = "KiB per workload"
PAGES: Final = 8
"""Of 64 KiB: a slot has half a MiB, of which the guest asks for a quarter."""
FIRST_PORT: Final = 21000
IDLE_SECONDS: Final = 5.0
UP_SECONDS: Final = 600.0


def manifests(
    directory: Path, guest: Path, count: int, *, instances: int, burst: int, backing: str
) -> tuple[Path, Path]:
    """A pool file, and a directory with so many workloads."""
    pool = {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "InstancePool",
        "metadata": {"name": "bench", "namespace": "default"},
        "spec": {
            "allocation": {"backing": backing},
            "instanceLimits": {"count": max(count * instances, 16), "addressSpaceSize": "2Gi"},
            "moduleLimits": {"memoryPages": PAGES},
            "http": {"portRange": f"{FIRST_PORT}-{FIRST_PORT + count - 1}"},
        },
    }
    workloads: list[dict[str, Any]] = [
        {
            "apiVersion": "wasmpool.dev/v1alpha1",
            "kind": "WasmWorkload",
            "metadata": {"name": f"web-{number}", "namespace": "default"},
            "spec": {
                "poolRef": {"name": "bench"},
                "module": {"configMap": {"name": "guests", "key": "web.wasm"}},
                "run": {"http": {}},
                "instances": instances,
                "burst": burst,
            },
        }
        for number in range(count)
    ]
    where = directory / "workloads"
    (where / "guests").mkdir(parents=True)
    (where / "guests" / "web.wasm").write_bytes(guest.read_bytes())
    (where / "all.yaml").write_text(yaml.safe_dump_all(workloads))
    (directory / "pool.yaml").write_text(yaml.safe_dump(pool))
    return directory / "pool.yaml", where


def ask_all(ports: Sequence[int]) -> None:
    """Waits for each to answer once. Raises TimeoutError."""
    end = time.monotonic() + UP_SECONDS

    def ask(port: int) -> None:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                    answer.read()
                    return
            except OSError:
                if time.monotonic() > end:
                    raise TimeoutError(f"port {port} did not answer in {UP_SECONDS:g} s") from None
                time.sleep(0.5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, ports))


def of_agent(guest: Path, count: int, *, instances: int, burst: int, backing: str) -> Charge:
    """With so many workloads, idle after a request each."""
    with tempfile.TemporaryDirectory(prefix="wasmpool-bench-") as name, memory_group("agent") as group:
        directory = Path(name)
        pool, where = manifests(directory, guest, count, instances=instances, burst=burst, backing=backing)
        command = [AGENT, "run", "--pool", pool, "--workloads", where, "--cache-dir", directory / "cache"]
        process = group.start(list(map(str, command)), directory / "log")
        try:
            ask_all(range(FIRST_PORT, FIRST_PORT + count))
            time.sleep(IDLE_SECONDS)
            return group.charge()
        except TimeoutError:
            sys.stderr.write((directory / "log").read_text()[-3000:])
            raise
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def of_servers(guest: Path, count: int) -> Charge:
    """So many `wasmtime serve`, idle after a request each."""
    with tempfile.TemporaryDirectory(prefix="wasmpool-bench-") as name, memory_group("serve") as group:
        directory = Path(name)
        binary = wasmtime_binary(directory)
        ports = range(FIRST_PORT, FIRST_PORT + count)
        processes = [
            group.start([str(binary), "serve", "--addr", f"127.0.0.1:{port}", str(guest)], directory / f"{port}.log")
            for port in ports
        ]
        try:
            ask_all(ports)
            time.sleep(IDLE_SECONDS)
            return group.charge()
        finally:
            for process in processes:
                process.send_signal(signal.SIGINT)
            for process in processes:
                process.wait(60)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m tests.bench.density`."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.density", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few workloads: shows that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--workloads", type=int, default=1000)
    parser.add_argument("--servers", type=int, default=100, help="as many as are measured; default %(default)s")
    parsed = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("this needs root, for cgroups")
    count, servers = (20, 3) if parsed.quick else (parsed.workloads, parsed.servers)
    guest, report = web_guest("c"), Report()
    slot_bytes = PAGES * 64 * KIB
    huge = huge_pages().free * huge_pages().page_bytes >= count * slot_bytes
    backing = "HugePages2Mi" if huge else "BasePages"
    for instances, burst in ((1, 0), (0, 1)):
        few = of_agent(guest, 1, instances=instances, burst=burst, backing=backing)
        many = of_agent(guest, count, instances=instances, burst=burst, backing=backing)
        each = Charge(*(value // (count - 1) for value in vars(many - few).values()))
        case = f"{count} workloads, {backing}, instances {instances}, burst {burst}"
        beside = (each.anonymous + each.kernel) / KIB
        report.add(f"{case}: anonymous and kernel memory beside the slot", "wasmpool", UNIT, [beside])
        slots = slot_bytes * max(count * instances, 16)
        whole = (many.total + (slots if huge else 0)) / count / KIB
        report.add(f"{case}: everything", "wasmpool", UNIT, [whole])
        own = of_servers(guest, servers).total / servers / KIB
        report.add(f"{case}: everything", "wasmtime serve", UNIT, [own])
    sys.stdout.write(report.table(UNIT, ["wasmtime serve"]))
    if parsed.json is not None:
        report.write(parsed.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
