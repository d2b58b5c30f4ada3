"""Runs one script in one pool: what came of each command, in words that are the same for all allocators."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import wasmtime

from tests.conformance.calls import call, read_global
from tests.conformance.constants import Value
from tests.conformance.pools import BASELINE, Pool
from tests.conformance.scripts import (
    Action,
    Instance,
    MalformedError,
    Module,
    Refused,
    Register,
    Returns,
    Step,
    Traps,
    Unsupported,
)
from wasmpool_agent.allocators import Slot
from wasmpool_agent.data_segments import join_data_segments
from wasmpool_api.admission import BASE_PAGES_FIELDS, judge_for
from wasmpool_api.wasm import ModuleInvalid, inspect_module

PASSED: Final = "passed"
SKIPPED: Final = "skipped: "

SPECTEST: Final = """(module
  (memory (export "memory") 1 2)
  (table (export "table") 10 20 funcref)
  (global (export "global_i32") i32 (i32.const 666))
  (global (export "global_i64") i64 (i64.const 666))
  (global (export "global_f32") f32 (f32.const 666.6))
  (global (export "global_f64") f64 (f64.const 666.6))
  (func (export "print"))
  (func (export "print_i32") (param i32))
  (func (export "print_i64") (param i64))
  (func (export "print_f32") (param f32))
  (func (export "print_f64") (param f64))
  (func (export "print_i32_f32") (param i32 f32))
  (func (export "print_f64_f64") (param f64 f64)))
"""
"""The module that scripts import from. A guest too, so that its memory lies in a slot like everybody's: a memory that
the host makes outside of an instantiation is refused by the allocators that have a region."""

# Which proposal the engine, or the parser of its text format, refused a module for. The first match counts.
_PROPOSALS: Final = tuple(
    (re.compile(pattern), proposal)
    for pattern, proposal in (
        (r"custom.descriptors|exact (heap )?type", "custom-descriptors"),
        (r"custom page sizes|custom.page.sizes", "custom-page-sizes"),
        (r"wide arithmetic", "wide-arithmetic"),
        (r"(?<!everything-)threads|shared memor", "threads"),
        (r"memory64|memory index must be 32|64-bit|index type|invalid var_u32: integer rep", "memory64"),
        (r"exceptions|exception", "exceptions"),
        (r"function.references|typed function", "function-references"),
        (r"gc (types|proposal|support|feature)|requires? `?gc|GC proposal|of locally defined global", "gc"),
    )
)
LARGER: Final = "larger than a slot"
_FAILED: Final = "a module that failed"


class Absent(Exception):  # noqa: N818 -- not an error: the reason why a command can't be run
    """What a command is about was not made. `reason`: the proposal that it needs, or LARGER."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def reason_of(message: str) -> str | None:
    """Why the engine refused a module that a script takes as valid; None if that is nothing it may refuse."""
    return next((proposal for pattern, proposal in _PROPOSALS if pattern.search(message)), None)


@dataclass
class _Live:
    """An instance. `functions`: with how many results they have."""

    exports: Mapping[str, object]
    functions: dict[str, tuple[wasmtime.Func, int]] = field(default_factory=dict[str, tuple[wasmtime.Func, int]])


