"""What `wasmpool-agent check` found, for a person: tables."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

from wasmpool_agent.check import Checked, Cost, Suggested, chosen_backing, cost, rows
from wasmpool_agent.modules.inspecting import provided, shown
from wasmpool_api.backing_choice import IMAGE_MOST_BYTES, BackingChoice
from wasmpool_api.codec import encode
from wasmpool_api.instance_pool import Backing, InstancePool
from wasmpool_api.limits import ModuleLimits
from wasmpool_api.quantities import Quantity
from wasmpool_api.wasm import Component, Inspection, Sort

_MODULES_SHOWN: Final = 40
_MODULE_COLUMNS: Final = ("types", "functions", "tables", "memories", "globals", "table_elements", "memory_pages")


def as_table(checked: Sequence[Checked], pool: InstancePool, suggested: Suggested | None, *, suggest: bool) -> str:
    """A paragraph for each module, one for the pool and its pages, and with `suggest` one for smaller limits."""
    parts = ["\n".join(_module(it, pool)) for it in checked]
    found, choice = cost(pool.spec), chosen_backing(checked)
    parts.append(f"pool {pool.metadata.name}: " + _cost(found, pool.spec.module_limits))
    if choice is not None:
        parts[-1] += "\n" + "\n".join(_backing(choice, found.shape.backing))
    if suggest:
        parts.append("\n".join(_suggestion(suggested)))
    return "\n\n".join(parts)


def _module(checked: Checked, pool: InstancePool) -> Iterator[str]:
    finding = checked.finding
    verdict = "Admitted" if finding.admitted else f"Refused, {finding.reason.value}"
    yield f"{checked.name}: {verdict}: {finding.message}"
    inspection = checked.inspection
    if inspection is None:
        yield f"  {checked.size_bytes} bytes, {checked.digest}"
        return
    yield f"  {checked.size_bytes} bytes, {checked.digest}; image: {_size(inspection.data_bytes)}"
    if not finding.admitted and finding.verdict is not None and finding.verdict.within_limits:
        yield f"  it is within the limits of pool {pool.metadata.name}"
    table = [("FIELD", "NEEDED", "ALLOWED", "MARGIN", "")]
    for row in rows(inspection, pool):
        note = "" if row.margin >= 0 else "exceeded"
        table.append((row.limit, str(row.needed), str(row.allowed), str(row.margin), note))
    yield from _aligned(table)
    if inspection.component is not None:
        yield from _component(inspection.component)
    else:
        yield from _core_imports(inspection)
    if inspection.needs.features:
        yield f"  features: {', '.join(inspection.needs.features)}"


def _backing(choice: BackingChoice, pools: Backing) -> Iterator[str]:
    """`pools`: what the pool has."""
    image, most = _size(choice.image_bytes), _size(IMAGE_MOST_BYTES)
    if choice.backing is Backing.BASE_PAGES:
        yield f"  backing: {choice.backing.value} makes instances faster: the largest image has {image}, over {most},"
        yield "  and huge pages have it copied for each; take them where memory that is guaranteed matters more"
    else:
        yield f"  backing: {choice.backing.value}: the largest image has {image}; up to {most} copying costs little"
    if not choice.agrees_with(pools):
        yield f"  the pool has {pools.value}"


def _core_imports(inspection: Inspection) -> Iterator[str]:
    counts = Counter(each.module for each in inspection.imports)
    missing = Counter(each.module for each in inspection.imports if not provided(each))
    for module, count in counts.items():
        lacking = f", of which {missing[module]} are not provided" if missing[module] else ""
        yield f"  imports {shown(module)}: {_number(count, 'item')}{lacking}"


def _component(component: Component) -> Iterator[str]:
    yield (
        f"  a component of {_number(len(component.modules), 'core module')}: needed is the largest of each; "
        "componentLimits hold for all their instances together"
    )
    table = [("CORE MODULE", "INSTANCES", "BYTES", *(_yaml(name) for name in _MODULE_COLUMNS), "")]
    for index, module in enumerate(component.modules[:_MODULES_SHOWN]):
        counts = (str(getattr(module.needs, name)) for name in _MODULE_COLUMNS)
        table.append((str(index), str(module.instances), str(module.size_bytes), *counts, ""))
    sums = (str(getattr(component.sums, name)) for name in _MODULE_COLUMNS)
    table.append(("all instances", str(component.needs.core_instances), "", *sums, ""))
    yield from _aligned(table)
    if len(component.modules) > _MODULES_SHOWN:
        yield f"  and {len(component.modules) - _MODULES_SHOWN} core modules more; --output json has them all"
    if component.from_host:
        yield f"  {_number(component.from_host, 'core instance')} of core modules that the host would have to provide"
    for each in component.imports:
        name = f" as {shown(each.name)}" if each.name else ""
        what = _number(each.functions, "function") if each.sort is Sort.INSTANCE else each.sort.value
        yield f"  imports {shown(str(each.interface))}{name}: {what}"
    for export in component.exports:
        what = "" if export.sort is Sort.INSTANCE else f": {export.sort.value}"
        yield f"  exports {shown(str(export.interface))}{what}"


def _suggestion(suggested: Suggested | None) -> Iterator[str]:
    if suggested is None:
        yield "no limits can be suggested: none of the modules can be read"
        return
    limits = suggested.suggestion
    yield "the smallest limits for what these modules start with; growing a memory takes more memoryPages:"
    yield f"  moduleLimits: {_flow(encode(limits.module_limits))}"
    if limits.component_limits is not None:
        yield f"  componentLimits: {_flow(encode(limits.component_limits))}"
    if suggested.cost is not None:
        yield f"  {_cost(suggested.cost, limits.module_limits)}"
    else:
        yield f"  they make no region: {suggested.problem}"
    for name, finding in suggested.refused:
        yield f"  no limits admit {name}: {finding.reason.value}: {finding.message}"


def _cost(found: Cost, limits: ModuleLimits) -> str:
    shape, memories = found.shape, _number(limits.memories, "memory", "memories")
    kind = "" if shape.backing is Backing.BASE_PAGES else "guarded " if shape.guarded else "compact "
    return (
        f"{shape.slots} {kind}slots of "
        f"{Quantity(shape.slot_bytes)} ({memories} of {limits.memory_pages} pages)\n"
        f"  per node: a region of {Quantity(shape.region_bytes)} on {shape.backing.value}, "
        f"and up to {-(-found.overhead_bytes // 2**20)}Mi outside of it"
    )


def _aligned(table: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The first column to the left, figures to the right, the last one as it is."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    for row in table:
        figures = "  ".join(f"{text:>{width}}" for text, width in zip(row[1:-1], widths[1:], strict=True))
        yield f"  {row[0]:<{widths[0]}}  {figures}  {row[-1]}".rstrip()


def _size(count: int) -> str:
    """Of bytes, in KiB from one on, rounded up."""
    return f"{-(-count // 1024)} KiB" if count >= 1024 else _number(count, "byte")


def _flow(limits: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in limits.items()) + "}"


def _yaml(attribute: str) -> str:
    first, *others = attribute.split("_")
    return first + "".join(word.capitalize() for word in others)


def _number(count: int, thing: str, things: str = "") -> str:
    return f"{count} {thing if count == 1 else things or thing + 's'}"
