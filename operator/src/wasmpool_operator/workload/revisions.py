"""ControllerRevisions: what the agents read of a workload. Immutable, in the pool's namespace, owned by the pool.

A few that nothing runs any more are kept as the workload's history: a spec that comes back is the revision that it was,
with the module that it ran then.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from wasmpool_api.codec import FieldError, decode, encode
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.meta import MODULE_ANNOTATION, WORKLOAD_UID_LABEL, ObjectMeta
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import ModuleStatus
from wasmpool_operator.actions import Action, Create, Delete
from wasmpool_operator.pool.manifests import owned_metadata
from wasmpool_operator.ports import Manifest
from wasmpool_operator.resources import CONTROLLER_REVISIONS
from wasmpool_operator.views import controlled_by

HISTORY_LIMIT: Final = 3
"""Revisions that are kept for a workload beside those that it has."""


@dataclass(frozen=True, slots=True)
class Past:
    """A revision that was run, and the module that it was pinned to."""

    name: str
    module: ModuleStatus


def manifest_of(pool: InstancePool, revision: Revision, module: ModuleStatus | None) -> Manifest:
    """The ControllerRevision of a revision. `module`: the one that it is pinned to, if it is."""
    metadata = owned_metadata(pool, revision.name)
    metadata["labels"][WORKLOAD_UID_LABEL] = revision.workload_uid
    if module is not None and revision.digest:
        metadata["annotations"] = {MODULE_ANNOTATION: msgspec.json.encode(encode(module)).decode()}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "data": revision.to_data(),
        "revision": 1,
    }


def missing(
    pool: InstancePool, wanted: Iterable[tuple[Revision, ModuleStatus | None]], present: Iterable[ObjectMeta]
) -> Iterator[Action]:
    """Creates those that are not there yet."""
    names = {metadata.name for metadata in present}
    by_name = {revision.name: (revision, module) for revision, module in wanted}
    for name in sorted(by_name.keys() - names):
        yield Create(manifest_of(pool, *by_name[name]))


def pasts_of(present: Iterable[ObjectMeta]) -> Mapping[str, Sequence[Past]]:
    """By the workload's uid: what it ran and is still remembered, the youngest first."""
    found: dict[str, list[Past]] = defaultdict(list)
    for metadata in sorted(present, key=lambda it: (it.creation_timestamp or "", it.name), reverse=True):
        module = _module(metadata)
        if module is not None:
            found[metadata.labels.get(WORKLOAD_UID_LABEL, "")].append(Past(metadata.name, module))
    return found


def history(pasts: Mapping[str, Sequence[Past]], live: Collection[str], used: Collection[str]) -> frozenset[str]:
    """Names of revisions that are kept though nothing refers to them. `live`: uids of workloads; `used`: names."""
    kept: set[str] = set()
    for uid in live:
        unused = [it.name for it in pasts.get(uid, ()) if it.name not in used]
        kept.update(unused[:HISTORY_LIMIT])
    return frozenset(kept)


def _module(metadata: ObjectMeta) -> ModuleStatus | None:
    try:
        module = decode(ModuleStatus, msgspec.json.decode(metadata.annotations.get(MODULE_ANNOTATION, "null")))
    except (FieldError, msgspec.DecodeError):
        return None
    return module if module.digest and module.needs is not None else None


def unreferenced(pool: InstancePool, referenced: frozenset[str], present: Iterable[ObjectMeta]) -> Iterator[Action]:
    """Deletes those of this pool that nobody refers to any more. Others' ControllerRevisions are never touched."""
    for metadata in present:
        ours = controlled_by(metadata, pool.metadata.uid) and WORKLOAD_UID_LABEL in metadata.labels
        if ours and metadata.name not in referenced and metadata.deletion_timestamp is None:
            yield Delete(CONTROLLER_REVISIONS, metadata.namespace, metadata.name, metadata.uid, "nothing refers to it")
