"""`wasmpool-agent run`, whole: a supervisor, workers and a compiler, as a user without privileges, on ordinary pages.

Covers: what guests print, exit codes, completions; refusals with numbers and offsets; what is missing, by name; waiting
for slots; restarts; manifests that change; a worker and an agent that are killed; that nothing is left behind.
"""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import wasmtime

from tests.guests.build import c_guest
from tests.standalone.agent import COMMAND, LARGE, SPINS, TRAPS, Files, once, prints, running

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[2]


def test_a_c_program_gets_its_arguments_and_environment_and_runs_to_its_end(files: Files, tmp_path: Path) -> None:
    files.module("hello.wasm", c_guest(ROOT / "examples/guests/hello.c", tmp_path / "hello.wasm"))
    env = [{"name": "GREETING", "value": "standalone"}]
    files.workload("hello", "hello.wasm", instances=2, args=["one", "two words"], env=env)
    status, agent = once(files)
    assert status == 0
    lines = [it for it in agent.lines() if it.get("stream") == "stdout"]
    for index in (0, 1):
        said = [it["message"] for it in lines if it["index"] == index]
        assert said == ["hello, standalone, from a slot", "argument 1: one", "argument 2: two words"]
    assert agent.reports("hello")[-1]["message"] == "2 of 2 succeeded"


def test_the_examples_run_as_they_are() -> None:
    command = ["timeout", "--preserve-status", "-s", "INT", "8", str(COMMAND), "run"]
    command += ["--pool", "examples/standalone/pool.yaml", "--workloads", "examples/"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"workload": "too-big", "state": "Refused", "reason": "ExceedsModuleLimits"}.items() <= next(
        it for it in lines if it["workload"] == "too-big" and it.get("state") == "Refused"
    ).items()
    assert any(it["workload"] == "ticker" and it["message"] == "tick 2" for it in lines)
    assert any(it["workload"] == "hello" and it.get("state") == "Succeeded" for it in lines)


def test_another_exit_code_is_a_failure_and_told(files: Files) -> None:
    files.module("fails.wasm", prints(exit_code=7))
    files.workload("fails", "fails.wasm")
    status, agent = once(files)
    assert status == 1
    report = agent.reports("fails")[-1]
    assert (report["state"], report["reason"]) == ("Failed", "Failed")
    assert "exit code 7" in report["message"]
    assert agent.said("fails") == ["hello"]


def test_a_trap_and_a_deadline_are_failures_and_told_apart(files: Files) -> None:
    files.module("traps.wasm", TRAPS)
    files.module("spins.wasm", SPINS)
    files.workload("traps", "traps.wasm")
    files.workload("spins", "spins.wasm", deadline="500ms")
    status, agent = once(files)
    assert status == 1
    assert "unreachable" in agent.reports("traps")[-1]["message"]
    assert "deadline" in agent.reports("spins")[-1]["message"]


def test_a_module_over_the_limits_is_refused_with_both_numbers_and_the_others_run(files: Files) -> None:
    files.module("large.wasm", LARGE)
    files.module("hello.wasm", prints())
    files.workload("large", "large.wasm")
    files.workload("hello", "hello.wasm")
    status, agent = once(files)
    assert status == 1
    report = agent.reports("large")[-1]
    assert (report["state"], report["reason"]) == ("Refused", "ExceedsModuleLimits")
    assert report["message"] == "memory 0 needs 64 pages, pool small allows 32"
    assert agent.said("hello") == ["hello"]


@pytest.mark.parametrize(
    "content",
    [b"#!/bin/sh\n", b"\0asm\1\0", b"\0asm\1\0\0\0\1\x7f\x60", b""],
    ids=["not wasm", "cut off", "a section longer than the file", "empty"],
)
def test_a_broken_module_is_invalid_at_an_offset(files: Files, content: bytes) -> None:
    files.module("broken.wasm", content)
    files.workload("broken", "broken.wasm")
    status, agent = once(files)
    assert status == 1
    report = agent.reports("broken")[-1]
    assert (report["state"], report["reason"]) == ("Refused", "ModuleInvalid")
    offset = re.search(r"offset (\d+)", report["message"])
    assert offset is not None
    assert int(offset[1]) <= len(content)


