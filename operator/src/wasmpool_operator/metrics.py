"""The operator's own metrics. Pools' live figures are the agents' metrics; these are what the operator decided on."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from wasmpool_api.instance_pool import InstancePoolStatus
from wasmpool_operator.views import PoolKey

STATUSES = ("True", "False", "Unknown")


class Metrics:
    """One registry for the process, made in main and passed on."""

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self.registry = CollectorRegistry()
        self._timer = timer
        pool = ("pool", "pool_namespace")
        self._slots = Gauge(
            "wasmpool_pool_slots", "Slots over a pool's ready nodes.", (*pool, "state"), registry=self.registry
        )
        self._nodes = Gauge("wasmpool_pool_nodes", "Nodes of a pool.", (*pool, "state"), registry=self.registry)
        self._workloads = Gauge(
            "wasmpool_pool_workloads", "WasmWorkloads of a pool.", (*pool, "state"), registry=self.registry
        )
        self._conditions = Gauge(
            "wasmpool_pool_condition",
            "1 for the present status of each of a pool's conditions.",
            (*pool, "type", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "wasmpool_reconcile_seconds", "Time that a reconcile takes.", ("kind",), registry=self.registry
        )
        self._errors = Counter(
            "wasmpool_reconcile_errors", "Reconciles that failed and are retried.", ("kind",), registry=self.registry
        )
        self._depth = Gauge(
            "wasmpool_queue_depth", "Keys that wait to be reconciled.", ("kind",), registry=self.registry
        )
        self._leader = Gauge("wasmpool_leader", "1 while this replica holds the lease.", registry=self.registry)

    @contextmanager
    def reconciling(self, kind: str) -> Generator[None]:
        """Measures one reconcile."""
        start = self._timer()
        try:
            yield
        finally:
            self._seconds.labels(kind).observe(self._timer() - start)

    def failed(self, kind: str) -> None:
        """Counts a reconcile that raised."""
        self._errors.labels(kind).inc()

    def watch_queue(self, kind: str, depth: Callable[[], int]) -> None:
        """Reads the queue's depth at every scrape."""
        self._depth.labels(kind).set_function(lambda: float(depth()))
        self._errors.labels(kind)  # a counter that is there from the start makes rate() work for the first error

    def leader(self, leads: bool) -> None:
        """Whether this replica works."""
        self._leader.set(leads)

    def pool(self, key: PoolKey, status: InstancePoolStatus) -> None:
        """Publishes what a pool's status says."""
        labels = (key.name, key.namespace)
        if status.slots is not None:
            for state in ("capacity", "allocatable", "reserved", "used", "free"):
                self._slots.labels(*labels, state).set(getattr(status.slots, state))
        if status.nodes is not None:
            for state in ("desired", "ready", "updated"):
                self._nodes.labels(*labels, state).set(getattr(status.nodes, state))
        if status.workloads is not None:
            for state in ("admitted", "waiting", "refused", "would_refuse"):
                self._workloads.labels(*labels, state).set(getattr(status.workloads, state))
        for condition in status.conditions:
            for text in STATUSES:
                self._conditions.labels(*labels, condition.type, text).set(condition.status == text)

    def forget_pool(self, key: PoolKey) -> None:
        """Drops the series of a pool that is gone."""
        for gauge in (self._slots, self._nodes, self._workloads, self._conditions):
            gauge.remove_by_labels({"pool": key.name, "pool_namespace": key.namespace})

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
