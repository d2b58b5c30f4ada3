"""The compiler child: what it gives back, and that a module can neither hang nor exhaust nor confuse the supervisor."""

import asyncio
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from tests.unit.agent.worker_harness import pool
from wasmpool_agent import compiler_child
from wasmpool_agent.compiler import (
    Compiled,
    CompileFailed,
    CompileReason,
    compile_module,
    engine_settings,
)
from wasmpool_agent.data_segments import join_data_segments

EMPTY = wasmtime.wat2wasm("(module)")


@pytest.fixture
def pool_file(tmp_path: Path) -> Path:
    path = tmp_path / "pool.yaml"
    path.write_text(json.dumps(pool()))
    return path


def compiled(wasm: bytes, pool_file: Path, timeout: float = 30.0, memory: int = 1024**3, backing: str = "") -> Compiled:
    return asyncio.run(
        compile_module(wasm, pool_file, timeout_seconds=timeout, memory_limit_bytes=memory, backing=backing)
    )


def failure(wasm: bytes, pool_file: Path, **limits: float) -> CompileFailed:
    with pytest.raises(CompileFailed) as caught:
        compiled(wasm, pool_file, **limits)  # type: ignore[arg-type]
    return caught.value


def functions(count: int, body: str) -> bytes:
    return wasmtime.wat2wasm("(module (memory 1)" + f"(func (param i32) {body})" * count + ")")


def test_the_code_is_sealed_and_its_digest_is_right(pool_file: Path) -> None:
    with compiled(EMPTY, pool_file) as result:
        content = os.pread(result.fd, result.size + 1, 0)
        assert len(content) == result.size > 0
        assert hashlib.sha256(content).hexdigest() == result.sha256
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        assert fcntl.fcntl(result.fd, fcntl.F_GET_SEALS) == seals
        assert result.settings == asyncio.run(engine_settings(pool_file))
        assert result.settings != asyncio.run(engine_settings(pool_file, backing="HugePages2Mi"))


@pytest.mark.parametrize(
    ("wasm", "reason", "problem"),
    [
        pytest.param(b"", CompileReason.MODULE_INVALID, "the module is empty", id="empty"),
        pytest.param(b"(module)", CompileReason.MODULE_INVALID, "not WebAssembly: it begins 286d6f64", id="text"),
        pytest.param(EMPTY + b"\x01\x7f", CompileReason.MODULE_INVALID, "offset", id="truncated"),
        pytest.param(
            wasmtime.wat2wasm("(module (memory 1 1 shared))"),
            CompileReason.UNSUPPORTED_FEATURE,
            "threads must be enabled",
            id="shared memory",
        ),
        pytest.param(
            wasmtime.wat2wasm("(module (memory i64 1))"), CompileReason.UNSUPPORTED_FEATURE, "memory64", id="memory64"
        ),
        pytest.param(
            wasmtime.wat2wasm('(module (import "env" "foo" (func)) (import "env" "mem" (memory 1)))'),
            CompileReason.UNSUPPORTED_IMPORT,
            "module imports env.foo (function), env.mem (memory), which no host interface provides",
            id="imports",
        ),
    ],
)
def test_a_module_that_can_never_run_is_refused_for_good_with_what_is_wrong(
    wasm: bytes, reason: CompileReason, problem: str, pool_file: Path
) -> None:
    refused = failure(wasm, pool_file)
    assert (refused.reason, refused.reason.permanent) == (reason, True)
    assert problem in refused.message


def test_a_compilation_that_takes_too_long_is_ended(pool_file: Path) -> None:
    slow = functions(2, "(i32.store (local.get 0) (i32.load (local.get 0)))" * 400_000)
    late = failure(slow, pool_file, timeout=0.5)
    assert (late.reason, late.reason.permanent) == (CompileReason.TIME_LIMIT, False)
    assert late.message == "compiling took more than 0.5 s, which is what is allowed"


def test_a_compilation_that_takes_too_much_memory_is_ended(pool_file: Path) -> None:
    large = functions(2, "(i32.store (local.get 0) (i32.load (local.get 0)))" * 100_000)
    hungry = failure(large, pool_file, memory=32 * 1024**2)
    assert (hungry.reason, hungry.reason.permanent) == (CompileReason.MEMORY_LIMIT, False)
    assert "more than 33554432 bytes" in hungry.message


@pytest.mark.parametrize("mib", [1, 4, 16, 24, 40])
def test_wherever_memory_ends_it_is_never_called_the_modules_own_fault(pool_file: Path, mib: int) -> None:
    large = functions(40, "(i32.store (local.get 0) (i32.load (local.get 0)))" * 10_000)
    hungry = failure(large, pool_file, memory=mib * 1024**2)
    assert hungry.reason is CompileReason.MEMORY_LIMIT
    assert f"more than {mib * 1024**2} bytes" in hungry.message


