"""Host functions for the canonical definitions of a component: raw callbacks that lift, call and lower.

Each begins with whom it is for: the instance whose call is being polled, `Running.state`.
"""

from collections.abc import Callable
from ctypes import string_at
from typing import Any, Final

from wasmpool_agent.canonical.context import Context
from wasmpool_agent.canonical.glue import DONE
from wasmpool_agent.canonical.layout import Layouts
from wasmpool_agent.canonical.lifting import Lifting
from wasmpool_agent.canonical.linked import function_key
from wasmpool_agent.canonical.lowering import Lowering, turn
from wasmpool_agent.canonical.state import State, close
from wasmpool_agent.wasi.p2.registry import Later
from wasmpool_agent.wasmtime_async import HostTrap
from wasmpool_agent.wasmtime_cells import RawFunction, raw_values, write_result
from wasmpool_api.wasm.plans import NONE, Lower, Plan, ResourceCall

Function = Callable[..., object]
_word: Final = write_result("I")
_answer: Final = write_result("Q")
_NEVER: Final = 2**64


class Running:
    """Which instance is being polled; `contexts`: its contexts, one for each of the program's options."""

    __slots__ = ("contexts", "make", "state")

    def __init__(self) -> None:
        self.state: State | None = None
        self.contexts: list[Context | None] = []
        self.make: Callable[[int], Context] = _nobody

    def context(self, number: int) -> Context:
        """Of the program's options, for the instance that is being polled."""
        return self.contexts[number] or self.make(number)


def _nobody(number: int) -> Context:
    raise HostTrap(f"no instance is being polled, {number} is asked for")


class Binding:
    """Makes the raw functions of one program."""

    def __init__(self, plan: Plan, layouts: Layouts, running: Running, contexts: Callable[..., int]) -> None:
        self._plan = plan
        self._layouts = layouts
        self._running = running
        self._contexts = contexts
        self._lifting = Lifting(layouts, plan.resources)
        self._lowering = Lowering(layouts, plan.resources)

    def lower(self, lower: Lower, function: Function, *, waits: bool) -> RawFunction:
        """`waits`: called from the glue, which is told what next."""
        signature = self._layouts.signature(lower.type, lowered=True)
        lift = self._lifted(lower, in_memory=signature.params_in_memory)
        finish = self._finisher(lower)
        values = raw_values(signature.params)
        unpack, size = values.unpack, values.size
        running = self._running
        number = self._contexts(lower.options)
        component = lower.options.component
        last = len(signature.params) - 1
        pointer_last = signature.result_in_memory
        write = write_result(signature.results) if signature.results else None
        key = function_key(lower)

        def begin(address: int) -> tuple[State, Context, object, int]:
            state = running.state
            context = running.contexts[number] or running.make(number)
            if state is None or state.held[component]:
                raise HostTrap("the component must not call the host now: its realloc or post-return runs")
            context.enter()
            flat = unpack(string_at(address, size))
            outcome = function(state.host, *lift(context, flat))
            return state, context, outcome, flat[last] if pointer_last else 0

        def plain(address: int) -> None:
            state, context, outcome, pointer = begin(address)
            if isinstance(outcome, Later):
                raise TypeError(f"{key} waits, and is not known to")
            finish(state, context, pointer, outcome)
            if write is not None:
                write(address, state.value)

        def waiting(address: int) -> None:
            state, context, outcome, pointer = begin(address)
            answer = state.settle(outcome, lambda result: finish(state, context, pointer, result))
            _answer(address, answer % _NEVER)

        return waiting if waits else plain

    def _lifted(self, lower: Lower, *, in_memory: bool) -> Callable[[Context, tuple[Any, ...]], tuple[Any, ...]]:
        params = lower.type.params
        if not in_memory:
            return self._lifting.tuple_lifter(params)
        load = self._lifting.record_loader(params)
        size, alignment = self._layouts.record_size(params)

        def lift(context: Context, flat: tuple[Any, ...]) -> tuple[Any, ...]:
            context.memory.check(flat[0], size, alignment)
            arguments: tuple[Any, ...] = load(context, flat[0])
            return arguments

        return lift

    def _finisher(self, lower: Lower) -> Callable[[State, Context, int, Any], int]:
        """(state, context, pointer to the result, result) -> what next."""
        result = lower.type.result
        if result == NONE:

            def nothing(_state: State, context: Context, _pointer: int, _result: Any) -> int:
                context.give_back()
                return DONE

            return nothing
        if not self._layouts.signature(lower.type, lowered=True).result_in_memory:
            low = self._lowering.lowerer(result)

            def flat(state: State, context: Context, _pointer: int, value: Any) -> int:
                context.give_back()
                context.flat.clear()
                low(context, value)
                state.value = context.flat[0]
                return DONE

            return flat
        store = self._lowering.storer(result)
        size, alignment = self._layouts.size(result)

        def in_memory(state: State, context: Context, pointer: int, value: Any) -> int:
            context.give_back()
            context.memory.check(pointer, size, alignment)
            store(context, pointer, value)
            if not context.wanted:
                return DONE
            turn(context, 0)
            return state.wanted(context)

        return in_memory

    def resource(self, call: ResourceCall) -> RawFunction:
        """resource.new, .rep and .drop. A destructor of the guest's is the glue's to call: it gets the rep."""
        resource, component, running = call.resource, call.component, self._running
        defined = self._plan.resources[resource]
        values = raw_values("I")

        def state_of() -> State:
            if running.state is None:
                raise HostTrap("no instance is being polled")
            return running.state

        def number_at(address: int) -> int:
            number: int = values.unpack(string_at(address, values.size))[0]
            return number

        def new(address: int) -> None:
            _word(address, state_of().handles(component).add(resource, number_at(address)))

        def rep(address: int) -> None:
            _word(address, state_of().handles(component).get(resource, number_at(address)).value)

        def drop(address: int) -> None:
            state = state_of()
            if state.held[component]:
                raise HostTrap("the component must not drop handles now: its realloc or post-return runs")
            handle = state.handles(component).remove(resource, number_at(address))
            if defined.component == NONE:
                if handle.owned:
                    close(handle.value)
            elif defined.destructor is not None:
                destroyed: Any = handle.value if handle.owned else DONE
                _answer(address, destroyed % _NEVER)

        return {"new": new, "rep": rep, "drop": drop}[call.call]
