"""A worker process, driven over its socket as the supervisor does: how instances run, end and leave their slots.

Guests are real programs: C built by zig, Go built by Go, and WAT for what no compiler would write. Times are asserted
with much room, for the machine may be busy; what is exact is how an instance ended.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from tests.guests.build import HERE as GUESTS
from tests.guests.build import c_guest, go_guest
from tests.unit.agent.worker_harness import Bench, ChannelClosed, Worker, pool
from wasmpool_agent.allocation_counts import AllocationCounts
from wasmpool_agent.protocol import Drop, Exited, Fault, LoadReason, ModuleFailed, ModuleLoaded, Result, Shutdown, Stats
from wasmpool_agent.store_limits import StoreLimits

PROMPT_SECONDS = 10.0
"""Guests that are not ended sleep and spin for longer."""
"""Far more than the 100 ms that are meant, far less than the guests would take."""

PREVIEW1 = '(import "wasi_snapshot_preview1"'
START_SPINS = '(module (func $spin (loop (br 0))) (start $spin) (func (export "_start")))'
RECURSES = '(module (func $f (call $f)) (func (export "_start") (call $f)))'
NO_ENTRY = '(module (func (export "other")))'
TRAPS = '(module $mod (func $inner unreachable) (func (export "_start") (call $inner)))'
ALIEN = '(module (import "env" "foo" (func)) (import "env" "mem" (memory 1)) (func (export "_start")))'
BAD_TYPE = f'(module {PREVIEW1} "fd_write" (func (param i32))) (func (export "_start")))'
WAITS_IN_START = f"""(module {PREVIEW1} "poll_oneoff" (func $p (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (func $wait (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 60000000000))
   (drop (call $p (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))))
 (start $wait) (func (export "_start")))"""
EXITS_WITHOUT_MEMORY = (
    f'(module {PREVIEW1} "proc_exit" (func $x (param i32))) (func (export "_start") (call $x (i32.const 3))))'
)
WRITES_WITHOUT_MEMORY = f"""(module {PREVIEW1} "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
 (func (export "_start") (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)))))"""
# Fills its whole memory, after growing it as far as it goes; then says to how many pages.
WRITES_SECRET = f"""(module {PREVIEW1} "proc_exit" (func $x (param i32))) (memory (export "memory") 1)
 (func (export "_start") (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
  (memory.fill (i32.const 0) (i32.const 0x5e) (i32.mul (memory.size) (i32.const 65536)))
  (call $x (memory.size))))"""
# Grows likewise and counts the 8-byte words that are not zero.
READS_ALL = f"""(module {PREVIEW1} "proc_exit" (func $x (param i32))) (memory (export "memory") 1)
 (func (export "_start") (local $at i32) (local $found i32)
  (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
  (local.set $at (i32.mul (memory.size) (i32.const 65536)))
  (loop (local.set $at (i32.sub (local.get $at) (i32.const 8)))
   (local.set $found (i32.add (local.get $found) (i64.ne (i64.load (local.get $at)) (i64.const 0))))
   (br_if 0 (local.get $at)))
  (call $x (local.get $found))))"""


@pytest.fixture(scope="session")
def conduct(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return c_guest(GUESTS / "conduct.c", tmp_path_factory.mktemp("guests") / "conduct.wasm")


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    wasm = go_guest(GUESTS / "clock", tmp_path_factory.mktemp("guests") / "clock.wasm")
    if wasm is None:
        pytest.skip("no Go on this machine")
    return wasm


def run_with_worker(
    directory: Path, guests: dict[str, bytes | str], test: Callable[[Bench, Worker], Awaitable[None]], **fields: object
) -> None:
    """Runs the test in a loop of its own, with a worker that has loaded the guests by these keys."""

    async def main() -> None:
        bench = Bench(directory, pool(**fields))
        try:
            async with bench.worker() as worker:
                for key, wasm in guests.items():
                    await load(bench, worker, key, wasm)
                await test(bench, worker)
        finally:
            bench.close()

    asyncio.run(main())


async def load(bench: Bench, worker: Worker, key: str, wasm: bytes | str) -> None:
    with await bench.compile(wasmtime.wat2wasm(wasm) if isinstance(wasm, str) else wasm) as compiled:
        assert isinstance(await worker.load(key, compiled), ModuleLoaded)


ALLOCATORS = pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"backing": "BasePages"}, id="base-pages"),
        pytest.param({"backing": "HugePages2Mi"}, id="compact"),
        pytest.param({"backing": "HugePages2Mi", "space": "6Gi"}, id="guarded"),
        pytest.param({"allocator": "OnDemand"}, id="on-demand"),
    ],
)


@ALLOCATORS
def test_a_c_program_gets_its_arguments_and_environment_and_gives_its_exit_code(
    tmp_path: Path, conduct: bytes, fields: dict[str, str]
) -> None:
    async def test(bench: Bench, worker: Worker) -> None:
        ended = await worker.run("c", args=("conduct", "args", "ünïcode", ""), env=(("A", "b"),))
        assert (ended.result, ended.exit_code) == (Result.SUCCESS, 0)
        await worker.run("c", args=("conduct", "env"), env=(("A", "b"), ("EMPTY", "")))
        left = await worker.run("c", args=("conduct", "exit", "7"))
        assert (left.result, left.exit_code, left.message) == (Result.ERROR, 7, "")
        assert (await worker.run("c", args=("conduct", "exit", "-1"))).exit_code == -1
        assert bench.table.counts().used == 0
        messages = [line["message"] for line in await worker.lines()]
        assert messages == [
            "arg 0: conduct",
            "arg 1: args",
            "arg 2: ünïcode",
            "arg 3: ",
            "env: A=b",
            "env: EMPTY=",
            "leaving",
            "leaving",
        ]

    run_with_worker(tmp_path, {"c": conduct}, test, **fields)


def test_lines_say_whose_they_are_and_which_stream_they_come_from(tmp_path: Path, conduct: bytes) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        await worker.run("c", args=("conduct", "streams"), index=5, workload="shop/web", revision="web-1")
        lines = sorted(await worker.lines(), key=lambda line: str(line["stream"]))
        times = [line.pop("time") for line in lines]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(time)) for time in times)
        common = {"namespace": "shop", "workload": "web", "revision": "web-1", "instance": 1, "index": 5}
        assert lines == [
            common | {"stream": "stderr", "message": "to stderr"},
            common | {"stream": "stdout", "message": "to stdout"},
        ]

    run_with_worker(tmp_path, {"c": conduct}, test)


def test_a_long_line_comes_in_pieces_that_a_pipe_keeps_whole_and_bytes_that_are_not_utf8_are_replaced(
    tmp_path: Path, conduct: bytes
) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        await worker.run("c", args=("conduct", "long", "10000"))
        await worker.run("c", args=("conduct", "bytes"))
        *pieces, last, strange = await worker.lines()
        assert all(len(line) < 4096 for line in worker.log.splitlines())
        assert [piece["partial"] for piece in pieces] == [True] * len(pieces)
        assert "partial" not in last
        text = "".join(str(line["message"]) for line in (*pieces, last))
        assert text == "".join(chr(ord("a") + i % 26) for i in range(10000))
        assert strange["message"] == "\ufffd\ufffd café \x01"

    run_with_worker(tmp_path, {"c": conduct}, test)


def test_what_a_guest_has_no_right_to_is_refused_with_the_errno_that_c_knows(tmp_path: Path, conduct: bytes) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        assert (await worker.run("c", args=("conduct", "open"))).result is Result.SUCCESS
        for what in ("stdin", "random", "clock"):
            assert (await worker.run("c", args=("conduct", what))).result is Result.SUCCESS
        messages = [str(line["message"]) for line in await worker.lines()]
        assert messages[:5] == [
            "open: No such file or directory",
            "stat of stdout: known",
            "isatty: 0",
            "seek: Invalid seek",
            "write after close: Bad file descriptor",
        ]
        assert messages[5:7] == ["read -1", "random: yes"]
        assert abs(int(messages[7].removeprefix("now ")) - time.time()) < 60  # noqa: TID251 - the wall clock is meant

    run_with_worker(tmp_path, {"c": conduct}, test)


@ALLOCATORS
def test_a_go_program_runs_with_goroutines_timers_and_random_numbers(
    tmp_path: Path, clock: bytes, fields: dict[str, str]
) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        ended = await worker.run("go", args=("clock", "one"), env=(("GREETING", "hi"),))
        assert (ended.result, ended.exit_code) == (Result.ERROR, 2)
        messages = [line["message"] for line in await worker.lines()]
        assert messages == [
            *("tick 0", "tick 1", "tick 2", "slept enough: true", "random: true", "args: [one] env: hi"),
            "file: open /etc/passwd: Bad file number",
        ]

    run_with_worker(tmp_path, {"go": clock}, test, **fields)


@ALLOCATORS
def test_a_deadline_ends_a_guest_that_sleeps_spins_or_never_leaves_its_start_function(
    tmp_path: Path, conduct: bytes, fields: dict[str, str]
) -> None:
    async def test(bench: Bench, worker: Worker) -> None:
        for key, args in (
            ("c", ("conduct", "sleep", "60000")),
            ("c", ("conduct", "spin")),
            ("spins", ()),
            ("waits", ()),
        ):
            ended = await worker.run(key, args=args, deadline_seconds=0.2)
            assert ended.result is Result.DEADLINE, (key, args, ended)
            assert ended.message == "ended at its deadline of 0.2 s"
            assert 0.2 <= ended.seconds < 0.2 + PROMPT_SECONDS
        assert bench.table.counts().used == 0

    run_with_worker(tmp_path, {"c": conduct, "spins": START_SPINS, "waits": WAITS_IN_START}, test, **fields)


def test_stop_ends_a_guest_at_once_whether_it_sleeps_or_spins_and_after_the_grace_where_one_is_given(
    tmp_path: Path, conduct: bytes
) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        for args in (("conduct", "sleep", "60000"), ("conduct", "spin")):
            instance = worker.start("c", args=args)
            await worker.started(instance)
            begun = time.monotonic()
            worker.stop(instance)
            ended = await worker.exited(instance)
            assert time.monotonic() - begun < PROMPT_SECONDS
            assert (ended.result, ended.exit_code) == (Result.STOPPED, None)
        gentle = worker.start("c", args=("conduct", "sleep", "100"))
        worker.stop(gentle, grace_seconds=30)
        assert (await worker.exited(gentle)).result is Result.SUCCESS
        worker.stop(12345)  # nobody
        at_once = worker.start("c", args=("conduct", "spin"))
        worker.stop(at_once)
        assert (await worker.exited(at_once)).result is Result.STOPPED

    run_with_worker(tmp_path, {"c": conduct}, test)


def test_two_spinning_guests_stop_neither_a_third_nor_a_stop(tmp_path: Path, conduct: bytes) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        spinning = [worker.start("c", args=("conduct", "spin")) for _ in range(2)]
        for instance in spinning:
            await worker.started(instance)
        for _ in range(5):
            ended = await worker.run("c", args=("conduct", "sleep", "10"))
            assert ended.result is Result.SUCCESS
            assert ended.seconds < PROMPT_SECONDS
        begun = time.monotonic()
        for instance in spinning:
            worker.stop(instance)
        ends = [await worker.exited(instance) for instance in spinning]
        assert time.monotonic() - begun < PROMPT_SECONDS
        assert all(end.result is Result.STOPPED and end.cpu_seconds > 0.01 for end in ends)

    run_with_worker(tmp_path, {"c": conduct}, test)


def test_a_hundred_guests_sleep_at_the_same_time_on_one_thread(tmp_path: Path, conduct: bytes) -> None:
    async def test(bench: Bench, worker: Worker) -> None:
        begun = time.monotonic()
        instances = [worker.start("c", args=("conduct", "sleep", "500")) for _ in range(100)]
        ends = [await worker.exited(instance) for instance in instances]
        assert {end.result for end in ends} == {Result.SUCCESS}
        assert time.monotonic() - begun < 10, "one after the other they would take 50 s"
        threads = len(os.listdir(f"/proc/{worker.process.pid}/task"))
        assert threads <= 3, "the guests' thread, the ticker and the log writer"
        assert bench.table.counts().free == 100

    run_with_worker(tmp_path, {"c": conduct}, test, count=100)


@ALLOCATORS
def test_a_trap_gives_its_cause_and_the_wasm_frames(tmp_path: Path, conduct: bytes, fields: dict[str, str]) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        ended = await worker.run("traps")
        assert (ended.result, ended.exit_code) == (Result.TRAP, None)
        assert ended.message == "wasm `unreachable` instruction executed"
        first, second = ended.backtrace.splitlines()
        assert first.endswith("mod!inner")
        assert "mod!<wasm function 1>" in second
        deep = await worker.run("recurses")
        assert (deep.result, deep.message) == (Result.TRAP, "call stack exhausted")
        assert (await worker.run("c", args=("conduct", "abort"))).result is Result.TRAP
        assert (await worker.run("c", args=("conduct", "args"))).result is Result.SUCCESS

    run_with_worker(tmp_path, {"c": conduct, "traps": TRAPS, "recurses": RECURSES}, test, **fields)


def test_host_functions_need_a_memory_only_where_they_look_at_one(tmp_path: Path) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        assert (await worker.run("exits")).exit_code == 3
        ended = await worker.run("writes")
        assert ended.result is Result.TRAP
        assert ended.message == 'the module calls the host but exports no memory named "memory"'

    run_with_worker(tmp_path, {"exits": EXITS_WITHOUT_MEMORY, "writes": WRITES_WITHOUT_MEMORY}, test)


def test_an_entry_point_that_there_is_not_is_named(tmp_path: Path) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        ended = await worker.run("other")
        assert (ended.result, ended.exit_code) == (Result.ERROR, None)
        assert ended.message == 'entrypoint: the module exports no function "_start"; it exports: other'
        assert (await worker.run("other", entrypoint="other")).result is Result.SUCCESS
        assert (await worker.run("nowhere")).message == "artifact nowhere is not loaded"

    run_with_worker(tmp_path, {"other": NO_ENTRY}, test)


@ALLOCATORS
def test_no_byte_of_a_guest_is_readable_by_the_next_in_its_slot(tmp_path: Path, fields: dict[str, str]) -> None:
    async def test(bench: Bench, worker: Worker) -> None:
        for _ in range(3):
            wrote = await worker.run("writes")
            assert wrote.exit_code == 160, "it filled all that the pool gives"
            found = await worker.run("reads")
            assert (found.result, found.exit_code) == (Result.SUCCESS, 0)
        if fields.get("backing") == "HugePages2Mi":
            # A guarded slot's last pages are ordinary ones, which are given back and not overwritten.
            assert 8 * 1024**2 < wrote.wiped_bytes <= 160 * 65536
            assert wrote.wipe_seconds > 0
            bench.region.prove_clean(0)

    run_with_worker(tmp_path, {"writes": WRITES_SECRET, "reads": READS_ALL}, test, count=1, **fields)


@ALLOCATORS
def test_memory_grows_to_the_workloads_limit_and_no_further(tmp_path: Path, fields: dict[str, str]) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        def limits(memory_pages: int) -> StoreLimits:
            return StoreLimits(memory_pages=memory_pages, memories=1, tables=1, table_elements=10)

        assert (await worker.run("writes", limits=limits(20))).exit_code == 20
        assert (await worker.run("writes", limits=limits(160))).exit_code == 160
        refused = await worker.run("writes", limits=limits(0))
        assert (refused.result, refused.exit_code) == (Result.ERROR, None)
        assert "memory minimum size of 1 pages exceeds memory limits" in refused.message

    run_with_worker(tmp_path, {"writes": WRITES_SECRET}, test, **fields)


@ALLOCATORS
def test_without_a_free_slot_nothing_runs_and_the_numbers_are_given(
    tmp_path: Path, conduct: bytes, fields: dict[str, str]
) -> None:
    async def test(bench: Bench, worker: Worker) -> None:
        first = worker.start("c", args=("conduct", "sleep", "60000"))
        await worker.started(first)
        refused = await worker.run("c", args=("conduct", "args"))
        assert refused.result is Result.NO_SLOT
        assert refused.message == "no slot is free: of 1, 1 are used, 0 are being wiped, 0 are quarantined"
        worker.stop(first)
        await worker.exited(first)
        assert bench.table.counts().free == 1
        assert (await worker.run("c", args=("conduct", "args"))).result is Result.SUCCESS

    run_with_worker(tmp_path, {"c": conduct}, test, count=1, **fields)


@ALLOCATORS
def test_a_killed_worker_closes_its_socket_and_the_supervisor_gets_its_slots_back_clean(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    spins = WRITES_SECRET.replace("(call $x (memory.size))", "(loop (br 0)) (call $x (memory.size))")

    async def test(bench: Bench, worker: Worker) -> None:
        for _ in range(3):
            await worker.started(worker.start("spins"))
        await asyncio.sleep(0.2)
        assert len(bench.table.owned_by(1)) == 3
        worker.process.send_signal(signal.SIGKILL)
        with pytest.raises(ChannelClosed):
            await worker.next(lambda _message: False)
        await worker.process.wait()
        assert bench.table.reclaim(1, bench.region) == 3
        assert bench.table.counts().free == 4
        async with bench.worker(worker_id=2) as second:
            await load(bench, second, "reads", READS_ALL)
            for _ in range(4):
                assert (await second.run("reads")).exit_code == 0

    run_with_worker(tmp_path, {"spins": spins}, test, **fields)


def test_many_workers_share_the_slots(tmp_path: Path, conduct: bytes) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, pool(count=10, backing="HugePages2Mi"))
        async with AsyncExitStack() as stack:
            stack.callback(bench.close)
            workers = [await stack.enter_async_context(bench.worker(number)) for number in (1, 2)]
            for worker in workers:
                await load(bench, worker, "c", conduct)
            runs = [
                (worker, worker.start("c", args=("conduct", "sleep", "300"))) for worker in workers for _ in range(6)
            ]
            ends = [await worker.exited(instance) for worker, instance in runs]
            results = sorted(end.result for end in ends)
            assert results == [Result.NO_SLOT] * 2 + [Result.SUCCESS] * 10
            assert bench.table.counts().free == 10

    asyncio.run(main())


def test_a_message_that_is_none_ends_the_worker_with_a_word_about_it(tmp_path: Path) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        worker.channel._sock.send(b'{"type":"Begin"}')
        fault = await worker.next(lambda message: isinstance(message, Fault))
        assert isinstance(fault, Fault)
        assert "not a message of this protocol" in fault.message
        assert await worker.process.wait() == 2

    run_with_worker(tmp_path, {}, test)


def test_the_worker_ends_when_the_supervisor_closes_the_socket_even_while_guests_spin(
    tmp_path: Path, conduct: bytes
) -> None:
    async def test(bench: Bench, worker: Worker) -> None:
        await worker.started(worker.start("c", args=("conduct", "spin")))
        worker.channel.close()
        async with asyncio.timeout(10):
            assert await worker.process.wait() == 0
        assert bench.table.counts().free == 4, "it gave its slots back itself"

    run_with_worker(tmp_path, {"c": conduct}, test)


def test_shutdown_lets_guests_end_inside_its_grace_and_stops_them_after_it(tmp_path: Path, conduct: bytes) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        quick = worker.start("c", args=("conduct", "sleep", "100"))
        slow = worker.start("c", args=("conduct", "sleep", "60000"))
        worker.channel.post(Shutdown(grace_seconds=1))
        assert (await worker.exited(quick)).result is Result.SUCCESS
        assert (await worker.exited(slow)).result is Result.STOPPED
        async with asyncio.timeout(10):
            assert await worker.process.wait() == 0

    run_with_worker(tmp_path, {"c": conduct}, test)


def test_a_reader_that_does_not_read_stops_the_guests_that_write_and_no_others(tmp_path: Path, conduct: bytes) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, pool())
        try:
            async with bench.worker(read_log=False) as worker:
                await load(bench, worker, "c", conduct)
                writer = worker.start("c", args=("conduct", "lines", "20000"))
                await worker.started(writer)
                for _ in range(3):
                    ended = await worker.run("c", args=("conduct", "sleep", "10"))
                    assert (ended.result, ended.seconds < PROMPT_SECONDS) == (Result.SUCCESS, True)
                assert not any(isinstance(message, Exited) for message in worker.seen), (
                    "the writer waits for its reader"
                )
                worker.begin_reading()
                assert (await worker.exited(writer)).result is Result.SUCCESS
                lines = [line for line in await worker.lines() if line["instance"] == writer]
                assert [line["message"] for line in lines] == [f"line {i}" for i in range(20000)]
        finally:
            bench.close()

    asyncio.run(main())


def test_a_deadline_ends_a_guest_that_waits_for_a_reader(tmp_path: Path, conduct: bytes) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, pool())
        try:
            async with bench.worker(read_log=False) as worker:
                await load(bench, worker, "c", conduct)
                ended = await worker.run("c", args=("conduct", "lines", "20000"), deadline_seconds=1.0)
                assert ended.result is Result.DEADLINE
                worker.begin_reading()
        finally:
            bench.close()

    asyncio.run(main())


def test_an_artifact_is_refused_unless_it_is_sealed_whole_and_made_for_this_engine(
    tmp_path: Path, conduct: bytes
) -> None:
    async def test(bench: Bench, worker: Worker) -> None:
        with await bench.compile(conduct) as compiled:
            other = Bench(tmp_path / "other", pool(backing="HugePages2Mi"))
            with await other.compile(conduct) as foreign:
                answer = await worker.load("foreign", foreign)
            other.close()
            assert isinstance(answer, ModuleFailed)
            assert answer.reason is LoadReason.INCOMPATIBLE
            loose = os.memfd_create("loose")
            os.write(loose, os.pread(compiled.fd, compiled.size, 0))
            for key, fields, problem in (
                ("size", {"size": 5}, f"the artifact has {compiled.size} bytes, 5 were announced"),
                ("digest", {"sha256": "0" * 64}, f"is {compiled.sha256}, {'0' * 64} was announced"),
                ("loose", {"fd": loose}, "not in a memfd that is sealed"),
            ):
                answer = await worker.load(key, replace(compiled, **fields))
                assert isinstance(answer, ModuleFailed)
                assert (answer.reason, problem in answer.message) == (LoadReason.CORRUPT, True), answer
            os.close(loose)

    (tmp_path / "other").mkdir()
    run_with_worker(tmp_path, {}, test)


def test_a_dropped_artifact_goes_on_for_those_who_run_it(tmp_path: Path, conduct: bytes) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        running = worker.start("c", args=("conduct", "sleep", "200"))
        await worker.started(running)
        worker.channel.post(Drop(key="c"))
        assert (await worker.run("c")).message == "artifact c is not loaded"
        assert (await worker.exited(running)).result is Result.SUCCESS

    run_with_worker(tmp_path, {"c": conduct}, test)


def test_counts_come_by_themselves(tmp_path: Path, conduct: bytes) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        await worker.run("c", args=("conduct", "lines", "10"))
        stats = await worker.next(lambda message: isinstance(message, Stats) and message.lines == 10)
        assert isinstance(stats, Stats)
        assert stats.mappings > 10
        assert stats.allocations == AllocationCounts(taken=1)
        assert (stats.running, stats.modules, stats.started, stats.exited, stats.lines_dropped) == (0, 1, 1, 1, 0)

    run_with_worker(tmp_path, {"c": conduct}, test)


def test_the_worker_can_get_no_new_privileges(tmp_path: Path) -> None:
    async def test(_bench: Bench, worker: Worker) -> None:
        status = await asyncio.to_thread(Path(f"/proc/{worker.process.pid}/status").read_text, "ascii")
        assert "NoNewPrivs:\t1" in status

    run_with_worker(tmp_path, {}, test)
