"""`wasmpool-agent check`: the verdict on real modules, field by field.

Covers: exit codes; the table and the JSON; every violation; broken files with the offset; imports that nobody provides;
an entry point that is not there; components; which pages to choose; the smallest limits and what they cost; mistakes in
the pool's file; that Wasmtime is not loaded for it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from wasmpool_agent.cli import main
from wasmpool_api.backing_choice import IMAGE_MOST_BYTES

POOL = """
apiVersion: wasmpool.dev/v1alpha1
kind: InstancePool
metadata: {name: small, namespace: default}
spec:
  instanceLimits: {count: 8, addressSpaceSize: 2Gi}
  moduleLimits: {memoryPages: 32, globals: 1}
"""
FITS = '(module (memory (export "memory") 2) (func (export "_start")))'
TOO_MUCH = """(module (memory 64) (global i32 (i32.const 0)) (global i32 (i32.const 0)) (global i32 (i32.const 0))
  (func (export "_start")))"""


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.yaml"
    path.write_text(POOL)
    return path


def _module(directory: Path, text: str, name: str = "guest.wasm") -> Path:
    path = directory / name
    path.write_bytes(bytes(wasmtime.wat2wasm(text)))
    return path


def test_a_module_that_fits_is_admitted_with_its_margins(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(_module(tmp_path, FITS)), "--pool", str(pool)]) == 0
    out = capsys.readouterr().out
    assert "guest.wasm: Admitted" in out
    assert ["memoryPages", "2", "32", "30"] in [line.split() for line in out.splitlines()]
    assert "8 compact slots of 2Mi" in out
    assert "a region of 16Mi on HugePages2Mi" in out


def test_every_violation_is_told_and_not_the_first(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(_module(tmp_path, TOO_MUCH)), "--pool", str(pool)]) == 1
    out = capsys.readouterr().out
    assert "Refused, ExceedsModuleLimits" in out
    assert "memory 0 needs 64 pages, pool small allows 32" in out
    assert "globals: needs 3, pool small allows 1" in out


def test_json_has_the_same_in_fields(tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules = [str(_module(tmp_path, FITS, "a.wasm")), str(_module(tmp_path, TOO_MUCH, "b.wasm"))]
    assert main(["check", *modules, "--pool", str(pool), "--output", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["pool"]["slotBytes"] == 2 * 2**20
    assert [it["admitted"] for it in found["modules"]] == [True, False]
    violations = {it["field"]: (it["needed"], it["allowed"]) for it in found["modules"][1]["violations"]}
    assert violations == {"memoryPages": (64, 32), "globals": (3, 1)}


LARGE_IMAGE = f'(module (memory 32) (data (i32.const 0) "{"x" * 2_000_000}") (func (export "_start")))'


@pytest.mark.parametrize(
    ("text", "pages", "said", "differs"),
    [
        (FITS, "HugePages2Mi", "backing: HugePages2Mi: the largest image has 0 bytes", False),
        (FITS, "BasePages", "backing: HugePages2Mi: the largest image has 0 bytes", True),
        (
            LARGE_IMAGE,
            "HugePages2Mi",
            "makes instances faster: the largest image has 1954 KiB",
            True,
        ),
        (LARGE_IMAGE, "BasePages", "makes instances faster: the largest image has 1954 KiB", False),
    ],
)
def test_which_pages_to_choose_is_said_and_where_the_pool_has_others(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str], text: str, pages: str, said: str, differs: bool
) -> None:
    pool.write_text(POOL + f"  allocation: {{backing: {pages}}}\n")
    modules = [str(_module(tmp_path, text)), str(_module(tmp_path, FITS, "small.wasm"))]
    assert main(["check", *modules, "--pool", str(pool)]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert f"  backing: {'BasePages' if text == LARGE_IMAGE else 'HugePages2Mi'}" in out
    assert (f"the pool has {pages}" in out) is differs


def test_which_pages_to_choose_is_in_json_for_each_module_and_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = [str(_module(tmp_path, LARGE_IMAGE)), str(_module(tmp_path, FITS, "small.wasm"))]
    broken = tmp_path / "broken.wasm"
    broken.write_bytes(b"")
    assert main(["check", *modules, str(broken), "--output", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [it.get("backing") for it in found["modules"]] == ["BasePages", "HugePages2Mi", None]
    assert found["modules"][1]["imageBytes"] == 0
    largest = found["modules"][0]["imageBytes"]
    assert 2_000_000 < largest < 2_000_020
    assert found["backing"] == {"chosen": "BasePages", "imageBytes": largest, "imageMostBytes": IMAGE_MOST_BYTES}
    assert main(["check", str(broken), "--output", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["backing"] is None


def test_without_a_pool_the_limits_are_the_rfcs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '(module (memory 161) (func (export "_start")))'
    assert main(["check", str(_module(tmp_path, text))]) == 1
    assert "memory 0 needs 161 pages, pool default allows 160" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"#!/bin/sh\n", "offset 0"), (b"\0asm\1\0", "offset"), (b"\0asm\1\0\0\0\1\x7f\x60", "offset"), (b"", "offset 0")],
    ids=["not wasm", "cut off", "a section longer than the file", "empty"],
)
def test_a_broken_module_is_refused_with_the_offset(
    tmp_path: Path, content: bytes, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.wasm"
    path.write_bytes(content)
    assert main(["check", str(path)]) == 1
    out = capsys.readouterr().out
    assert "Refused, ModuleInvalid" in out
    assert problem in out


def test_an_import_that_no_host_provides_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '(module (import "env" "log" (func)) (func (export "_start")))'
    assert main(["check", str(_module(tmp_path, text))]) == 1
    out = capsys.readouterr().out
    assert "Refused, UnsupportedFeature" in out
    assert "env.log (function)" in out


def test_a_missing_entry_point_is_told_with_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = str(_module(tmp_path, '(module (func (export "main")))'))
    assert main(["check", module]) == 1
    assert (
        "entrypoint is _start, the module exports no such function; its functions are main" in capsys.readouterr().out
    )
    assert main(["check", module, "--entrypoint", "main"]) == 0


COMPONENT = """(component
  (import "wasi:clocks/wall-clock@0.2.6" (instance $clock (export "now" (func (result u64)))))
  (core func $now (canon lower (func $clock "now")))
  (core module $libc (memory (export "memory") 40) (table 2 funcref))
  (core module $main (import "libc" "memory" (memory 1)) (import "host" "now" (func (result i64)))
    (table 3 funcref) (global i32 (i32.const 0)) (global i32 (i32.const 0)) (func (export "run")))
  (core instance $libc (instantiate $libc))
  (core instance $host (export "now" (func $now)))
  (core instance $a (instantiate $main (with "libc" (instance $libc)) (with "host" (instance $host))))
  (core instance $b (instantiate $main (with "libc" (instance $libc)) (with "host" (instance $host))))
  (func $run (canon lift (core func $a "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.6" (instance $exports)))"""


def test_a_component_that_is_too_large_is_refused_and_its_needs_are_shown(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(_module(tmp_path, COMPONENT)), "--pool", str(pool)]) == 1
    out = capsys.readouterr().out
    assert "Refused, ExceedsModuleLimits: " in out
    assert "core module 0: memory 0 needs 40 pages, pool small allows 32" in out
    assert "core module 1: globals: needs 2, pool small allows 1" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["importedFunctions", "1", "1000", "999"] in lines
    assert ["importedMemories", "0", "0", "0"] in lines
    assert ["componentLimits.coreInstances", "3", "30", "27"] in lines
    assert ["componentLimits.memories", "1", "1", "0"] in lines
    assert ["componentLimits.tables", "3", "20", "17"] in lines
    assert [line[:2] for line in lines if line[:1] in (["0"], ["1"])] == [["0", "1"], ["1", "2"]]
    assert ["all", "instances", "3", "4", "2", "3", "1", "4", "8", "40"] in lines
    assert "imports wasi:clocks/wall-clock@0.2.6: 1 function" in out
    assert "exports wasi:cli/run@0.2.6" in out
    assert "features: Component" in out


def test_a_component_within_the_limits_is_admitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(_module(tmp_path, COMPONENT))]) == 0
    assert "Admitted: within the limits of pool default" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            ("wall-clock@0.2.6", "wall-clock@0.3.0"),
            "imports wasi:clocks/wall-clock@0.3.0, which",
        ),
        (("wasi:clocks/wall-clock@0.2.6", "acme:store/keys@0.2.6"), "imports acme:store/keys@0.2.6, which"),
        (
            ("wasi:cli/run@0.2.6", "wasi:cli/walk@0.2.6"),
            "needed is a component that exports wasi:http/incoming-handler",
        ),
        (("wasi:cli/run@0.2.6", "wasi:cli/run@0.3.0"), "it exports wasi:cli/run@0.3.0"),
    ],
)
def test_a_component_that_this_agent_can_not_host_is_refused_by_the_interface(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], problem: str
) -> None:
    assert main(["check", str(_module(tmp_path, COMPONENT.replace(*change)))]) == 1
    assert problem in capsys.readouterr().out


def test_json_has_interfaces_with_versions_and_each_core_module(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, preview1 = _module(tmp_path, COMPONENT), _module(tmp_path, PREVIEW1, "preview1.wasm")
    assert main(["check", str(module), str(preview1), "--pool", str(pool), "--output", "json"]) == 1
    component, core = json.loads(capsys.readouterr().out)["modules"]
    assert (component["kind"], component["withinLimits"]) == ("Component", False)
    assert component["imports"] == [
        {"interface": "wasi:clocks/wall-clock", "version": "0.2.6", "kind": "Instance", "functions": 1}
    ]
    assert component["exports"] == [{"interface": "wasi:cli/run", "version": "0.2.6", "kind": "Instance"}]
    found = component["component"]
    assert (found["coreInstances"], found["memories"], found["tables"]) == (3, 1, 3)
    assert [it["instances"] for it in found["coreModules"]] == [1, 2]
    assert [it["needs"]["memoryPages"] for it in found["coreModules"]] == [40, 0]
    assert found["sums"]["tableElements"] == 8
    assert (core["kind"], core["withinLimits"]) == ("Module", True)
    assert core["imports"] == [
        {"module": "wasi_snapshot_preview1", "name": "proc_exit", "kind": "Function", "provided": True},
        {"module": "env", "name": "log", "kind": "Function", "provided": False},
    ]


PREVIEW1 = """(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) (import "env" "log" (func))
  (func (export "_start")))"""


def test_the_smallest_limits_are_suggested_with_what_they_cost(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = [str(_module(tmp_path, FITS, "a.wasm")), str(_module(tmp_path, TOO_MUCH, "b.wasm"))]
    assert main(["check", *modules, "--pool", str(pool), "--suggest", "--output", "json"]) == 1
    found = json.loads(capsys.readouterr().out)["suggestion"]
    assert found["moduleLimits"] == {
        **dict.fromkeys(["importedFunctions", "importedTables", "importedMemories", "importedGlobals"], 0),
        "types": 1,
        "functions": 1,
        "tables": 0,
        "memories": 1,
        "globals": 3,
        "tableElements": 0,
        "memoryPages": 64,
    }
    assert "componentLimits" not in found
    assert (found["perNode"]["slotBytes"], found["perNode"]["regionBytes"]) == (4 * 2**20, 32 * 2**20)
    assert found["stillRefused"] == []


def test_what_is_suggested_is_enough_and_nothing_less_is(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = [str(_module(tmp_path, FITS, "a.wasm")), str(_module(tmp_path, TOO_MUCH, "b.wasm"))]
    main(["check", *modules, "--pool", str(pool), "--suggest", "--output", "json"])
    limits = json.loads(capsys.readouterr().out)["suggestion"]["moduleLimits"]

    def status(changed: dict[str, int]) -> int:
        pool.write_text(POOL.replace("{memoryPages: 32, globals: 1}", json.dumps(changed)))
        return main(["check", *modules, "--pool", str(pool)])

    assert status(limits) == 0
    for name in ("types", "functions", "globals", "memoryPages"):
        assert status(limits | {name: limits[name] - 1}) == 1


def test_limits_for_a_component_are_suggested_and_admit_it(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _module(tmp_path, COMPONENT)
    assert main(["check", str(path), "--pool", str(pool), "--suggest"]) == 1
    out = capsys.readouterr().out
    assert "componentLimits: {coreInstances: 3, memories: 1, tables: 3}" in out
    assert "memoryPages: 40}" in out
    assert "8 compact slots of 2560Ki (1 memory of 40 pages)" in out
    assert "a region of 20Mi on HugePages2Mi" in out
    assert "no limits admit" not in out


def test_limits_that_make_no_region_are_said_to_make_none(
    tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool.write_text(POOL.replace("2Gi", "2Mi"))
    assert main(["check", str(_module(tmp_path, TOO_MUCH)), "--pool", str(pool), "--suggest"]) == 1
    assert "they make no region: spec.instanceLimits.addressSpaceSize: 2Mi is given" in capsys.readouterr().out


def test_nothing_is_suggested_for_what_can_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.wasm"
    path.write_bytes(b"\0asm")
    assert main(["check", str(path), "--suggest"]) == 1
    assert "no limits can be suggested" in capsys.readouterr().out
    assert main(["check", str(path), "--suggest", "--output", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["suggestion"] is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("count: 8", "count: many"), "spec.instanceLimits.count"),
        (("count: 8", "count: 0"), "spec.instanceLimits.count is 0, 1 to 100000 is allowed"),
        (("count: 8", "cuont: 8"), "spec.instanceLimits"),
        (("globals: 1", "gobals: 1"), "spec.moduleLimits.gobals: there is no such field"),
        (("2Gi", "2Gigs"), "spec.instanceLimits.addressSpaceSize"),
        (("kind: InstancePool", "kind: Pod"), "an InstancePool of wasmpool.dev/v1alpha1 is wanted"),
        (("spec:", "spec: ]"), "YAML"),
        (("metadata:", "---\nmetadata:"), "it has 2 documents, one InstancePool is wanted"),
    ],
)
def test_a_mistake_in_the_pools_file_is_one_line_that_names_the_field(
    tmp_path: Path, pool: Path, change: tuple[str, str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pool.write_text(POOL.replace(*change))
    assert main(["check", str(_module(tmp_path, FITS)), "--pool", str(pool)]) == 2
    err = capsys.readouterr().err
    assert problem in err
    assert err.count("\n") == 1
    assert str(pool) in err


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere.wasm")]) == 2
    assert capsys.readouterr().err == f"wasmpool-agent: {tmp_path / 'nowhere.wasm'}: No such file or directory\n"


def test_neither_wasmtime_nor_kubernetes_is_loaded_for_a_check(tmp_path: Path) -> None:
    program = (
        "import sys; from wasmpool_agent.cli import main; status = main(sys.argv[1:]); "
        "loaded = {'wasmtime', 'kubernetes'} & set(sys.modules); sys.exit(status or (9 if loaded else 0))"
    )
    command = [sys.executable, "-c", program, "check", str(_module(tmp_path, FITS))]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_version_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("wasmpool-agent ")
