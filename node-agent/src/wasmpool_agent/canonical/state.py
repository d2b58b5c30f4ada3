"""What one running component has, as far as host functions and calls need it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from wasmpool_agent.canonical.context import Context
from wasmpool_agent.canonical.glue import DONE, WAIT
from wasmpool_agent.canonical.handles import Handles
from wasmpool_agent.canonical.lowering import place
from wasmpool_agent.canonical.memory import Memory, NoMemory
from wasmpool_agent.wasmtime_async import HostTrap, Later, Wait
from wasmpool_agent.wasmtime_cells import set_epoch_deadline
from wasmpool_api.wasm.plans import Item, Options


class Suspended(NamedTuple):
    """A host function that waits: `finish` lowers its result and says what next, as host functions of the glue do."""

    later: Later
    finish: Callable[[Any], int]


class State:
    """`held`: for each component instance, whether it must not call the host: its realloc or post-return runs.

    `waits_for`: what the running call waits for. `lowering`: where memory is wanted. `value`: a result for the glue.
    """

    def __init__(self, context: int, host: object, components: int, names: tuple[str, ...]) -> None:
        self.context = context
        self.host = host
        self.names = names
        self.held = bytearray(components)
        self.waits_for: Wait | None = None
        self.suspended: Suspended | None = None
        self.lowering: Context | None = None
        self.value: Any = 0
        self._handles: list[Handles | None] = [None] * components
        self._memories: dict[Item, Memory] = {}

    def handles(self, component: int) -> Handles:
        """Of one component instance."""
        found = self._handles[component]
        if found is None:
            found = self._handles[component] = Handles(self.names)
        return found

    def bind(self, options: Options, memory: Callable[[Item], int]) -> Context:
        """`memory`: the address of one; it is there by the time somebody asks."""
        found: Memory = NoMemory()
        if options.memory is not None:
            if options.memory not in self._memories:
                self._memories[options.memory] = Memory(self.context, memory(options.memory))
            found = self._memories[options.memory]
        return Context(options.component, self.handles(options.component), options.encoding, found)

    def settle(self, outcome: Any, finish: Callable[[Any], int]) -> int:
        """What a host function has given: lowered, or waited for."""
        while isinstance(outcome, Later):
            if not outcome.wait.ready():
                self.suspended = Suspended(outcome, finish)
                self._suspend(outcome.wait)
                return WAIT
            outcome = outcome.then()
        return finish(outcome)

    def _suspend(self, wait: Wait) -> None:
        self.waits_for = wait
        set_epoch_deadline(self.context, 0)

    def wanted(self, context: Context) -> int:
        """What the glue has to do for what is being lowered."""
        if context.wanted:
            _, alignment, size, _, _ = context.wanted[-1]
            self.lowering = context
            self.held[context.component] = 1
            return alignment << 32 | size  # see `request`
        self.lowering = None
        self.held[context.component] = 0
        return DONE

    def next(self, pointer: int) -> int:
        """The glue has done what it was told to."""
        suspended = self.suspended
        if suspended is not None:
            wait = suspended.later.wait
            if not wait.ready():
                self._suspend(wait)
                return WAIT
            self.suspended = self.waits_for = None
            return self.settle(suspended.later.then(), suspended.finish)
        context = self.lowering
        if context is None or not context.wanted:
            raise HostTrap("nothing is wanted")
        place(context, pointer)
        return self.wanted(context)

    def close(self) -> None:
        """Closes what the guest still owns, and lets go of its memory."""
        for memory in self._memories.values():
            memory.close()
        self._memories.clear()
        self.suspended = self.lowering = self.waits_for = None
        for handles in self._handles:
            for handle in handles.clear() if handles is not None else ():
                close(handle.value)


def close(value: object) -> None:
    """Ends an object of the host's that a guest has owned."""
    ending: Callable[[], object] | None = getattr(value, "close", None)
    if ending is not None:
        ending()
