"""Host functions for the canonical definitions of a component: raw callbacks that lift, call and lower.

Each begins with whom it is for: the instance whose call is being polled, `Running.state`.
"""

from collections.abc import Callable
from typing import Any, Final

from wasmpool_agent.canonical.context import Context
from wasmpool_agent.canonical.glue import DONE
from wasmpool_agent.canonical.layout import Layouts
from wasmpool_agent.canonical.lifting import Lifting
from wasmpool_agent.canonical.linked import function_key
from wasmpool_agent.canonical.lowering import Lowering, turn
from wasmpool_agent.canonical.state import State, close
from wasmpool_agent.wasmtime_async import HostTrap, Later
from wasmpool_agent.wasmtime_cells import RawFunction, cell_of, reader
from wasmpool_api.wasm.plans import NONE, Lower, Plan, ResourceCall

Function = Callable[..., object]
_word: Final = cell_of("I")
_answer: Final = cell_of("s")
_HELD: Final = "the component must not call the host now: its realloc or post-return runs"


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
        self._lifting = Lifting(layouts, plan.resources, tracks=False)
        # NB: nobody can tell whether something is lent, but a function that is given something else meanwhile.
        self._tracked = Lifting(layouts, plan.resources)
        self._lowering = Lowering(layouts, plan.resources)

    def lower(self, lower: Lower, function: Function, *, waits: bool) -> RawFunction:
        """`waits`: called from the glue, which is told what next."""
        params, result = lower.type.params, lower.type.result
        signature = self._layouts.signature(lower.type, lowered=True)
        tracks = all(any(self._layouts.holds(param, {kind}) for param in params) for kind in ("own", "borrow"))
        points = any(self._layouts.points(param) for param in params)
        in_memory = signature.result_in_memory
        touches = points or in_memory or signature.params_in_memory
        invoke = self._invoked(lower, function, tracks=tracks, in_memory=signature.params_in_memory)
        store = self._stored(result) if in_memory else None
        single = self._lowering.single(result) if signature.results else None
        cell = cell_of(signature.results or "I")
        read, last = reader(signature.params), len(signature.params) - 1
        running, number, component = self._running, self._contexts(lower.options), lower.options.component
        key = function_key(lower)

        def plain(address: int) -> None:
            state = running.state
            if state is None or state.held[component]:
                raise HostTrap(_HELD)
            context = running.contexts[number] or running.make(number)
            if touches:
                context.enter()
            values = read(address)
            outcome = invoke(state.host, context, values)
            if outcome.__class__ is Later:
                raise TypeError(f"{key} waits, and is not known to")
            if tracks:
                context.give_back()
            if store is not None:
                store(state, context, values[last], outcome)
            elif single is not None:
                cell(address).value = single(context, outcome)

        def waiting(address: int) -> None:
            state = running.state
            if state is None or state.held[component]:
                raise HostTrap(_HELD)
            context = running.contexts[number] or running.make(number)
            context.enter()
            values = read(address)
            outcome = invoke(state.host, context, values)
            if store is not None and outcome.__class__ is not Later:
                context.give_back()
                _answer(address).value = store(state, context, values[last], outcome)
                return

            def finish(result: Any) -> int:
                context.give_back()
                if store is not None:
                    return store(state, context, values[last], result)
                if single is not None:
                    state.value = single(context, result)
                return DONE

            _answer(address).value = state.settle(outcome, finish)

        return waiting if waits else plain

    def _invoked(
        self, lower: Lower, function: Function, *, tracks: bool, in_memory: bool
    ) -> Callable[[object, Context, tuple[Any, ...]], object]:
        """(host, context, core values) -> what the function gives for the lifted arguments."""
        params = lower.type.params
        lifting = self._tracked if tracks else self._lifting
        if in_memory:
            load = lifting.record_loader(params)
            size, alignment = self._layouts.record_size(params)

            def loaded(host: object, context: Context, values: tuple[Any, ...]) -> object:
                context.memory.check(values[0], size, alignment)
                return function(host, *load(context, values[0]))

            return loaded
        lifters = lifting.lifters(params)
        match len(lifters):
            case 0:
                return lambda host, _, __: function(host)
            case 1:
                (one,) = lifters
                return lambda host, context, values: function(host, one(context, values))
            case 2:
                one, two = lifters
                return lambda host, context, values: function(host, one(context, values), two(context, values))
            case _:
                return lambda host, context, values: function(host, *[lift(context, values) for lift in lifters])

    def _stored(self, result: int) -> Callable[[State, Context, int, Any], int]:
        """(state, context, pointer to the result, result) -> what next."""
        store = self._lowering.storer(result)
        size, alignment = self._layouts.size(result)

        def stored(state: State, context: Context, pointer: int, value: Any) -> int:
            context.memory.check(pointer, size, alignment)
            store(context, pointer, value)
            if not context.wanted:
                return DONE
            turn(context, 0)
            return state.wanted(context)

        return stored

    def resource(self, call: ResourceCall) -> RawFunction:
        """resource.new, .rep and .drop. A destructor of the guest's is the glue's to call: it gets the rep."""
        resource, component, running = call.resource, call.component, self._running
        defined = self._plan.resources[resource]

        def state_of() -> State:
            if running.state is None:
                raise HostTrap("no instance is being polled")
            return running.state

        def new(address: int) -> None:
            _word(address).value = state_of().handles(component).add(resource, _word(address).value)

        def rep(address: int) -> None:
            _word(address).value = state_of().handles(component).get(resource, _word(address).value).value

        def drop(address: int) -> None:
            state = state_of()
            if state.held[component]:
                raise HostTrap("the component must not drop handles now: its realloc or post-return runs")
            handle = state.handles(component).remove(resource, _word(address).value)
            if defined.component == NONE:
                if handle.owned:
                    close(handle.value)
            elif defined.destructor is not None:
                _answer(address).value = handle.value if handle.owned else DONE

        return {"new": new, "rep": rep, "drop": drop}[call.call]
