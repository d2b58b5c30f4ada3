"""What one version of a workload is: the data of the ControllerRevision that the agents read.

A revision is immutable and named by its content, so an agent fetches it once and keeps it. A scale is not a new
version: `instances`, `priority` and `placement` are not in it. Nor is what only the way to an http workload is made of:
its Service's port, and who is let in.
"""

from typing import Any

import msgspec

from wasmpool_api.codec import decode, encode
from wasmpool_api.meta import short_hash
from wasmpool_api.wasm_workload import Http, ModuleSource, Run, WasmWorkload, WorkloadLimits


class Revision(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """`digest`: the module's sha256, pinned by an inspection; empty in the revision that is inspected first.

    `image`: with module.image, the artifact that the tag meant then, by its own digest.
    """

    workload_uid: str
    workload_namespace: str
    workload_name: str
    module: ModuleSource
    run: Run
    limits: WorkloadLimits = WorkloadLimits()
    digest: str = ""
    image: str = ""

    @property
    def name(self) -> str:
        """Name of the ControllerRevision, in the pool's namespace. Different content has a different name."""
        payload = msgspec.json.encode(self.to_data(), order="sorted")
        return f"{self.workload_name[:40].rstrip('.-')}-{short_hash(payload)}"

    def to_data(self) -> dict[str, Any]:
        """The ControllerRevision's `data`."""
        data: dict[str, Any] = encode(self)
        return data

    @classmethod
    def from_data(cls, data: object) -> "Revision":
        """Raises FieldError where the data is not a revision's."""
        return decode(cls, data)


def _as_agents_run(run: Run) -> Run:
    if run.http is None:
        return run
    anywhere = Http()
    http = msgspec.structs.replace(run.http, port=anywhere.port, ingress=anywhere.ingress)
    return msgspec.structs.replace(run, http=http)


def revision_of(workload: WasmWorkload, digest: str = "", image: str = "") -> Revision:
    """The workload's present version, with the module pinned to `digest` (and to `image`) once that is known."""
    return Revision(
        workload_uid=workload.metadata.uid,
        workload_namespace=workload.metadata.namespace,
        workload_name=workload.metadata.name,
        module=workload.spec.module,
        run=_as_agents_run(workload.spec.run),
        limits=workload.spec.limits,
        digest=digest,
        image=image,
    )
