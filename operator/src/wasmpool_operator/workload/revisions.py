"""ControllerRevisions: what the agents read of a workload. Immutable, in the pool's namespace, owned by the pool."""

from collections.abc import Iterable, Iterator

from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.meta import WORKLOAD_UID_LABEL, ObjectMeta
from wasmpool_api.revisions import Revision
from wasmpool_operator.actions import Action, Create, Delete
from wasmpool_operator.pool.manifests import owned_metadata
from wasmpool_operator.ports import Manifest
from wasmpool_operator.resources import CONTROLLER_REVISIONS
from wasmpool_operator.views import controlled_by


def manifest_of(pool: InstancePool, revision: Revision) -> Manifest:
    """The ControllerRevision of a revision."""
    metadata = owned_metadata(pool, revision.name)
    metadata["labels"][WORKLOAD_UID_LABEL] = revision.workload_uid
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "data": revision.to_data(),
        "revision": 1,
    }


def missing(pool: InstancePool, wanted: Iterable[Revision], present: Iterable[ObjectMeta]) -> Iterator[Action]:
    """Creates those that are not there yet."""
    names = {metadata.name for metadata in present}
    by_name = {revision.name: revision for revision in wanted}
    for name in sorted(by_name.keys() - names):
        yield Create(manifest_of(pool, by_name[name]))


def unreferenced(pool: InstancePool, referenced: frozenset[str], present: Iterable[ObjectMeta]) -> Iterator[Action]:
    """Deletes those of this pool that nobody refers to any more. Others' ControllerRevisions are never touched."""
    for metadata in present:
        ours = controlled_by(metadata, pool.metadata.uid) and WORKLOAD_UID_LABEL in metadata.labels
        if ours and metadata.name not in referenced and metadata.deletion_timestamp is None:
            yield Delete(CONTROLLER_REVISIONS, metadata.namespace, metadata.name, metadata.uid, "nothing refers to it")
