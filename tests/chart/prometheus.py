"""A real Prometheus that scrapes given targets and answers queries; ends with its block.

    with Prometheus.running({"operator": ["10.0.0.5:9464"], "agents": [...]}, prefix=[...]) as server:
        server.wait_scraped()
        result = server.query("sum(wasmpool_leader)")

`prefix` is a command that runs what follows it where the targets can be reached (`nsenter --net=... --`); Prometheus
itself and every query run behind it, on loopback there. The programs `prometheus` and `promtool` come from
WASMPOOL_PROMETHEUS (a directory), PATH, or Debian's package, which is unpacked into the cache and not installed: its
installation would start a service.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

REPOSITORY = Path(__file__).resolve().parents[2]
FETCH = Path(__file__).with_name("fetch.py")
Samples: TypeAlias = list[dict[str, Any]]


class QueryError(Exception):
    """Prometheus did not take the query; the message is its own."""


def programs() -> Path:
    """The directory with `prometheus` and `promtool`."""
    named = os.environ.get("WASMPOOL_PROMETHEUS")
    found = shutil.which("prometheus", path=named) if named else shutil.which("prometheus")
    if found:
        return Path(found).parent
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wasmpool" / "prometheus"
    if not (cache / "usr" / "bin" / "prometheus").exists():
        unpack_debian_package(cache)
    return cache / "usr" / "bin"


def unpack_debian_package(cache: Path) -> None:
    """Fetch the distribution's package (19 MB) and unpack it, without root. All or nothing."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.parent) as scratch:
        fetched = _download(scratch)
        if fetched.returncode != 0 and os.geteuid() == 0:
            # A new machine has no lists of packages yet.
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
            fetched = _download(scratch)
        packages = list(Path(scratch).glob("prometheus_*.deb"))
        if len(packages) != 1:
            raise RuntimeError(
                "prometheus is neither on PATH nor to be had from apt-get: run apt-get update, or set "
                f"WASMPOOL_PROMETHEUS to the directory that holds it. {fetched.stderr.strip()}"
            )
        unpacked = Path(scratch) / "unpacked"
        subprocess.run(["dpkg-deb", "-x", packages[0], unpacked], check=True)
        unpacked.rename(cache)


def _download(directory: str) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "download", "prometheus"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Prometheus:
    """A running server. `directory` holds its configuration, data and log; `prefix` leads to it."""

    url: str
    directory: Path
    process: subprocess.Popen[bytes]
    prefix: tuple[str, ...] = ()

    @classmethod
    @contextmanager
    def running(
        cls,
        targets: Mapping[str, Sequence[str]],
        *,
        rules: Path | None = None,
        prefix: Sequence[str] = (),
        interval_seconds: int = 1,
        within: float = 30,
    ) -> Generator["Prometheus"]:
        """Job → host:port of each of its targets. Ready when the block begins, gone when it ends."""
        with tempfile.TemporaryDirectory(prefix="wasmpool-prometheus-") as scratch:
            directory = Path(scratch)
            config = {
                "global": {"scrape_interval": f"{interval_seconds}s", "evaluation_interval": f"{interval_seconds}s"},
                "scrape_configs": [
                    {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                    for job, addresses in targets.items()
                ],
                "rule_files": [str(rules)] if rules else [],
            }
            # JSON is YAML.
            (directory / "prometheus.yaml").write_text(json.dumps(config))
            found = subprocess.run(
                [*prefix, sys.executable, FETCH, "port"],
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                check=True,
                timeout=within,
            )
            address = f"127.0.0.1:{int(found.stdout)}"
            with (directory / "log").open("wb") as log:
                process = subprocess.Popen(
                    [
                        *prefix,
                        programs() / "prometheus",
                        f"--config.file={directory / 'prometheus.yaml'}",
                        f"--storage.tsdb.path={directory / 'data'}",
                        f"--web.listen-address={address}",
                        "--log.level=warn",
                    ],
                    cwd=REPOSITORY,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # A process group of its own: what `prefix` starts ends with it.
                    start_new_session=True,
                )
            server = cls(f"http://{address}", directory, process, tuple(prefix))
            try:
                server.wait_ready(within)
                yield server
            finally:
                server.end()

    def end(self, within: float = 10) -> None:
        """End it, and what `prefix` started for it. More than once is fine."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
            except ProcessLookupError:
                break
            try:
                self.process.wait(within)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.wait(within)

    def wait_ready(self, seconds: float) -> None:
        """Until it answers queries."""
        deadline = time.monotonic() + seconds
        while self.get("/-/ready")[0] != 200:
            log = (self.directory / "log").read_text()
            assert self.process.poll() is None, f"prometheus ended with {self.process.returncode}:\n{log}"
            assert time.monotonic() < deadline, f"prometheus was not ready within {seconds:.0f} s:\n{log}"
            time.sleep(0.1)

    def wait_scraped(self, times: int = 3, seconds: float = 60) -> None:
        """Until every target was scraped well, `times` times: rates need two samples."""
        deadline = time.monotonic() + seconds
        while True:
            targets = self.targets()
            down = {it["scrapeUrl"]: it["lastError"] for it in targets if it["health"] != "up"}
            counts = {
                it["metric"]["instance"]: int(it["value"][1])
                for it in self.query("sum by (instance) (count_over_time(up[10m]))")
            }
            if targets and not down and len(counts) == len(targets) and min(counts.values()) >= times:
                return
            assert time.monotonic() < deadline, f"after {seconds:.0f} s: down {down}, scraped {counts}"
            time.sleep(0.3)

    def targets(self) -> Samples:
        """Every target and how its last scrape went."""
        found: Samples = self.data("/api/v1/targets?state=active")["activeTargets"]
        return found

    def query(self, expr: str) -> Samples:
        """An instant query: a list of {metric: labels, value: [time, text]}; a scalar is one without labels."""
        return self.queries([expr])[0]

    def queries(self, exprs: Sequence[str]) -> list[Samples]:
        """Several instant queries in one go."""
        paths = [f"/api/v1/query?{urlencode({'query': expr})}" for expr in exprs]
        results: list[Samples] = []
        for expr, (status, body) in zip(exprs, self.gets(paths), strict=True):
            if status != 200:
                raise QueryError(f"{expr}: {body}")
            data = json.loads(body)["data"]
            results.append(
                [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]
            )
        return results

    def data(self, path: str) -> Any:
        """`data` of an answer of the API."""
        status, body = self.get(path)
        assert status == 200, f"{path}: {status} {body}"
        return json.loads(body)["data"]

    def get(self, path: str) -> tuple[int, str]:
        """Status (0: no answer) and body."""
        return self.gets([path])[0]

    def gets(self, paths: Sequence[str]) -> list[tuple[int, str]]:
        """Several of them in one process behind `prefix`."""
        done = subprocess.run(
            [*self.prefix, sys.executable, FETCH, "get"],
            cwd=REPOSITORY,
            input=json.dumps([self.url + path for path in paths]),
            capture_output=True,
            text=True,
            check=True,
            timeout=30 + 10 * len(paths),
        )
        return [(status, body) for status, body in json.loads(done.stdout)]
