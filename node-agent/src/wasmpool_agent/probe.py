"""Tries an engine configuration in a child process, because a bad one aborts the process that it is made in.

Imports no Wasmtime: this half runs in the supervisor.
"""

import asyncio
import re
import signal
import sys

import msgspec

from wasmpool_agent.refusals import EngineRefusedError
from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import Backing, InstancePoolSpec

_PANIC = re.compile(r"panicked at [^\n]*\n(?P<text>.*?)(\n(stack backtrace:|note: )|\Z)", re.DOTALL)


def reason(status: int, stderr: str) -> str:
    """What to tell a person about a child that ended so: the panic's own words, on one line, where there are some."""
    panic = _PANIC.search(stderr)
    text = " ".join((panic["text"] if panic else stderr).split())
    if status < 0:
        return f"the engine aborted with {signal.Signals(-status).name}: {text or 'it said nothing'}"
    return text or f"the probe ended with status {status} and said nothing"


async def probe_engine(spec: InstancePoolSpec, backing: Backing | None = None, *, timeout_seconds: float = 60) -> None:
    """Makes the pool's engine, and runs a guest in it, in a child. Raises EngineRefusedError with the reason.

    `backing`: the region's, where it is not what the spec asks for.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "wasmpool_agent.engine", backing or ""),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            _, stderr = await child.communicate(msgspec.json.encode(encode(spec)))
    except TimeoutError as error:
        raise EngineRefusedError(f"the engine was not made within {timeout_seconds:g} s") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        raise EngineRefusedError(reason(child.returncode or 0, stderr.decode(errors="replace")))
