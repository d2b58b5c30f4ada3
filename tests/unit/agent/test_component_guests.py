"""What toolchains make, through Wasmtime's component API: commands and handlers of requests, on a real loop.

Covers a command of Rust's; C, Rust, JavaScript and Python that answer GET and echo a body, streamed, several at once on
one thread; that a guest which waits for a body for ever, and its neighbour that spins, are ended within 100 ms; that
memories are in the instance's slot, which is clean afterwards; and that nothing of an instance is left. Guests that are
not built on this machine are skipped: `python -m tests.toolchains` and tests.bench.web_guests build them.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import wasmtime

from tests.allocation import ALL_KINDS, IN_REGION, open_pool
from wasmpool_agent.component_api import Instance, Program, compile_component
from wasmpool_agent.engine import DEFAULT_TUNABLES, _config
from wasmpool_agent.http import Connection, Exchange, Limits
from wasmpool_agent.wasi.guest import Clocks
from wasmpool_agent.wasi.p2 import Host
from wasmpool_agent.wasi.p2.http_types import Answering, incoming
from wasmpool_agent.wasmtime_async import GuestTrap
from wasmpool_agent.worker.scheduler import CpuClock, Scheduler
from wasmpool_agent.worker.ticker import Ticker

GUESTS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wasmpool" / "guests"
MOST_SECONDS = 10.0
"""For ever is longer."""
WEB = ["echo-c", "echo-rust", "js-http", "python-http"]


class Output:
    """A standard stream that is kept."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


class Engine:
    """An engine, and the guests that were compiled for it."""

    def __init__(self) -> None:
        self.engine = wasmtime.Engine(_config(DEFAULT_TUNABLES))
        self._programs: dict[str, Program] = {}

    def load(self, name: str) -> Program:
        guest = GUESTS / f"{name}.wasm"
        if not guest.exists():
            pytest.skip(f"{guest} is not built")
        if name not in self._programs:
            self._programs[name] = self.compiled(guest.read_bytes())
        return self._programs[name]

    def compiled(self, component: bytes) -> Program:
        return Program.load(self.engine, compile_component(self.engine, component))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine()


