"""What workloads have answered, for Prometheus: counted in workers, added up here by workload."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from wasmpool_agent.protocol import LATENCY_BUCKETS, Result, SiteCounts

FAILURES: Final = (Result.TRAP, Result.DEADLINE, Result.ERROR, Result.STOPPED)
"""There from the beginning, so that the first of them is an increase."""


@dataclass(slots=True)
class _Workload:
    """Sums over workers, those that have ended included. `now`: what each worker said last, by (worker, revision)."""

    answers: dict[int, int] = field(default_factory=dict[int, int])
    results: dict[Result, int] = field(default_factory=lambda: dict.fromkeys(FAILURES, 0))
    rejected: int = 0
    made_ahead: int = 0
    seconds_sum: float = 0.0
    seconds: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))
    now: dict[tuple[int, str], SiteCounts] = field(default_factory=dict[tuple[int, str], SiteCounts])

    def add(self, worker: int, counts: SiteCounts) -> None:
        """`counts` since that worker began to serve the revision; fewer than before: it has begun anew."""
        before = self.now.get((worker, counts.revision))
        if before is None or sum(before.seconds) > sum(counts.seconds):
            before = SiteCounts(site=counts.site, revision=counts.revision)
        known, failed = dict(before.answers), dict(before.results)
        for status, count in counts.answers:
            self.answers[status] = self.answers.get(status, 0) + count - known.get(status, 0)
        for result, count in counts.results:
            self.results[result] = self.results.get(result, 0) + count - failed.get(result, 0)
        self.rejected += counts.rejected - before.rejected
        self.made_ahead += counts.made_ahead - before.made_ahead
        self.seconds_sum += counts.seconds_sum - before.seconds_sum
        for bucket, count in enumerate(counts.seconds):
            self.seconds[bucket] += count - (before.seconds[bucket] if before.seconds else 0)
        self.now[worker, counts.revision] = counts


class HttpMetrics(Collector):
    """Series of each workload, from its first answer until it is forgotten. Labels: the agent's own, then its name."""

    def __init__(self, names: tuple[str, ...], values: tuple[str, ...]) -> None:
        self._names = (*names, "workload_namespace", "workload")
        self._values = values
        self._workloads: dict[str, _Workload] = {}

    def add(self, worker: int, label: str, counts: SiteCounts) -> None:
        """`label`: namespace/name."""
        self._workloads.setdefault(label, _Workload()).add(worker, counts)

    def keep(self, labels: Iterable[str]) -> None:
        """Others are forgotten."""
        kept = set(labels)
        for label in [it for it in self._workloads if it not in kept]:
            del self._workloads[label]

    def worker_gone(self, worker: int) -> None:
        """What it had at work ended with it."""
        for workload in self._workloads.values():
            for key in [it for it in workload.now if it[0] == worker]:
                del workload.now[key]

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        answers = CounterMetricFamily(
            "wasmpool_http_requests", "Requests answered, by status.", labels=(*self._names, "code")
        )
        results = CounterMetricFamily(
            "wasmpool_http_failures", "Requests whose instance did not end well.", labels=(*self._names, "result")
        )
        rejected = CounterMetricFamily(
            "wasmpool_http_rejected", "Requests answered with 503 for want of a slot.", labels=self._names
        )
        ahead = CounterMetricFamily(
            "wasmpool_http_made_ahead", "Requests that found an instance made for them.", labels=self._names
        )
        seconds = HistogramMetricFamily(
            "wasmpool_http_request_seconds", "From a request's head to the end of its answer.", labels=self._names
        )
        gauges = {
            "running": GaugeMetricFamily("wasmpool_http_running", "Requests being answered.", labels=self._names),
            "queued": GaugeMetricFamily("wasmpool_http_queued", "Requests that wait for a slot.", labels=self._names),
            "ready": GaugeMetricFamily("wasmpool_http_ready", "Instances made ahead.", labels=self._names),
        }
        for label, workload in self._workloads.items():
            own = [*self._values, *label.split("/", 1)]
            for status, count in workload.answers.items():
                answers.add_metric([*own, str(status)], count)
            for result, count in workload.results.items():
                results.add_metric([*own, result.value], count)
            rejected.add_metric(own, workload.rejected)
            ahead.add_metric(own, workload.made_ahead)
            seconds.add_metric(own, _buckets(workload.seconds), workload.seconds_sum)
            for name, gauge in gauges.items():
                gauge.add_metric(own, sum(getattr(it, name) for it in workload.now.values()))
        return [answers, results, rejected, ahead, seconds, *gauges.values()]


def _buckets(counts: Iterable[int]) -> list[tuple[str, float]]:
    """As Prometheus has them: each with all that is below."""
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, LATENCY_BUCKETS), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
