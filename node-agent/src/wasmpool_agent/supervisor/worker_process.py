"""The process of a worker: how it is started, and how its end is read."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wasmpool_agent.region import Region
from wasmpool_agent.slots import SlotTable
from wasmpool_api.instance_pool import Backing

_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL")


@dataclass(frozen=True, slots=True)
class Launcher:
    """What all workers of a pool are started with. Region and table stay the caller's."""

    region: Region
    table: SlotTable
    pool_file: Path
    backing: Backing | None

    async def launch(self, worker_id: int, socket_fd: int) -> Process:
        """Starts one that talks over this socket. Raises OSError."""
        arguments = [
            *("-m", "wasmpool_agent.worker"),
            *("--id", str(worker_id)),
            *("--socket-fd", str(socket_fd)),
            *("--region-fd", str(self.region.fd)),
            *("--table-fd", str(self.table.fd)),
            *("--pool-file", str(self.pool_file)),
            *("--supervisor-pid", str(os.getpid())),
        ]
        if self.backing is not None:
            arguments += ["--backing", self.backing.value]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(socket_fd, self.region.fd, self.table.fd),
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )


async def to_its_end(work: Coroutine[None, None, None]) -> None:
    """NB: also when cancelled, for the slots of a process that still lives must not be given to others."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def ending(status: int) -> str:
    """In words: of a process's exit status, negative for a signal."""
    return f"by signal {-status}" if status < 0 else f"with status {status}"
