"""WASI preview 1 as programs see it: every function called from C, and what libc and Go make of them.

The guests run as the worker runs commands: in a slot of a region, by its scheduler, with two mounts of files. That
nothing is left untested is tested too: with any one function out of order, the C program that calls them all notices.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import pytest
import wasmtime

from tests.allocation import Pool, open_pool
from tests.guests.build import c_guest, go_guest
from wasmpool_agent.protocol import Start
from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.wasi.errno import Errno
from wasmpool_agent.wasi.files import Tree, trees
from wasmpool_agent.wasi.functions import Function
from wasmpool_agent.wasi.guest import Guest
from wasmpool_agent.wasi.linking import link_preview1
from wasmpool_agent.wasi.preview1 import FUNCTIONS
from wasmpool_agent.wasi.signatures import MODULE, SIGNATURES, WITHOUT_RESULT
from wasmpool_agent.wasmtime_async import HostFunctions
from wasmpool_agent.worker.artifacts import CoreArtifact
from wasmpool_agent.worker.instance import Instances
from wasmpool_agent.worker.output import LogWriter
from wasmpool_agent.worker.scheduler import Scheduler
from wasmpool_agent.worker.ticker import Ticker

GUESTS: Final = Path(__file__).parent / "wasi"
PATIENCE_SECONDS: Final = 60
LIMITS: Final = StoreLimits(memory_pages=512, memories=1, tables=1, table_elements=100_000)
FEW: Final = trees({"/etc/app": {"key": b"0123456789", "tls/ca.crt": b"cert"}, "/secret": {"token": b"abc"}})
MANY: Final = trees(
    {
        "/etc/app": {"key": b"0123456789", "tls/ca.crt": b"cert"},
        "/secret": {"large": b"a" * 3_000_000} | {f"many/file-{number:04}": b"" for number in range(1000)},
    }
)


@dataclass(frozen=True)
class Ended:
    """`exit_code`: None where it did not exit, and then `message` says why."""

    exit_code: int | None
    message: str
    stdout: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()


WELL: Final = Ended(42, "", ("to standard output",))


class Host:
    """A pool of one slot, and what the worker runs instances with."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._instances = itertools.count()

    def compiled(self, wasm: bytes) -> wasmtime.Module:
        return wasmtime.Module(self.pool.engine, wasm)

    def run(
        self, module: wasmtime.Module, table: Mapping[str, Function] = FUNCTIONS, files: Mapping[str, Tree] = FEW
    ) -> Ended:
        return asyncio.run(self._run(module, table, files))

    async def _run(self, module: wasmtime.Module, table: Mapping[str, Function], files: Mapping[str, Tree]) -> Ended:
        functions: HostFunctions[Guest] = HostFunctions(self.pool.engine)
        link_preview1(functions, table)
        artifact = CoreArtifact(functions.linker.instantiate_pre(module), 1, ("_start",))
        start = Start(
            instance=next(self._instances),
            workload_id=1,
            workload="default/conformance",
            revision="conformance-1",
            artifact="guest",
            args=("program", "an argument"),
            env=(("NAME", "value"),),
            deadline_seconds=PATIENCE_SECONDS,
        )
        with TemporaryFile() as log, Ticker(self.pool.engine.increment_epoch) as ticker:
            writer = LogWriter(log.fileno(), time.monotonic)
            scheduler = Scheduler(ticker.touch)
            instances = Instances(functions, self.pool.allocator, scheduler, writer, LIMITS)
            ended = await instances.run(start, artifact, lambda _: None, files)
            assert writer.close(PATIENCE_SECONDS)
            log.seek(0)
            lines = [json.loads(line) for line in log]
        stdout, stderr = (
            tuple(line["message"] for line in lines if line["stream"] == which) for which in ("stdout", "stderr")
        )
        return Ended(ended.exit_code, ended.message, stdout, stderr)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with open_pool("compact", slots=1, memory_pages=LIMITS.memory_pages) as pool:
        yield Host(pool)


@pytest.fixture(scope="module")
def each_function(host: Host, tmp_path_factory: pytest.TempPathFactory) -> wasmtime.Module:
    return host.compiled(c_guest(GUESTS / "preview1.c", tmp_path_factory.mktemp("guests") / "preview1.wasm"))


def test_every_function_does_what_it_should(host: Host, each_function: wasmtime.Module) -> None:
    assert host.run(each_function) == WELL


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
    assert (ended == WELL) == ((name, broken) in RIGHT), ended


CALLS_ONE: Final = """(module
  (import "wasi_snapshot_preview1" "{name}" (func $it (param {params}){result}))
  (memory (export "memory") 1)
  (func (export "_start") {arguments} (call $it){drop}))"""


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_host_function_that_fails_traps_its_guest_and_nobody_else(
    name: str, host: Host, each_function: wasmtime.Module
) -> None:
    def fails(_guest: Guest, *_parameters: int) -> Errno:
        raise BaseException("of all kinds the least expected")  # noqa: TRY002 - that is what it is for

    kinds = [{"I": "i32", "Q": "i64"}[it] for it in SIGNATURES[name]]
    answers = name not in WITHOUT_RESULT
    module = host.compiled(
        bytes(
            wasmtime.wat2wasm(
                CALLS_ONE.format(
                    name=name,
                    params=" ".join(kinds),
                    result=" (result i32)" if answers else "",
                    arguments=" ".join(f"({kind}.const -1)" for kind in kinds),
                    drop=" drop" if answers else "",
                )
            )
        )
    )
    ended = host.run(module, {**FUNCTIONS, name: fails})
    assert ended.exit_code is None
    assert f"{MODULE}.{name} failed in the host: BaseException('of all kinds the least expected')" in ended.message
    assert host.run(each_function) == WELL


def test_libc_finds_its_way(host: Host, tmp_path: Path) -> None:
    assert host.run(host.compiled(c_guest(GUESTS / "libc.c", tmp_path / "libc.wasm")), files=MANY) == WELL


def test_go_finds_its_way(host: Host, tmp_path: Path) -> None:
    wasm = go_guest(GUESTS / "go", tmp_path / "go.wasm")
    if wasm is None:
        pytest.skip("Go is not installed")
    assert host.run(host.compiled(wasm), files=MANY) == WELL
