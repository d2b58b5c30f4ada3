"""Objects that the tests start from: the smallest of each kind, and ones with every field (full/*.yaml)."""

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.crds.api import NAMESPACE, Object
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.instance_pool_node import InstancePoolNode
from wasmpool_api.meta import API_VERSION
from wasmpool_api.wasm_workload import WasmWorkload

TYPES: Mapping[str, type[InstancePool | InstancePoolNode | WasmWorkload]] = {
    "InstancePool": InstancePool,
    "InstancePoolNode": InstancePoolNode,
    "WasmWorkload": WasmWorkload,
}
FULL: Mapping[str, Object] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "full").glob("*.yaml"))
}
_SPECS: Mapping[str, Object] = {
    "InstancePool": {"instanceLimits": {"count": 1}},
    "InstancePoolNode": {"poolName": "p", "nodeName": "n", "nodeUID": "u", "poolGeneration": 1},
    "WasmWorkload": {
        "poolRef": {"name": "p"},
        "module": {"image": "registry.example.com/m:1"},
        "run": {"command": {}},
    },
}
_NAMES = {"InstancePool": "p", "InstancePoolNode": "p.n", "WasmWorkload": "w"}


def smallest(kind: str) -> Object:
    """What must be given, and nothing else."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": _NAMES[kind], "namespace": NAMESPACE},
        "spec": copy.deepcopy(_SPECS[kind]),
    }


def full(name: str) -> Object:
    """One of full/, to be changed at will."""
    return copy.deepcopy(FULL[name])


def with_changes(manifest: Object, changes: Mapping[str, Any]) -> Object:
    """A copy with fields set: "spec.run.command.env[1].name" and so on. `REMOVED` as value takes the field away."""
    changed = copy.deepcopy(manifest)
    for path, value in changes.items():
        steps = _steps(path)
        at: Any = changed
        for step, following in itertools.pairwise(steps):
            if isinstance(step, int):
                while len(at) <= step:
                    at.append({} if isinstance(following, str) else [])
                at = at[step]
            else:
                at = at.setdefault(step, [] if isinstance(following, int) else {})
        last = steps[-1]
        if value is REMOVED:
            del at[last]
        elif isinstance(last, int) and last == len(at):
            at.append(value)
        else:
            at[last] = value
    return changed


REMOVED = object()


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    for part in path.split("."):
        name, *numbers = part.replace("]", "").split("[")
        steps.append(name)
        steps.extend(int(number) for number in numbers)
    return steps
