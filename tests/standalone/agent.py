"""`wasmpool-agent run` as a person runs it: another process, nobody's user, files in a directory."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wasmtime
import yaml

NOBODY = 65534
COMMAND = Path(sys.executable).with_name("wasmpool-agent")
PREVIEW1 = '(import "wasi_snapshot_preview1"'
PRINTS = f"""(module
  {PREVIEW1} "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  {PREVIEW1} "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "hello\\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 6))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $exit (i32.const EXIT))))"""
SPINS = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'
TRAPS = '(module (memory (export "memory") 1) (func (export "_start") unreachable))'
LARGE = '(module (memory (export "memory") 64) (func (export "_start")))'

Line = dict[str, Any]


def prints(exit_code: int = 0) -> str:
    """WAT of a guest that says hello and leaves."""
    return PRINTS.replace("EXIT", str(exit_code))


@dataclass
class Files:
    """The directory that `--workloads` names, and the pool's file beside it."""

    root: Path
    pool_name: str = "small"
    modules: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.write_pool()

    @property
    def directory(self) -> Path:
        """Of the manifests."""
        return self.root / "workloads"

    @property
    def pool(self) -> Path:
        """The InstancePool."""
        return self.root / "pool.yaml"

    def write_pool(self, *, count: int = 4, workers: int = 1, **spec: object) -> None:
        """On base pages, with 32 pages per memory."""
        manifest = {
            "apiVersion": "wasmpool.dev/v1alpha1",
            "kind": "InstancePool",
            "metadata": {"name": self.pool_name, "namespace": "default"},
            "spec": {
                "allocation": {"backing": "BasePages"},
                "instanceLimits": {"count": count, "addressSpaceSize": "2Gi"},
                "moduleLimits": {"memoryPages": 32},
                "runtime": {"workers": workers},
                **spec,
            },
        }
        self.pool.write_text(yaml.safe_dump(manifest))

    def module(self, key: str, content: str | bytes) -> None:
        """Into ConfigMap `guests`, as WAT or as it is."""
        self.modules[key] = content if isinstance(content, bytes) else bytes(wasmtime.wat2wasm(content))
        entries = {name: base64.b64encode(data).decode() for name, data in self.modules.items()}
        self._write(
            "guests.yaml",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "guests"}, "binaryData": entries},
        )

    def workload(
        self, name: str, key: str, *, instances: int = 1, config_map: str = "guests", **command: object
    ) -> None:
        """A command; restartPolicy Never unless given."""
        self.manifest(
            name,
            module={"configMap": {"name": config_map, "key": key}},
            run={"command": {"restartPolicy": "Never", **command}},
            instances=instances,
        )

    def manifest(self, name: str, **spec: object) -> None:
        """A WasmWorkload of this pool."""
        self._write(
            f"{name}.yaml",
            {
                "apiVersion": "wasmpool.dev/v1alpha1",
                "kind": "WasmWorkload",
                "metadata": {"name": name},
                "spec": {"poolRef": {"name": self.pool_name}, **spec},
            },
        )

    def _write(self, name: str, manifest: Mapping[str, object]) -> None:
        # NB: whole at once, for a running agent may read it at any moment.
        new = self.root / f".{name}"
        new.write_text(yaml.safe_dump(manifest))
        new.replace(self.directory / name)


@contextmanager
def files_of_its_own() -> Generator[Files]:
    """NB: not under pytest's tmp_path, which only its owner may enter."""
    root = Path(tempfile.mkdtemp(prefix="wasmpool-test-"))
    root.chmod(0o755)
    yield Files(root)
    shutil.rmtree(root, ignore_errors=True)


@dataclass
class Agent:
    """A running `wasmpool-agent run`. Its output goes to a file, so that it never waits for a reader."""

    process: "subprocess.Popen[bytes]"
    output: Path
    errors: Path

    def lines(self) -> list[Line]:
        """What it and its guests have printed so far, parsed."""
        text = self.output.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def said(self, workload: str, stream: str = "stdout") -> list[str]:
        """What the workload's instances have written."""
        return [it["message"] for it in self.lines() if it["workload"] == workload and it.get("stream") == stream]

    def reports(self, workload: str) -> list[Line]:
        """What the agent has said of the workload."""
        return [it for it in self.lines() if it["workload"] == workload and "state" in it]

    def until(self, wanted: Callable[[], object], seconds: float = 20) -> None:
        """Waits for it; AssertionError with all that was said otherwise."""
        end = time.monotonic() + seconds
        while not wanted():
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(f"did not happen:\n{self.output.read_text()}\n{self.errors.read_text()}")
            time.sleep(0.02)

    def until_state(self, workload: str, state: str, reason: str = "", seconds: float = 20) -> Line:
        """The report in which the workload is there."""
        found: list[Line] = []

        def there() -> bool:
            found[:] = [
                it for it in self.reports(workload) if it["state"] == state and (not reason or it["reason"] == reason)
            ]
            return bool(found)

        self.until(there, seconds)
        return found[-1]

    def end(self, number: int = signal.SIGTERM, seconds: float = 20) -> int:
        """Sends a signal and gives the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def workers(self) -> list[int]:
        """Process ids of its worker processes."""
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            if parent == self.process.pid and b"wasmpool_agent.worker" in command:
                found.append(int(entry.name))
        return found


def once(files: Files, *options: str, seconds: float = 60) -> tuple[int, Agent]:
    """Runs `--once` to its end; gives the exit status."""
    with running(files, "--once", *options) as agent:
        return agent.process.wait(seconds), agent


def _without_privileges() -> list[str]:
    """For root: what makes a command nobody's. The one right that stays is to read files, for the interpreter and its
    packages may lie in root's home."""
    kept = "-all,+dac_read_search"
    identity = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [
        "setpriv",
        *identity,
        f"--inh-caps={kept}",
        f"--ambient-caps={kept}",
        f"--bounding-set={kept}",
        "--no-new-privs",
    ]


@contextmanager
def running(files: Files, *options: str) -> Iterator[Agent]:
    """`wasmpool-agent run`, not as root. Killed at the end of the block, if it still runs."""
    output, errors = files.root / "stdout", files.root / "stderr"
    command = [str(COMMAND), "run", "--pool", str(files.pool), "--workloads", str(files.directory), *options]
    temporary = files.root / "tmp"
    temporary.mkdir(exist_ok=True)
    if os.getuid() == 0:
        command = [*_without_privileges(), *command]
        os.chown(temporary, NOBODY, NOBODY)
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        environment = {**os.environ, "TMPDIR": str(temporary), "HOME": str(temporary)}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment)
    try:
        yield Agent(process, output, errors)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
