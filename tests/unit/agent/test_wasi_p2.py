"""WASI 0.2 but HTTP: streams, polls, clocks, random numbers, standard streams, files, and that there is no network.

The functions are called as the host of components calls them, with lifted values; what Later says is waited for as the
scheduler does. That components find their way through them is for test_component_guests.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from wasmpool_agent.wasi.files import trees
from wasmpool_agent.wasi.guest import Clocks
from wasmpool_agent.wasi.interfaces import HOSTED
from wasmpool_agent.wasi.p2 import FUNCTIONS, Host, Later
from wasmpool_agent.wasi.p2.io import BLOCKING_WRITE_MOST, POLLABLES_MOST
from wasmpool_agent.wasi.p2.random import RANDOM_MOST_BYTES
from wasmpool_agent.wasi.p2.registry import MAY_WAIT
from wasmpool_agent.wasi.p2.sockets import Network
from wasmpool_agent.wasi.p2.streams import LINES_MOST_BYTES, READ_MOST_BYTES, IoError
from wasmpool_agent.wasi.signals import Signal, StreamClosed, StreamFailed
from wasmpool_agent.wasmtime_async import HostTrap, Wait

PATIENCE_SECONDS = 10
OK = (True, None)
CLOSED = (False, ("closed", None))
REALTIME_NS = 1_700_000_000_123_456_789
FILES = {"/etc/app": {"key": b"0123456789", "tls/ca.crt": b"cert"}, "/secret": {"token": b"abc"}}


class Output:
    """A standard stream that keeps what it gets. `full`: its reader is behind."""

    def __init__(self) -> None:
        self.data = b""
        self.full = False
        self.signal = Signal(lambda: not self.full)

    def write(self, data: bytes) -> Wait | None:
        """See wasi.guest.Output."""
        self.data += data
        return self.signal if self.full else None


class Pipe:
    """Both kinds of stream: what is written can be read. `room` is what it takes before somebody reads."""

    def __init__(self, data: bytes = b"", room: int = 10) -> None:
        self.data = data
        self.room = room
        self.ended = False
        self.broken = ""
        self.taken = b""
        self.flushed = 0
        self.reading = Signal(lambda: bool(self.data or self.ended or self.broken))
        self.writing = Signal(lambda: bool(self.room or self.ended or self.broken))
        self.writes = False

    def readiness(self) -> Wait | None:
        signal = self.writing if self.writes else self.reading
        return None if signal.ready() else signal

    def _fail(self) -> None:
        if self.broken:
            raise StreamFailed(self.broken)

    def read(self, limit: int) -> bytes | None:
        self._fail()
        if not self.data and self.ended:
            return None
        piece, self.data = self.data[:limit], self.data[limit:]
        return piece

    def check_write(self) -> int:
        self._fail()
        if self.ended:
            raise StreamClosed
        return self.room

    def write(self, data: bytes) -> None:
        assert len(data) <= self.room
        self.taken += data
        self.room -= len(data)

    def flush(self) -> None:
        self.flushed += 1

    def change(self, **values: object) -> None:
        """Something happens to it."""
        for name, value in values.items():
            setattr(self, name, value)
        self.reading.set()
        self.writing.set()


def sink(room: int = 10) -> Pipe:
    made = Pipe(room=room)
    made.writes = True
    return made


@pytest.fixture
def host() -> Host:
    return Host(
        ("program", "an argument"),
        (("NAME", "value"),),
        Output(),
        Output(),
        Clocks(lambda: REALTIME_NS, time.monotonic_ns, lambda: 0),
        preopens=trees(FILES),
    )


def call(host: Host, name: str, *values: object) -> Any:
    """At once: a function that would wait is a failure."""
    found = FUNCTIONS[name](host, *values)
    assert not isinstance(found, Later)
    return found


def io(host: Host, name: str, *values: object) -> Any:
    kind = "output" if name in WRITING else "input"
    return FUNCTIONS[f"wasi:io/streams#[method]{kind}-stream.{name}"](host, *values)


WRITING = {
    name.partition("output-stream.")[2]
    for name in FUNCTIONS
    if name.startswith("wasi:io/streams#[method]output-stream.")
} - {"subscribe"}


async def waited(found: object) -> Any:
    """What it comes to, waiting as the scheduler does."""
    while isinstance(found, Later):
        if not found.wait.ready():
            woken = asyncio.Event()
            call_off = found.wait.arm(woken.set)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await woken.wait()
            call_off()
            if not found.wait.ready():
                continue
        found = found.then()
    return found


def after(found: object, happens: Callable[[], None]) -> Any:
    """What a call that waits comes to once something has happened; it must not be over before."""

    async def run() -> Any:
        assert isinstance(found, Later)
        assert not found.wait.ready()
        task = asyncio.ensure_future(waited(found))
        await asyncio.sleep(0.01)
        assert not task.done()
        happens()
        return await task

    return asyncio.run(run())


# -------------------------------------------------------------------------------------------------------------- streams
def test_reading_takes_what_is_there_up_to_a_limit(host: Host) -> None:
    pipe = Pipe(b"hello" + bytes(READ_MOST_BYTES))
    assert io(host, "read", pipe, 5) == (True, b"hello")
    assert io(host, "read", pipe, 0) == (True, b"")
    assert len(io(host, "read", pipe, 2**64 - 1)[1]) == READ_MOST_BYTES
    assert io(host, "read", pipe, 5) == (True, b"")
    pipe.ended = True
    assert io(host, "read", pipe, 5) == CLOSED
    assert io(host, "blocking-read", pipe, 5) == CLOSED
    assert io(host, "skip", Pipe(b"hello"), 3) == (True, 3)


def test_a_stream_that_failed_says_why(host: Host) -> None:
    pipe = Pipe()
    pipe.broken = "the other side went away"
    for name, values in (
        ("read", (1,)),
        ("blocking-read", (1,)),
        ("skip", (1,)),
        ("check-write", ()),
        ("write", (b"x",)),
        ("blocking-write-and-flush", (b"x",)),
        ("write-zeroes", (1,)),
        ("splice", (Pipe(b"x"), 1)),
    ):
        good, (case, error) = io(host, name, pipe, *values)
        assert (good, case) == (False, "last-operation-failed"), name
        assert call(host, "wasi:io/error#[method]error.to-debug-string", error) == pipe.broken
        for code in ("filesystem/types#filesystem-error-code", "sockets/network#network-error-code"):
            assert call(host, f"wasi:{code}", error) is None


@pytest.mark.parametrize(("name", "expected"), [("blocking-read", b"abc"), ("blocking-skip", 3)])
def test_a_blocking_read_waits_for_the_first_bytes_or_the_end(name: str, expected: object, host: Host) -> None:
    pipe = Pipe()
    assert after(io(host, name, pipe, 3), lambda: pipe.change(data=b"abcd")) == (True, expected)
    pipe = Pipe()
    assert after(io(host, name, pipe, 3), lambda: pipe.change(ended=True)) == CLOSED
    assert io(host, name, pipe, 0) == (True, type(expected)())


def test_writing_more_than_there_is_room_for_ends_the_guest(host: Host) -> None:
    pipe = sink(room=3)
    assert io(host, "check-write", pipe) == (True, 3)
    assert io(host, "write", pipe, b"ab") == OK
    assert io(host, "write-zeroes", pipe, 1) == OK
    assert pipe.taken == b"ab\0"
    for name, value in (("write", b"x"), ("write-zeroes", 1)):
        with pytest.raises(HostTrap, match="more bytes than check-write said"):
            io(host, name, pipe, value)
    pipe.ended = True
    for name, values in (("check-write", ()), ("write", (b"x",)), ("write-zeroes", (1,)), ("blocking-flush", ())):
        assert io(host, name, pipe, *values) == CLOSED, name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("blocking-write-and-flush", b"hello", b"hello"), ("blocking-write-zeroes-and-flush", 5, bytes(5))],
)
def test_a_blocking_write_waits_for_room_and_then_flushes(
    name: str, value: object, expected: bytes, host: Host
) -> None:
    pipe = sink(room=3)

    def read_on() -> None:
        assert (pipe.taken, pipe.flushed) == (expected[:3], 0)
        pipe.change(room=5)

    assert after(io(host, name, pipe, value), read_on) == OK
    assert (pipe.taken, pipe.flushed) == (expected, 1)
    pipe = sink(room=3)
    assert after(io(host, name, pipe, value), lambda: pipe.change(ended=True)) == CLOSED
    with pytest.raises(HostTrap, match=f"at most {BLOCKING_WRITE_MOST}"):
        io(host, name, pipe, bytes(4097) if isinstance(value, bytes) else 4097)


def test_a_blocking_flush_waits_until_it_is_ready_again(host: Host) -> None:
    pipe = sink(room=0)
    assert after(io(host, "blocking-flush", pipe), lambda: pipe.change(room=1)) == OK
    assert pipe.flushed == 1
    pipe.room = 0
    assert io(host, "flush", pipe) == OK  # at once
    assert pipe.flushed == 2
    pollable = call(host, "wasi:io/streams#[method]output-stream.subscribe", pipe)
    assert not call(host, "wasi:io/poll#[method]pollable.ready", pollable)
    pipe.room = 1
    assert call(host, "wasi:io/poll#[method]pollable.ready", pollable)


def test_splicing_moves_what_is_there_and_there_is_room_for(host: Host) -> None:
    source, target = Pipe(b"0123456789"), sink(room=6)
    assert io(host, "splice", target, source, 4) == (True, 4)
    assert io(host, "splice", target, source, 4) == (True, 2)
    assert (target.taken, source.data) == (b"012345", b"6789")
    assert after(io(host, "blocking-splice", target, source, 9), lambda: target.change(room=3)) == (True, 3)
    source, target = Pipe(), sink()
    assert after(io(host, "blocking-splice", target, source, 9), lambda: source.change(data=b"a")) == (True, 1)
    source.ended = True
    assert io(host, "splice", target, source, 1) == CLOSED


# -------------------------------------------------------------------------------------------------------- polls, clocks
def subscribed(host: Host, pipe: Pipe) -> Any:
    return call(host, "wasi:io/streams#[method]input-stream.subscribe", pipe)


def test_a_poll_gives_all_that_are_ready_and_waits_for_the_first(host: Host) -> None:
    pipes = [Pipe(), Pipe(b"x"), Pipe(), Pipe(b"x")]
    pollables = [subscribed(host, pipe) for pipe in pipes]
    assert call(host, "wasi:io/poll#poll", pollables) == [1, 3]
    assert [call(host, "wasi:io/poll#[method]pollable.ready", it) for it in pollables] == [False, True, False, True]
    waiting = FUNCTIONS["wasi:io/poll#poll"](host, [pollables[0], pollables[2]])
    assert after(waiting, lambda: pipes[2].change(data=b"x")) == [1]
    waiting = FUNCTIONS["wasi:io/poll#[method]pollable.block"](host, pollables[0])
    assert after(waiting, lambda: pipes[0].change(ended=True)) is None
    for count in (0, POLLABLES_MOST + 1):
        with pytest.raises(HostTrap):
            FUNCTIONS["wasi:io/poll#poll"](host, pollables[:1] * count)


def test_a_poll_that_is_over_leaves_nothing_armed(host: Host) -> None:
    wakes: list[Callable[[], None]] = []

    class Counted:
        def ready(self) -> bool:
            return False

        def arm(self, wake: Callable[[], None]) -> Callable[[], None]:
            wakes.append(wake)
            return lambda: wakes.remove(wake)

        def readiness(self) -> Wait | None:
            return self

    waiting = FUNCTIONS["wasi:io/poll#poll"](host, [Counted(), Counted(), Counted()])
    assert isinstance(waiting, Later)
    woken: list[int] = []
    waiting.wait.arm(lambda: woken.append(1))
    assert len(wakes) == 3
    wakes[1]()
    assert (woken, wakes) == ([1], [])
    waiting.wait.arm(lambda: None)()
    assert wakes == []


@pytest.mark.parametrize("name", ["subscribe-duration", "subscribe-instant"])
def test_a_timer_is_ready_at_its_time_and_not_before(name: str, host: Host) -> None:
    begun = call(host, "wasi:clocks/monotonic-clock#now")
    delay = 30_000_000
    when = delay if name == "subscribe-duration" else begun + delay
    timer = call(host, f"wasi:clocks/monotonic-clock#{name}", when)
    long = call(host, "wasi:clocks/monotonic-clock#subscribe-duration", 2**64 - 1)

    async def run() -> Any:
        return await waited(FUNCTIONS["wasi:io/poll#poll"](host, [long, timer]))

    assert asyncio.run(run()) == [1]
    assert begun + delay <= call(host, "wasi:clocks/monotonic-clock#now") < begun + delay + 5_000_000_000
    past = call(host, "wasi:clocks/monotonic-clock#subscribe-instant", 0)
    assert call(host, "wasi:io/poll#[method]pollable.ready", past)


def test_clocks_and_random_numbers(host: Host) -> None:
    assert call(host, "wasi:clocks/wall-clock#now") == {"seconds": 1_700_000_000, "nanoseconds": 123_456_789}
    assert call(host, "wasi:clocks/wall-clock#resolution") == {"seconds": 0, "nanoseconds": 1}
    assert call(host, "wasi:clocks/monotonic-clock#resolution") == 1
    for name in ("random/random#get-random", "random/insecure#get-insecure-random"):
        one, other = (call(host, f"wasi:{name}-bytes", 32) for _ in range(2))
        assert len(one) == len(other) == 32
        assert one != other
        with pytest.raises(HostTrap):
            call(host, f"wasi:{name}-bytes", RANDOM_MOST_BYTES + 1)
        assert len({call(host, f"wasi:{name}-u64") for _ in range(10)}) == 10
    seeds = {call(host, "wasi:random/insecure-seed#insecure-seed") for _ in range(10)}
    assert len(seeds) == 10
    assert all(0 <= half < 2**64 for seed in seeds for half in seed)


# ------------------------------------------------------------------------------------------------------------------ cli
def test_what_a_command_is_given(host: Host) -> None:
    assert call(host, "wasi:cli/environment#get-arguments") == ["program", "an argument"]
    assert call(host, "wasi:cli/environment#get-environment") == [("NAME", "value")]
    assert call(host, "wasi:cli/environment#initial-cwd") is None
    assert io(host, "blocking-read", call(host, "wasi:cli/stdin#get-stdin"), 10) == CLOSED
    for name in ("stdin", "stdout", "stderr"):
        assert call(host, f"wasi:cli/terminal-{name}#get-terminal-{name}") is None


@pytest.mark.parametrize(
    ("name", "status", "code"), [("exit", OK, 0), ("exit", (False, None), 1), ("exit-with-code", 7, 7)]
)
def test_exiting_ends_the_guest_and_leaves_its_code(name: str, status: object, code: int, host: Host) -> None:
    with pytest.raises(HostTrap):
        call(host, f"wasi:cli/exit#{name}", status)
    assert host.exit_code == code


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_guest_whose_lines_nobody_reads_waits_whichever_stream_it_asks_for(name: str, host: Host) -> None:
    output = getattr(host, name)

    def stream() -> Any:
        return call(host, f"wasi:cli/{name}#get-{name}")

    assert io(host, "check-write", stream()) == (True, LINES_MOST_BYTES)
    assert io(host, "write", stream(), b"one\n") == OK
    output.full = True
    assert io(host, "write", stream(), b"two\n") == OK
    assert io(host, "check-write", stream()) == (True, 0)
    with pytest.raises(HostTrap):
        io(host, "write", stream(), b"three\n")

    def read_on() -> None:
        output.full = False
        output.signal.set()

    assert after(io(host, "blocking-write-and-flush", stream(), b"3" * 4096), read_on) == OK
    assert output.data == b"one\ntwo\n" + b"3" * 4096


# ---------------------------------------------------------------------------------------------------------------- files
def file(host: Host, name: str, *values: object) -> Any:
    return call(host, f"wasi:filesystem/types#[method]descriptor.{name}", *values)


def opened(host: Host, path: str, *, how: str = "", flags: str = "read") -> Any:
    root = call(host, "wasi:filesystem/preopens#get-directories")[0][0]
    return file(host, "open-at", root, frozenset(), path, frozenset(how.split()), frozenset(flags.split()))


def test_files_are_read_by_stream_and_by_offset(host: Host) -> None:
    directories = call(host, "wasi:filesystem/preopens#get-directories")
    assert [mount for _, mount in directories] == ["/etc/app", "/secret"]
    good, key = opened(host, "tls/../key")
    assert good
    assert file(host, "get-type", key) == (True, "regular-file")
    assert file(host, "get-flags", key) == (True, frozenset({"read"}))
    assert (file(host, "stat", key)[1]["type"], file(host, "stat", key)[1]["size"]) == ("regular-file", 10)
    assert file(host, "stat-at", directories[0][0], frozenset(), "key") == file(host, "stat", key)
    assert file(host, "read", key, 4, 3) == (True, (b"3456", False))
    assert file(host, "read", key, 100, 7) == (True, (b"789", True))
    assert file(host, "read", key, 1, 2**64 - 1) == (True, (b"", True))
    stream = file(host, "read-via-stream", key, 8)[1]
    assert [io(host, "blocking-read", stream, 1) for _ in range(3)] == [(True, b"8"), (True, b"9"), CLOSED]
    assert file(host, "read-via-stream", directories[0][0], 0) == (False, "is-directory")
    assert file(host, "advise", key, 0, 0, "normal") == file(host, "sync", key) == file(host, "sync-data", key) == OK
    assert file(host, "readlink-at", directories[0][0], "key") == (False, "invalid")


def test_directories_are_listed_and_files_told_apart(host: Host) -> None:
    (root, _), (other, _) = call(host, "wasi:filesystem/preopens#get-directories")
    listing = file(host, "read-directory", root)[1]
    name = "wasi:filesystem/types#[method]directory-entry-stream.read-directory-entry"
    assert [call(host, name, listing) for _ in range(4)] == [
        (True, {"type": "regular-file", "name": "key"}),
        (True, {"type": "directory", "name": "tls"}),
        OK,
        OK,
    ]
    (_, key), (_, again), (_, below) = opened(host, "key"), opened(host, "./key"), opened(host, "tls")
    assert file(host, "read-directory", key) == (False, "not-directory")
    assert file(host, "is-same-object", key, again)
    assert file(host, "metadata-hash", key) == file(host, "metadata-hash-at", root, frozenset(), "key")
    different = [root, other, key, below]
    assert len({tuple(file(host, "metadata-hash", it)[1].values()) for it in different}) == len(different)
    assert not file(host, "is-same-object", key, below)


@pytest.mark.parametrize(
    ("path", "how", "flags", "error"),
    [
        ("no", "", "read", "no-entry"),
        ("", "", "read", "no-entry"),
        ("key/", "", "read", "not-directory"),
        ("key/x", "", "read", "not-directory"),
        ("key", "directory", "read", "not-directory"),
        ("../secret/token", "", "read", "not-permitted"),
        ("/etc/app/key", "", "read", "not-permitted"),
        ("a" * 5000, "", "read", "name-too-long"),
        ("key", "", "read write", "read-only"),
        ("key", "truncate", "read", "read-only"),
        ("new", "create", "read", "read-only"),
        ("tls", "", "read mutate-directory", "read-only"),
        ("key", "create exclusive", "read", "exist"),
        ("tls", "create", "read", "is-directory"),
        ("tls", "", "write", "is-directory"),
        ("tls", "create directory", "read", "invalid"),
    ],
)
def test_what_can_not_be_opened(path: str, how: str, flags: str, error: str, host: Host) -> None:
    assert opened(host, path, how=how, flags=flags) == (False, error)


def test_whatever_would_write_says_read_only(host: Host) -> None:
    root = call(host, "wasi:filesystem/preopens#get-directories")[0][0]
    key = opened(host, "key", how="create")[1]  # which is there
    nowhere: frozenset[str] = frozenset()
    for name, values in (
        ("write-via-stream", (key, 0)),
        ("append-via-stream", (key,)),
        ("set-size", (key, 0)),
        ("set-times", (key, ("now", None), ("now", None))),
        ("write", (key, b"x", 0)),
        ("create-directory-at", (root, "new")),
        ("set-times-at", (root, nowhere, "key", ("now", None), ("now", None))),
        ("link-at", (root, nowhere, "key", root, "new")),
        ("remove-directory-at", (root, "tls")),
        ("rename-at", (root, "key", root, "new")),
        ("symlink-at", (root, "key", "new")),
        ("unlink-file-at", (root, "key")),
    ):
        assert file(host, name, *values) == (False, "read-only"), name
    assert file(host, "create-directory-at", root, "tls") == (False, "exist")


# ------------------------------------------------------------------------------------------------------------- the rest
def test_there_is_no_network(host: Host) -> None:
    network = call(host, "wasi:sockets/instance-network#instance-network")
    assert isinstance(network, Network)
    for name, values in (
        ("tcp-create-socket#create-tcp-socket", ("ipv4",)),
        ("udp-create-socket#create-udp-socket", ("ipv6",)),
        ("ip-name-lookup#resolve-addresses", (network, "example.org")),
    ):
        assert call(host, f"wasi:sockets/{name}", *values) == (False, "access-denied")
    assert call(host, "wasi:sockets/network#network-error-code", IoError("")) is None


def test_the_interfaces_that_are_hosted_are_those_with_functions() -> None:
    assert {name.partition("#")[0] for name in FUNCTIONS} == HOSTED
    assert set(FUNCTIONS) >= MAY_WAIT
    blocking = {name for name in FUNCTIONS if "blocking-" in name}
    assert len(blocking) == 6
    assert blocking < MAY_WAIT
