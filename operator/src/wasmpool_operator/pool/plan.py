"""What has to be done for a pool's agents. Pure: a snapshot in, actions out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from wasmpool_api.instance_pool import HUGE_PAGE_RESOURCE, InstancePool
from wasmpool_api.meta import agent_name
from wasmpool_api.reasons import PoolReason
from wasmpool_api.region import RegionShape, region_shape
from wasmpool_operator.actions import Action, Apply, Create, Delete
from wasmpool_operator.pool import manifests
from wasmpool_operator.pool.agent_pod import AgentSettings
from wasmpool_operator.pool.manifests import CONFIG_ANNOTATION
from wasmpool_operator.pool.members import Member, members_of, pages_missing
from wasmpool_operator.pool.observe import SURVEY_SECONDS, Observed
from wasmpool_operator.ports import Manifest
from wasmpool_operator.resources import (
    CONFIG_MAPS,
    INSTANCE_POOL_NODES,
    PODS,
    resource_of,
)
from wasmpool_operator.views import controlled_by

UNWANTED_AFTER_SECONDS = 10.0
"""How long a node must have been without a pod that nobody misses, before its InstancePoolNode goes."""
DRAIN_TIMEOUT_SECONDS = 600.0
"""How long an outdated agent is kept for the sake of runs that can't be moved."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a pool can't be made as it is: `reason` for its Stalled condition, with the field or the name at fault."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Agents:
    """The pool's agents as they should be. `children` in the order in which they are needed."""

    shape: RegionShape
    template: str
    config_name: str
    children: Sequence[Manifest]


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What to do about a pool's agents.

    `replacing`: nodes whose outdated agent goes next, as soon as what can move has moved. `refused_nodes`: outdated
    ones that can't be replaced, and why. `to_survey`: nodes whose agent can only be replaced once it is known what
    others' pods take of their huge pages. `recheck_seconds`: when to look again although nothing may have happened.
    """

    children: Sequence[Action] = ()
    new_nodes: Sequence[Action] = ()
    removals: Sequence[Action] = ()
    gone_nodes: frozenset[str] = frozenset()
    replacing: Mapping[str, Member] | None = None
    to_survey: frozenset[str] = frozenset()
    refused_nodes: Mapping[str, str] | None = None
    recheck_seconds: float | None = None


def agents_of(pool: InstancePool, settings: AgentSettings) -> Agents:
    """Raises RegionError where the sizes don't make a region, or the agents' memory no amount."""
    shape = region_shape(pool.spec)
    config = manifests.config_map(pool)
    config_name: str = config["metadata"]["name"]
    daemon_set = manifests.daemon_set(pool, shape, settings, config_name)
    return Agents(
        shape=shape,
        template=manifests.template_of(daemon_set),
        config_name=config_name,
        children=(
            manifests.service_account(pool),
            manifests.role_binding(pool, settings),
            config,
            daemon_set,
        ),
    )


def members(observed: Observed, agents: Agents | None) -> tuple[Member, ...]:
    """The pool's nodes."""
    resource = HUGE_PAGE_RESOURCE.get(agents.shape.backing) if agents is not None else None
    return members_of(
        pool=observed.key.name,
        shape=agents.shape if agents is not None else None,
        template=agents.template if agents is not None else "",
        nodes=observed.nodes,
        pods=observed.pods,
        pool_nodes=observed.pool_nodes,
        huge_pages_elsewhere=_elsewhere(observed, resource),
        absent_since=observed.absent_since,
        now=observed.now,
    )


def name_taken(observed: Observed, agents: Agents) -> Problem | None:
    """An object of a child's name that is not this pool's. wasmpool never adopts what it did not make."""
    assert observed.pool is not None  # noqa: S101 - callers plan for existing pools
    for manifest in agents.children:
        resource, name = resource_of(manifest), str(manifest["metadata"]["name"])
        child = observed.children.get((resource, name))
        if child is not None and not controlled_by(child.metadata, observed.pool.metadata.uid):
            owners = [it for it in child.metadata.owner_references if it.controller]
            owner = f"owned by {owners[0].kind} {owners[0].name} (uid {owners[0].uid})" if owners else "not ours"
            return Problem(
                PoolReason.NAME_TAKEN,
                f"{resource.kind} {observed.key.namespace}/{name} exists and is {owner}; remove it, or give the pool "
                "another name",
            )
    return None


