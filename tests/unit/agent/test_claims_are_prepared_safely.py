"""What happens while a claim is being prepared: limits that change, cancellation at any moment, and little memory.

Everything is real but the API server: ConfigMaps come from a dictionary, revisions from another.
"""

import asyncio
import gc
import os
import tracemalloc
from collections.abc import Callable, Coroutine, Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from wasmpool_agent import compiler
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.budget import Budget
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.fetching import Modules
from wasmpool_agent.modules.images import Images
from wasmpool_agent.modules.pulled import Pulled
from wasmpool_agent.modules.sources import Sources, digest_of
from wasmpool_agent.modules.store import Store
from wasmpool_agent.oci.client import RegistryClient
from wasmpool_agent.supervisor.artifacts import Artifacts
from wasmpool_agent.supervisor.claims import Claim, Step
from wasmpool_agent.supervisor.pod_memory import UNLIMITED, PodMemory
from wasmpool_agent.supervisor.ports import AbsentError, ConfigMap
from wasmpool_agent.supervisor.preparing import NeverError, NotNowError, Preparer
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import AdmissionMode, InstancePool
from wasmpool_api.instance_pool_node import Assignment, NodeAdmission
from wasmpool_api.limits import ComponentLimits, ModuleLimits
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision

T = TypeVar("T")
MIB = 1024**2
POOL = """{"apiVersion": "wasmpool.dev/v1alpha1", "kind": "InstancePool", "metadata": {"name": "web", "namespace": "x"},
"spec": {"instanceLimits": {"count": 2, "addressSpaceSize": "1Gi"}, "moduleLimits": {"memoryPages": 16},
"allocation": {"backing": "BasePages"}}}"""
HEADER = b"\0asm\1\0\0\0"


