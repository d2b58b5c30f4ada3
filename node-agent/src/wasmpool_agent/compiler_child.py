"""`python -m wasmpool_agent.compiler_child`: compiles one module in a process that may die of it.

The module comes from one descriptor and the compiled code goes to another. One line of JSON on standard output says how
it went; a process that ends without it has crashed or met a limit.
"""

import argparse
import contextlib
import mmap
import os
import resource
import sys
from pathlib import Path

import msgspec
import wasmtime
from wasmtime import component as wit

from wasmpool_agent import canonical
from wasmpool_agent.bundles import pack
from wasmpool_agent.compiler import CompileReason, Report, out_of_memory
from wasmpool_agent.component_entries import entry_problem
from wasmpool_agent.data_segments import join_data_segments
from wasmpool_agent.engine import compiler_config, settings_key
from wasmpool_agent.hardening import harden
from wasmpool_agent.pool_file import read_pool
from wasmpool_agent.protocol import ArtifactKind
from wasmpool_agent.wasi.linking import imports_of, unprovided
from wasmpool_agent.wasi.p2.registry import MAY_WAIT
from wasmpool_api.instance_pool import Backing
from wasmpool_api.wasm import BinaryKind, ModuleInvalid
from wasmpool_api.wasm.preamble import kind_of


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wasmpool_agent.compiler_child", description=__doc__)
    parser.add_argument("--pool-file", type=Path, required=True)
    parser.add_argument("--backing", default="", help="the region's, where it is not what the pool asks for")
    parser.add_argument("--in-fd", type=int, help="the module; without it, only the engine's settings are reported")
    parser.add_argument("--out-fd", type=int)
    parser.add_argument("--memory-limit", type=int, default=0, help="bytes beyond what the process has at its start")
    parser.add_argument("--cpu-seconds", type=int, default=0)
    parser.add_argument("--supervisor-pid", type=int)
    return parser.parse_args(arguments)


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    """RLIMIT_DATA counts what can be written, unlike RLIMIT_AS, in which reserved address space counts as memory."""
    if memory_bytes:
        allowed = _data_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    if cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where the pod's memory ends before this limit does, nobody else is to die of it.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _data_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "VmData":
            return int(value.split()[0]) * 1024
    return 0


def _compile(parsed: argparse.Namespace) -> Report:
    spec = read_pool(parsed.pool_file).spec
    backing = Backing(parsed.backing) if parsed.backing else None
    settings = settings_key(spec, backing)
    if parsed.in_fd is None:
        return Report(settings=settings)
    engine = wasmtime.Engine(compiler_config(spec, backing))
    size = os.fstat(parsed.in_fd).st_size
    if not size:
        return Report(reason=CompileReason.MODULE_INVALID, message="the module is empty (0 bytes)")
    with mmap.mmap(parsed.in_fd, size, prot=mmap.PROT_READ) as content:
        wasm = bytes(content)
    if not wasm.startswith(b"\0asm"):
        # NB: Module() would take text for WAT.
        return Report(reason=CompileReason.MODULE_INVALID, message=f"not WebAssembly: it begins {wasm[:4].hex()}")
    try:
        if kind_of(wasm) is BinaryKind.COMPONENT:
            component = wit.Component(engine, wasm)  # which is what validates it
            problem = entry_problem(engine, component)
            if problem:
                return Report(reason=CompileReason.MODULE_INVALID, message=problem)
            pieces = _component(engine, component, wasm)
        else:
            module = wasmtime.Module(engine, join_data_segments(wasm))
            missing = unprovided(imports_of(module))
            if missing:
                return Report(reason=CompileReason.UNSUPPORTED_IMPORT, message=missing)
            pieces = [bytes(module.serialize())]
    except wasmtime.WasmtimeError as error:
        return refused(str(error))
    except ModuleInvalid as error:
        return Report(reason=CompileReason.MODULE_INVALID, message=str(error))
    for piece in pieces:
        left = memoryview(piece)
        while left:
            left = left[os.write(parsed.out_fd, left) :]
    return Report(settings=settings)


def _component(engine: wasmtime.Engine, component: wit.Component, wasm: bytes) -> list[bytes]:
    """For our own canonical ABI, or for Wasmtime's component API where that refuses it."""
    try:
        parts = canonical.compile_component(engine, wasm, MAY_WAIT)
    except canonical.Unsupported:
        return pack(ArtifactKind.COMPONENT_API, [bytes(component.serialize())])
    return pack(ArtifactKind.COMPONENT, parts)


_FEATURE_SIGNS = ("must be enabled", "support is not enabled", "proposal not enabled", "disallowed", "not supported")


def refused(text: str) -> Report:
    """Wasmtime says the same for what is wrong and for what is switched off here, but in other words."""
    message = " ".join(text.split())
    if out_of_memory(message):
        return Report(reason=CompileReason.MEMORY_LIMIT)
    unsupported = any(sign in message for sign in _FEATURE_SIGNS)
    return Report(
        reason=CompileReason.UNSUPPORTED_FEATURE if unsupported else CompileReason.MODULE_INVALID, message=message
    )


def main(arguments: list[str]) -> int:
    """0 with a report on standard output; anything else is a crash."""
    parsed = _parse(arguments)
    harden(parsed.supervisor_pid)
    _limit(parsed.memory_limit, parsed.cpu_seconds)
    sys.stdout.buffer.write(msgspec.json.encode(_compile(parsed)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
