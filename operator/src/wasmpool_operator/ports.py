"""The one seam between the operator and an API server: `Cluster`, over plain manifests, and the errors it may raise.

ClusterError
├── Conflict      409: somebody else changed it, or it exists already, or a JSON patch's test failed
├── Refused       400, 403, 422, 500 for an unknown field: it won't be taken; repeating it as it is won't help
└── Unavailable   429, 5xx, no connection, no answer in time: later may do
    └── NotServedYet   the API server has not noticed a new CustomResourceDefinition everywhere: seconds will do
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Manifest = dict[str, Any]
"""A Kubernetes object as it stands in JSON."""


class ClusterError(Exception):
    """What was asked (`request`: method and path), the HTTP `status` (0 without an answer) and the server's message."""

    def __init__(self, request: str, status: int, message: str) -> None:
        super().__init__(f"{request}: {status or 'no answer'}: {message}")
        self.request = request
        self.status = status
        self.message = message


class Conflict(ClusterError):  # noqa: N818 - the API's own word for it
    """Observe again and plan anew."""


class Refused(ClusterError):  # noqa: N818 - reads as what happened
    """The object or the right to write it is wrong."""


class Unavailable(ClusterError):  # noqa: N818 - reads as what happened
    """Try again later."""


class NotServedYet(Unavailable):
    """Right after a CustomResourceDefinition was made, a part of the API server does not know its kind."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind and where the API server serves it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As in a manifest: `apps/v1`, and `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "") -> str:
        """URL path of one object, or of the collection without a name; all namespaces without a namespace."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. `resource_version` is the whole list's, the same on every page."""

    items: Sequence[Manifest]
    resource_version: str


class Cluster(Protocol):
    """An API server. Every call raises ClusterError; nothing is retried here."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """The object, or None where there is none."""
        ...

    def list_pages(
        self, resource: Resource, *, namespace: str = "", label_selector: str = "", field_selector: str = ""
    ) -> AsyncIterator[Page]:
        """Everything that matches, a page at a time; at least one page."""
        ...

    async def create(self, manifest: Manifest) -> Manifest:
        """Raises Conflict where it exists."""
        ...

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply of the full intent, taking over fields that others own."""
        ...

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """The same for the status subresource."""
        ...

    async def patch_json(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Manifest]
    ) -> Manifest | None:
        """JSON patch; a failed `test` is a Conflict. None where there is no such object."""
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str = "") -> bool:
        """False where there is none. With `uid`, Conflict where the object of that name is another one."""
        ...
