"""One reconcile of a pool, as a value: what to write, in which order, and what to publish. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import InstancePool, InstancePoolStatus
from wasmpool_api.meta import API_VERSION, INSTANCE_POOL
from wasmpool_api.not_yet import pool_not_yet
from wasmpool_api.reasons import PoolReason
from wasmpool_api.region import RegionError
from wasmpool_api.registries import registries_problem
from wasmpool_operator.actions import Step, WriteStatus
from wasmpool_operator.events import pool_notes, regarding
from wasmpool_operator.pool.agent_pod import AgentSettings
from wasmpool_operator.pool.members import Member
from wasmpool_operator.pool.observe import ObjectName, Observed
from wasmpool_operator.pool.plan import (
    Agents,
    PoolPlan,
    Problem,
    agents_of,
    desired_nodes,
    members,
    name_taken,
    plan_pool,
    replacement_deletions,
)
from wasmpool_operator.pool.status import pool_status
from wasmpool_operator.workload.plan import WorkloadPlan, plan_workloads

NAME_RECHECK_SECONDS = 15.0
"""Objects that are not ours are not watched: whether a name has become free is seen by looking."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps` in their order. `draining`: nodes whose agent waits to be replaced and may still run something.

    No `status` without a pool. `to_survey`: see `pool.plan.PoolPlan`; `to_look_up`: see `workload.plan.WorkloadPlan`.
    """

    steps: Sequence[Step]
    members: Sequence[Member] = ()
    draining: frozenset[str] = frozenset()
    to_survey: frozenset[str] = frozenset()
    to_look_up: frozenset[ObjectName] = frozenset()
    status: InstancePoolStatus | None = None
    recheck_seconds: float | None = None


def plan(observed: Observed, settings: AgentSettings, *, write_refused: Problem | None = None) -> Plan:
    """`write_refused`: what the API server refused of this very plan a moment ago; it goes into the pool's status."""
    pool = observed.pool
    if pool is None or pool.metadata.deletion_timestamp is not None:
        # Whatever the pool owns goes by garbage collection; making any of it again would only race with that.
        found = members(observed, None)
        workloads = plan_workloads(observed, found)
        return Plan(steps=_steps(observed, PoolPlan(), workloads), members=found, to_look_up=workloads.to_look_up)
    agents, problem = _agents(observed, pool, settings)
    found = members(observed, agents)
    pool_plan = plan_pool(observed, agents, found) if agents is not None and problem is None else PoolPlan()
    replacing = pool_plan.replacing or {}
    draining = frozenset(name for name, member in replacing.items() if member.ready or not member.empty)
    workloads = plan_workloads(observed, found, replacing=draining, gone_nodes=pool_plan.gone_nodes)
    rechecks = [it for it in (pool_plan.recheck_seconds, workloads.recheck_seconds) if it is not None]
    if draining:
        rechecks.append(5.0)
    if problem is not None:
        rechecks.append(NAME_RECHECK_SECONDS)
    return Plan(
        steps=_steps(observed, pool_plan, workloads),
        members=found,
        draining=draining,
        to_survey=pool_plan.to_survey,
        to_look_up=workloads.to_look_up,
        status=pool_status(
            pool,
            found,
            shape=agents.shape if agents is not None else None,
            desired=desired_nodes(observed, found),
            workloads=workloads.counts,
            problem=problem or write_refused,
            refused_nodes=pool_plan.refused_nodes or {},
            now=observed.now,
        ),
        recheck_seconds=min(rechecks, default=None),
    )


def status_action(pool: InstancePool, status: InstancePoolStatus) -> WriteStatus | None:
    """Writes the pool's status, if there is anything new in it."""
    if status == pool.status:
        return None
    return WriteStatus(
        {
            "apiVersion": API_VERSION,
            "kind": INSTANCE_POOL,
            "metadata": {
                "name": pool.metadata.name,
                "namespace": pool.metadata.namespace,
                "uid": pool.metadata.uid,
            },
            "status": encode(status),
        },
        about=regarding(pool),
        notes=pool_notes(pool.status, status),
    )


def _agents(observed: Observed, pool: InstancePool, settings: AgentSettings) -> tuple[Agents | None, Problem | None]:
    unsupported = pool_not_yet(pool.spec) or registries_problem(pool.spec)
    if unsupported is not None:
        return None, Problem(PoolReason.SPEC_INVALID, unsupported)
    try:
        agents = agents_of(pool, settings)
    except RegionError as error:
        return None, Problem(PoolReason.SPEC_INVALID, str(error))
    return agents, name_taken(observed, agents)


def _steps(observed: Observed, pool_plan: PoolPlan, workloads: WorkloadPlan) -> tuple[Step, ...]:
    deletions = tuple(replacement_deletions(observed, pool_plan, workloads.moving, workloads.pinned))
    steps = (
        Step("agents", pool_plan.children),
        Step("nodes", pool_plan.new_nodes),
        Step("revisions", workloads.revisions),
        Step("network policies", workloads.serving.policies),
        Step("services", workloads.serving.services),
        # NB: before a node is told to end something, nobody is to be sent there any more.
        Step("endpoint slices", workloads.serving.slices),
        # NB: what agents will forget is written down before the assignments that make them forget it change.
        Step("records", workloads.records),
        Step("assignments", workloads.assignments),
        Step("workload statuses", workloads.statuses),
        Step(
            "removals",
            (*deletions, *pool_plan.removals, *workloads.garbage, *workloads.serving.removals, *workloads.expired),
        ),
    )
    return tuple(step for step in steps if step.actions)
