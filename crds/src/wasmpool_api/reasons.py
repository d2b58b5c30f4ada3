"""Every reason that a wasmpool condition or workload entry can carry, in one place.

A *permanent* reason does not go away by waiting: somebody must change a field. A *temporary* one may. The two are
never the same word, so that a person and an alert can tell them apart.
"""

from enum import StrEnum


class RegionReason(StrEnum):
    """Why a node's region is, or is not, reserved."""

    HUGE_PAGES_RESERVED = "HugePagesReserved"
    BASE_PAGES_RESERVED = "BasePagesReserved"
    INSUFFICIENT_HUGE_PAGES = "InsufficientHugePages"
    HUGE_PAGES_NOT_CONFIGURED = "HugePagesNotConfigured"
    RESERVE_FAILED = "ReserveFailed"
    FELL_BACK_TO_BASE_PAGES = "FellBackToBasePages"
    RESERVING = "Reserving"


class NodeReason(StrEnum):
    """Why a node of a pool is not ready, beside its region's reasons."""

    AGENT_READY = "AgentReady"
    AGENT_PENDING = "AgentPending"
    AGENT_NOT_READY = "AgentNotReady"
    AGENT_TOO_OLD = "AgentTooOld"
    ENGINE_REFUSED = "EngineRefused"
    IN_SERVICE = "InService"
    STOPPING = "Stopping"


class Refusal(StrEnum):
    """Permanent: the workload can't run until the module, the workload or the pool is changed."""

    EXCEEDS_MODULE_LIMITS = "ExceedsModuleLimits"
    EXCEEDS_POOL_CAPACITY = "ExceedsPoolCapacity"
    MODULE_INVALID = "ModuleInvalid"
    UNSUPPORTED_FEATURE = "UnsupportedFeature"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    SERVICE_CONFLICT = "ServiceConflict"
    AGENT_TOO_OLD = "AgentTooOld"


class Waiting(StrEnum):
    """Temporary: it may run later without anybody changing it."""

    WAITING_FOR_CAPACITY = "WaitingForCapacity"
    POOL_NOT_FOUND = "PoolNotFound"
    NO_READY_NODES = "NoReadyNodes"
    MODULE_PULL_FAILED = "ModulePullFailed"
    COMPILE_FAILED = "CompileFailed"
    SHARE_EXCEEDED = "ShareExceeded"
    NO_FREE_PORT = "NoFreePort"
    POOL_DRAINING = "PoolDraining"


class Progress(StrEnum):
    """On the way."""

    PULLING = "Pulling"
    INSPECTING = "Inspecting"
    COMPILING = "Compiling"
    STARTING = "Starting"


class Outcome(StrEnum):
    """What became of it."""

    ADMITTED = "Admitted"
    MODULE_VALID = "ModuleValid"
    SLOTS_RESERVED = "SlotsReserved"
    RUNNING = "Running"
    BACK_OFF = "BackOff"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    LOST = "Lost"
    """Nobody knows how far a run came that may be begun only once."""


PERMANENT: frozenset[str] = frozenset(Refusal)
TEMPORARY: frozenset[str] = frozenset(Waiting)


class PoolReason(StrEnum):
    """What a pool's conditions say, beside its nodes' own reasons."""

    ALL_NODES_READY = "AllNodesReady"
    ENOUGH_NODES_READY = "EnoughNodesReady"
    NODES_NOT_READY = "NodesNotReady"
    NO_NODES = "NoNodes"
    UP_TO_DATE = "UpToDate"
    WAITING_FOR_NODES = "WaitingForNodes"
    REPLACING_AGENTS = "ReplacingAgents"
    NOT_STALLED = "NotStalled"
    SPEC_INVALID = "SpecInvalid"
    NAME_TAKEN = "NameTaken"
    WRITE_REFUSED = "WriteRefused"
    DELETING = "Deleting"


class RolloutReason(StrEnum):
    """How far a workload is from what its spec asks for."""

    UP_TO_DATE = "UpToDate"
    ROLLING_OUT = "RollingOut"
    SCALED_TO_ZERO = "ScaledToZero"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    NOT_STALLED = "NotStalled"
