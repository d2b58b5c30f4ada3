"""The dashboard "Fleet": all pools at a glance, for those who run the nodes.

From top to bottom: is anything wrong (six figures), how full (slots), which nodes, what runs, what it answers, how
fast, and the operator.
Every query is held to the variables $namespace and $pool, except those about the operator, which is one for all.
"""

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableRefresh, VariableSort

from charts.generate.panels import DATASOURCE, Query, graph, number, rows

CHOSEN = 'pool_namespace=~"$namespace", pool=~"$pool"'
POOL = "pool_namespace, pool"
POOL_LEGEND = "{{pool_namespace}}/{{pool}}"
NODE_LEGEND = POOL_LEGEND + " {{node}}"


def of_pool(metric: str, **labels: str) -> str:
    """The series of one of the operator's gauges, one per pool: whichever replica reports it."""
    return f"max by ({POOL}) ({selector(metric, **labels)})"


def selector(metric: str, **labels: str) -> str:
    """The metric's series of the chosen pools, with these labels."""
    matchers = ", ".join([CHOSEN, *(f'{name}="{value}"' for name, value in labels.items())])
    return f"{metric}{{{matchers}}}"


def rate(metric: str, by: str) -> str:
    """Events per second of the chosen pools, summed by these labels."""
    return f"sum by ({by}) (rate({selector(metric)}[$__rate_interval]))"


def quantile(q: float, metric: str, by: str = "") -> str:
    """The q-quantile of a histogram of the chosen pools, in its own unit."""
    labels = ", ".join(part for part in ("le", by) if part)
    return f"histogram_quantile({q}, sum by ({labels}) (rate({selector(metric + '_bucket')}[$__rate_interval])))"


