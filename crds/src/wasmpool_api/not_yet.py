"""What the API has and this version does not do: refused by name, so that nobody relies on it. Pure.

Agents refuse more, by what they can run and fetch; here is what operator and agent must agree on.
"""

from wasmpool_api.instance_pool import InstancePoolSpec, Isolation
from wasmpool_api.wasm_workload import WasmWorkloadSpec


def pool_not_yet(spec: InstancePoolSpec) -> str | None:
    """The field at fault, what it says and what is allowed; None if this version does all that the pool asks for."""
    if spec.tenancy.isolation is not Isolation.SHARED:
        return (
            f"spec.tenancy.isolation is {spec.tenancy.isolation.value}, which this version can't do yet; "
            f"allowed is {Isolation.SHARED.value}, or a pool for each tenant"
        )
    return None


def workload_not_yet(spec: WasmWorkloadSpec) -> str | None:
    """As `pool_not_yet`, of a workload."""
    if spec.burst and spec.run.http is None:
        return f"burst is {spec.burst}, and only requests borrow slots; allowed without run.http is 0"
    return None
