"""What supervisor and worker say to each other: tagged messages over one SOCK_SEQPACKET socketpair per worker.

Neither wasmtime nor kubernetes is imported here, for both sides use it.

    supervisor -> worker    LoadModule (+ its parts' fds), Drop
                            Start (+ the files' fd), Stop
                            Serve (+ the listener's fd, the files' fd), GiveWay, Withdraw
                            Shutdown
    worker -> supervisor    Ready, ModuleLoaded | ModuleFailed
                            Started, Exited
                            Serving | ServeFailed, Trapped, Starved, Withdrawn
                            Stats, SiteStats, Fault

The end of a worker, however it comes, is seen as the end of its socket (`ChannelClosed`).
"""

import socket
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.channel import MAX_MESSAGE_BYTES, Channel, ProtocolError
from wasmpool_agent.store_limits import StoreLimits

PROTOCOL: Final = 2
"""Raised with every change that the other side would not understand."""
_REST_OF_A_START_BYTES: Final = 8 * 1024
MAX_BACKTRACE_CHARS: Final = 16 * 1024
MAX_TEXT_CHARS: Final = 4 * 1024


class Result(StrEnum):
    """How an instance ended.

    `error`: it ended by itself with an exit code other than 0, or could not be made (then there is no exit code and the
    message says why). `no_slot`: nothing ran, for no slot was free.
    """

    SUCCESS = "success"
    ERROR = "error"
    TRAP = "trap"
    DEADLINE = "deadline"
    STOPPED = "stopped"
    NO_SLOT = "no_slot"


class ArtifactKind(StrEnum):
    """What was compiled. `component`: for our own canonical ABI; `component_api`: for Wasmtime's."""

    MODULE = "module"
    COMPONENT = "component"
    COMPONENT_API = "component_api"


class LoadReason(StrEnum):
    """Why a worker refused an artifact."""

    CORRUPT = "Corrupt"
    INCOMPATIBLE = "Incompatible"
    UNSUPPORTED_IMPORT = "UnsupportedImport"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed memfd of an artifact: `size` in bytes, `sha256` in hex."""

    size: int
    sha256: str


class LoadModule(msgspec.Struct, frozen=True, tag="LoadModule", kw_only=True):
    """Makes an artifact known to the worker; the packet carries a descriptor for each part, in their order.

    `key` is what later messages call it. A core module is one part; a component's are its own to tell apart.
    """

    key: str
    kind: ArtifactKind
    parts: tuple[Part, ...]


class Start(msgspec.Struct, frozen=True, tag="Start", kw_only=True):
    """Runs one instance. `instance` is chosen by the supervisor and never used twice in one worker.

    `workload` is "namespace/name". `deadline_seconds` counts from here to the end of the run, instantiation included;
    None means for ever. `limits`: None for those of the worker's pool file. `allowed_hosts`: where it may connect to.
    `files`: whether a descriptor with its files came along.
    """

    instance: int
    workload_id: int
    workload: str
    revision: str
    artifact: str
    index: int | None = None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: str = "_start"
    deadline_seconds: float | None = None
    limits: StoreLimits | None = None
    allowed_hosts: tuple[str, ...] = ()
    files: bool = False


class Stop(msgspec.Struct, frozen=True, tag="Stop", kw_only=True):
    """Ends an instance `grace_seconds` from now, if it has not ended by itself. Unknown instances are ignored."""

    instance: int
    grace_seconds: float = 0.0


class Serve(msgspec.Struct, frozen=True, tag="Serve", kw_only=True):
    """Answers requests with one revision of a workload: the first descriptor is its listener, the next its files.

    `site`: the workload, whichever revision. Sent again, numbers are replaced; descriptors then are those of before and
    are not looked at. `outdated`: another revision is to take over as soon as it answers. `deadline_seconds`: of one
    request. `queue_seconds`: how long a request may wait for a slot. `ready`: the most instances that are made ahead.
    """

    site: str
    revision: str
    workload_id: int
    workload: str
    artifact: str
    env: tuple[tuple[str, str], ...] = ()
    deadline_seconds: float
    queue_seconds: float
    ready: int = 0
    outdated: bool = False
    limits: StoreLimits | None = None
    allowed_hosts: tuple[str, ...] = ()
    files: bool = False


class GiveWay(msgspec.Struct, frozen=True, tag="GiveWay", kw_only=True):
    """Instances of the site that were made ahead are dropped: another worker has requests that wait for their slots."""

    site: str


class Withdraw(msgspec.Struct, frozen=True, tag="Withdraw", kw_only=True):
    """The revision takes no more requests; those that run are ended after `grace_seconds`. Answered by Withdrawn."""

    site: str
    revision: str
    grace_seconds: float


class Drop(msgspec.Struct, frozen=True, tag="Drop", kw_only=True):
    """Forgets an artifact; instances that run it go on. Unknown keys are ignored."""

    key: str


class Shutdown(msgspec.Struct, frozen=True, tag="Shutdown", kw_only=True):
    """No instance is started any more; those that run are stopped after `grace_seconds`; then the worker ends."""

    grace_seconds: float = 0.0


class Ready(msgspec.Struct, frozen=True, tag="Ready", kw_only=True):
    """The first message of every worker: its engine stands, the region is mapped."""

    pid: int
    protocol: int = PROTOCOL
    wasmtime_version: str = ""


class ModuleLoaded(msgspec.Struct, frozen=True, tag="ModuleLoaded", kw_only=True):
    """The artifact can be started."""

    key: str
    seconds: float


class ModuleFailed(msgspec.Struct, frozen=True, tag="ModuleFailed", kw_only=True):
    """The artifact can't be started in this worker. The worker goes on."""

    key: str
    reason: LoadReason
    message: str