def test_memory_that_wasmtime_did_not_get_for_the_code_is_no_refusal_of_the_module() -> None:
    text = (
        "Cannot allocate buffer Caused by: 0: mmap failed to allocate 0x12b5000 bytes "
        "1: Cannot allocate memory (os error 12)"
    )
    assert compiler_child.refused(text).reason is CompileReason.MEMORY_LIMIT


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def oom_score_adj(process: str) -> str:
    return Path(f"/proc/{process}/oom_score_adj").read_text().strip()


def test_a_compiler_that_linux_ends_for_want_of_memory_says_so_and_what_it_was_allowed(tmp_path: Path) -> None:
    """It is held at its start, by a pool file that nobody writes, and killed as Linux would."""
    os.mkfifo(tmp_path / "pool.json")

    async def killed() -> CompileFailed:
        others = children()
        task = asyncio.create_task(compile_module(EMPTY, tmp_path / "pool.json", memory_limit_bytes=12345678))
        while not (found := children() - others):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        os.kill(int(found.pop()), signal.SIGKILL)
        with pytest.raises(CompileFailed) as caught:
            await task
        return caught.value

    failed = asyncio.run(killed())
    assert (failed.reason, failed.reason.permanent) == (CompileReason.MEMORY_LIMIT, False)
    assert "signal 9" in failed.message
    assert "12345678 bytes" in failed.message


def test_the_compiler_is_the_first_to_die_where_the_pods_memory_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pool.json")

    async def look() -> None:
        task = asyncio.create_task(compile_module(EMPTY, tmp_path / "pool.json"))
        async with asyncio.timeout(10):
            while not {"1000"} & {oom_score_adj(child) for child in children()}:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(look())


def test_a_compiler_that_crashes_says_how(tmp_path: Path) -> None:
    crashed = failure(EMPTY, tmp_path / "missing.yaml")
    assert crashed.reason is CompileReason.CRASHED
    assert "missing.yaml" in crashed.message


def test_the_supervisors_side_imports_no_wasmtime() -> None:
    program = (
        "import sys, wasmpool_agent.compiler, wasmpool_agent.protocol;"
        "print(any(name.split('.')[0] in {'wasmtime', 'kubernetes'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"


def with_data(*segments: tuple[int, bytes], before: str = "") -> bytes:
    text = "".join(
        f'(data (i32.const {offset}) "{"".join(f"{chr(92)}{byte:02x}" for byte in data)}")' for offset, data in segments
    )
    return wasmtime.wat2wasm(f'(module {before} (memory (export "memory") 2) {text})')


def memory_of(wasm: bytes) -> bytes:
    store = wasmtime.Store()
    memory = wasmtime.Instance(store, wasmtime.Module(store.engine, wasm), []).exports(store)["memory"]
    assert isinstance(memory, wasmtime.Memory)
    return bytes(memory.read(store))


@pytest.mark.parametrize(
    ("segments", "changes"),
    [
        pytest.param(((0, b"ab"), (10, b"cd"), (12, b"ef"), (5000, b"x")), True, id="close ones"),
        pytest.param(((100, b"b"), (110, b"c"), (0, b"a"), (120, b"d")), True, id="out of order"),
        pytest.param(((0, b"a"), (20, b"z"), (10, b"c"), (30, b"y")), False, id="a gap that is written already"),
        pytest.param(((0, b"aaaa"), (2, b"bb")), False, id="overlapping"),
        pytest.param(((0, b"aaaa"), (8, b"bb"), (1, b"cc")), False, id="overlapping later"),
        pytest.param(((0, b"a"), (1000, b"b")), False, id="far apart"),
        pytest.param(((0, b""), (3, b"b"), (70000, b"c"), (70001, b"")), True, id="empty ones"),
    ],
)
def test_joined_data_segments_write_the_same_memory(segments: tuple[tuple[int, bytes], ...], changes: bool) -> None:
    wasm = with_data(*segments)
    joined = join_data_segments(wasm)
    assert (joined != wasm) == changes
    assert memory_of(joined) == memory_of(wasm)


@pytest.mark.parametrize(
    "wasm",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\0asm\x01\0\0\0\x0b", id="cut in a section's head"),
        pytest.param(wasmtime.wat2wasm('(module (memory 1) (data "a") (data "b"))'), id="passive"),
        pytest.param(
            wasmtime.wat2wasm('(module (import "e" "m" (memory 1)) (data (i32.const 0) "a") (data (i32.const 2) "b"))'),
            id="an imported memory",
        ),
        pytest.param(
            wasmtime.wat2wasm(
                '(module (memory 1) (data (i32.const 0) "a") (data (i32.const 2) "b") (func (data.drop 0)))'
            ),
            id="segments that are named",
        ),
    ],
)
def test_what_can_not_be_joined_stays_as_it_is(wasm: bytes) -> None:
    assert join_data_segments(wasm) == wasm


def test_every_truncation_of_a_module_passes_through() -> None:
    wasm = with_data((0, b"ab"), (10, b"cd"))
    for length in range(len(wasm)):
        join_data_segments(wasm[:length])