@dataclass
class Run:
    """One script in one pool. An outcome is PASSED, SKIPPED with the reason, or what went wrong."""

    pool: Pool
    store: wasmtime.Store
    slots: list[Slot] = field(default_factory=list[Slot])
    latest: _Live | Absent = field(default_factory=lambda: Absent("nothing"))
    latest_definition: wasmtime.Module | Absent = field(default_factory=lambda: Absent("nothing"))
    named: dict[str, _Live | Absent] = field(default_factory=dict[str, "_Live | Absent"])
    definitions: dict[str, wasmtime.Module | Absent] = field(default_factory=dict[str, "wasmtime.Module | Absent"])
    registered: dict[str, _Live | Absent] = field(default_factory=dict[str, "_Live | Absent"])

    def begin(self) -> None:
        """Makes what every script may import from."""
        self.registered["spectest"] = self._instantiated(wasmtime.Module(self.pool.engine, SPECTEST))

    def step(self, step: Step) -> str:
        """Runs it and says what came of it."""
        try:
            problem = self._problem(step)
        except Absent as absent:
            return f"{SKIPPED}{absent.reason}"
        except (wasmtime.Trap, wasmtime.WasmtimeError, MalformedError, LookupError) as error:
            problem = f"{type(error).__name__}: {_first_line(error)}"
        return problem or PASSED

    def _problem(self, step: Step) -> str | None:
        match step.command:
            case Module() as module:
                self._define(module)
            case Instance(name, definition):
                self._present(name, self._definition(definition))
            case Register(name, instance):
                self.registered[name] = self._named(instance)
                self._live(instance)
            case Action() as action:
                self._act(action)
            case Returns(action, results):
                got = self._act(action)
                if len(got) != len(results) or not all(map(lambda e, v: e.matches(v), results, got)):
                    return f"{got} are not {results}"
            case Traps(subject, message):
                return self._traps(subject, message)
            case Refused(module, stage):
                return self._refused(module, stage)
            case Unsupported(proposal):
                raise Absent(proposal)
        return None

    def _define(self, module: Module) -> None:
        """What a script asks later of a module that is not there is skipped for the same reason."""
        made: wasmtime.Module | Absent = Absent(_FAILED)
        try:
            made = self._admitted(module)
        except Absent as absent:
            made = absent
            raise
        finally:
            if module.definition:
                self.latest_definition = made
                if module.name is not None:
                    self.definitions[module.name] = made
            elif isinstance(made, Absent):
                self._remember(module.name, made)
        if not module.definition:
            self._present(module.name, made)

    def _definition(self, name: str | None) -> wasmtime.Module | Absent:
        return self.latest_definition if name is None else self.definitions[name]

    def _present(self, name: str | None, module: wasmtime.Module | Absent) -> None:
        """Instantiates; what a script asks later of an instance that is not there is skipped for the same reason."""
        made: _Live | Absent = Absent(_FAILED)
        try:
            if isinstance(module, Absent):
                raise module
            made = self._instantiated(module)
        except Absent as absent:
            made = absent
            raise
        finally:
            self._remember(name, made)

    def _remember(self, name: str | None, made: _Live | Absent) -> None:
        self.latest = made
        if name is not None:
            self.named[name] = made

    def _admitted(self, module: Module) -> wasmtime.Module:
        """Judged as the agent judges it, then compiled: what passes may not be refused for its size any more."""
        try:
            needs = inspect_module(module.text.binary)
        except ModuleInvalid:
            return self._compiled(module)  # to hear it in the engine's words
        verdict = judge_for(needs, self.pool.sizes.spec(self.pool.kind), None, "conformance")
        if any(violation.field in BASE_PAGES_FIELDS for violation in verdict.violations):
            raise Absent(LARGER)
        return self._compiled(module)

    def _compiled(self, module: Module) -> wasmtime.Module:
        binary = module.text.binary
        if self.pool.kind is not BASELINE:  # which has the module as it is, to be compared with what agents compile
            binary = join_data_segments(binary)
        try:
            return wasmtime.Module(self.pool.engine, binary)
        except wasmtime.WasmtimeError as error:
            if reason := reason_of(str(error)):
                raise Absent(reason) from error
            raise

    def _instantiated(self, module: wasmtime.Module) -> _Live:
        imports: list[wasmtime.Func | wasmtime.Global | wasmtime.Memory | wasmtime.Table] = []
        for wanted in module.imports:
            exporter = self.registered[wanted.module]
            if isinstance(exporter, Absent):
                raise exporter
            found = exporter.exports[wanted.name or ""]
            assert isinstance(found, (wasmtime.Func, wasmtime.Global, wasmtime.Memory, wasmtime.Table))
            imports.append(found)
        slot = self.pool.allocator.allocate(1)
        self.slots.append(slot)
        with self.pool.allocator.initialize(slot):
            instance = wasmtime.Instance(self.store, module, imports)
        return _Live(dict(instance.exports(self.store)))

    def _named(self, name: str | None) -> _Live | Absent:
        return self.latest if name is None else self.named[name]

    def _live(self, name: str | None) -> _Live:
        found = self._named(name)
        if isinstance(found, Absent):
            raise found
        return found

    def _act(self, action: Action) -> list[Value]:
        live = self._live(action.instance)
        if action.arguments is None:
            variable = live.exports[action.export]
            assert isinstance(variable, wasmtime.Global)
            return [read_global(self.store, variable)]
        if action.export not in live.functions:
            function = live.exports[action.export]
            assert isinstance(function, wasmtime.Func)
            live.functions[action.export] = (function, len(function.type(self.store).results))
        function, results = live.functions[action.export]
        return call(self.store, function, results, action.arguments)

    def _traps(self, subject: Action | Module, message: str) -> str | None:
        try:
            if isinstance(subject, Module):
                self._instantiated(self._admitted(subject))
            else:
                self._act(subject)
        except wasmtime.Trap as trap:
            said = str(trap)
            # Which element it is, the engine does not say.
            return None if re.sub(r"(uninitialized element) \d+", r"\1", message) in said else f"trapped: {said}"
        return f"did not trap ({message})"

    def _refused(self, module: Module, stage: str) -> str | None:
        try:
            compiled = self._admitted(module) if stage == "unlinkable" else self._compiled(module)
        except (wasmtime.WasmtimeError, MalformedError) as error:
            return f"refused before it is linked: {_first_line(error)}" if stage == "unlinkable" else None
        if stage != "unlinkable":
            return f"not refused as {stage}"
        try:
            self._instantiated(compiled)
        except (wasmtime.WasmtimeError, LookupError):
            return None
        return "not refused as unlinkable"

    def close(self) -> None:
        """Ends all of its instances and gives their slots back."""
        self.store.close()
        for slot in self.slots:
            assert self.pool.allocator.deallocate(slot)


def _first_line(error: Exception) -> str:
    return " / ".join(line.strip() for line in str(error).splitlines() if line.strip())[:300]


def run_script(pool: Pool, script_steps: list[Step]) -> list[str]:
    """One outcome per command."""
    run = Run(pool, pool.store())
    try:
        run.begin()
        return [run.step(step) for step in script_steps]
    finally:
        run.close()
