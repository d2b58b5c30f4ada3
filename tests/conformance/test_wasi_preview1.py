"""WASI preview 1 as programs see it: every function called from C, and what libc and Go make of them.

The guests run as the worker runs commands, in an engine of the agent's with its scheduler and its ticker, with two
mounts of files. That nothing is left untested is tested too: with any one function out of order, the C program that
calls them all must notice.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import wasmtime

from tests.guests.build import c_guest, go_guest
from wasmpool_agent.engine import DEFAULT_TUNABLES, _config
from wasmpool_agent.wasi.errno import Errno
from wasmpool_agent.wasi.files import Tree, trees
from wasmpool_agent.wasi.functions import Function
from wasmpool_agent.wasi.guest import Clocks, Guest
from wasmpool_agent.wasi.linking import link_preview1
from wasmpool_agent.wasi.preview1 import FUNCTIONS
from wasmpool_agent.wasi.signatures import SIGNATURES
from wasmpool_agent.wasmtime_async import GuestTrap, HostFunctions, Wait
from wasmpool_agent.worker.artifacts import CoreArtifact
from wasmpool_agent.worker.entries import CoreEntry
from wasmpool_agent.worker.scheduler import CpuClock, Scheduler
from wasmpool_agent.worker.ticker import Ticker

GUESTS: Final = Path(__file__).parent / "wasi"
ALL_IS_WELL: Final = 42
PATIENCE_SECONDS: Final = 60
FEW: Final = trees({"/etc/app": {"key": b"0123456789", "tls/ca.crt": b"cert"}, "/secret": {"token": b"abc"}})
MANY: Final = trees(
    {
        "/etc/app": {"key": b"0123456789", "tls/ca.crt": b"cert"},
        "/secret": {"large": b"a" * 3_000_000} | {f"many/file-{number:04}": b"" for number in range(1000)},
    }
)


class Kept:
    """A standard stream that is kept."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> Wait | None:
        """See wasi.guest.Output."""
        self.data += data
        return None


@dataclass(frozen=True)
class Ended:
    """`outcome`: the exit code, or what the guest trapped with."""

    outcome: int | str
    stdout: bytes
    stderr: bytes


class Host:
    """An engine, and what is made of it once."""

    def __init__(self) -> None:
        self.engine = wasmtime.Engine(_config(DEFAULT_TUNABLES))

    def compiled(self, wasm: bytes) -> wasmtime.Module:
        return wasmtime.Module(self.engine, wasm)

    def run(
        self, module: wasmtime.Module, table: Mapping[str, Function] = FUNCTIONS, files: Mapping[str, Tree] = FEW
    ) -> Ended:
        functions: HostFunctions[Guest] = HostFunctions(self.engine)
        link_preview1(functions, table)
        artifact = CoreArtifact(functions.linker.instantiate_pre(module), 1, ("_start",))
        return asyncio.run(self._run(functions, artifact, files))

    async def _run(self, functions: HostFunctions[Guest], artifact: CoreArtifact, files: Mapping[str, Tree]) -> Ended:
        cpu = CpuClock(time.monotonic_ns)
        stdout, stderr = Kept(), Kept()
        guest = Guest(
            args=("program", "an argument"),
            env={"NAME": "value"},
            stdout=stdout,
            stderr=stderr,
            clocks=Clocks(time.time_ns, time.monotonic_ns, cpu.ns),
            preopens=files,
        )
        store = wasmtime.Store(self.engine)
        outcome: int | str
        try:
            with Ticker(self.engine.increment_epoch) as ticker:
                scheduler = Scheduler(ticker.touch)
                entry = CoreEntry(functions, artifact, "_start", store, guest)
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await entry.make(scheduler, cpu, nullcontext)
                    outcome = await entry.enter(scheduler, cpu)
        except GuestTrap as trap:
            outcome = trap.message if guest.exit_code is None else guest.exit_code
        finally:
            store.close()
        return Ended(outcome, stdout.data, stderr.data)


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


@pytest.fixture(scope="module")
def each_function(host: Host, tmp_path_factory: pytest.TempPathFactory) -> wasmtime.Module:
    return host.compiled(c_guest(GUESTS / "preview1.c", tmp_path_factory.mktemp("guests") / "preview1.wasm"))


def test_every_function_does_what_it_should(host: Host, each_function: wasmtime.Module) -> None:
    ended = host.run(each_function)
    assert ended == Ended(ALL_IS_WELL, b"to standard output\n", b"")


def test_the_program_calls_every_function(each_function: wasmtime.Module) -> None:
    assert {import_.name for import_ in each_function.imports} == set(SIGNATURES)


def does_nothing(_guest: Guest, *_parameters: int) -> Errno:
    return Errno.SUCCESS


def is_not_there(_guest: Guest, *_parameters: int) -> Errno:
    return Errno.NO_SYSTEM_CALL


RIGHT: Final = {("sched_yield", does_nothing), ("proc_raise", is_not_there)}
"""What is as it should be."""


@pytest.mark.parametrize("broken", [does_nothing, is_not_there])
@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_function_that_is_out_of_order_is_noticed(
    name: str, broken: Function, host: Host, each_function: wasmtime.Module
) -> None:
    ended = host.run(each_function, {**FUNCTIONS, name: broken})
    assert (ended.outcome == ALL_IS_WELL) == ((name, broken) in RIGHT), ended


def test_libc_finds_its_way(host: Host, tmp_path: Path) -> None:
    ended = host.run(host.compiled(c_guest(GUESTS / "libc.c", tmp_path / "libc.wasm")), files=MANY)
    assert ended == Ended(ALL_IS_WELL, b"to standard output\n", b"")


def test_go_finds_its_way(host: Host, tmp_path: Path) -> None:
    wasm = go_guest(GUESTS / "go", tmp_path / "go.wasm")
    if wasm is None:
        pytest.skip("Go is not installed")
    ended = host.run(host.compiled(wasm), files=MANY)
    assert ended == Ended(ALL_IS_WELL, b"to standard output\n", b"")
