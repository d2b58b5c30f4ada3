"""One running component: its core instances, its memory and handles, and the calls into it."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import wasmtime

from wasmpool_agent.canonical.arrangement import Exported, Making
from wasmpool_agent.canonical.context import Context
from wasmpool_agent.canonical.glue import TABLE as TABLES
from wasmpool_agent.canonical.linked import START
from wasmpool_agent.canonical.lowering import turn
from wasmpool_agent.canonical.state import State
from wasmpool_agent.canonical.values import GuestResource
from wasmpool_agent.wasmtime_async import GuestTrap, HostTrap, Wait, context_of
from wasmpool_agent.wasmtime_cells import (
    EXTERN_BYTES,
    FUNCTION,
    INSTANCE_BYTES,
    ITEM_OFFSET,
    MEMORY,
    TABLE,
    Cells,
    CoreCall,
    Values,
    begin_yielding,
    fetch,
    fetch_all,
    instantiate,
    instantiate_linked,
    kind_of,
    set_epoch_deadline,
    set_table,
)
from wasmpool_api.wasm.plans import NONE, Item

if TYPE_CHECKING:
    from wasmpool_agent.canonical.program import Program

Steps = Generator[CoreCall, None, object]
Placement = Callable[[], AbstractContextManager[None]]
_FAR = 2**62
_NOTHING = Values("")
_ONE_WORD = Values("I")
_REQUEST = Values("Q")


class ComponentCall:
    """A guest that runs, or is suspended: an instantiation, a call of an export, or a destructor."""

    def __init__(self, instance: "Instance", steps: Steps) -> None:
        self._instance = instance
        self._steps = steps
        self._core: CoreCall | None = None
        self._result: object = None
        self._ended = False

    @property
    def waits_for(self) -> Wait | None:
        """While it is set, polling is pointless until that is ready."""
        return self._instance.state.waits_for

    def poll(self) -> bool:
        """Lets the guest run until it ends (True), waits for something, or has used up its time slice.

        Raises GuestTrap, wasmtime.WasmtimeError; then nothing of the instance can be called any more.
        """
        try:
            return self._poll()
        except HostTrap as trap:
            self._fail()
            raise GuestTrap(str(trap), "") from None
        except (GuestTrap, wasmtime.WasmtimeError):
            self._fail()
            raise
        except Exception as error:  # a value that does not fit its type, see `lowering`
            self._fail()
            raise GuestTrap(f"the call failed in the host: {error!r}", "") from error

    def _poll(self) -> bool:
        running = self._instance.begin_poll()
        try:
            while True:
                if self._core is not None:
                    if not self._core.poll():
                        return False
                    self._core = None
                self._core = next(self._steps)
        except StopIteration as end:
            self._result = end.value
            self._ended = True
            self._instance.end_call(self)
            return True
        finally:
            running.state = None

    def result(self) -> Any:
        """What an export returned, lifted. Only once `poll` has said that it ended."""
        if not self._ended:
            raise RuntimeError("the call has not ended")
        return self._result

    def close(self) -> None:
        """Idempotent. A guest that has not ended is unwound, and nothing of the instance can be called any more."""
        if not self._ended:
            self._fail()

    def _fail(self) -> None:
        core, self._core = self._core, None
        if core is not None:
            core.close()
        self._instance.fail(self)


class Instance:
    """See the package. Calls are made one at a time. Close it before its store."""

    def __init__(self, program: "Program", store: wasmtime.Store, host: object) -> None:
        self._program = program
        self._context = context_of(store)
        self._cells: Cells | None = program.take_cells()
        self._contexts: list[Context | None] = [None] * len(program.options)
        self._functions: dict[Item, int] = {}
        self._next_extern = program.items
        self._table = 0
        self._borrowed = 0
        self._call: ComponentCall | None = None
        self._made = False
        self._over = False
        self.state = State(self._context, host, program.plan.components, program.names)

    def instantiate(self, placement: Placement) -> ComponentCall:
        """Makes all core instances, within `placement()`, and runs their start functions."""
        if self._made:
            raise RuntimeError("the instance has been made already")
        self._made = True
        return self._begin(self._instantiating(placement))

    def call(self, interface: str, function: str, *arguments: object) -> ComponentCall:
        """Calls an export. KeyError where there is none; ValueError, TypeError or so for arguments that do not fit."""
        exported = self._program.exported(interface, function)
        if len(arguments) != exported.count:
            raise TypeError(f"{function} takes {exported.count} arguments, not {len(arguments)}")
        self._check_free()
        return self._begin(self._calling(exported, self._lowered(exported, arguments)))

    def drop(self, resource: GuestResource) -> ComponentCall:
        """Ends a resource that the component has given to the host: its destructor runs."""
        return self._begin(self._dropping(resource))

    def close(self) -> None:
        """Idempotent. Closes what the guest still owns; a call that has not ended is unwound."""
        if self._call is not None:
            self._call.close()
        self._over = True
        self.state.close()
        cells, self._cells = self._cells, None
        if cells is not None:
            self._program.give_cells(cells)

    def begin_poll(self) -> Any:
        """For ComponentCall alone, as are the next two."""
        if self._over:
            raise RuntimeError("the instance has ended")
        running = self._program.running
        running.state = self.state
        running.contexts = self._contexts
        running.make = self._make_context
        return running

    def end_call(self, call: ComponentCall) -> None:
        if self._call is call:
            self._call = None

    def fail(self, call: ComponentCall) -> None:
        if self._call is call:
            self._call = None
            self._over = True
            self.state.waits_for = None

    def _begin(self, steps: Steps) -> ComponentCall:
        self._check_free()
        self._call = ComponentCall(self, steps)
        return self._call

    def _check_free(self) -> None:
        if self._over:
            raise RuntimeError("the instance has ended: nothing of it can be called any more")
        if self._call is not None:
            raise RuntimeError("the instance is in a call: it can't be entered again")

    def _instantiating(self, placement: Placement) -> Steps:
        cells, context = self._live(), self._context
        # NB: without copy-on-write images data segments are compiled code, which looks at the epoch, too.
        set_epoch_deadline(context, _FAR)
        with placement():
            for making in self._program.making:
                self._make(making, context, cells)
        begin_yielding(context)
        for number in self._program.starts:
            yield CoreCall(context, self._function(Item(number, START)), _NOTHING, (), 0, cells)
        return None

    def _make(self, making: Making, context: int, cells: Cells) -> None:
        base = cells.instances
        target = base + making.number * INSTANCE_BYTES
        if making.linked:
            instantiate_linked(context, making.module, target, cells)
        else:
            externs = cells.externs + making.externs
            if fetch_all(context, base, externs, making.wanted) != making.imports:
                raise HostTrap("a core instance does not export what another imports from it")
            instantiate(context, making.module, externs, making.imports, target, cells)
        for slot, name in making.slots:
            function = self._item(Item(making.number, name.decode()), FUNCTION)
            self._table = self._table or self._item(Item(self._program.glue, TABLES), TABLE)
            set_table(context, self._table, slot, function, cells)

    def _lowered(self, exported: Exported, arguments: tuple[object, ...]) -> Context:
        """With the arguments as core values, but for what needs memory of the guest."""
        bound = self._contexts_of(exported.context)
        bound.enter()
        bound.flat = []
        bound.wanted.clear()
        self._borrowed = bound.handles.borrowed
        if exported.in_memory is not None:
            size, alignment = exported.in_memory
            bound.flat.append(0)
            bound.wanted.append((~0, alignment, size, exported.lower, arguments))
        else:
            exported.lower(bound, arguments)
            turn(bound, 0)
        return bound

    def _calling(self, exported: Exported, bound: Context) -> Steps:
        cells, context, state = self._live(), self._context, self.state
        set_epoch_deadline(context, 1)  # ticks since it was made are not the call's
        if bound.wanted:
            first = state.wanted(bound)
            glue = self._function(Item(self._program.glue, exported.allocator))
            yield CoreCall(context, glue, _REQUEST, (first,), 0, cells)
        results = exported.results
        yield CoreCall(context, self._function(exported.item), exported.params, bound.flat, results.count, cells)
        values = results.read(cells.values)
        result: object = None
        if exported.lift is not None:
            bound.enter()
            if exported.returned is not None:
                bound.memory.check(values[0], *exported.returned)
                result = exported.lift(bound, values[0])
            else:
                result = exported.lift(bound, values)
            bound.give_back()
        if exported.post_return is not None:
            state.held[exported.component] = 1
            yield CoreCall(context, self._function(exported.post_return), results, values, 0, cells)
            state.held[exported.component] = 0
        if bound.handles.borrowed > self._borrowed:
            raise HostTrap("borrow handles still remain at the end of the call")
        return result

    def _dropping(self, resource: GuestResource) -> Steps:
        destructor = self._program.plan.resources[resource.type].destructor
        if destructor is not None:
            yield CoreCall(self._context, self._function(destructor), _ONE_WORD, (resource.rep,), 0, self._live())
        return None

    def _live(self) -> Cells:
        if self._cells is None:
            raise RuntimeError("the instance is closed")
        return self._cells

    def _contexts_of(self, number: int) -> Context:
        there = number < len(self._contexts)
        return (self._contexts[number] if there else None) or self._make_context(number)

    def _make_context(self, number: int) -> Context:
        while len(self._contexts) <= number:
            self._contexts.append(None)
        found = self._contexts[number] = self.state.bind(
            self._program.options[number], lambda item: self._item(item, MEMORY)
        )
        return found

    def _function(self, item: Item) -> int:
        found = self._functions.get(item)
        if found is None:
            found = self._functions[item] = self._item(item, FUNCTION)
        return found

    def _item(self, item: Item, kind: int) -> int:
        """The address of an exported function, table or memory."""
        if item.instance == NONE:
            raise HostTrap("an item that the host would have to give")
        cells = self._live()
        extern = cells.externs + self._next_extern * EXTERN_BYTES
        self._next_extern += 1
        if self._next_extern > self._program.externs:
            raise RuntimeError("more items are looked for than the program has")
        name = item.name.encode()
        there = fetch(self._context, cells.instances + item.instance * INSTANCE_BYTES, name, extern)
        if not there or kind_of(extern) != kind:
            raise HostTrap(f"a core instance does not export {item.name} as it should")
        address: int = extern + ITEM_OFFSET
        return address
