"""The node's memory: engine probe, region and slot table, tried again for as long as it can't be had."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from wasmpool_agent.probe import probe_engine
from wasmpool_agent.refusals import EngineRefusedError
from wasmpool_agent.region import Region, ReserveError
from wasmpool_agent.slots import SlotTable
from wasmpool_agent.supervisor.backoff import REGION
from wasmpool_api.codec import FieldError
from wasmpool_api.instance_pool import Backing, Fallback, InstancePoolSpec
from wasmpool_api.quantities import Quantity
from wasmpool_api.reasons import NodeReason, RegionReason
from wasmpool_api.region import region_shape

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Memory:
    """What the instances live in; the caller of `Reserver.reserve` owns both. `fallback`: not what the pool wants."""

    region: Region
    table: SlotTable
    fallback: Backing | None

    def close(self) -> None:
        """NB: after the workers have ended. The table first: it says who may use the region."""
        self.table.close()
        self.region.close()


@dataclass(frozen=True, slots=True)
class Standing:
    """How far it is. `engine_refused`: the reason is the engine's, not the region's."""

    reserved: bool
    reason: RegionReason | NodeReason
    message: str
    pages_done: int = 0
    pages_total: int = 0


class StoppedError(Exception):
    """Reserving was given up because the agent ends."""


class Reserver:
    """Reserves once. `changed` is called, on the event loop, whenever `standing` says something new."""

    def __init__(self, spec: InstancePoolSpec, changed: Callable[[], None]) -> None:
        self._spec = spec
        self._changed = changed
        self._stop = False
        self.standing = Standing(reserved=False, reason=RegionReason.RESERVING, message="the engine is being tried out")

    def stop(self) -> None:
        """The thread that touches pages ends after its present step."""
        self._stop = True

    async def reserve(self) -> Memory:
        """Tries until it has them. Cancelled, it leaves nothing behind."""
        failures = 0
        while True:
            try:
                return await self._try()
            except ReserveError as error:
                self._say(reserved=False, reason=error.reason, message=error.message)
            except EngineRefusedError as error:
                self._say(reserved=False, reason=NodeReason.ENGINE_REFUSED, message=str(error))
            except (FieldError, OSError) as error:
                self._say(reserved=False, reason=RegionReason.RESERVE_FAILED, message=str(error))
            failures += 1
            pause = REGION.seconds(failures)
            log.error("%s: %s; next try in %g s", self.standing.reason, self.standing.message, pause)
            await asyncio.sleep(pause)

    async def _try(self) -> Memory:
        await probe_engine(self._spec)
        try:
            return await self._reserve(None)
        except ReserveError as error:
            if self._spec.allocation.fallback is not Fallback.BASE_PAGES or error.reason is RegionReason.RESERVE_FAILED:
                raise
            log.warning("%s: %s; allocation.fallback is BasePages", error.reason, error.message)
            await probe_engine(self._spec, Backing.BASE_PAGES)
            memory = await self._reserve(Backing.BASE_PAGES)
            self._say(
                reserved=True,
                reason=RegionReason.FELL_BACK_TO_BASE_PAGES,
                message=f"allocation.fallback is BasePages: {error.message}",
            )
            return memory

    async def _reserve(self, fallback: Backing | None) -> Memory:
        shape = region_shape(self._spec, fallback)
        loop = asyncio.get_running_loop()
        self._say(
            reserved=False, reason=RegionReason.RESERVING, message=f"{Quantity(shape.region_bytes)} are being reserved"
        )

        def progress(done: int, total: int) -> None:
            if self._stop:
                raise StoppedError
            loop.call_soon_threadsafe(self._progress, done, total)

        reserving = asyncio.ensure_future(asyncio.to_thread(Region.reserve, shape, progress))
        try:
            region = await asyncio.shield(reserving)
        except asyncio.CancelledError:
            self._stop = True
            with suppress(StoppedError, ReserveError):
                (await reserving).close()
            raise
        try:
            table = SlotTable.create(shape.slots, self._spec.allocation.strategy)
        except BaseException:
            region.close()
            raise
        reason = (
            RegionReason.BASE_PAGES_RESERVED
            if shape.backing is Backing.BASE_PAGES
            else RegionReason.HUGE_PAGES_RESERVED
        )
        pages, page = shape.region_bytes // shape.page_bytes, Quantity(shape.page_bytes)
        self._say(
            reserved=True,
            reason=reason,
            message=f"{shape.slots} slots of {Quantity(shape.slot_bytes)} on {pages} pages of {page}",
        )
        return Memory(region, table, fallback)

    def _say(self, *, reserved: bool, reason: RegionReason | NodeReason, message: str) -> None:
        self.standing = Standing(reserved=reserved, reason=reason, message=message)
        self._changed()

    def _progress(self, done: int, total: int) -> None:
        if not self.standing.reserved and self.standing.reason is RegionReason.RESERVING:
            self.standing = replace(self.standing, pages_done=done, pages_total=total)
