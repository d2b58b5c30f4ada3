"""What the supervisor needs from outside, as Protocols. kube.py and standalone.py implement them.

PortError
+-- AbsentError        there is no such object
+-- ForbiddenError     this agent may not read it
+-- RefusedError       never, as it is; less may be taken
+-- UnavailableError   not now; the same request may work later
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wasmpool_api.instance_pool_node import Assignment, InstancePoolNodeStatus, NodeAdmission
from wasmpool_api.revisions import Revision


class PortError(Exception):
    """A request to the outside had no result. The message names the object."""


class AbsentError(PortError):
    """There is no such object."""


class ForbiddenError(PortError):
    """The API server refused; the message is its own."""


class RefusedError(PortError):
    """The API server does not take this content. `entries`: places in status.workloads that it names."""

    def __init__(self, message: str, entries: frozenset[int] = frozenset()) -> None:
        super().__init__(message)
        self.entries = entries


class UnavailableError(PortError):
    """No answer, or an answer that says: later."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What this node is to do. `generation` of the InstancePoolNode; 0 where there is none.

    `admission`: what modules are judged by; None for what the pool file says. `status`: as it was last written, perhaps
    by an earlier agent. `confirmed` is False where all of this is only remembered, because the API server has not
    answered yet.
    """

    generation: int
    assignments: tuple[Assignment, ...] = ()
    admission: NodeAdmission | None = field(default=None, kw_only=True)
    status: InstancePoolNodeStatus | None = None
    confirmed: bool = True


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """The content of a ConfigMap. `origin`: where it came from, for messages, where that is not the API server."""

    namespace: str
    name: str
    entries: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    origin: str = ""


class Objects(Protocol):
    """Where modules, environment and credentials come from."""

    async def config_map(self, namespace: str, name: str) -> ConfigMap:
        """Raises PortError."""
        ...

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """Its entries. Raises PortError."""
        ...


class DesiredState(Objects, Protocol):
    """The API server, or a directory of manifests."""

    def watch(self) -> AsyncIterator[Desired]:
        """The present state, and again after each change, for ever. Retries by itself; ends only by cancellation."""
        ...

    async def revision(self, name: str) -> Revision:
        """Raises PortError; FieldError where it is there but can't be read."""
        ...

    async def publish(self, status: InstancePoolNodeStatus) -> None:
        """Replaces the status. Raises PortError; RefusedError where the same one will be refused again."""
        ...