def leb(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + leb(len(body)) + body


def module(functions: int = 1, padding: bytes = b"") -> bytes:
    """With an entrypoint, and padding in a custom section."""
    return (
        HEADER
        + section(1, b"\1\x60\0\0")
        + section(3, leb(functions) + b"\0" * functions)
        + section(7, b"\1\6_start\0\0")
        + section(10, leb(functions) + b"\2\0\x0b" * functions)
        + section(0, b"\1p" + padding)
    )


class Counting(Metrics):
    """`after_examination` is called with the number of examinations so far, before a verdict is believed."""

    def __init__(self) -> None:
        super().__init__("web", "x", "node")
        self.examinations = 0
        self.after_examination: Callable[[int], object] = lambda _: None

    def inspected(self, seconds: float) -> None:
        super().inspected(seconds)
        self.examinations += 1
        self.after_examination(self.examinations)


class Bench:
    """A preparer over modules in ConfigMaps. `modules`: by ConfigMap."""

    def __init__(self, tmp_path: Path, memory: PodMemory = UNLIMITED) -> None:
        self.pool_file = tmp_path / "pool.json"
        self.pool_file.write_text(POOL)
        pool = decode(InstancePool, {"metadata": {"name": "web", "namespace": "x"}, "spec": self._spec()})
        self.metrics = Counting()
        self.modules: dict[str, bytes] = {}
        self.budget = Budget(memory.module_bytes)
        self.cache = Cache(Store(tmp_path / "cache", 10**9), self.metrics)
        pulled, sources = Pulled(tmp_path / "cache"), Sources(self, "x", "web")
        images = Images(RegistryClient(), sources, dict, self.cache, pulled, self.metrics, self.budget)
        self.preparer = Preparer(
            desired=self,  # type: ignore[arg-type]  # no more of it is used
            pool=pool,
            pool_file=self.pool_file,
            sources=sources,
            modules=Modules(sources, images, self.cache, pulled, self.budget),
            cache=self.cache,
            metrics=self.metrics,
            memory=memory,
        )

    @staticmethod
    def _spec() -> Mapping[str, object]:
        limits = {"instanceLimits": {"count": 2}, "moduleLimits": {"memoryPages": 16, "functions": 1000}}
        return {**limits, "allocation": {"backing": "BasePages"}}

    def allow(self, functions: int) -> bool:
        return self.preparer.judge_by(
            NodeAdmission(
                mode=AdmissionMode.ENFORCE,
                module_limits=ModuleLimits(memory_pages=16, functions=functions),
                component_limits=ComponentLimits(),
            )
        )

    async def config_map(self, namespace: str, name: str) -> ConfigMap:
        if name not in self.modules:
            raise AbsentError(name)
        fresh = bytes(bytearray(self.modules[name]))  # as an answer of the API server is
        return ConfigMap(namespace, name, {"a.wasm": fresh})

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        raise AbsentError(name)

    async def revision(self, name: str) -> Revision:
        data = {
            "workloadUid": name,
            "workloadNamespace": "tenant",
            "workloadName": name,
            "module": {"configMap": {"name": name, "key": "a.wasm"}},
            "run": {"command": {}},
            "digest": digest_of(self.modules[name]),
        }
        return decode(Revision, data)

    def claim(self, name: str) -> Claim:
        return Claim(Assignment(uid=name, namespace="tenant", name=name, revision=name, slots=1), workload_id=1)


# --------------------------------------------------------------------------------- limits that change at the wrong time
def test_limits_that_are_raised_while_a_module_is_read_leave_no_verdict_of_the_old_ones(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.modules["w"] = module(functions=100)
    bench.allow(50)
    bench.metrics.after_examination = lambda _: bench.allow(500)
    finding = asyncio.run(bench.preparer.inspect(bench.claim("w")))
    assert finding.admitted
    assert bench.metrics.examinations == 2


def test_limits_that_are_lowered_while_a_module_is_read_refuse_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.modules["w"] = module(functions=100)
    bench.allow(500)
    bench.metrics.after_examination = lambda _: bench.allow(50)
    finding = asyncio.run(bench.preparer.inspect(bench.claim("w")))
    assert finding.reason is Refusal.EXCEEDS_MODULE_LIMITS
    with pytest.raises(NeverError) as caught:
        asyncio.run(bench.preparer.prepare(bench.claim("w"), None, lambda *_: None))
    assert caught.value.reason is Refusal.EXCEEDS_MODULE_LIMITS


def test_limits_that_are_lowered_while_a_module_is_compiled_refuse_it_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.modules["w"] = module(functions=100)
    bench.allow(500)

    def on_step(step: Step, _: str) -> None:
        if step is Step.COMPILING:
            bench.allow(50)

    with pytest.raises(NeverError, match="functions") as caught:
        asyncio.run(bench.preparer.prepare(bench.claim("w"), None, on_step))
    assert caught.value.finding is not None
    bench.preparer.close()


# --------------------------------------------------------------------------------------------- memory while others wait
def test_modules_that_wait_for_the_compiler_are_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, size, count = Bench(tmp_path), 8 * MIB, 6
    for number in range(count):
        bench.modules[f"w{number}"] = module(padding=bytes([number]) * size)
    compiling, gate, real = 0, asyncio.Event(), compiler.compile_file

    async def held(in_fd: int, pool_file: Path, **options: Any) -> compiler.Compiled:
        nonlocal compiling
        compiling += 1
        await gate.wait()
        return await real(in_fd, pool_file, **options)

    async def run() -> int:
        waiting = set[str]()
        tracemalloc.start()
        tasks = [
            asyncio.create_task(
                bench.preparer.prepare(
                    bench.claim(name),
                    None,
                    lambda step, _, it=name: waiting.add(it) if step is Step.COMPILING else None,
                )
            )
            for name in bench.modules
        ]
        async with asyncio.timeout(20):
            while len(waiting) < count or not compiling:  # noqa: ASYNC110 - two things, seen by the preparer's callbacks
                await asyncio.sleep(0.02)
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert bench.budget.taken_bytes == 0
        gate.set()
        await asyncio.gather(*tasks)
        return taken

    monkeypatch.setattr("wasmpool_agent.supervisor.artifacts.compile_file", held)
    assert asyncio.run(run()) < size
    assert compiling == count
    bench.preparer.close()


def test_modules_that_are_examined_at_once_stay_within_their_part_of_the_pods_memory(tmp_path: Path) -> None:
    bench, most = Bench(tmp_path, PodMemory(None, 10**9, 4 * MIB)), 0
    for number in range(6):
        bench.modules[f"w{number}"] = module(padding=bytes([number]) * 3 * MIB)

    def look(_: int) -> None:
        nonlocal most
        most = max(most, bench.budget.taken_bytes)

    bench.metrics.after_examination = look

    async def run() -> None:
        await asyncio.gather(*(bench.preparer.inspect(bench.claim(name)) for name in bench.modules))

    asyncio.run(run())
    assert 3 * MIB <= most <= 4 * MIB


def test_a_module_that_went_from_the_cache_while_it_waited_is_fetched_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.modules["w"] = module()

    def on_step(step: Step, _: str) -> None:
        if step is Step.COMPILING:
            for file in (tmp_path / "cache" / "modules").iterdir():
                file.unlink()

    prepared, finding = asyncio.run(bench.preparer.prepare(bench.claim("w"), None, on_step))
    assert finding.admitted
    assert bench.preparer.artifact(prepared.artifact) is not None
    bench.preparer.close()


def test_a_compilation_that_needs_more_than_the_pod_has_says_how_much_and_what_to_change(tmp_path: Path) -> None:
    bench = Bench(tmp_path, PodMemory(256 * MIB, 8 * MIB, 16 * MIB))
    body = b"\x20\0\x28\2\0\x1a" * 60_000 + b"\x0b"
    function = leb(len(body) + 1) + b"\0" + body
    bench.modules["w"] = (
        HEADER
        + section(1, b"\2\x60\1\x7f\0\x60\0\0")
        + section(3, b"\2\0\1")
        + section(5, b"\1\0\1")
        + section(7, b"\1\6_start\0\1")
        + section(10, b"\2" + function + b"\2\0\x0b")
    )
    with pytest.raises(NotNowError) as caught:
        asyncio.run(bench.preparer.prepare(bench.claim("w"), None, lambda *_: None))
    assert caught.value.reason is Waiting.COMPILE_FAILED
    message = caught.value.message
    for part in ("CompileMemoryLimit", str(8 * MIB), "256Mi", "spec.agent.resources"):
        assert part in message


# -------------------------------------------------------------------------------------- cancelled at every single await
class CancelledAt:
    """Runs a coroutine, and cancels it where it waits for the n-th time. `reached`: whether it came so far."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], number: int) -> None:
        self._coroutine = coroutine
        self._left = number
        self.reached = False

    def __await__(self) -> Generator[Any, Any, object]:
        inner: Any = self._coroutine.__await__()
        step: Callable[[], Any] = lambda: inner.send(None)  # noqa: E731 - replaced below
        while True:
            try:
                awaited = step()
            except StopIteration as ended:
                return ended.value
            self._left -= 1
            if self._left == 0:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield awaited
                step = lambda: inner.send(None)  # noqa: E731
            except BaseException as error:  # noqa: BLE001 - it is passed on
                step = lambda it=error: inner.throw(it)  # noqa: E731


def descriptors() -> dict[str, str]:
    found: dict[str, str] = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # of this very listing
            continue
    return found


async def settled(before: Mapping[str, str]) -> dict[str, str]:
    """What is open now and was not before; the event loop closes the pipes of a child that was ended a moment later."""
    for _ in range(200):
        more = {fd: name for fd, name in descriptors().items() if before.get(fd) != name and "/proc/" not in name}
        if not more:
            break
        await asyncio.sleep(0.01)
    return more


async def cancelled_everywhere(work: Callable[[], Coroutine[Any, Any, object]], undo: Callable[[], object]) -> int:
    """The number of awaits that it was cancelled at."""
    await work()  # whatever the first time opens for good
    undo()
    number = 0
    while True:
        number += 1
        before = descriptors()
        driven = CancelledAt(work(), number)

        async def run(it: CancelledAt = driven) -> None:
            await it

        (outcome,) = await asyncio.gather(asyncio.create_task(run()), return_exceptions=True)
        undo()
        left = await settled(before)
        assert left == {}, f"cancelled at await {number}"
        if not driven.reached:
            assert outcome is None
            return number - 1
        assert isinstance(outcome, asyncio.CancelledError), f"cancelled at await {number}"


@pytest.mark.parametrize("cached", [True, False])
def test_whenever_a_preparation_is_cancelled_no_descriptor_stays_open(tmp_path: Path, cached: bool) -> None:
    bench = Bench(tmp_path)
    artifacts, key = Artifacts(bench.pool_file, bench.cache, bench.metrics), ClaimKey("u", "r")
    wasm = module(padding=b"x" * MIB)

    async def run() -> int:
        digest = await bench.cache.keep_module(wasm)

        async def opened() -> int:
            fd = await bench.cache.open_module(digest)
            assert fd is not None
            return fd

        def undo() -> None:
            artifacts.release(key)
            if not cached:
                for file in (tmp_path / "cache" / "compiled").iterdir():
                    file.unlink()

        return await cancelled_everywhere(lambda: artifacts.obtain(key, digest, opened, None, lambda _: None), undo)

    assert asyncio.run(run()) >= (1 if cached else 6)
    artifacts.close()


def test_cancelled_while_code_is_read_from_the_cache_the_sealed_copy_is_closed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    code = os.urandom(MIB) * 20

    async def run() -> None:
        fd = compiler.memfd("code", code)
        await bench.cache.keep_compiled("key", fd, digest_of(code).removeprefix("sha256:"))
        os.close(fd)
        before = descriptors()
        for _ in range(5):
            task = asyncio.create_task(bench.cache.compiled("key"))
            while not [it for it in descriptors().items() - before.items() if "artifact" in it[1]]:  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
            assert await settled(before) == {}

    asyncio.run(run())
