"""Work outside of the event loop that is over when its caller goes on, however that comes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")


async def in_thread(function: Callable[[], _Result], unwanted: Callable[[_Result], None] | None = None) -> _Result:
    """Its result. When cancelled, it waits for the thread, which still uses what the caller is about to close.

    `unwanted`: called with a result that nobody takes any more, as that of a thread whose caller was cancelled.
    """
    running = asyncio.get_running_loop().run_in_executor(None, function)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):  # once is enough; the first is passed on
                await asyncio.wait([running])
        if unwanted is not None and running.exception() is None:
            unwanted(running.result())
        raise
