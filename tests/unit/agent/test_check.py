"""`wasmpool-agent check`: the verdict on real modules, field by field.

Covers: exit codes; the table and the JSON; every violation; broken files with the offset; imports that nobody provides;
an entry point that is not there; what is wrong with the pool's file; that Wasmtime is not loaded for it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from wasmpool_agent.cli import main

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


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("count: 8", "count: many"), "spec.instanceLimits.count"),
        (("count: 8", "count: 0"), "spec.instanceLimits.count: 0 is given"),
        (("count: 8", "cuont: 8"), "spec.instanceLimits"),
        (("globals: 1", "gobals: 1"), "spec.moduleLimits.gobals: there is no such field"),
        (("2Gi", "2Gigs"), "spec.instanceLimits.addressSpaceSize"),
        (("kind: InstancePool", "kind: Pod"), "an InstancePool of wasmpool.dev/v1alpha1 is wanted"),
        (("spec:", "spec: ]"), "YAML"),
        (("metadata:", "---\nmetadata:"), "YAML"),
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