def test_a_module_whose_code_is_wrong_is_found_by_the_compiler_and_harms_nobody(files: Files) -> None:
    module = bytearray(wasmtime.wat2wasm('(module (func (export "_start") i32.const 1 drop))'))
    module[module.index(b"\x41\x01\x1a")] = 0x1A  # drop, with nothing there to be dropped
    files.module("wrong.wasm", bytes(module))
    files.module("hello.wasm", prints())
    files.workload("wrong", "wrong.wasm")
    files.workload("hello", "hello.wasm")
    status, agent = once(files)
    assert status == 1
    assert agent.reports("wrong")[-1]["reason"] == "ModuleInvalid"
    assert agent.said("hello") == ["hello"]


def test_a_missing_config_map_and_a_missing_key_are_named(files: Files) -> None:
    files.module("hello.wasm", prints())
    files.workload("no-map", "hello.wasm", config_map="nowhere")
    files.workload("no-key", "other.wasm")
    status, agent = once(files)
    assert status == 1
    assert "ConfigMap default/nowhere" in agent.reports("no-map")[-1]["message"]
    message = agent.reports("no-key")[-1]["message"]
    assert "has no key other.wasm; it has hello.wasm" in message
    assert "guests.yaml" in message


def test_a_folder_stands_for_the_config_map_of_its_name(files: Files) -> None:
    (files.directory / "built").mkdir()
    (files.directory / "built" / "hello.wasm").write_bytes(bytes(wasmtime.wat2wasm(prints())))
    files.workload("hello", "hello.wasm", config_map="built")
    status, agent = once(files)
    assert status == 0
    assert agent.said("hello") == ["hello"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            {"module": {"configMap": {"name": "guests", "key": "hello.wasm"}}, "run": {"command": {}}, "burst": 2},
            "burst",
        ),
    ],
)
def test_what_is_not_built_yet_is_refused_by_name(files: Files, spec: dict[str, object], field: str) -> None:
    files.module("hello.wasm", prints())
    files.manifest("later", **spec)
    with running(files) as agent:
        report = agent.until_state("later", "Refused", "UnsupportedFeature")
    assert re.match(rf"{field}(:| is) ", report["message"])


def test_a_pool_that_asks_for_what_is_not_built_yet_is_refused_by_name(files: Files) -> None:
    files.write_pool(tenancy={"isolation": "WorkerPerNamespace"})
    status, agent = once(files)
    assert status == 2
    assert "spec.tenancy.isolation is WorkerPerNamespace" in agent.errors.read_text()


def test_more_than_the_pool_has_is_never_and_more_than_is_free_is_not_now(files: Files) -> None:
    files.write_pool(count=3)
    files.module("spins.wasm", SPINS)
    files.module("hello.wasm", prints())
    files.workload("a-first", "spins.wasm", instances=2, restartPolicy="Always")
    files.workload("b-waits", "hello.wasm", instances=2)
    files.workload("c-never", "hello.wasm", instances=4)
    with running(files) as agent:
        never = agent.until_state("c-never", "Pending", "ExceedsPoolCapacity")
        waits = agent.until_state("b-waits", "Pending", "WaitingForCapacity")
        assert "4 slots wanted" in never["message"]
        assert "can hold 3" in never["message"]
        assert "2 slots wanted" in waits["message"]
        (files.directory / "a-first.yaml").unlink()
        agent.until_state("b-waits", "Succeeded")


def test_an_instance_that_fails_is_started_again_after_a_pause(files: Files) -> None:
    files.module("fails.wasm", prints(exit_code=1))
    files.workload("fails", "fails.wasm", restartPolicy="OnFailure")
    with running(files) as agent:
        agent.until(lambda: len(agent.said("fails")) == 3)
        report = agent.until_state("fails", "BackOff", "BackOff")
        assert "exit code 1" in report["message"]
        times = [it["time"] for it in agent.lines() if it.get("stream") == "stdout"]
    assert times == sorted(times)


