"""What lifting and lowering work on: the canonical options of a function, bound to one running instance."""

from collections.abc import Callable
from typing import Any

from wasmpool_agent.canonical.handles import Handle, Handles
from wasmpool_agent.canonical.memory import MAX_LIFTED_BYTES, Memory
from wasmpool_agent.canonical.strings import DECODERS

Wanted = tuple[int, int, int, Callable[["Context", int, Any], None], Any]
"""Memory that the guest must give, and what to do with it: (place, alignment, size, fill, value).

`place`: where its address is written, an address itself; or ~n for the n-th of the flat values. `fill`: writes what
belongs there, and may want more. NB: a named tuple takes ten times as long to make.
"""


class Context:
    """`component`: whose handles these are, a number of the plan.

    `wanted`: what is to be given next is last. `flat`: values for a core function, some of them pointers that are not
    known yet. `lent`: what is borrowed until the host function has returned.
    """

    __slots__ = ("component", "decode", "encoding", "flat", "handles", "lent", "memory", "wanted")

    def __init__(self, component: int, handles: Handles, encoding: str, memory: Memory) -> None:
        self.component = component
        self.handles = handles
        self.encoding = encoding
        self.decode = DECODERS[encoding]
        self.memory = memory
        self.wanted: list[Wanted] = []
        self.flat: list[Any] = []
        self.lent: list[Handle] = []

    def enter(self) -> None:
        """At the beginning of every host call that looks at the memory."""
        memory = self.memory
        memory.refresh()
        memory.left = MAX_LIFTED_BYTES

    def give_back(self) -> None:
        """The call that borrowed is over."""
        for handle in self.lent:
            handle.lends -= 1
        self.lent.clear()
