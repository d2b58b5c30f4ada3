"""On demand: Wasmtime's default, one mapping per memory, made and unmapped with it. The baseline."""

import wasmtime

from wasmpool_agent.allocators.counted import CountedSlots
from wasmpool_agent.wasmtime_private import Tunables


def on_demand_tunables(tunables: Tunables) -> Tunables:
    """Wasmtime's defaults."""
    return tunables


class OnDemandAllocator(CountedSlots):
    """InstanceAllocator that leaves everything to Wasmtime, but the number of instances."""

    def adjust_tunables(self, tunables: Tunables) -> Tunables:
        """See InstanceAllocator."""
        return on_demand_tunables(tunables)

    def install(self, config: wasmtime.Config) -> None:
        """See InstanceAllocator. On demand is what a configuration does unless told otherwise."""