def plan_pool(observed: Observed, agents: Agents, members: Sequence[Member]) -> PoolPlan:
    """The plan for a pool that exists, is not being deleted, and whose names are free."""
    pool = observed.pool
    assert pool is not None  # noqa: S101 - see above
    gone, recheck = _gone_nodes(observed, members)
    replacing, refused, to_survey = _replacements(observed, pool, agents, members)
    if refused:
        recheck = min(recheck or SURVEY_SECONDS, SURVEY_SECONDS)  # others' pods are not watched
    return PoolPlan(
        children=tuple(_children(observed, agents)),
        new_nodes=tuple(
            Create(manifests.pool_node(pool, member.node))
            for member in members
            if member.pool_node is None and member.pod is not None and member.node is not None
        ),
        removals=(
            *(
                Delete(
                    INSTANCE_POOL_NODES,
                    it.metadata.namespace,
                    it.metadata.name,
                    it.metadata.uid,
                    gone[it.metadata.name],
                )
                for it in observed.pool_nodes
                if it.metadata.name in gone and it.metadata.deletion_timestamp is None
            ),
            *_old_config_maps(observed, agents),
        ),
        gone_nodes=frozenset(gone),
        replacing=replacing,
        to_survey=to_survey,
        refused_nodes=refused,
        recheck_seconds=recheck,
    )


def replacement_deletions(
    observed: Observed, plan: PoolPlan, moving: frozenset[str], pinned: frozenset[str]
) -> Iterator[Action]:
    """Deletes outdated agent pods.

    `moving`: nodes with instances whose replacement elsewhere is on its way. `pinned`: nodes with runs that can't be
    moved; they are waited for until `DRAIN_TIMEOUT_SECONDS` have passed.
    """
    if observed.daemon_set is None or observed.daemon_set.desired is None:
        return  # NB: its controller has not seen the new template yet and would make another pod of the old one
    for name, member in sorted((plan.replacing or {}).items()):
        assert member.pod is not None  # noqa: S101 - only nodes with a pod are replaced
        waited = (observed.now - observed.drain_since.get(name, observed.now)).total_seconds()
        busy = name in moving or name in pinned
        if busy and waited < DRAIN_TIMEOUT_SECONDS:
            continue
        metadata = member.pod.metadata
        yield Delete(PODS, metadata.namespace, metadata.name, metadata.uid, "its template is outdated")


def unavailable_allowed(pool: InstancePool, desired: int) -> int:
    """How many nodes may be without a ready agent while agents are replaced: at least one, or nothing ever would be."""
    return max(1, pool.spec.update_strategy.max_unavailable.of_rounded_down(desired))


def desired_nodes(observed: Observed, members: Sequence[Member]) -> int:
    """How many nodes the pool's DaemonSet wants to be on."""
    wanted = observed.daemon_set.desired if observed.daemon_set is not None else None
    return wanted if wanted is not None else len(members)


def _children(observed: Observed, agents: Agents) -> Iterator[Action]:
    known_config_maps = {metadata.name for metadata in observed.config_maps}
    for manifest in agents.children:
        resource, name = resource_of(manifest), str(manifest["metadata"]["name"])
        if resource == CONFIG_MAPS:
            if name not in known_config_maps:
                yield Create(manifest)
            continue
        intent = manifests.intent_hash(manifest)
        child, sent = observed.children.get((resource, name)), observed.sent.get((resource, name))
        if child is None or sent is None or sent.intent != intent or sent.mark != child.mark:
            yield Apply(manifest, intent)