def test_manifests_that_change_are_taken_up_and_mistakes_in_them_change_nothing(files: Files) -> None:
    files.module("spins.wasm", SPINS)
    files.module("hello.wasm", prints())
    files.workload("spins", "spins.wasm", restartPolicy="Always")
    with running(files) as agent:
        agent.until_state("spins", "Running")
        files.workload("hello", "hello.wasm")
        agent.until_state("hello", "Succeeded")
        (files.directory / "spins.yaml").write_text("kind: WasmWorkload\napiVersion: wasmpool.dev/v1alpha1\nspce: 1\n")
        agent.until(lambda: "spce" in agent.errors.read_text())
        assert agent.reports("spins")[-1]["state"] == "Running"


def test_a_killed_worker_costs_only_its_instances_and_is_replaced(files: Files) -> None:
    files.write_pool(count=4, workers=2)
    files.module("spins.wasm", SPINS)
    files.workload("spins", "spins.wasm", instances=2, restartPolicy="Always")
    port = _free_port()
    with running(files, "--listen", f"127.0.0.1:{port}") as agent:
        agent.until_state("spins", "Running")
        agent.until(lambda: _metric(port, 'wasmpool_slots{.*state="used"}') == 2)
        victim, other = agent.workers()
        os.kill(victim, signal.SIGKILL)
        agent.until(lambda: _metric(port, "wasmpool_worker_restarts_total") == 1)
        agent.until(lambda: _metric(port, 'wasmpool_slots{.*state="used"}') == 2)
        agent.until(lambda: _metric(port, "wasmpool_workers") == 2)
        assert other in agent.workers()
        assert _metric(port, 'wasmpool_slots{.*state="free"}') == 2
        assert _metric(port, "wasmpool_slots_reserved") == 2


def test_a_never_run_whose_worker_is_killed_fails_and_does_not_run_again(files: Files) -> None:
    files.module("hello-spins.wasm", prints().replace("(call $exit (i32.const 0))", "(loop (br 0))"))
    files.workload("job", "hello-spins.wasm")
    with running(files) as agent:
        agent.until(lambda: agent.said("job"))
        (worker,) = agent.workers()
        os.kill(worker, signal.SIGKILL)
        report = agent.until_state("job", "Failed")
        assert "lost: the process that ran it died" in report["message"]
        agent.until(lambda: len(agent.workers()) == 1)
        time.sleep(0.5)
        assert agent.said("job") == ["hello"]


def test_a_never_run_is_not_begun_again_by_an_agent_that_follows_a_killed_one(files: Files) -> None:
    files.module("hello-spins.wasm", prints().replace("(call $exit (i32.const 0))", "(loop (br 0))"))
    files.workload("job", "hello-spins.wasm", instances=2)
    cache = str(files.root / "tmp" / "cache")
    with running(files, "--cache-dir", cache) as agent:
        agent.until(lambda: len(agent.said("job")) == 2)
        workers = agent.workers()
        agent.end(signal.SIGKILL)
        _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    with running(files, "--cache-dir", cache) as agent:
        report = agent.until_state("job", "Failed")
        assert "0 of 2 succeeded" in report["message"]
        assert agent.said("job") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_ends_well_and_leaves_nothing_behind(files: Files, number: signal.Signals) -> None:
    files.module("spins.wasm", SPINS)
    files.workload("spins", "spins.wasm", instances=3, restartPolicy="Always")
    with running(files) as agent:
        agent.until_state("spins", "Running")
        workers = agent.workers()
        assert agent.end(number) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        assert list((files.root / "tmp").iterdir()) == []
        assert "Traceback" not in agent.errors.read_text()


def test_a_signal_to_the_whole_group_is_the_supervisors_alone_to_act_on(files: Files) -> None:
    files.module("spins.wasm", SPINS)
    files.workload("spins", "spins.wasm", instances=2, restartPolicy="Always")
    with running(files) as agent:
        agent.until_state("spins", "Running")
        for pid in agent.workers():
            os.kill(pid, signal.SIGTERM)
        assert agent.end(signal.SIGTERM) == 0
        assert "lost: the process that ran it died" not in agent.errors.read_text()


