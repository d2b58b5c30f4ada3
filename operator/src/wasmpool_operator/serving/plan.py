"""What has to be written so that http workloads are reached where they run, and nowhere else. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.meta import PORT_LABEL, WORKLOAD_UID_LABEL, ObjectMeta
from wasmpool_api.wasm_workload import WasmWorkload
from wasmpool_operator.actions import Action, Apply, Delete
from wasmpool_operator.pool.manifests import intent_hash
from wasmpool_operator.pool.members import Member
from wasmpool_operator.pool.observe import ObjectName, Observed, child_mark
from wasmpool_operator.ports import Manifest, Resource
from wasmpool_operator.resources import ENDPOINT_SLICES, NETWORK_POLICIES, SERVICES, resource_of
from wasmpool_operator.serving import manifests
from wasmpool_operator.serving.endpoints import endpoints_of, in_slices
from wasmpool_operator.serving.fronts import Fronts, may_listen
from wasmpool_operator.serving.names import Names, leftover
from wasmpool_operator.views import controlled_by
from wasmpool_operator.workload.assignments import Sheets
from wasmpool_operator.workload.reports import Index

FAR_SLICE = 1000
"""Slices are numbered; so many numbers may be somebody else's before we give up."""


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """`policies`, `services` and `slices` in this order; `removals` last of all."""

    policies: Sequence[Action] = ()
    services: Sequence[Action] = ()
    slices: Sequence[Action] = ()
    removals: Sequence[Action] = ()
    addresses: Mapping[str, str] = field(default_factory=dict[str, str])
    """By the workload's uid: of those whose Service is there."""


def plan_serving(
    observed: Observed, fronts: Fronts, names: Names, members: Sequence[Member], sheets: Sheets, index: Index
) -> ServingPlan:
    """`sheets`: what the nodes will be told. Without a pool nothing is made, and what there is leads nowhere."""
    return _Writer(observed, fronts, names, members, sheets, index).plan()