class Started(msgspec.Struct, frozen=True, tag="Started", kw_only=True):
    """The instance has a slot and its memory is initialised; its entry point is called next."""

    instance: int
    slot: int
    instantiate_seconds: float


class Exited(msgspec.Struct, frozen=True, tag="Exited", kw_only=True):
    """The last word about an instance; its slot has been wiped and is free. Every Start is answered by exactly one.

    `seconds`: from the receipt of Start; `cpu_seconds`: of them, in guest code. `wiped_bytes` and `wipe_seconds`: what
    cleaning its slot took.
    """

    instance: int
    result: Result
    exit_code: int | None = None
    message: str = ""
    backtrace: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    wiped_bytes: int = 0
    wipe_seconds: float = 0.0


class Serving(msgspec.Struct, frozen=True, tag="Serving", kw_only=True):
    """An instance of this revision has been made, and requests are taken."""

    site: str
    revision: str


class ServeFailed(msgspec.Struct, frozen=True, tag="ServeFailed", kw_only=True):
    """No instance of it can be made; another revision of the site goes on. It is tried again."""

    site: str
    revision: str
    result: Result
    message: str
    backtrace: str = ""


class Trapped(msgspec.Struct, frozen=True, tag="Trapped", kw_only=True):
    """A request's instance trapped, or met its deadline. At most once a second for each revision."""

    site: str
    revision: str
    result: Result
    message: str
    backtrace: str = ""


class Starved(msgspec.Struct, frozen=True, tag="Starved", kw_only=True):
    """A request waits for a slot that another worker may have taken for an instance made ahead."""

    site: str


class Withdrawn(msgspec.Struct, frozen=True, tag="Withdrawn", kw_only=True):
    """Nothing of this revision runs in this worker any more, and no slot of it is held."""

    site: str
    revision: str


class SiteCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one revision in one worker, since it began, but `running` and `ready` as they are.

    `answers`: by HTTP status. `seconds`: of each answer from the request's head to its end, counted in the buckets of
    LATENCY_BUCKETS and beyond. `rejected`: for want of a slot. `made_ahead`: requests that found an instance made.
    """

    site: str
    revision: str
    running: int = 0
    ready: int = 0
    queued: int = 0
    rejected: int = 0
    made_ahead: int = 0
    seconds_sum: float = 0.0
    seconds: tuple[int, ...] = ()
    answers: tuple[tuple[int, int], ...] = ()
    results: tuple[tuple[Result, int], ...] = ()


LATENCY_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds."""


class Stats(msgspec.Struct, frozen=True, tag="Stats", kw_only=True):
    """Counts since the worker's start, except `running`, `modules` and `mappings`. Once a second, when one changed.

    `mappings`: of the process, as it was at most half a minute ago.
    """

    running: int
    modules: int
    started: int
    exited: int
    lines: int
    lines_dropped: int
    mappings: int
    allocations: AllocationCounts


class SiteStats(msgspec.Struct, frozen=True, tag="SiteStats", kw_only=True):
    """Of the sites whose counts have changed, at most SITES_PER_MESSAGE of them. Once a second."""

    sites: tuple[SiteCounts, ...]


SITES_PER_MESSAGE: Final = 64


class Fault(msgspec.Struct, frozen=True, tag="Fault", kw_only=True):
    """The worker ends because of this; its socket closes next."""

    message: str


ToWorker = LoadModule | Drop | Start | Stop | Serve | GiveWay | Withdraw | Shutdown
FromWorker = (
    Ready
    | ModuleLoaded
    | ModuleFailed
    | Started
    | Exited
    | Serving
    | ServeFailed
    | Trapped
    | Starved
    | Withdrawn
    | Stats
    | SiteStats
    | Fault
)


def start_fits(args: Sequence[str], env: Sequence[tuple[str, str]], hosts: Sequence[str] = ()) -> tuple[int, int]:
    """Bytes that these take in a Start or a Serve, and how many they may."""
    taken = (args, env, hosts) if hosts else (args, env)
    return len(msgspec.json.encode(taken)), MAX_MESSAGE_BYTES - _REST_OF_A_START_BYTES


SupervisorChannel = Channel[ToWorker, FromWorker]
WorkerChannel = Channel[FromWorker, ToWorker]


def supervisor_channel(sock: socket.socket) -> SupervisorChannel:
    """The supervisor's end of a worker's socketpair; takes the socket over."""
    return Channel(sock, msgspec.json.Decoder(FromWorker), _of_this_protocol)


def worker_channel(sock: socket.socket) -> WorkerChannel:
    """The worker's end; takes the socket over."""
    return Channel(sock, msgspec.json.Decoder(ToWorker))


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end and the worker's, neither inheritable; pass the second by number (`pass_fds`)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _of_this_protocol(message: FromWorker) -> None:
    if isinstance(message, Ready) and message.protocol != PROTOCOL:
        raise ProtocolError(f"the worker speaks protocol {message.protocol}, this agent {PROTOCOL}")
