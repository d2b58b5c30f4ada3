"""What a module is judged by, and what becomes of many that are to be compiled at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from wasmpool_agent import compiler
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.store import Store
from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.supervisor.artifacts import Artifacts
from wasmpool_agent.supervisor.preparing import in_force
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import AdmissionMode, InstancePool
from wasmpool_api.instance_pool_node import NodeAdmission
from wasmpool_api.limits import ComponentLimits, ModuleLimits

POOL = """{"apiVersion": "wasmpool.dev/v1alpha1", "kind": "InstancePool", "metadata": {"name": "web", "namespace": "x"},
"spec": {"instanceLimits": {"count": 2, "addressSpaceSize": "1Gi"}, "moduleLimits": {"memoryPages": 16},
"allocation": {"backing": "BasePages"}}}"""
EMPTY = b"\0asm\1\0\0\0"


def _module(number: int) -> bytes:
    """Each another one: a custom section with a number in it."""
    return EMPTY + bytes([0, 3, 1, ord("n"), number])


def _pool() -> InstancePool:
    return decode(
        InstancePool,
        {
            "metadata": {"name": "web", "namespace": "x"},
            "spec": {
                "instanceLimits": {"count": 2},
                "moduleLimits": {"memories": 2, "memoryPages": 16, "functions": 5},
            },
        },
    )


def test_limits_follow_the_node_object_but_slots_stay_as_they_were_cut() -> None:
    limits = ModuleLimits(functions=70, memories=3, memory_pages=512)
    admission = NodeAdmission(
        mode=AdmissionMode.COUNT, module_limits=limits, component_limits=ComponentLimits(tables=3)
    )
    spec = in_force(_pool(), admission).spec
    assert spec.module_limits == ModuleLimits(functions=70, memories=2, memory_pages=16)
    assert spec.admission.mode is AdmissionMode.COUNT
    assert spec.component_limits.tables == 3
    lower = NodeAdmission(
        mode=AdmissionMode.ENFORCE,
        module_limits=ModuleLimits(memories=1, memory_pages=8),
        component_limits=ComponentLimits(),
    )
    assert in_force(_pool(), lower).spec.module_limits == ModuleLimits(memories=1, memory_pages=8)


def test_on_base_pages_what_wasmtimes_pool_was_made_for_stays_too() -> None:
    pool = decode(
        InstancePool,
        {
            "metadata": {"name": "web", "namespace": "x"},
            "spec": {
                "allocation": {"backing": "BasePages"},
                "instanceLimits": {"count": 2},
                "moduleLimits": {"tables": 2, "tableElements": 50},
                "componentLimits": {"coreInstances": 3, "memories": 2, "tables": 4},
            },
        },
    )
    raised = NodeAdmission(
        mode=AdmissionMode.ENFORCE,
        module_limits=ModuleLimits(tables=9, table_elements=900, functions=7),
        component_limits=ComponentLimits(core_instances=90, memories=9, tables=99),
    )
    spec = in_force(pool, raised).spec
    assert (spec.module_limits.tables, spec.module_limits.table_elements, spec.module_limits.functions) == (2, 50, 7)
    assert spec.component_limits == ComponentLimits(core_instances=3, memories=2, tables=4)


def test_the_store_is_held_to_the_limits_in_force_and_the_workloads_own() -> None:
    limits = ModuleLimits(tables=3, table_elements=70)
    admission = NodeAdmission(mode=AdmissionMode.ENFORCE, module_limits=limits, component_limits=ComponentLimits())
    spec = in_force(_pool(), admission).spec
    assert StoreLimits.of(spec, 8) == StoreLimits(memory_pages=8, memories=1, tables=3, table_elements=70)
    assert StoreLimits.of(spec, 800).memory_pages == 16
    counted = NodeAdmission(mode=AdmissionMode.COUNT, module_limits=limits, component_limits=ComponentLimits())
    assert StoreLimits.of(in_force(_pool(), counted).spec).tables == 100


def test_without_a_word_from_the_node_object_the_pool_file_holds() -> None:
    assert in_force(_pool(), None) == _pool()


class _Storm:
    """Asks for artifacts, all at once, and counts how many compilers ran beside each other."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool_file = tmp_path / "pool.json"
        self.pool_file.write_text(POOL)
        self.metrics = Metrics("web", "x", "node")
        self.cache = Cache(Store(tmp_path / "cache", 10**9), self.metrics)
        self.artifacts = Artifacts(self.pool_file, self.cache, self.metrics)
        self.waits: list[int] = []
        self.most = self.running = self.compiled = 0
        real = compiler.compile_file

        async def counted(in_fd: int, pool_file: Path, **options: Any) -> compiler.Compiled:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                return await real(in_fd, pool_file, **options)
            finally:
                self.running -= 1
                self.compiled += 1

        monkeypatch.setattr("wasmpool_agent.supervisor.artifacts.compile_file", counted)

    def opened(self, module: bytes) -> Callable[[], Awaitable[int]]:
        async def open_module() -> int:
            return compiler.memfd("module", module)

        return open_module

    async def obtain(self, modules: Iterable[bytes]) -> list[str]:
        found = await asyncio.gather(
            *(
                self.artifacts.obtain(
                    ClaimKey(str(at), "r"), f"sha256:{module[-1]}", self.opened(module), None, self.waits.append
                )
                for at, module in enumerate(modules)
            )
        )
        return [it.key for it in found]


def test_a_storm_of_modules_is_compiled_one_by_one_and_the_wait_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storm = _Storm(tmp_path, monkeypatch)
    keys = asyncio.run(storm.obtain([_module(number) for number in range(4)]))
    storm.artifacts.close()
    assert len(set(keys)) == 4
    assert (storm.most, storm.compiled) == (1, 4)
    # One word at the start of each; how many were before it then depends on who came when.
    assert storm.waits.count(0) == 4
    assert {1} <= set(storm.waits) <= {0, 1, 2, 3}
    assert b'wasmpool_compiles_queued{node="node",pool="web",pool_namespace="x"} 0.0' in storm.metrics.text()


def test_equal_modules_are_compiled_once_and_the_next_agent_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storm = _Storm(tmp_path, monkeypatch)
    (key,) = set(asyncio.run(storm.obtain([_module(0)] * 5)))
    assert storm.compiled == 1
    storm.artifacts.close()
    again = _Storm(tmp_path, monkeypatch)
    assert asyncio.run(again.obtain([_module(0)])) == [key]
    again.artifacts.close()
    assert again.compiled == 0
    assert b'result="hit"} 1.0' in again.metrics.text()


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "another's"])
def test_a_poisoned_entry_is_compiled_anew_and_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    storm = _Storm(tmp_path, monkeypatch)
    asyncio.run(storm.obtain([_module(0)]))
    storm.artifacts.close()
    (file,) = (tmp_path / "cache" / "compiled").iterdir()
    good = file.read_bytes()
    bad = {
        "flipped": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[: len(good) // 2],
        "emptied": b"",
        "another's": b"x" * 32 + good[32:],
    }[damage]
    file.write_bytes(bad)
    again = _Storm(tmp_path, monkeypatch)
    asyncio.run(again.obtain([_module(0)]))
    again.artifacts.close()
    assert again.compiled == 1
    assert file.read_bytes() != bad


def test_a_cache_that_can_not_be_written_is_none_and_no_more_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storm = _Storm(tmp_path, monkeypatch)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wasmpool_agent.modules.store._write_all", full)
    asyncio.run(storm.obtain([_module(0)]))
    storm.artifacts.close()
    assert storm.compiled == 1