def test_arguments_that_no_worker_could_be_told_are_refused_with_both_numbers_and_the_others_run(files: Files) -> None:
    files.module("spins.wasm", SPINS)
    files.workload("large", "spins.wasm", restartPolicy="Always", args=["x" * 131072])
    files.workload("small", "spins.wasm", restartPolicy="Always", args=["x" * 1024])
    with running(files) as agent:
        report = agent.until_state("large", "Refused", "UnsupportedFeature")
        assert re.search(r"args, env and allowedHosts take 131\d{3} bytes, .*; 122880 are allowed", report["message"])
        agent.until_state("small", "Running")


def test_probes_and_metrics_say_what_is_so(files: Files) -> None:
    files.module("spins.wasm", SPINS)
    files.module("large.wasm", LARGE)
    files.workload("spins", "spins.wasm", instances=2, restartPolicy="Always")
    files.workload("large", "large.wasm")
    port = _free_port()
    with running(files, "--listen", f"127.0.0.1:{port}") as agent:
        agent.until_state("spins", "Running")
        assert _get(port, "/healthz").startswith("ok")
        assert _get(port, "/readyz") == "ok\n"
        assert _metric(port, "wasmpool_slots_capacity") == 4
        assert _metric(port, "wasmpool_slots_reserved") == 2
        assert _metric(port, 'wasmpool_region_ready{.*reason="BasePagesReserved"}') == 1
        assert _metric(port, 'wasmpool_workloads{.*state="Refused"}') == 1
        assert _metric(port, 'wasmpool_admissions_total{.*reason="ExceedsModuleLimits",result="refused"}') == 1
        agent.until(lambda: _metric(port, 'wasmpool_slots_taken_total{affine="false"') == 2)
        assert (_metric(port, 'wasmpool_worker_mappings{.*worker="worker-1"') or 0) > 10
        assert _metric(port, 'wasmpool_allocation_refusals_total{.*reason="GrowthRefused"') == 0
        assert 'pool_namespace="default"' in _get(port, "/metrics")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("restartPolicy: Never", "restartPolicy: Sometimes"), "spec.run.command.restartPolicy"),
        (("restartPolicy: Never", "restartPolcy: Never"), "spec.run.command.restartPolcy: there is no such field"),
        (("instances: 1", "instances: -1"), "spec.instances: -1 is given, 0 or more is allowed"),
        (("kind: WasmWorkload", "kind: WasmWorkload\n]"), "not YAML"),
        (("key: hello.wasm", "kye: hello.wasm"), "spec.module.configMap"),
        (("configMap:", "image: x\n    configMap:"), "spec.module: exactly one of image and configMap is allowed"),
    ],
)
def test_a_mistake_in_a_manifest_is_one_line_that_names_file_and_field(
    files: Files, change: tuple[str, str], problem: str
) -> None:
    files.module("hello.wasm", prints())
    files.workload("hello", "hello.wasm")
    path = files.directory / "hello.yaml"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    status, agent = once(files)
    assert status == 2
    err = agent.errors.read_text()
    assert problem in err
    assert str(path) in err
    assert err.count("\n") == 1


def test_a_region_that_can_not_be_had_says_both_numbers(files: Files) -> None:
    files.write_pool(allocation={"backing": "HugePages1Gi"}, instanceLimits={"count": 5000, "addressSpaceSize": "2Gi"})
    files.module("hello.wasm", prints())
    files.workload("hello", "hello.wasm")
    status, agent = once(files)
    assert status == 2
    err = agent.errors.read_text()
    assert re.search(r"(HugePagesNotConfigured|InsufficientHugePages|EngineRefused): .*10 .*", err), err


