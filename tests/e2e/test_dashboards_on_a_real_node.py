"""Every query of the dashboards and alerts, asked of a real Prometheus that scraped the real operator and a real agent.

Covers: each panel and variable gives data while a pool has a running, a finished and a refused workload, and one that
has answered a request; no series that an alert reads is missing.
"""

from collections.abc import Iterator

import pytest

from demo.access import SYSTEM_NAMESPACE
from tests.chart.prometheus import Prometheus
from tests.chart.queries import every_query, unanswered
from tests.cluster import lifecycle
from tests.cluster.running import Running
from tests.e2e.kube import Kube, workload
from tests.e2e.test_http_on_a_real_node import Front, web

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]
METRICS_PORT = 9464


@pytest.fixture
def prometheus(cluster: Running, kube: Kube, small_pool: str) -> Iterator[Prometheus]:
    """Scrapes every operator and agent pod once a second, from inside the node's network."""
    pods = {
        "operator": kube.all_of("pods", SYSTEM_NAMESPACE, "app.kubernetes.io/name=wasmpool-operator"),
        "agents": kube.all_of("pods", small_pool, "wasmpool.dev/pool=small"),
    }
    targets = {
        job: [
            f"{pod['status']['podIP']}:{METRICS_PORT}"
            for pod in found
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]
        for job, found in pods.items()
    }
    assert all(targets.values()), targets
    prefix = lifecycle.namespace(cluster, cluster.node_names[0]).enter([], kinds="n")
    with Prometheus.running(targets, prefix=prefix) as server:
        yield server


def test_every_query_that_the_chart_ships_has_data(
    cluster: Running, kube: Kube, small_pool: str, guests: str, prometheus: Prometheus
) -> None:
    kube.apply(
        workload("ticker", small_pool, pool="small", key="ticker.wasm", instances=2, restartPolicy="Always"),
        workload("hello", small_pool, pool="small", key="hello.wasm"),
        workload("fails", small_pool, pool="small", key="hello.wasm", env=[{"name": "EXIT_CODE", "value": "1"}]),
        workload("too-big", small_pool, pool="small", key="too-big.wasm"),
        web(small_pool, instances=1),
    )
    kube.until_condition("wasm", "ticker", small_pool, "Ready", "True")
    kube.until_condition("wasm", "hello", small_pool, "Finished", "True")
    kube.until_condition("wasm", "fails", small_pool, "Finished", "True")
    kube.until_condition("wasm", "too-big", small_pool, "Admitted", "False")
    kube.until_condition("wasm", "web", small_pool, "Ready", "True", seconds=90)
    Front(cluster, kube, small_pool).until_answered("counted")
    prometheus.wait_scraped()
    assert unanswered(prometheus, every_query()) == []

    (used,) = prometheus.query(f'sum(wasmpool_slots_used{{pool="small",pool_namespace="{small_pool}"}})')
    assert float(used["value"][1]) >= 2
