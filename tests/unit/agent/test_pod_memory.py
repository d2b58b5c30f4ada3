"""How the pod's memory is divided, where its limit is found, and that modules in memory stay within their part."""

from pathlib import Path

import pytest

from wasmpool_agent.compiler import DEFAULT_MEMORY_LIMIT_BYTES
from wasmpool_agent.supervisor.pod_memory import LEAST_COMPILE_BYTES, LEAST_MODULE_BYTES, PodMemory, memory_limit
from wasmpool_api.codec import decode
from wasmpool_api.instance_pool import InstancePoolSpec
from wasmpool_api.region import overhead_bytes_per_node, region_shape

MIB = 1024**2


def spec(backing: str = "HugePages2Mi") -> InstancePoolSpec:
    limits = {"instanceLimits": {"count": 8}, "moduleLimits": {"memoryPages": 16}}
    return decode(InstancePoolSpec, {**limits, "allocation": {"backing": backing}})


@pytest.mark.parametrize("backing", ["HugePages2Mi", "BasePages"])
@pytest.mark.parametrize("base", [512 * MIB, 2048 * MIB, 16384 * MIB])
def test_the_parts_together_fit_what_the_operator_gives_the_pod(backing: str, base: int) -> None:
    shape = region_shape(spec(backing))
    slots = overhead_bytes_per_node(spec(backing), shape) + (shape.region_bytes if backing == "BasePages" else 0)
    memory = PodMemory.divided(base + slots, spec(backing), workers=2)
    assert memory.compile_bytes + memory.module_bytes + 195 * MIB <= base
    assert memory == PodMemory(base + slots, (base - 195 * MIB) * 5 // 8, min(256 * MIB, (base - 195 * MIB) // 8))


def test_a_default_pod_compiles_what_go_makes_and_no_longer_what_kills_it() -> None:
    slots = overhead_bytes_per_node(spec(), region_shape(spec()))
    memory = PodMemory.divided(512 * MIB + slots, spec(), workers=2)
    assert 128 * MIB < memory.compile_bytes < 256 * MIB


def test_a_pod_that_is_too_small_leaves_the_least_and_one_without_a_limit_the_default() -> None:
    assert PodMemory.divided(MIB, spec(), 2) == PodMemory(MIB, LEAST_COMPILE_BYTES, LEAST_MODULE_BYTES)
    assert PodMemory.divided(None, spec(), 2).compile_bytes == DEFAULT_MEMORY_LIMIT_BYTES
    assert PodMemory.divided(None, spec(), 2).hint == ""
    hint = PodMemory.divided(512 * MIB, spec(), 2).hint
    assert "memory limit is 512Mi" in hint
    assert "raise the memory in spec.agent.resources" in hint


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        pytest.param("0::/\n", {"memory.max": "1000\n"}, 1000, id="v2, in a container"),
        pytest.param("0::/\n", {"memory.max": "max\n"}, None, id="v2, without a limit"),
        pytest.param(
            "0::/pods/a\n", {"pods/a/memory.max": "max\n", "pods/memory.max": "700\n"}, 700, id="v2, the pod's"
        ),
        pytest.param("4:memory:/\n", {"memory/memory.limit_in_bytes": "900\n"}, 900, id="v1, in a container"),
        pytest.param(
            "5:cpu,memory:/kube/b\n0::/\n",
            {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n", "memory/kube/b/memory.limit_in_bytes": "800\n"},
            800,
            id="v1, by its path",
        ),
        pytest.param(
            "4:memory:/kube/elsewhere\n", {"memory/memory.limit_in_bytes": "600"}, 600, id="a path of the host"
        ),
        pytest.param("0::/../..\n", {"memory.max": "500"}, 500, id="a path that leads out"),
        pytest.param("", {}, None, id="nothing to be seen"),
    ],
)
def test_the_limit_is_found_in_both_versions_of_control_groups(
    tmp_path: Path, own: str, files: dict[str, str], limit: int | None
) -> None:
    write(tmp_path / "own", own)
    for name, text in files.items():
        write(tmp_path / "cgroup" / name, text)
    assert memory_limit(tmp_path / "cgroup", tmp_path / "own") == limit
