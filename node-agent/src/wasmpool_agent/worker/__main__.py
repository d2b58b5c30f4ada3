"""`python -m wasmpool_agent.worker`: started by the supervisor, which gives it descriptors and nothing else.

Order at the end, for each part uses those below it: tasks, channel, log, ticker, engine, slot table, region.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import wasmtime

from wasmpool_agent.allocators import allocator_for, counts_of
from wasmpool_agent.engine import engine_config
from wasmpool_agent.hardening import harden
from wasmpool_agent.pool_file import read_pool
from wasmpool_agent.protocol import SiteStats, worker_channel
from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.wasi.guest import Guest
from wasmpool_agent.wasi.linking import link_preview1
from wasmpool_agent.wasmtime_async import HostFunctions
from wasmpool_agent.worker.artifacts import Artifacts
from wasmpool_agent.worker.instance import Instances
from wasmpool_agent.worker.lines import Lines
from wasmpool_agent.worker.output import LogWriter
from wasmpool_agent.worker.revision import Said
from wasmpool_agent.worker.scheduler import Scheduler
from wasmpool_agent.worker.service import DRAIN_SECONDS, Service
from wasmpool_agent.worker.serving import Sites
from wasmpool_agent.worker.ticker import Ticker
from wasmpool_api.instance_pool import Backing, InstancePoolSpec
from wasmpool_api.region import region_shape


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wasmpool_agent.worker", description=__doc__)
    parser.add_argument("--id", type=int, required=True, help="of this worker, in the slot table; at least 1")
    parser.add_argument("--socket-fd", type=int, required=True, help="the worker's end of a SOCK_SEQPACKET pair")
    parser.add_argument("--region-fd", type=int, required=True, help="the region's memfd")
    parser.add_argument("--table-fd", type=int, required=True, help="the slot table's memfd")
    parser.add_argument("--pool-file", type=Path, required=True, help="the InstancePool, as JSON or YAML")
    parser.add_argument("--backing", type=Backing, help="the region's, where it is not what the pool asks for")
    parser.add_argument("--supervisor-pid", type=int, help="ends the worker at once if that is not its parent any more")
    return parser.parse_args(arguments)


async def _serve(arguments: argparse.Namespace, spec: InstancePoolSpec, region: Region, table: SlotTable) -> int:
    allocator = allocator_for(spec, region, table, arguments.id)
    engine = wasmtime.Engine(engine_config(allocator))
    functions = HostFunctions[Guest](engine)
    link_preview1(functions)
    log = LogWriter(sys.stdout.fileno(), time.monotonic)
    channel = worker_channel(socket.socket(fileno=arguments.socket_fd))
    try:
        with Ticker(engine.increment_epoch) as ticker:
            scheduler, limits = Scheduler(ticker.touch), StoreLimits.of(spec)
            instances = Instances(functions, allocator, scheduler, log, limits)
            artifacts = Artifacts(functions.linker)

            def sites(post: Callable[[Said | SiteStats], None]) -> Sites:
                return Sites(artifacts, allocator, scheduler, Lines(log), limits, post)

            service = Service(channel, artifacts, instances, log, lambda: counts_of(allocator, table), sites)
            return await service.serve()
    finally:
        channel.close()
        log.close(DRAIN_SECONDS)


def main(arguments: list[str]) -> int:
    """Runs until the supervisor closes the socket; gives the exit status."""
    parsed = _parse(arguments)
    harden(parsed.supervisor_pid)
    # Ctrl-C and `timeout` go to the whole group; how the workers end is for the supervisor to say.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    spec = read_pool(parsed.pool_file).spec
    shape = region_shape(spec, parsed.backing)
    if not shape.region_bytes:  # type OnDemand: what there is only stands for a region
        shape = replace(shape, region_bytes=os.fstat(parsed.region_fd).st_size)
    with (
        Region.attach(parsed.region_fd, shape) as region,
        SlotTable.attach(parsed.table_fd, spec.allocation.strategy) as table,
    ):
        return asyncio.run(_serve(parsed, spec, region, table))


if __name__ == "__main__":
    os.environ.clear()
    status = main(sys.argv[1:])
    # NB: not sys.exit, which waits for threads that look up names, however long that takes.
    sys.stderr.flush()
    os._exit(status)
