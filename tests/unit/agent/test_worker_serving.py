"""A worker process that answers requests, driven over its socket: revisions that come and go at any moment.

The component is the smallest that answers: it ends without an answer, and so its client gets 500.
"""

import asyncio
import http.client
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import wasmtime

from tests.unit.agent.worker_harness import Bench, Worker, pool
from wasmpool_agent.bundles import unpack
from wasmpool_agent.compiler import CompileFailed, CompileReason, Sealed
from wasmpool_agent.protocol import (
    FromWorker,
    LoadModule,
    ModuleLoaded,
    Part,
    Serve,
    Serving,
    Shutdown,
    Withdraw,
    Withdrawn,
)
from wasmpool_agent.store_limits import StoreLimits

HANDLER: Final = """(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type $request (sub resource)))
    (export "response-outparam" (type $outparam (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $m (memory 1) (func (export "run") {core}))
  (core instance $i (instantiate $m))
  (func $run {params} (canon lift (core func $i "run")))
  (instance $exported (export "{name}" (func $run)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $exported)))"""
ANSWERS: Final = HANDLER.format(
    name="handle",
    core="(param i32 i32)",
    params='(param "request" (own $request)) (param "response-out" (own $outparam))',
)
COMMAND: Final = """(component
  (core module $m (func (export "run") {core}))
  (core instance $i (instantiate $m))
  (func $run {params} (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.setblocking(False)
        yield made


def with_worker(directory: Path, test: Callable[[Worker], Awaitable[None]]) -> None:
    """A worker that has loaded ANSWERS as "answers"."""

    async def run() -> None:
        bench = Bench(directory, pool(count=4))
        try:
            async with bench.worker() as worker:
                compiled = await bench.compile(bytes(wasmtime.wat2wasm(ANSWERS)))
                kind, parts = unpack(Sealed(compiled.fd, compiled.size, compiled.sha256))
                described = tuple(Part(size=it.size, sha256=it.sha256) for it in parts)
                fds = tuple(it.fd for it in parts)
                worker.channel.post(LoadModule(key="answers", kind=kind, parts=described), fds)
                await worker.next(lambda message: isinstance(message, ModuleLoaded))
                await test(worker)
                worker.channel.post(Shutdown())
                async with asyncio.timeout(5):
                    assert await worker.process.wait() == 0
                for fd in fds:
                    os.close(fd)
        finally:
            bench.close()

    asyncio.run(run())


def serve(worker: Worker, listener: socket.socket, revision: str, ready: int = 0) -> None:
    told = Serve(
        site="site",
        revision=revision,
        workload_id=7,
        workload="shop/web",
        artifact="answers",
        deadline_seconds=5.0,
        queue_seconds=1.0,
        ready=ready,
        limits=StoreLimits(memory_pages=1, memories=1, tables=4, table_elements=1000, instances=8),
    )
    worker.channel.post(told, (listener.fileno(),))


def withdraw(worker: Worker, revision: str) -> None:
    worker.channel.post(Withdraw(site="site", revision=revision, grace_seconds=0.0))


def of(kind: type[Serving] | type[Withdrawn], revision: str) -> Callable[[FromWorker], bool]:
    return lambda message: isinstance(message, kind) and message.revision == revision


async def status(listener: socket.socket) -> int:
    def ask() -> int:
        connection = http.client.HTTPConnection(*listener.getsockname(), timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


def test_a_workload_that_leaves_and_returns_at_once_is_answered_for(tmp_path: Path, listener: socket.socket) -> None:
    async def test(worker: Worker) -> None:
        for number in range(6):
            revision = f"r{number}"
            serve(worker, listener, revision, ready=number % 2)
            await worker.next(of(Serving, revision))
            assert await status(listener) == 500
            withdraw(worker, revision)
            await worker.next(of(Withdrawn, revision))

    with_worker(tmp_path, test)


@pytest.mark.parametrize("ready", [0, 2])
def test_a_revision_that_is_withdrawn_while_its_first_instance_is_made_says_that_it_has_gone(
    tmp_path: Path, listener: socket.socket, ready: int
) -> None:
    async def test(worker: Worker) -> None:
        for number in range(20):
            serve(worker, listener, f"r{number}", ready)
            withdraw(worker, f"r{number}")
            await worker.next(of(Withdrawn, f"r{number}"))
        serve(worker, listener, "last", ready)  # and ends in the middle of it

    with_worker(tmp_path, test)


@pytest.mark.parametrize(
    ("component", "said"),
    [
        (HANDLER.format(name="nope", core="", params=""), "without its function handle"),
        (HANDLER.format(name="handle", core="", params=""), "of another type"),
        (
            HANDLER.format(name="handle", core="(param i32 i32)", params='(param "a" u32) (param "b" u32)'),
            "of another type than func(request: own<incoming-request>, response-out: own<response-outparam>)",
        ),
        (COMMAND.format(core="", params=""), "of another type than func() -> result"),
        (COMMAND.format(core="(param i32)", params='(param "a" u32)'), "of another type"),
    ],
    ids=["another name", "no parameters", "numbers", "run without a result", "run with a parameter"],
)
def test_what_could_not_be_called_is_not_compiled(tmp_path: Path, component: str, said: str) -> None:
    bench = Bench(tmp_path, pool(count=1))
    try:
        with pytest.raises(CompileFailed, match="the component exports wasi:") as caught:
            asyncio.run(bench.compile(bytes(wasmtime.wat2wasm(component))))
    finally:
        bench.close()
    assert caught.value.reason is CompileReason.MODULE_INVALID
    assert said in str(caught.value)
