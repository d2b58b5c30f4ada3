"""The dashboards' and alerts' queries, asked of a real Prometheus.

What it scrapes is made by the operator's and the agent's own metrics code, told of a pool with some traffic. The
end-to-end tests ask the same of the real processes, with the same functions.
"""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.chart.prometheus import Prometheus, QueryError
from tests.chart.queries import Query, every_query, unanswered
from wasmpool_agent.metrics import Metrics as AgentMetrics
from wasmpool_agent.protocol import LATENCY_BUCKETS, Exited, Result, SiteCounts
from wasmpool_agent.slots import SlotCounts
from wasmpool_api.instance_pool import InstancePoolStatus, PoolNodes, PoolSlots, PoolWorkloads
from wasmpool_api.instance_pool_node import WorkloadState
from wasmpool_api.meta import Condition
from wasmpool_operator.metrics import Metrics as OperatorMetrics
from wasmpool_operator.views import PoolKey

# Needs Prometheus.
pytestmark = pytest.mark.cluster

EVERY = every_query()


def operator_metrics() -> bytes:
    """Of a leader with one pool of 16 slots on two nodes."""
    metrics = OperatorMetrics()
    metrics.leader(True)
    metrics.watch_queue("InstancePool", lambda: 3)
    with metrics.reconciling("InstancePool"):
        pass
    status = InstancePoolStatus(
        nodes=PoolNodes(desired=2, ready=2, updated=1),
        slots=PoolSlots(capacity=16, allocatable=16, reserved=4, used=2, free=12),
        workloads=PoolWorkloads(admitted=2, waiting=1, refused=1),
        conditions=tuple(Condition(kind, "True", "AllGood") for kind in ("Ready", "RegionsReserved")),
    )
    metrics.pool(PoolKey("team-a", "web"), status)
    return metrics.text()


def agent_metrics() -> bytes:
    """Of an agent whose region is reserved, that has judged, compiled and run something."""
    metrics = AgentMetrics("web", "team-a", "node-1")
    metrics.region(ready=True, reason="HugePagesReserved", backing="HugePages2Mi", size_bytes=16 << 20)
    metrics.slots(SlotCounts(free=6, used=1, wiping=1, quarantined=0), reserved=2)
    metrics.workloads([WorkloadState.RUNNING])
    metrics.judged("admitted", "Admitted")
    metrics.compiled(0.2)
    metrics.instance_started(3e-5)
    metrics.instance_exited(Exited(instance=1, result=Result.SUCCESS, wiped_bytes=65536, wipe_seconds=3e-6))
    answered = SiteCounts(
        site="uid", revision="r", seconds=(1,) * (len(LATENCY_BUCKETS) + 1), seconds_sum=1.0, answers=((200, 14),)
    )
    metrics.http.add(1, "team-b/site", answered)
    return metrics.text()


@pytest.fixture(scope="module")
def server() -> Iterator[Prometheus]:
    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = operator_metrics() + agent_metrics()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the base class names it so
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as exporter:
        thread = Thread(target=exporter.serve_forever)
        thread.start()
        try:
            with Prometheus.running({"wasmpool": [f"127.0.0.1:{exporter.server_port}"]}) as running:
                running.wait_scraped()
                yield running
        finally:
            exporter.shutdown()
            thread.join()


def test_there_are_queries_of_variables_panels_and_alerts() -> None:
    kinds = [query.where.partition(" ")[0 if query.alert else 2].partition(" ")[0] for query in EVERY]
    assert {"variable", "panel", "alert"} == set(kinds)
    assert len(EVERY) > 40


def test_prometheus_answers_every_query(server: Prometheus) -> None:
    assert unanswered(server, EVERY) == []


def test_a_query_of_a_series_that_is_not_there_is_found(server: Prometheus) -> None:
    missing = Query("panel 'Gone' A", 'sum(wasmpool_gone{pool=~".*"}) or vector(0)')
    assert unanswered(server, [missing]) == ["panel 'Gone' A: no series wasmpool_gone{pool=~\".*\"}"]


def test_a_query_without_data_is_found_unless_it_is_an_alert(server: Prometheus) -> None:
    empty = "wasmpool_leader > 100"
    assert unanswered(server, [Query("here", empty)]) == [f"here: no data for {empty}"]
    assert unanswered(server, [Query("here", empty, alert=True)]) == []


def test_a_query_that_prometheus_does_not_understand_is_found(server: Prometheus) -> None:
    with pytest.raises(QueryError, match="parse error"):
        server.query("sum(")
    assert "parse error" in unanswered(server, [Query("here", "sum(wasmpool_leader")])[0]


def test_a_prefix_leads_to_prometheus_and_ends_with_it() -> None:
    with Prometheus.running({}, prefix=["env", "--"]) as server:
        assert server.query("vector(7)")[0]["value"][1] == "7"
        process = server.process
    assert process.returncode is not None
