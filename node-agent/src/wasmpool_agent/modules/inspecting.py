"""What can be said of a module before it is compiled: its needs, the verdict, and whether the host has what it imports.

Pure, and the same for `wasmpool-agent check` and for the agent in a cluster.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from wasmpool_agent.modules.sources import digest_of
from wasmpool_agent.wasi.interfaces import HANDLER, RUN, VERSION, is_hosted, is_of_version
from wasmpool_agent.wasi.signatures import MODULE, SIGNATURES
from wasmpool_api.admission import Verdict, judge_for
from wasmpool_api.instance_pool import InstancePool
from wasmpool_api.reasons import Outcome, Refusal
from wasmpool_api.wasm import Component, ExternKind, Import, Inspection, ModuleInvalid, inspect
from wasmpool_api.wasm_workload import ModuleNeeds, ModuleStatus, WorkloadLimits

IMPORTS_SHOWN = 10
NAME_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Finding:
    """`module`: None where it could not be read. `verdict`: None then, else also where `reason` has another cause.

    Invariant: admitted exactly if `reason` is Admitted.
    """

    reason: Refusal | Outcome
    message: str
    module: ModuleStatus | None = None
    verdict: Verdict | None = None

    @property
    def admitted(self) -> bool:
        """Whether it may be compiled and run."""
        return self.reason is Outcome.ADMITTED

    @property
    def result(self) -> str:
        """For counting: admitted, would_refuse (admitted only because admission.mode is Count) or refused."""
        if not self.admitted:
            return "refused"
        return "would_refuse" if self.verdict is not None and self.verdict.would_refuse else "admitted"

    def found_in(self, image: str) -> "Finding":
        """The same, of a module that came in this image."""
        module = msgspec.structs.replace(self.module, image=image) if self.module is not None else None
        return replace(self, module=module)

    @property
    def needs(self) -> ModuleNeeds | None:
        """What it needs, where it could be read."""
        return self.module.needs if self.module is not None else None


class Use(StrEnum):
    """What a module is for."""

    COMMAND = "command"
    HTTP = "http"
    ANY = "any"


def examine(
    data: bytes, pool: InstancePool, limits: WorkloadLimits | None, entrypoint: str, use: Use = Use.ANY
) -> Finding:
    """All of it. Takes milliseconds for a large module: call it outside of the event loop.

    `entrypoint`: of a core module that is a command.
    """
    try:
        inspection = inspect(data)
    except ModuleInvalid as error:
        return Finding(Refusal.MODULE_INVALID, str(error))
    module = module_status(inspection, digest_of(data), len(data))
    return examine_inspected(inspection, module, pool, limits, entrypoint, use)


def module_status(inspection: Inspection, digest: str, size_bytes: int) -> ModuleStatus:
    """As a workload's status has it."""
    component = inspection.component.needs if inspection.component is not None else None
    return ModuleStatus(digest=digest, size_bytes=size_bytes, needs=inspection.needs, component=component)


def examine_inspected(
    inspection: Inspection,
    module: ModuleStatus,
    pool: InstancePool,
    limits: WorkloadLimits | None,
    entrypoint: str,
    use: Use = Use.ANY,
) -> Finding:
    """What `examine` says, of what has been read already."""
    verdict = judge_for(inspection.needs, pool.spec, limits, pool.metadata.name, inspection.component)
    if not verdict.admitted:
        return Finding(verdict.reason, verdict.message, module, verdict)
    missing = unprovided_imports(inspection)
    if missing:
        return Finding(Refusal.UNSUPPORTED_FEATURE, missing, module, verdict)
    problem = _unusable(inspection, entrypoint, use)
    if problem:
        return Finding(Refusal.MODULE_INVALID, problem, module, verdict)
    return Finding(Outcome.ADMITTED, verdict.message, module, verdict)


def provided(each: Import) -> bool:
    """Whether a host interface of this agent has it."""
    return each.module == MODULE and each.name in SIGNATURES and each.kind is ExternKind.FUNCTION


def shown(name: str) -> str:
    """A name out of a module, which may be anything, for a person: short, and without control characters."""
    safe = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name[: NAME_SHOWN + 1])
    return safe if len(safe) <= NAME_SHOWN else safe[: NAME_SHOWN - 1] + "…"


def unprovided_imports(inspection: Inspection) -> str:
    """A sentence that names the imports that no host interface of this agent provides; empty if there are none."""
    missing = [
        f"{shown(each.module)}.{shown(each.name)} ({each.kind.value.lower()})"
        for each in inspection.imports
        if not provided(each)
    ]
    if inspection.component is not None:
        return _unprovided_interfaces(inspection.component)
    if not missing:
        return ""
    more = f" and {len(missing) - IMPORTS_SHOWN} more" if len(missing) > IMPORTS_SHOWN else ""
    return (
        f"the module imports {', '.join(missing[:IMPORTS_SHOWN])}{more}, which this agent does not provide; "
        f"allowed are the {len(SIGNATURES)} functions of {MODULE}"
    )


def _unprovided_interfaces(component: Component) -> str:
    missing = [
        shown(str(each.interface))
        for each in component.imports
        if each.functions and not is_hosted(each.interface.name, each.interface.version)
    ]
    if not missing:
        return ""
    more = f" and {len(missing) - IMPORTS_SHOWN} more" if len(missing) > IMPORTS_SHOWN else ""
    return (
        f"the component imports {', '.join(missing[:IMPORTS_SHOWN])}{more}, which this agent does not provide; "
        f"allowed are the interfaces of WASI {VERSION}: wasi:cli, clocks, filesystem, http, io, random, sockets"
    )


def _unusable(inspection: Inspection, entrypoint: str, use: Use) -> str:
    """Why it is not what it is to be used for; empty if it is."""
    if inspection.component is None:
        if use is Use.HTTP:
            return f"run.http needs a component that exports {HANDLER}@{VERSION}; this is a core module"
        return "" if inspection.exports_function(entrypoint) else _no_entrypoint(inspection, entrypoint)
    wanted = {Use.HTTP: (HANDLER,), Use.COMMAND: (RUN,), Use.ANY: (HANDLER, RUN)}[use]
    exports = inspection.component.exports
    if any(it.interface.name in wanted and is_of_version(it.interface.version) for it in exports):
        return ""
    names = [shown(str(it.interface)) for it in exports]
    more = f" and {len(names) - IMPORTS_SHOWN} more" if len(names) > IMPORTS_SHOWN else ""
    has = f"it exports {', '.join(names[:IMPORTS_SHOWN])}{more}" if names else "it exports nothing"
    field = {Use.HTTP: "run.http needs", Use.COMMAND: "run.command needs", Use.ANY: "needed is"}[use]
    return f"{field} a component that exports {f'@{VERSION} or '.join(wanted)}@{VERSION}; {has}"


def _no_entrypoint(inspection: Inspection, entrypoint: str) -> str:
    functions = [shown(export.name) for export in inspection.exports if export.kind is ExternKind.FUNCTION]
    more = f" and {len(functions) - IMPORTS_SHOWN} more" if len(functions) > IMPORTS_SHOWN else ""
    has = f"its functions are {', '.join(functions[:IMPORTS_SHOWN])}{more}" if functions else "it exports none"
    return f"run.command.entrypoint is {entrypoint}, the module exports no such function; {has}"