class _Writer:
    def __init__(
        self, observed: Observed, fronts: Fronts, names: Names, members: Sequence[Member], sheets: Sheets, index: Index
    ) -> None:
        self._observed = observed
        self._fronts = fronts
        self._names = names
        self._members = {member.name: member for member in members}
        self._sheets = sheets
        self._index = index
        self._pool = observed.pool if alive(observed.pool) else None
        self._wanted: set[ObjectName] = set()

    def plan(self) -> ServingPlan:
        policies: list[Action] = []
        services: list[Action] = []
        slices: list[Action] = []
        addresses: dict[str, str] = {}
        for workload in self._observed.workloads:
            front = self._fronts.by_uid.get(workload.metadata.uid)
            if front is None or not front.port:
                continue
            policies.extend(self._port_policy(workload, front.port))
            name = ObjectName(SERVICES, workload.metadata.namespace, workload.metadata.name)
            if front.hindrance is not None and not front.service_ours:
                continue
            services.extend(self._service(workload, name, front.port))
            if front.service_ours:
                http = workload.spec.run.http
                addresses[workload.metadata.uid] = f"{name.name}.{name.namespace}.svc:{http.port if http else 0}"
            slices.extend(self._slices(workload, front.port))
        return ServingPlan(
            policies=(*self._agents_policy(policies), *policies),
            services=services,
            slices=slices,
            removals=tuple(self._removals()),
            addresses=addresses,
        )

    def _agents_policy(self, others: Sequence[Action]) -> Iterator[Action]:
        pool = self._pool
        kept = any(PORT_LABEL in it.labels for it in self._observed.network_policies)
        if pool is not None and (kept or others):
            yield from self._apply(manifests.agents_policy(pool), pool.metadata.uid)

    def _port_policy(self, workload: WasmWorkload, port: int) -> Iterator[Action]:
        pool, http = self._pool, workload.spec.run.http
        if pool is not None and http is not None:
            yield from self._apply(manifests.port_policy(pool, workload, http, port), pool.metadata.uid)

    def _service(self, workload: WasmWorkload, name: ObjectName, port: int) -> Iterator[Action]:
        http, exists = workload.spec.run.http, self._names.made(name)
        if http is not None and (exists or self._pool is not None):
            manifest = manifests.service(workload, http, self._observed.key, port)
            yield from self._apply(manifest, workload.metadata.uid)

    def _slices(self, workload: WasmWorkload, port: int) -> Iterator[Action]:
        uid = workload.metadata.uid
        endpoints = endpoints_of(
            self._members,
            self._observed.daemon_set,
            self._sheets.nodes_of(uid),
            self._index.reports.get(uid, ()),
        )
        numbers = {"IPv4": 0, "IPv6": 0}
        for family, content in in_slices(endpoints):
            name = self._slice_name(workload, family, numbers)
            if name is not None:
                manifest = manifests.endpoint_slice(workload, self._observed.key, name, family, port, content)
                yield from self._apply(manifest, uid)

    def _slice_name(self, workload: WasmWorkload, family: str, numbers: dict[str, int]) -> str | None:
        """The next one that is ours or free; None while that has to be looked up."""
        namespace, uid = workload.metadata.namespace, workload.metadata.uid
        while numbers[family] < FAR_SLICE:
            name = f"{workload.metadata.name}-wasmpool-{family.lower()}-{numbers[family]}"
            numbers[family] += 1
            held = self._names.held(ObjectName(ENDPOINT_SLICES, namespace, name), uid)
            if held.unknown:
                return None
            if held.usable:
                return name
        return None

    def _apply(self, manifest: Manifest, owner: str) -> Iterator[Action]:
        """Where it is not as it should be, and its name is ours or free."""
        metadata = manifest["metadata"]
        name = ObjectName(resource_of(manifest), metadata["namespace"], metadata["name"])
        self._wanted.add(name)
        held = self._names.held(name, owner)
        if not held.usable:
            return
        intent, known_as = intent_hash(manifest), f"{name.namespace}/{name.name}"
        sent = self._observed.sent.get((name.resource, known_as))
        if held.metadata is not None:
            if sent is not None and sent.intent == intent and sent.mark == child_mark(held.metadata):
                return
            # NB: refused where another object has taken the name since.
            manifest = manifest | {"metadata": metadata | {"uid": held.metadata.uid}}
        yield Apply(manifest, intent, known_as)

    def _removals(self) -> Iterator[Action]:
        """What was made for workloads that are gone, and slices that nothing is left for.

        NB: a port's policy remembers whose the port is, and stays until every agent has let go of it.
        """
        observed = self._observed
        live = {it.metadata.uid for it in observed.workloads}
        known = frozenset(live | ({observed.pool.metadata.uid} if observed.pool is not None else set[str]()))
        tables: tuple[tuple[Resource, Sequence[ObjectMeta]], ...] = (
            (SERVICES, [it.metadata for it in observed.services]),
            (ENDPOINT_SLICES, observed.endpoint_slices),
        )
        for resource, found in tables:
            for metadata in found:
                if metadata.deletion_timestamp is not None:
                    continue
                name = ObjectName(resource, metadata.namespace, metadata.name)
                uid = metadata.labels.get(WORKLOAD_UID_LABEL, "")
                surplus = resource == ENDPOINT_SLICES and name not in self._wanted and controlled_by(metadata, uid)
                if leftover(metadata, known) or (surplus and self._settled(uid)):
                    yield _delete(name, metadata, "nothing needs it any more")
        if self._pool is None:
            return  # garbage collection takes them: they are the pool's
        for metadata in observed.network_policies:
            if metadata.deletion_timestamp is not None:
                continue
            name = ObjectName(NETWORK_POLICIES, metadata.namespace, metadata.name)
            uid = metadata.labels.get(WORKLOAD_UID_LABEL, "")
            ours = controlled_by(metadata, self._pool.metadata.uid)
            unused = ours and name not in self._wanted and not (uid and uid not in live and may_listen(observed, uid))
            if leftover(metadata, known) or unused:
                yield _delete(name, metadata, "nothing needs it any more")

    def _settled(self, uid: str) -> bool:
        """Whether it is known which slices the workload needs: not before their names have been looked up."""
        return uid not in self._fronts.by_uid or not self._names.to_look_up


def alive(pool: InstancePool | None) -> bool:
    """Whether there is a pool, and it is to stay."""
    return pool is not None and pool.metadata.deletion_timestamp is None


def _delete(name: ObjectName, metadata: ObjectMeta, why: str) -> Delete:
    return Delete(name.resource, name.namespace, name.name, metadata.uid, why)
