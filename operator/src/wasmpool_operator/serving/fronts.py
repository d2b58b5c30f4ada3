"""Each http workload's port, the same on every node of the pool, and whether its Service's name is free. Pure.

A port belongs to one workload over its life, and to nobody else before every agent is known to have let go of it: an
agent may listen for a workload until it has confirmed a spec without it. What remembers it is in the cluster: the
NetworkPolicy of the port, in the pool's namespace, goes last of all; the Service and the assignments say it too.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.meta import PORT_LABEL, WORKLOAD_UID_LABEL
from wasmpool_api.reasons import Progress, Refusal, Waiting
from wasmpool_api.wasm_workload import WasmWorkload
from wasmpool_operator.conditions import Finding, Truth
from wasmpool_operator.pool.observe import ObjectName, Observed
from wasmpool_operator.resources import NETWORK_POLICIES, SERVICES
from wasmpool_operator.serving.manifests import port_policy_name
from wasmpool_operator.serving.names import Names, conflict
from wasmpool_operator.views import controlled_by


@dataclass(frozen=True, slots=True)
class Front:
    """`port`: on the agents' pods, 0 while it has none. `hindrance`: why it can't be served, as its Admitted says."""

    port: int = 0
    hindrance: Finding | None = None
    service_ours: bool = False


@dataclass(frozen=True, slots=True)
class Fronts:
    """By the workload's uid; of http workloads alone."""

    by_uid: Mapping[str, Front] = field(default_factory=dict[str, Front])

    @property
    def ports(self) -> dict[str, int]:
        """By the workload's uid."""
        return {uid: front.port for uid, front in self.by_uid.items() if front.port}


def fronts_of(observed: Observed, names: Names, admitted: Collection[str]) -> Fronts:
    """`admitted`: uids of workloads that may run, and so need a port. Others keep what they have."""
    workloads = sorted(
        (it for it in observed.workloads if it.spec.run.http is not None),
        key=lambda it: (it.metadata.creation_timestamp or "", it.metadata.uid),
    )
    live = {it.metadata.uid for it in workloads}
    records = _records(observed)
    ports: dict[str, int] = {}
    taken: dict[int, str] = {}
    for workload in workloads:
        port = next((it for it in records.get(workload.metadata.uid, ()) if it not in taken), 0)
        if port:
            ports[workload.metadata.uid] = port
            taken[port] = workload.metadata.uid
    held = {port for uid in records.keys() - live if may_listen(observed, uid) for port in records[uid]}
    fronts: dict[str, Front] = {}
    for workload in workloads:
        uid = workload.metadata.uid
        port, hindrance = ports.get(uid, 0), None
        if not port and uid in admitted and observed.pool is not None:
            port, hindrance = _choose(observed.pool, names, uid, taken, held)
            if port:
                taken[port] = uid
        front = Front(port, hindrance)
        fronts[uid] = _with_service(front, workload, names, wanted=uid in admitted)
    return Fronts(fronts)


def may_listen(observed: Observed, uid: str) -> bool:
    """Whether some agent may still have the port of a workload open."""
    return any(uids is None or uid in uids for uids in observed.listening.values())


def _records(observed: Observed) -> dict[str, list[int]]:
    """Every port that something in the cluster says of a workload, the most durable record first."""
    found: dict[str, list[int]] = {}
    for policy in observed.network_policies:
        port = policy.labels.get(PORT_LABEL, "")
        ours = observed.pool is not None and controlled_by(policy, observed.pool.metadata.uid)
        if ours and port.isdecimal():
            found.setdefault(policy.labels.get(WORKLOAD_UID_LABEL, ""), []).append(int(port))
    for service in observed.services:
        uid = service.metadata.labels.get(WORKLOAD_UID_LABEL, "")
        if service.target_port and controlled_by(service.metadata, uid):
            found.setdefault(uid, []).append(service.target_port)
    for node in observed.pool_nodes:
        for assignment in node.spec.assignments:
            if assignment.port:
                found.setdefault(assignment.uid, []).append(assignment.port)
    return found


def _choose(
    pool: InstancePool, names: Names, uid: str, taken: Mapping[int, str], held: Collection[int]
) -> tuple[int, Finding | None]:
    """A port that nobody has: begun at one that the uid decides, so that none is given again soon."""
    others: list[int] = []
    for port in _in_turn(pool.spec.http.ports, uid):
        if port in taken or port in held:
            continue
        name = ObjectName(NETWORK_POLICIES, pool.metadata.namespace, port_policy_name(pool, port))
        policy = names.held(name, pool.metadata.uid)
        if policy.unknown:
            return 0, Finding("Admitted", Truth.UNKNOWN, Progress.STARTING, f"{name} is being looked up")
        if policy.foreign:
            others.append(port)
            continue
        return port, None
    ports = pool.spec.http.ports
    return 0, Finding("Admitted", Truth.UNKNOWN, Waiting.NO_FREE_PORT, _exhausted(pool, ports, taken, held, others))


def _in_turn(ports: range, uid: str) -> Iterator[int]:
    if not ports:
        return
    begin = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8]) % len(ports)
    yield from ports[begin:]
    yield from ports[:begin]


def _exhausted(
    pool: InstancePool, ports: range, taken: Mapping[int, str], held: Collection[int], others: Sequence[int]
) -> str:
    used = sum(port in ports for port in taken)
    message = (
        f"1 port wanted, http.portRange {pool.spec.http.port_range} of pool {pool.metadata.name} has {len(ports)}: "
        f"{used} are other workloads'"
    )
    if waiting := sum(port in ports and port not in taken for port in held):
        message += f", {waiting} not given back by all agents yet"
    if others:
        message += f", {len(others)} with a NetworkPolicy of somebody else"
    return message


def _with_service(front: Front, workload: WasmWorkload, names: Names, *, wanted: bool) -> Front:
    metadata = workload.metadata
    name = ObjectName(SERVICES, metadata.namespace, metadata.name)
    if not wanted and not names.made(name):
        return front  # nothing is made, so nothing has to be known
    service = names.held(name, metadata.uid)
    if service.ours:
        return Front(front.port, front.hindrance, service_ours=True)
    if front.hindrance is not None:
        return front
    if service.foreign and service.metadata is not None:
        told = conflict(name, service.metadata)
        return Front(front.port, Finding("Admitted", Truth.FALSE, Refusal.SERVICE_CONFLICT, told))
    if service.unknown:
        return Front(front.port, Finding("Admitted", Truth.UNKNOWN, Progress.STARTING, f"{name} is being looked up"))
    return front