def fleet() -> Dashboard:
    """The whole dashboard."""
    board = (
        Dashboard("wasmpool: Fleet")
        .uid("wasmpool-fleet")
        .description("Pools of WebAssembly instance slots: capacity, reservations, health.")
        .tags(["wasmpool", "kubernetes"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(chosen("namespace", "Namespace", "label_values(wasmpool_pool_slots, pool_namespace)"))
        .with_variable(chosen("pool", "Pool", 'label_values(wasmpool_pool_slots{pool_namespace=~"$namespace"}, pool)'))
    )
    for part in (at_a_glance, capacity, nodes, workloads, requests, speed, operator):
        board = part(board)
    return board


def chosen(name: str, label: str, query: str) -> QueryVariable:
    """A variable of which several values or all can be taken."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def at_a_glance(board: Dashboard) -> Dashboard:
    """Six figures: pools, nodes, slots, and what is wrong."""
    ready = of_pool("wasmpool_pool_condition", type="Ready", status="True")
    desired, up = (f"sum({of_pool('wasmpool_pool_nodes', state=state)})" for state in ("desired", "ready"))
    reserved, allocatable = (
        f"sum({of_pool('wasmpool_pool_slots', state=state)})" for state in ("reserved", "allocatable")
    )
    return (
        board.with_panel(number("Pools ready", "Pools whose condition Ready is True.", Query(f"sum({ready})")))
        .with_panel(number("Pools not ready", "All others.", Query(f"count({ready}) - sum({ready})"), bad_from=1))
        .with_panel(number("Nodes ready", "Over all pools; a node of two pools counts twice.", Query(up)))
        .with_panel(
            number("Nodes not ready", "Selected by a pool, but not ready.", Query(f"{desired} - {up}"), bad_from=1)
        )
        .with_panel(
            number(
                "Slots reserved",
                "Of those that can be reserved at all (allocatable).",
                Query(f"{reserved} / ({allocatable} > 0) or vector(0)"),
                unit="percentunit",
                bad_from=0.9,
            )
        )
        .with_panel(
            number(
                "Workloads waiting",
                "For free slots, a pool or a module. Refused ones do not wait: see Workloads.",
                Query(f"sum({of_pool('wasmpool_pool_workloads', state='waiting')})"),
                bad_from=1,
            )
        )
    )


def capacity(board: Dashboard) -> Dashboard:
    """How full the pools are."""
    states = ("capacity", "allocatable", "reserved", "used", "free")
    return (
        board.with_row(Row("Capacity"))
        .with_panel(
            rows(
                "Slots by pool",
                "From the pools' status: allocatable = capacity - quarantined, free = allocatable - reserved.",
                {state: of_pool("wasmpool_pool_slots", state=state) for state in states},
            )
        )
        .with_panel(
            graph(
                "Slots by state",
                "On the nodes, now: used and being wiped hold memory of a tenant; quarantined are out of use.",
                [Query(f"sum by (state) ({selector('wasmpool_slots')})", "{{state}}")],
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Reserved share",
                "Reserved slots of the allocatable ones, by pool.",
                [
                    Query(
                        f"{of_pool('wasmpool_pool_slots', state='reserved')} / "
                        f"({of_pool('wasmpool_pool_slots', state='allocatable')} > 0)",
                        POOL_LEGEND,
                    )
                ],
                unit="percentunit",
            )
        )
        .with_panel(
            graph(
                "Used of reserved",
                "Slots in which an instance runs against slots that workloads hold: what is paid for and idle.",
                [
                    Query(f"sum({selector('wasmpool_slots_reserved')})", "reserved"),
                    Query(f"sum({selector('wasmpool_slots_used')})", "used"),
                ],
            )
        )
    )


def nodes(board: Dashboard) -> Dashboard:
    """Which nodes have what they should."""
    return (
        board.with_row(Row("Nodes"))
        .with_panel(
            graph(
                "Nodes by state",
                "Desired: selected by a pool. Updated: runs the pool's current version.",
                [
                    Query(f"sum({of_pool('wasmpool_pool_nodes', state=state)})", state)
                    for state in ("desired", "ready", "updated")
                ],
            )
        )
        .with_panel(
            rows(
                "Regions",
                "1: the region is reserved, every page touched. 0: the reason says why not; nothing runs there.",
                {"ready": f"max by ({POOL}, node, reason) ({selector('wasmpool_region_ready')})"},
                span=8,
            )
        )
        .with_panel(
            graph(
                "Region memory",
                "Bytes reserved on the nodes, by what backs them.",
                [Query(f"sum by (backing) ({selector('wasmpool_region_bytes')})", "{{backing}}")],
                unit="bytes",
                stacked=True,
            )
        )
    )


def workloads(board: Dashboard) -> Dashboard:
    """What runs, what waits, what was refused."""
    return (
        board.with_row(Row("Workloads"))
        .with_panel(
            graph(
                "Workloads",
                "Refused: for good, until the module, the workload or the pool is changed. Waiting: may run later. "
                "Would refuse: of those admitted, what admission.mode Enforce would refuse and Count lets run.",
                [
                    Query(f"sum({of_pool('wasmpool_pool_workloads', state=state)})", state.replace("_", " "))
                    for state in ("admitted", "waiting", "refused", "would_refuse")
                ],
            )
        )
        .with_panel(
            graph(
                "On the nodes, by state",
                "A workload counts on each node that holds slots for it.",
                [Query(f"sum by (state) ({selector('wasmpool_workloads')})", "{{state}}")],
            )
        )
        .with_panel(
            graph(
                "Admissions",
                "Verdicts on modules, by result and reason.",
                [Query(rate("wasmpool_admissions_total", "result, reason"), "{{result}} {{reason}}")],
                unit="ops",
            )
        )
        .with_panel(
            graph(
                "Instances started",
                "Per second, by pool.",
                [Query(rate("wasmpool_instances_started_total", POOL), POOL_LEGEND)],
                unit="ops",
            )
        )
        .with_panel(
            graph(
                "Instances ended",
                "Per second, by result. A trap or a missed deadline is the guest's.",
                [Query(rate("wasmpool_instances_exited_total", "result"), "{{result}}")],
                unit="ops",
            )
        )
        .with_panel(
            graph(
                "Worker restarts",
                "A worker's death ends its own instances and no others.",
                [
                    Query(
                        f"sum by ({POOL}, node) "
                        f"(increase({selector('wasmpool_worker_restarts_total')}[$__rate_interval]))",
                        NODE_LEGEND,
                    )
                ],
            )
        )
    )


def requests(board: Dashboard) -> Dashboard:
    """What workloads that serve HTTP answer, and what stands in the way."""
    whose = "workload_namespace, workload"
    legend = "{{workload_namespace}}/{{workload}}"
    return (
        board.with_row(Row("Requests"))
        .with_panel(
            graph(
                "Answers",
                "Per second, by status. 503: no slot in time. 504: the deadline. 499: the client had left.",
                [Query(rate("wasmpool_http_requests_total", "code"), "{{code}}")],
                unit="reqps",
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Time to answer",
                "From a request's head to the end of its answer, the wait for a slot included.",
                [Query(quantile(q, "wasmpool_http_request_seconds"), f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)],
                unit="s",
            )
        )
        .with_panel(
            graph(
                "For want of a slot",
                "Requests per second that were answered 503, by workload: reserve more instances, or allow a burst.",
                [Query(rate("wasmpool_http_rejected_total", whose), legend)],
                unit="reqps",
            )
        )
        .with_panel(
            graph(
                "Requests at work",
                "Running hold a slot each; waiting have none yet.",
                [
                    Query(f"sum({selector('wasmpool_http_running')})", "running"),
                    Query(f"sum({selector('wasmpool_http_queued')})", "waiting"),
                    Query(f"sum({selector('wasmpool_http_ready')})", "instances made ahead"),
                ],
            )
        )
        .with_panel(
            graph(
                "Guests that failed",
                "Requests per second whose instance did not end well, by workload and result.",
                [Query(rate("wasmpool_http_failures_total", f"{whose}, result"), f"{legend} {{{{result}}}}")],
                unit="reqps",
            )
        )
        .with_panel(
            graph(
                "Found an instance ready",
                "The share of requests that had an instance made for them before they came.",
                [
                    Query(
                        f"{rate('wasmpool_http_made_ahead_total', whose)} / "
                        f"{rate('wasmpool_http_requests_total', whose)}",
                        legend,
                    )
                ],
                unit="percentunit",
            )
        )
    )


def speed(board: Dashboard) -> Dashboard:
    """How long an instance takes to begin, and its slot to be clean again."""
    return (
        board.with_row(Row("Latency"))
        .with_panel(
            graph(
                "Instantiate",
                "From a free slot to the first instruction of the guest.",
                [Query(quantile(q, "wasmpool_instantiate_seconds"), f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)],
                unit="s",
            )
        )
        .with_panel(
            graph(
                "Wipe",
                "What it takes to clear a slot of its last tenant.",
                [Query(quantile(q, "wasmpool_wipe_seconds"), f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)],
                unit="s",
            )
        )
        .with_panel(
            graph(
                "Compile",
                "Of a module that is in no cache of the node; a cached one is only mapped.",
                [Query(quantile(q, "wasmpool_compile_seconds"), f"p{int(q * 100)}") for q in (0.5, 0.99)],
                unit="s",
            )
        )
    )


def operator(board: Dashboard) -> Dashboard:
    """The operator's own health; it is one for all pools."""
    return (
        board.with_row(Row("Operator"))
        .with_panel(
            graph(
                "Reconcile errors",
                "Per second, by kind. Each is tried again; many mean that the API server refuses something.",
                [Query("sum by (kind) (rate(wasmpool_reconcile_errors_total[$__rate_interval]))", "{{kind}}")],
                unit="ops",
            )
        )
        .with_panel(
            graph(
                "Reconcile time, p99",
                "From taking an object from the queue to the last write.",
                [
                    Query(
                        "histogram_quantile(0.99, sum by (le, kind) "
                        "(rate(wasmpool_reconcile_seconds_bucket[$__rate_interval])))",
                        "{{kind}}",
                    )
                ],
                unit="s",
            )
        )
        .with_panel(
            graph(
                "Queue depth",
                "Objects that wait to be reconciled, and replicas that lead (one is right).",
                [Query("sum by (kind) (wasmpool_queue_depth)", "{{kind}}"), Query("sum(wasmpool_leader)", "leaders")],
            )
        )
    )
