"""A real worker process with a real region and slot table, and a supervisor's end to talk to it. No root needed."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from wasmpool_agent.channel import ChannelClosed
from wasmpool_agent.compiler import Compiled, compile_module
from wasmpool_agent.protocol import (
    ArtifactKind,
    Exited,
    FromWorker,
    LoadModule,
    ModuleFailed,
    ModuleLoaded,
    Part,
    Ready,
    Shutdown,
    Start,
    Started,
    Stop,
    SupervisorChannel,
    socket_pair,
    supervisor_channel,
)
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import Backing, InstancePool
from wasmpool_api.region import region_shape

PATIENCE_SECONDS = 30.0


def pool(
    count: int = 4, backing: str = "BasePages", allocator: str = "Pooling", space: str = "64Mi", **spec: object
) -> dict[str, object]:
    """An InstancePool's manifest."""
    return {
        "apiVersion": "wasmpool.dev/v1alpha1",
        "kind": "InstancePool",
        "metadata": {"name": "test", "namespace": "default", "uid": "u"},
        "spec": {
            "allocation": {"type": allocator, "backing": backing},
            "instanceLimits": {"count": count, "addressSpaceSize": space},
            **spec,
        },
    }


class Worker:
    """The supervisor's view of one worker."""

    def __init__(self, channel: SupervisorChannel, process: asyncio.subprocess.Process) -> None:
        self.channel = channel
        self.process = process
        self.log = bytearray()
        self.instance = 0
        self.seen: list[FromWorker] = []
        self.may_read = asyncio.Event()
        self.log_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def next(self, wanted: Callable[[FromWorker], bool]) -> FromWorker:
        """The first message that is wanted and was not yet handed out."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for position, message in enumerate(self.seen):
                    if wanted(message):
                        return self.seen.pop(position)
                message, _ = await self.channel.receive()
                self.seen.append(message)

    async def load(self, key: str, compiled: Compiled) -> ModuleLoaded | ModuleFailed:
        """Sends an artifact and waits for the verdict."""
        part = Part(size=compiled.size, sha256=compiled.sha256)
        self.channel.post(LoadModule(key=key, kind=ArtifactKind.MODULE, parts=(part,)), (compiled.fd,))
        answer = await self.next(
            lambda message: isinstance(message, ModuleLoaded | ModuleFailed) and message.key == key
        )
        assert isinstance(answer, ModuleLoaded | ModuleFailed)
        return answer

    def start(self, key: str, **fields: object) -> int:
        """Starts an instance and gives its number."""
        self.instance += 1
        start: dict[str, object] = {
            "instance": self.instance,
            "workload_id": 7,
            "workload": "shop/thumbs",
            "revision": "thumbs-1",
            "artifact": key,
        }
        self.channel.post(msgspec.convert(start | fields, Start))
        return self.instance

    async def started(self, instance: int) -> Started:
        """Waits until it has started."""
        answer = await self.next(lambda message: isinstance(message, Started) and message.instance == instance)
        assert isinstance(answer, Started)
        return answer

    async def exited(self, instance: int) -> Exited:
        """Waits until it has ended."""
        answer = await self.next(lambda message: isinstance(message, Exited) and message.instance == instance)
        assert isinstance(answer, Exited)
        return answer

    async def run(self, key: str, **fields: object) -> Exited:
        """One instance from start to end."""
        return await self.exited(self.start(key, **fields))

    def stop(self, instance: int, grace_seconds: float = 0.0) -> None:
        """Asks for its end."""
        self.channel.post(Stop(instance=instance, grace_seconds=grace_seconds))

    async def lines(self) -> list[dict[str, object]]:
        """Shuts the worker down and gives all that its guests wrote."""
        self.channel.post(Shutdown())
        async with asyncio.timeout(PATIENCE_SECONDS):
            status = await self.process.wait()
            await self.log_ended
        assert status == 0
        return [json.loads(line) for line in self.log.splitlines()]

    def begin_reading(self) -> None:
        """From now on somebody reads what the worker writes."""
        self.may_read.set()


class Bench:
    """A pool's region and table, and the workers over them."""

    def __init__(self, directory: Path, manifest: dict[str, object]) -> None:
        self.pool_file = directory / "pool.yaml"
        self.pool_file.write_text(json.dumps(manifest))
        self.spec = decode(InstancePool, manifest).spec
        # Ordinary pages under every pool: what the worker sees is the same, and it needs neither root nor huge pages.
        shape = region_shape(self.spec)
        self.region = Region.reserve(replace(shape, backing=Backing.BASE_PAGES, page_bytes=4096))
        self.region.shape = shape
        self.table = SlotTable.create(self.spec.instance_limits.count, self.spec.allocation.strategy)

    def close(self) -> None:
        self.table.close()
        self.region.close()

    async def compile(self, wasm: bytes) -> Compiled:
        return await compile_module(wasm, self.pool_file)

    @asynccontextmanager
    async def worker(self, worker_id: int = 1, *, read_log: bool = True) -> AsyncIterator[Worker]:
        """A worker that has said Ready; killed in the end if it has not gone by then."""
        ours, theirs = socket_pair()
        log, write_log = os.pipe()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "wasmpool_agent.worker",
            *("--id", str(worker_id), "--socket-fd", str(theirs.fileno()), "--region-fd", str(self.region.fd)),
            *("--table-fd", str(self.table.fd), "--pool-file", str(self.pool_file)),
            *("--supervisor-pid", str(os.getpid())),
            stdout=write_log,
            pass_fds=(theirs.fileno(), self.region.fd, self.table.fd),
            env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        )
        theirs.close()
        os.close(write_log)
        channel = supervisor_channel(ours)
        worker = Worker(channel, process)
        reading = asyncio.create_task(self._read(log, worker))
        if read_log:
            worker.begin_reading()
        try:
            await worker.next(lambda message: isinstance(message, Ready))
            yield worker
        finally:
            channel.close()
            if process.returncode is None:
                try:
                    async with asyncio.timeout(5):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()
            worker.begin_reading()
            await reading

    async def _read(self, fd: int, worker: Worker) -> None:
        await worker.may_read.wait()
        while chunk := await asyncio.to_thread(os.read, fd, 65536):
            worker.log += chunk
        os.close(fd)
        worker.log_ended.set_result(None)


__all__ = ["Bench", "ChannelClosed", "Worker", "pool"]