def _gone_nodes(observed: Observed, members: Sequence[Member]) -> tuple[dict[str, str], float | None]:
    """InstancePoolNodes to remove, each with the reason, and when to look again.

    A node is gone when its Node is, or when no pod is wanted there any more. The latter is told by the DaemonSet's own
    count: with a pod missing only because it is being replaced, its controller wants more pods than there are. Ending
    pods don't count as pods, and the state has to last for a while: the counts arrive by another way than the pods.
    """
    gone: dict[str, str] = {}
    recheck: float | None = None
    present = {member.name for member in members if member.pod is not None and not member.pod.deleting}
    wanted = observed.daemon_set.desired if observed.daemon_set is not None else None
    for pool_node in observed.pool_nodes:
        name, node = pool_node.spec.node_name, observed.nodes.get(pool_node.spec.node_name)
        if node is None:
            gone[pool_node.metadata.name] = f"Node {name} is gone"
        elif node.metadata.uid != pool_node.spec.node_uid:
            gone[pool_node.metadata.name] = f"Node {name} is another one now (uid {node.metadata.uid})"
        elif name not in present and wanted is not None and wanted <= len(present):
            since = observed.absent_since.get(name)
            left = UNWANTED_AFTER_SECONDS - ((observed.now - since).total_seconds() if since is not None else 0.0)
            if left <= 0:
                gone[pool_node.metadata.name] = f"no agent is wanted on node {name} any more"
            else:
                recheck = min(recheck or left, left)
    return gone, recheck


def _replacements(
    observed: Observed, pool: InstancePool, agents: Agents, members: Sequence[Member]
) -> tuple[dict[str, Member], dict[str, str], frozenset[str]]:
    replacing: dict[str, Member] = {}
    refused: dict[str, str] = {}
    to_survey: set[str] = set()
    down = sum(not member.ready for member in members)
    budget = unavailable_allowed(pool, desired_nodes(observed, members)) - down
    crowded = budget < 0
    resource = HUGE_PAGE_RESOURCE.get(agents.shape.backing)
    elsewhere = _elsewhere(observed, resource)
    for member in members:
        if member.updated or member.pod is None or member.pod.deleting or member.node is None:
            continue
        if not member.ready and member.empty:
            replacing[member.name] = member  # nothing is lost by it, so it costs no budget
            continue
        if not member.ready and crowded:
            continue  # more nodes are down than may be: it may come back, and its instances may still run
        missing = pages_missing(
            observed.key.name, member.node, agents.shape, _region_bytes(agents), elsewhere.get(member.name, 0)
        )
        if missing is not None:
            refused[member.name] = missing[1]
        elif budget > 0 or not member.ready:
            budget -= member.ready  # one that is not ready is counted in `down` already
            grows = resource is not None and _region_bytes(agents) > member.pod.requests(resource)
            if grows and member.name not in observed.surveyed:
                to_survey.add(member.name)
            else:
                replacing[member.name] = member
    return replacing, refused, frozenset(to_survey)


def _region_bytes(agents: Agents) -> int:
    return agents.shape.region_bytes if agents.shape.backing in HUGE_PAGE_RESOURCE else 0


def _old_config_maps(observed: Observed, agents: Agents) -> Iterator[Action]:
    used = {pod.metadata.annotations.get(CONFIG_ANNOTATION, "") for pod in observed.pods}
    # NB: the DaemonSet may still make pods of its old template until it has seen the new one.
    settled = observed.daemon_set is not None and observed.daemon_set.desired is not None
    for metadata in observed.config_maps:
        if not settled or metadata.name == agents.config_name or metadata.name in used:
            continue
        if metadata.name.startswith(f"{agent_name(observed.key.name)}-"):
            yield Delete(CONFIG_MAPS, metadata.namespace, metadata.name, metadata.uid, "no agent uses it any more")


def _elsewhere(observed: Observed, resource: str | None) -> dict[str, int]:
    return {node: amount for (node, kind), amount in observed.huge_page_requests.items() if kind == resource}
