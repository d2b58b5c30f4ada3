"""What a plan asks for. Applying an action takes no decision."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from wasmpool_operator.events import Note, Regarding
from wasmpool_operator.ports import Manifest, Resource


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a child's full intent. `intent`: a hash of it, kept to see when it has to be sent again.

    `known_as`: by what it is remembered; its name, unless others of its kind may be called the same.
    """

    manifest: Manifest
    intent: str
    known_as: str = ""


@dataclass(frozen=True, slots=True)
class Create:
    """Create something immutable; that it exists already is as good."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Server-side apply of the whole status that the operator owns. `notes`: what people are told of it afterwards."""

    manifest: Manifest
    about: Regarding
    notes: Sequence[Note] = ()


@dataclass(frozen=True, slots=True)
class PatchAssignments:
    """JSON patch of an InstancePoolNode's spec; refused if its generation is not the one that was planned on."""

    namespace: str
    name: str
    operations: Sequence[Manifest]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete exactly this object. `why` goes to the log."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    why: str


Action = Apply | Create | WriteStatus | PatchAssignments | Delete


@dataclass(frozen=True, slots=True)
class Step:
    """Actions that do not depend on each other. NB: the next step begins only when all of them have succeeded."""

    name: str
    actions: Sequence[Action] = field(default_factory=tuple[Action, ...])
