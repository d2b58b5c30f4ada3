"""What workloads have answered, over all workers, those that have died included."""

from prometheus_client import CollectorRegistry

from wasmpool_agent.http_metrics import HttpMetrics
from wasmpool_agent.protocol import LATENCY_BUCKETS, Result, SiteCounts

POOL = {"pool": "web"}
BUCKETS = len(LATENCY_BUCKETS) + 1


def counts(answers: int, revision: str = "r1", *, traps: int = 0, bucket: int = 0, **more: int) -> SiteCounts:
    seconds = [0] * BUCKETS
    seconds[bucket] = answers
    return SiteCounts(
        site="uid",
        revision=revision,
        seconds=tuple(seconds),
        seconds_sum=float(answers),
        answers=((200, answers - traps), (500, traps)),
        results=((Result.TRAP, traps),) if traps else (),
        **more,
    )


class Seen:
    """The collector, and what a scrape of it gives."""

    def __init__(self) -> None:
        self.http = HttpMetrics(tuple(POOL), tuple(POOL.values()))
        self._registry = CollectorRegistry()
        self._registry.register(self.http)

    def value(self, name: str, workload: str = "a/site", **labels: str) -> float | None:
        namespace, _, own = workload.partition("/")
        return self._registry.get_sample_value(
            f"wasmpool_http_{name}", {**POOL, "workload_namespace": namespace, "workload": own, **labels}
        )


def test_workers_and_revisions_are_added_up() -> None:
    seen = Seen()
    seen.http.add(1, "a/site", counts(3, running=1, queued=2, ready=1, rejected=1, made_ahead=2))
    seen.http.add(2, "a/site", counts(4, bucket=2, running=2))
    seen.http.add(2, "a/site", counts(5, "r2", bucket=BUCKETS - 1))
    assert seen.value("requests_total", code="200") == 12
    assert seen.value("request_seconds_sum") == 12
    assert seen.value("request_seconds_count") == 12
    assert seen.value("request_seconds_bucket", le="0.0005") == 3
    assert seen.value("request_seconds_bucket", le="0.0025") == 7
    assert seen.value("request_seconds_bucket", le="10.0") == 7
    assert (seen.value("running"), seen.value("queued"), seen.value("ready")) == (3, 2, 1)
    assert (seen.value("rejected_total"), seen.value("made_ahead_total")) == (1, 2)


def test_what_is_told_again_is_counted_once_and_nothing_is_lost_with_a_worker() -> None:
    seen = Seen()
    seen.http.add(1, "a/site", counts(3, running=1))
    seen.http.add(1, "a/site", counts(8, traps=2, running=3))
    assert seen.value("requests_total", code="200") == 6
    assert seen.value("failures_total", result="trap") == 2
    seen.http.worker_gone(1)
    assert seen.value("running") == 0
    seen.http.add(1, "a/site", counts(1))  # the one that has taken its place, with the same number
    assert seen.value("requests_total", code="200") == 7


def test_a_revision_that_is_served_anew_begins_anew() -> None:
    seen = Seen()
    seen.http.add(1, "a/site", counts(8))
    seen.http.add(1, "a/site", counts(2))
    assert seen.value("requests_total", code="200") == 10


def test_failures_are_there_before_the_first_and_workloads_until_they_are_forgotten() -> None:
    seen = Seen()
    seen.http.add(1, "a/site", counts(1))
    seen.http.add(1, "b/other", counts(1))
    for result in ("trap", "deadline", "error", "stopped"):
        assert seen.value("failures_total", result=result) == 0
    seen.http.keep(["b/other"])
    assert seen.value("requests_total", code="200") is None
    assert seen.value("requests_total", "b/other", code="200") == 1