def test_a_region_that_can_not_be_had_is_asked_for_again_and_told_meanwhile(files: Files) -> None:
    files.write_pool(allocation={"backing": "HugePages1Gi"}, instanceLimits={"count": 5000, "addressSpaceSize": "2Gi"})
    files.module("hello.wasm", prints())
    files.workload("hello", "hello.wasm")
    port = _free_port()
    with running(files, "--listen", f"127.0.0.1:{port}") as agent:
        agent.until(lambda: agent.errors.read_text().count("next try in") == 2)
        assert _get(port, "/healthz").startswith("ok")
        with pytest.raises(urllib.error.HTTPError) as unready:
            _get(port, "/readyz")
        with unready.value as answer:
            assert answer.code == 503
            assert re.match(r"HugePagesNotConfigured|InsufficientHugePages", answer.read().decode())
        assert _metric(port, "wasmpool_region_ready") == 0
        assert agent.end() == 0


def test_only_an_explicit_choice_falls_back_and_it_is_told(files: Files) -> None:
    files.write_pool(
        allocation={"backing": "HugePages1Gi", "fallback": "BasePages"},
        instanceLimits={"count": 200, "addressSpaceSize": "2Gi"},
        moduleLimits={"memoryPages": 160},
    )
    files.module("hello.wasm", prints())
    files.workload("hello", "hello.wasm")
    port = _free_port()
    with running(files, "--listen", f"127.0.0.1:{port}") as agent:
        agent.until_state("hello", "Succeeded")
        assert _metric(port, 'wasmpool_region_ready{.*reason="FellBackToBasePages"}') == 1
        assert _metric(port, 'wasmpool_region_bytes{backing="BasePages"') == 200 * 160 * 65536


def test_a_config_map_in_a_manifest_may_be_text_or_binary(files: Files) -> None:
    module = base64.b64encode(bytes(wasmtime.wat2wasm(prints()))).decode()
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mixed}\n"
    (files.directory / "mixed.yaml").write_text(f"{head}data: {{GREETING: hi}}\nbinaryData:\n  m: {module}\n")
    env = [{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "mixed", "key": "GREETING"}}}]
    files.workload("hello", "m", config_map="mixed", env=env)
    assert once(files)[0] == 0


def _until(wanted: object, seconds: float = 10) -> None:
    assert callable(wanted)
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return str(response.read().decode())


def _metric(port: int, series: str) -> float | None:
    """`series`: a name, or a pattern of name and labels up to the last that matters."""
    pattern = re.compile(rf"^{series.removesuffix('}')}[^}}]*}} (\S+)$", re.MULTILINE)
    found = pattern.search(_get(port, "/metrics"))
    return float(found[1]) if found else None


CAT = """#include <stdio.h>
int main(void) {
    char line[100];
    FILE *file = fopen("/etc/app/conf/settings", "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        return 1;
    printf("%s", line);
    return fopen("/etc/app/conf/settings", "w") == NULL && fopen("/etc/app/../passwd", "r") == NULL ? 0 : 2;
}
"""


def test_a_command_reads_files_out_of_config_maps_and_writes_none(files: Files, tmp_path: Path) -> None:
    source = tmp_path / "cat.c"
    source.write_text(CAT)
    files.module("cat.wasm", c_guest(source, tmp_path / "cat.wasm"))
    folder = files.directory / "settings"
    folder.mkdir()
    (folder / "colour").write_text("blue\n")
    mounted = {"name": "settings", "items": [{"key": "colour", "path": "conf/settings"}]}
    files.workload("cat", "cat.wasm", files=[{"mountPath": "/etc/app", "configMap": mounted}])
    status, agent = once(files)
    assert status == 0, agent.reports("cat")
    assert agent.said("cat") == ["blue"]


def test_files_that_are_not_there_are_named(files: Files, tmp_path: Path) -> None:
    files.module("hello.wasm", prints())
    mounted = {"name": "guests", "items": [{"key": "nothing", "path": "x"}]}
    files.workload("lost", "hello.wasm", files=[{"mountPath": "/etc/app", "configMap": mounted}])
    status, agent = once(files)
    assert status == 1
    assert "run.command.files /etc/app: ConfigMap default/guests" in agent.reports("lost")[-1]["message"]
    assert "has no key nothing; it has hello.wasm" in agent.reports("lost")[-1]["message"]
