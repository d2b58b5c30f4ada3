"""What the agent measures, in a registry of its own, ready to be scraped."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.http_metrics import HttpMetrics
from wasmpool_agent.modules.store import Kind
from wasmpool_agent.protocol import Exited, Result
from wasmpool_agent.region import HUGE_PAGES, read_int
from wasmpool_agent.slots import SlotCounts
from wasmpool_api.instance_pool_node import WorkloadState
from wasmpool_api.quantities import Quantity

_LABELS: Final = ("pool", "pool_namespace", "node")
_MILLISECONDS: Final = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0)
_MICROSECONDS: Final = (2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 2e-2, 0.1, 1.0)


class Metrics:
    """Every series carries the pool, its namespace and the node. Methods are called from the event loop only."""

    def __init__(self, pool: str, pool_namespace: str, node: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._own = (pool, pool_namespace, node)
        self.http = HttpMetrics(_LABELS, self._own)
        """By workload."""
        self._registry.register(self.http)
        self._slots = self._gauge("wasmpool_slots", "Slots by state.", "state")
        self._capacity = self._gauge("wasmpool_slots_capacity", "Slots of the region.")
        self._allocatable = self._gauge("wasmpool_slots_allocatable", "Slots that are not quarantined.")
        self._reserved = self._gauge("wasmpool_slots_reserved", "Slots that workloads hold a reservation for.")
        self._used = self._gauge("wasmpool_slots_used", "Slots in which an instance lives.")
        self._region_bytes = self._gauge("wasmpool_region_bytes", "Size of the region.", "backing")
        self._region_ready = self._gauge("wasmpool_region_ready", "1 if the region is reserved.", "reason")
        self._workloads = self._gauge("wasmpool_workloads", "Assignments by state.", "state")
        self._workers = self._gauge("wasmpool_workers", "Worker processes that are ready.")
        self._started = self._counter("wasmpool_instances_started", "Instances whose guest began.")
        self._exited = self._counter("wasmpool_instances_exited", "Instances that ended, by how.", "result")
        self._admissions = self._counter("wasmpool_admissions", "Verdicts on modules.", "result", "reason")
        self._worker_restarts = self._counter("wasmpool_worker_restarts", "Workers that ended and were replaced.")
        self._wiped_bytes = self._counter("wasmpool_wiped_bytes", "Bytes of slots that were wiped after a tenant.")
        self._status_writes = self._counter("wasmpool_status_writes", "Writes of the node's status.", "result")
        self._wipe_seconds = self._histogram("wasmpool_wipe_seconds", "Time to wipe one slot.")
        self._instantiate_seconds = self._histogram(
            "wasmpool_instantiate_seconds", "Time from a free slot to an instance in it."
        )
        self._compile_seconds = self._histogram(
            "wasmpool_compile_seconds", "Time to compile one module.", (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
        )
        self._compile_failures = self._counter("wasmpool_compile_failures", "Modules that did not compile.", "reason")
        self._compiles_queued = self._gauge(
            "wasmpool_compiles_queued", "Modules that are being compiled, or wait for the compiler."
        )
        self._inspection_seconds = self._histogram(
            "wasmpool_inspection_seconds", "Time to read and judge one module.", _MILLISECONDS
        )
        self._pulls = self._counter("wasmpool_pulls", "Modules fetched from registries.", "result")
        self._pulls_queued = self._gauge("wasmpool_pulls_queued", "Modules that wait for their turn to be fetched.")
        self._pull_seconds = self._histogram(
            "wasmpool_pull_seconds", "Time to fetch one module.", (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
        )
        self._pulled_bytes = self._counter("wasmpool_pulled_bytes", "Bytes that came from registries.")
        self._cache_requests = self._counter("wasmpool_cache_requests", "Looks into the cache.", "kind", "result")
        self._cache_bytes = self._gauge("wasmpool_cache_bytes", "What the cache takes on disk.", "kind")
        self._evictions = self._counter("wasmpool_cache_evictions", "Files removed to make room.", "kind")
        self._taken = self._counter("wasmpool_slots_taken", "Slots that instances took, by affinity.", "affine")
        self._refusals = self._counter("wasmpool_allocation_refusals", "What instances asked for in vain.", "reason")
        self._growths = self._counter("wasmpool_memory_growths", "Growths of memories within their slots.")
        self._huge_pages = self._gauge(
            "wasmpool_node_huge_pages", "The node's huge pages of the region's size.", "page_size", "state"
        )
        self._mappings = self._gauge(
            "wasmpool_worker_mappings", "Memory mappings of the process, of vm.max_map_count.", "worker"
        )
        for affine in ("true", "false"):
            self._taken.labels(*self._own, affine)
        for reason in ("NoFreeSlot", "MemoryRefused", "GrowthRefused"):
            self._refusals.labels(*self._own, reason)
        self._growths.labels(*self._own)
        self._pulls.labels(*self._own, "ok")
        self._compiles_queued.labels(*self._own).set(0)
        for counter in (self._started, self._worker_restarts, self._wiped_bytes, self._pulled_bytes):
            counter.labels(*self._own)
        for result in Result:
            self._exited.labels(*self._own, result.value)

    def region(self, *, ready: bool, reason: str, backing: str = "", size_bytes: int = 0) -> None:
        """Replaces what was said before: there is one reason at a time."""
        self._region_ready.clear()
        self._region_ready.labels(*self._own, reason).set(int(ready))
        self._region_bytes.clear()
        if ready:
            self._region_bytes.labels(*self._own, backing).set(size_bytes)

    def slots(self, counts: SlotCounts, reserved: int) -> None:
        """The table's count, and the sum of the reservations."""
        for state in ("free", "used", "wiping", "quarantined"):
            self._slots.labels(*self._own, state).set(getattr(counts, state))
        self._capacity.labels(*self._own).set(counts.total)
        self._allocatable.labels(*self._own).set(counts.total - counts.quarantined)
        self._reserved.labels(*self._own).set(reserved)
        self._used.labels(*self._own).set(counts.used)

    def workloads(self, states: Iterable[WorkloadState]) -> None:
        """Counts them; states without any are 0, not absent."""
        counts: Mapping[WorkloadState, int] = dict.fromkeys(WorkloadState, 0)
        for state in states:
            counts = {**counts, state: counts[state] + 1}
        for state, count in counts.items():
            self._workloads.labels(*self._own, state.value).set(count)

    def workers(self, ready: int) -> None:
        """How many can take instances."""
        self._workers.labels(*self._own).set(ready)

    def instance_started(self, instantiate_seconds: float) -> None:
        """Its guest begins."""
        self._started.labels(*self._own).inc()
        self._instantiate_seconds.labels(*self._own).observe(instantiate_seconds)

    def instance_exited(self, exited: Exited) -> None:
        """Whatever the result."""
        self._exited.labels(*self._own, exited.result.value).inc()
        if exited.wiped_bytes:
            self._wiped_bytes.labels(*self._own).inc(exited.wiped_bytes)
            self._wipe_seconds.labels(*self._own).observe(exited.wipe_seconds)

    def slots_reclaimed(self, wiped_bytes: int) -> None:
        """Of a dead worker."""
        self._wiped_bytes.labels(*self._own).inc(wiped_bytes)

    def allocated(self, added: AllocationCounts) -> None:
        """What a worker's allocator did."""
        self._taken.labels(*self._own, "true").inc(added.affine)
        self._taken.labels(*self._own, "false").inc(added.taken - added.affine)
        self._refusals.labels(*self._own, "NoFreeSlot").inc(added.exhausted)
        self._refusals.labels(*self._own, "MemoryRefused").inc(added.memories_refused)
        self._refusals.labels(*self._own, "GrowthRefused").inc(added.grow_refused)
        self._growths.labels(*self._own).inc(added.grown)

    def huge_pages(self, page_bytes: int) -> None:
        """Of the node, as the kernel counts them now; nothing for pages of another kind."""
        directory = HUGE_PAGES / f"hugepages-{page_bytes // 1024}kB"
        for state, file in (("total", "nr"), ("free", "free"), ("reserved", "resv"), ("surplus", "surplus")):
            count = read_int(directory / f"{file}_hugepages")
            if count is not None:
                self._huge_pages.labels(*self._own, str(Quantity(page_bytes)), state).set(count)

    def mappings(self, workers: Mapping[str, int]) -> None:
        """By the worker's name."""
        self._mappings.clear()
        for worker, count in workers.items():
            self._mappings.labels(*self._own, worker).set(count)

    def judged(self, result: str, reason: str) -> None:
        """A verdict, of an inspection or before a run: admitted, would_refuse or refused."""
        self._admissions.labels(*self._own, result, reason).inc()

    def inspected(self, seconds: float) -> None:
        """A module was read."""
        self._inspection_seconds.labels(*self._own).observe(seconds)

    def compile_failed(self, reason: str) -> None:
        """A module can't be compiled, or not now."""
        self._compile_failures.labels(*self._own, reason).inc()

    def compiles_queued(self, count: int) -> None:
        """Modules that are being compiled or wait for it."""
        self._compiles_queued.labels(*self._own).set(count)

    def pulled(self, result: str, seconds: float) -> None:
        """From a registry: ok, or what went wrong. With ok also the time that it took."""
        self._pulls.labels(*self._own, result).inc()
        if result == "ok":
            self._pull_seconds.labels(*self._own).observe(seconds)

    def pulls_queued(self, waiting: Callable[[], int]) -> None:
        """How many wait is asked whenever somebody scrapes."""
        self._pulls_queued.labels(*self._own).set_function(waiting)

    def received(self, count: int) -> None:
        """Bytes of modules, from registries."""
        self._pulled_bytes.labels(*self._own).inc(count)

    def cache_asked(self, kind: str, *, hit: bool) -> None:
        """For a module or for compiled code."""
        self._cache_requests.labels(*self._own, kind, "hit" if hit else "miss").inc()

    def evicted(self, removed: Mapping[Kind, int]) -> None:
        """By kind, to make room in the cache."""
        for kind, count in removed.items():
            self._evictions.labels(*self._own, kind).inc(count)

    def cache_sizes(self, sizes: Mapping[Kind, int]) -> None:
        """Bytes on disk, by kind."""
        for kind, size in sizes.items():
            self._cache_bytes.labels(*self._own, kind).set(size)

    def compiled(self, seconds: float) -> None:
        """A module, not from the cache."""
        self._compile_seconds.labels(*self._own).observe(seconds)

    def worker_restarted(self) -> None:
        """A worker ended without having been told to."""
        self._worker_restarts.labels(*self._own).inc()

    def status_written(self, result: str) -> None:
        """ok; cut, where the API server would not take all of it; or error."""
        self._status_writes.labels(*self._own, result).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, (*_LABELS, *labels), registry=self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, (*_LABELS, *labels), registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _MICROSECONDS) -> Histogram:
        return Histogram(name, text, _LABELS, registry=self._registry, buckets=buckets)