class Server:
    """Answers each request with a new instance. `live`: those that there are."""

    limits = Limits()

    def __init__(self, engine: wasmtime.Engine, program: Program, touch: Callable[[], None]) -> None:
        self.engine = engine
        self.program = program
        self.scheduler = Scheduler(touch)
        self.tasks: set[asyncio.Task[None]] = set()
        self.live: list[Instance] = []
        self.output = Output()
        self.connections = 0
        self.begun = asyncio.Event()
        self.closed_all = asyncio.Event()
        self.clients: list[asyncio.StreamWriter] = []

    def host(self, http: object = None) -> Host:
        clocks = Clocks(time.time_ns, time.monotonic_ns, time.process_time_ns)
        return Host(("guest",), (("MODE", "test"),), self.output, self.output, clocks, http=http)

    @asynccontextmanager
    async def instance(self, host: Host) -> AsyncIterator[Instance]:
        store = wasmtime.Store(self.engine)
        instance = self.program.instance(store, host)
        self.live.append(instance)
        self.begun.set()
        try:
            await self.scheduler.run(instance.instantiate(nullcontext), CpuClock(time.monotonic_ns))
            yield instance
        finally:
            self.live.remove(instance)
            instance.close()
            store.close()
            assert len(instance.handles) == 0

    async def call(self, host: Host, interface: str, function: str, *arguments: object) -> object:
        export = next(it for it in self.program.exports if it.startswith(interface))
        async with self.instance(host) as instance:
            call = instance.call(export, function, *arguments)
            await self.scheduler.run(call, CpuClock(time.monotonic_ns))
            return call.result()

    def handle(self, exchange: Exchange) -> None:
        task = asyncio.ensure_future(self._answer(exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def opened(self, connection: Connection) -> None:
        self.connections += 1

    def closed(self, connection: Connection) -> None:
        self.connections -= 1
        if not self.connections:
            self.closed_all.set()

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self.call(
                self.host(Answering(exchange)), "wasi:http/incoming-handler@", "handle", *incoming(exchange)
            )
        except GuestTrap as trap:
            exchange.plain(500, trap.message)

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(partial(Connection, self, loop), ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        self.clients.append(writer)
        return reader, writer

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for writer in self.clients:
            writer.close()
        if self.connections:
            await self.closed_all.wait()


@asynccontextmanager
async def server(engine: Engine, name: str) -> AsyncIterator[Server]:
    program = engine.load(name)
    with Ticker(engine.engine.increment_epoch) as ticker:
        made = Server(engine.engine, program, ticker.touch)
        try:
            async with asyncio.timeout(60):
                yield made
        finally:
            await made.close()
        assert made.live == []


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body), the body whole."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"content-length: " in head:
        return head, await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return head, body


def test_a_command_runs_and_says_how_it_ended(engine: Engine) -> None:
    async def run() -> tuple[object, bytes]:
        async with server(engine, "rust-p2") as made:
            result = await made.call(made.host(), "wasi:cli/run@", "run")
            return result, made.output.data

    result, output = asyncio.run(run())
    assert result == (True, None)
    assert b"hello" in output.lower()


@pytest.mark.parametrize("name", WEB)
def test_a_get_is_answered(engine: Engine, name: str) -> None:
    async def run() -> None:
        async with server(engine, name) as made:
            reader, writer = await made.client()
            for _ in range(2):
                writer.write(b"GET /some/path?x=1 HTTP/1.1\r\nhost: here\r\n\r\n")
                head, body = await answer(reader)
                assert head.startswith(b"HTTP/1.1 200 ")
                assert body

    asyncio.run(run())


def test_a_guest_that_reads_all_before_it_answers_gets_all(engine: Engine) -> None:
    sent = os.urandom(100_000)

    async def run() -> None:
        async with server(engine, "echo-js") as made:
            reader, writer = await made.client()
            writer.write(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%s" % (len(sent), sent))
            assert (await answer(reader))[1] == sent

    asyncio.run(run())


@pytest.mark.parametrize("name", ["echo-rust", "echo-python"])
def test_a_body_comes_back_whole_and_while_it_is_sent(engine: Engine, name: str) -> None:
    sent = os.urandom(300_000)

    async def echo(made: Server) -> None:
        reader, writer = await made.client()
        writer.write(b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(b"5\r\nfirst\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        first = b""
        while len(first) < 5:  # before the rest is sent
            size = int(await reader.readline(), 16)
            first += await reader.readexactly(size)
            await reader.readline()
        assert first == b"first"
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(sent), sent))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        assert body == sent

    async def run() -> None:
        async with server(engine, name) as made:
            await asyncio.gather(*(echo(made) for _ in range(3)))

    asyncio.run(run())


SPIN = """(component
  (core module $m (func (export "spin") (loop (br 0))))
  (core instance $i (instantiate $m))
  (func (export "spin") (canon lift (core func $i "spin"))))"""


def test_guests_that_wait_and_that_spin_for_ever_are_ended_in_time(engine: Engine) -> None:
    async def run() -> float:
        async with server(engine, "echo-rust") as made:
            _, writer = await made.client()
            writer.write(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 10\r\n\r\n")
            await made.begun.wait()
            spinner = engine.compiled(wasmtime.wat2wasm(SPIN))
            store = wasmtime.Store(engine.engine)
            spinning = spinner.instance(store, made.host())
            await made.scheduler.run(spinning.instantiate(nullcontext), CpuClock(time.monotonic_ns))
            cpu = CpuClock(time.monotonic_ns)
            spin = asyncio.ensure_future(made.scheduler.run(spinning.call("", "spin"), cpu))
            await asyncio.sleep(0.2)  # the loop goes on while one spins and one waits
            assert cpu.ns() > 50_000_000
            assert not spin.done()
            assert len(made.tasks) == 1
            began = time.monotonic()
            spin.cancel()
            for task in made.tasks:
                task.cancel()
            await asyncio.gather(spin, *made.tasks, return_exceptions=True)
            seconds = time.monotonic() - began
            assert made.live == []
            store.close()
            return seconds

    assert asyncio.run(run()) < MOST_SECONDS


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_memories_are_in_the_slot_which_is_clean_afterwards(kind: str) -> None:
    guest = GUESTS / "rust-p2.wasm"
    if not guest.exists():
        pytest.skip(f"{guest} is not built")
    with open_pool(kind, slots=2, memory_pages=40) as pool:
        program = Program.load(pool.engine, compile_component(pool.engine, guest.read_bytes()))
        server = Server(pool.engine, program, SimpleNamespace)
        for _ in range(3):
            slot = pool.allocator.allocate(1)
            store = wasmtime.Store(pool.engine)
            instance = program.instance(store, server.host())
            assert instance.instantiate(partial(pool.allocator.initialize, slot)).poll()
            if kind in IN_REGION:
                assert pool.in_region.live_memories(slot) == 1
            call = instance.call("wasi:cli/run@0.2.0", "run")
            while not call.poll():
                assert call.waits_for is None
            assert call.result() == (True, None)
            instance.close()
            store.close()
            assert pool.allocator.deallocate(slot)
            if kind in IN_REGION:
                assert pool.in_region.stats().memories > 0
                pool.region.prove_clean(slot.index)
    assert server.output.data.lower().count(b"hello") >= 3


@pytest.mark.parametrize("kind", IN_REGION)
def test_a_memory_without_a_place_is_refused(kind: str) -> None:
    with open_pool(kind) as pool:
        text = "(component (core module $m (memory 1)) (core instance (instantiate $m)))"
        program = Program.load(pool.engine, compile_component(pool.engine, wasmtime.wat2wasm(text)))
        store = wasmtime.Store(pool.engine)
        instance = program.instance(store, Server(pool.engine, program, SimpleNamespace).host())
        with pytest.raises(wasmtime.WasmtimeError):
            instance.instantiate(nullcontext).poll()
        store.close()


def test_a_guest_that_traps_leaves_nothing_behind(engine: Engine) -> None:
    text = """(component
      (import "wasi:cli/stderr@0.2.3" (instance $stderr
        (export "output-stream" (type $s (sub resource)))
        (export "get-stderr" (func (result (own $s))))))
      (core func $get (canon lower (func $stderr "get-stderr")))
      (core module $m
        (import "" "get" (func $get (result i32)))
        (func (export "run") (drop (call $get)) unreachable))
      (core instance $i (instantiate $m (with "" (instance (export "get" (func $get))))))
      (func (export "run") (canon lift (core func $i "run"))))"""
    program = engine.compiled(wasmtime.wat2wasm(text))
    store = wasmtime.Store(engine.engine)
    instance = program.instance(store, Server(engine.engine, program, SimpleNamespace).host())
    assert instance.instantiate(nullcontext).poll()
    call = instance.call("", "run")
    with pytest.raises(GuestTrap, match="unreachable"):
        call.poll()
    assert len(instance.handles) == 1
    instance.close()
    store.close()
    assert len(instance.handles) == 0
