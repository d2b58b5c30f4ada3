"""What `wasmpool-agent check` found, for programs: one object."""

import json
from collections.abc import Sequence
from typing import Any

from wasmpool_agent.check import Checked, Cost, Suggested, chosen_backing, cost
from wasmpool_agent.modules.inspecting import provided
from wasmpool_api.backing_choice import IMAGE_MOST_BYTES, BackingChoice, backing_for
from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.wasm import Component, Import, Inspection, Interface


def as_json(checked: Sequence[Checked], pool: InstancePool, suggested: Suggested | None, *, suggest: bool) -> str:
    """`pool`, `modules` and `backing`, and with `suggest` also `suggestion`. The last two: null where there is none.

    Indented.
    """
    found: dict[str, Any] = {
        "pool": {"name": pool.metadata.name, **_cost(cost(pool.spec))},
        "modules": [_module(it) for it in checked],
        "backing": _backing(chosen_backing(checked)),
    }
    if suggest:
        found["suggestion"] = _suggestion(suggested) if suggested is not None else None
    return json.dumps(found, indent=2)


def _backing(choice: BackingChoice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    return {
        "chosen": choice.backing.value,
        "imageBytes": choice.image_bytes,
        "imageMostBytes": IMAGE_MOST_BYTES,
    }


def _module(checked: Checked) -> dict[str, Any]:
    finding = checked.finding
    module: dict[str, Any] = {
        "file": checked.name,
        "digest": checked.digest,
        "sizeBytes": checked.size_bytes,
        "admitted": finding.admitted,
        "reason": finding.reason.value,
        "message": finding.message,
    }
    if checked.image:
        module["image"] = checked.image
    if checked.inspection is not None:
        module |= _inspection(checked.inspection)
    if finding.verdict is not None:
        module["withinLimits"] = finding.verdict.within_limits
        module["violations"] = [
            {
                "field": each.field,
                "needed": each.needed,
                "allowed": each.allowed,
                "message": each.message,
                "enforced": each.enforced,
            }
            for each in finding.verdict.violations
        ]
    return module


def _inspection(inspection: Inspection) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": inspection.kind.value,
        "needs": encode(inspection.needs),
        "imageBytes": inspection.data_bytes,
        "backing": backing_for([inspection]).backing.value,
    }
    if inspection.component is None:
        found["imports"] = [{**_import(each), "provided": provided(each)} for each in inspection.imports]
        found["exports"] = [{"name": each.name, "kind": each.kind.value} for each in inspection.exports]
        return found
    return found | _component(inspection.component)


def _component(component: Component) -> dict[str, Any]:
    return {
        "imports": [
            {
                **_interface(each.interface),
                **({"name": each.name} if each.name else {}),
                "kind": each.sort.value,
                "functions": each.functions,
            }
            for each in component.imports
        ],
        "exports": [{**_interface(each.interface), "kind": each.sort.value} for each in component.exports],
        "component": {
            **encode(component.needs),
            "coreInstancesOfHostModules": component.from_host,
            "sums": {name: value for name, value in encode(component.sums).items() if name != "features"},
            "coreModules": [
                {
                    "offset": module.offset,
                    "sizeBytes": module.size_bytes,
                    "instances": module.instances,
                    "needs": encode(module.needs),
                }
                for module in component.modules
            ],
        },
    }


def _import(each: Import) -> dict[str, Any]:
    return {"module": each.module, "name": each.name, "kind": each.kind.value}


def _interface(interface: Interface) -> dict[str, Any]:
    return {"interface": interface.name, "version": interface.version}


def _cost(found: Cost) -> dict[str, Any]:
    shape = found.shape
    return {
        "slots": shape.slots,
        "backing": shape.backing.value,
        "guarded": shape.guarded,
        "slotBytes": shape.slot_bytes,
        "regionBytes": shape.region_bytes,
        "overheadBytesPerNode": found.overhead_bytes,
    }


def _suggestion(suggested: Suggested) -> dict[str, Any]:
    limits = suggested.suggestion
    found: dict[str, Any] = {"moduleLimits": encode(limits.module_limits)}
    if limits.component_limits is not None:
        found["componentLimits"] = encode(limits.component_limits)
    if suggested.cost is not None:
        found["perNode"] = _cost(suggested.cost)
    else:
        found["problem"] = suggested.problem
    found["stillRefused"] = [
        {"file": name, "reason": finding.reason.value, "message": finding.message}
        for name, finding in suggested.refused
    ]
    return found
