"""The dashboards' and alerts' queries, asked of a real Prometheus.

The series scraped here are those that the queries name, served by the Prometheus client library: what is tested is that
Prometheus takes every query and can answer it. That the operator and the agents really serve those series is for the
end-to-end tests, with the same functions.
"""

import re
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from tests.chart.prometheus import Prometheus, QueryError
from tests.chart.queries import Query, every_query, unanswered

# Needs Prometheus.
pytestmark = pytest.mark.cluster

EVERY = every_query()
MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
# What the queries group by, beside what they select by.
LABELS = ("pool_namespace", "pool", "node", "state", "reason", "result", "kind", "backing", "type", "status")
POOL = {"pool_namespace": "team-a", "pool": "web", "node": "node-1"}


def registry_of(queries: list[Query]) -> CollectorRegistry:
    """Every series that the queries select, with every value that they select it by."""
    registry = CollectorRegistry()
    metrics: dict[str, Gauge | Counter | Histogram] = {}
    for selector in sorted({it for query in queries for it in query.selectors()}):
        name = selector.partition("{")[0]
        base = name.removesuffix("_bucket").removesuffix("_total")
        if base not in metrics:
            kind = Counter if name.endswith("_total") else Histogram if name.endswith("_bucket") else Gauge
            metrics[base] = kind(base, "for the test", LABELS, registry=registry)
        labels = dict.fromkeys(LABELS, "some") | POOL
        for label, how, value in MATCHER.findall(selector):
            labels[label] = {"=": value, "!=": f"not {value}"}.get(how, labels[label])
        series = metrics[base].labels(**labels)
        if isinstance(series, Histogram):
            series.observe(0.01)
        else:
            series.inc()
    return registry


@pytest.fixture(scope="module")
def server() -> Iterator[Prometheus]:
    exporter, thread = start_http_server(0, "127.0.0.1", registry=registry_of(EVERY))
    try:
        with Prometheus.running({"wasmpool": [f"127.0.0.1:{exporter.server_port}"]}) as running:
            running.wait_scraped()
            yield running
    finally:
        exporter.shutdown()
        exporter.server_close()
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
