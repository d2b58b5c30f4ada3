"""Who may use a pool, and how much of it. Pure."""

from collections.abc import Iterable, Mapping

from wasmpool_api.instance_pool import From, InstancePool, LabelSelector
from wasmpool_api.placement import NamespaceLimit

Labels = Mapping[str, str]


def selects(selector: LabelSelector, labels: Labels) -> bool:
    """metav1's matching; an empty selector selects everything."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for requirement in selector.match_expressions:
        value = labels.get(requirement.key)
        matches = {
            "In": value in requirement.values,
            "NotIn": value not in requirement.values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not matches.get(requirement.operator, False):
            return False
    return True


def selector_text(selector: LabelSelector) -> str:
    """As kubectl writes it."""
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    for requirement in selector.match_expressions:
        match requirement.operator:
            case "In" | "NotIn":
                parts.append(f"{requirement.key} {requirement.operator.lower()} ({','.join(requirement.values)})")
            case "Exists":
                parts.append(requirement.key)
            case _:
                parts.append(f"!{requirement.key}")
    return ",".join(parts) or "everything"


def not_allowed(pool: InstancePool, namespace: str, labels: Labels | None) -> str | None:
    """Why workloads of the namespace may not use the pool; None if they may. `labels`: the namespace's, if known."""
    allowed = pool.spec.tenancy.allowed_namespaces
    name = f"{pool.metadata.namespace}/{pool.metadata.name}"
    match allowed.from_:
        case From.ALL:
            return None
        case From.SAME:
            if namespace == pool.metadata.namespace:
                return None
            return (
                f"pool {name} allows workloads of its own namespace only "
                f"(tenancy.allowedNamespaces.from: Same), not of {namespace}"
            )
        case From.SELECTOR:
            selector = allowed.selector or LabelSelector()
            if labels is not None and selects(selector, labels):
                return None
            return (
                f"pool {name} allows workloads of namespaces with labels {selector_text(selector)} "
                f"(tenancy.allowedNamespaces.selector), namespace {namespace} has none such"
            )


def namespace_limits(
    pool: InstancePool, namespaces: Iterable[str], labels: Mapping[str, Labels], slots: int
) -> dict[str, NamespaceLimit]:
    """The most slots that each namespace may hold of `slots`. Namespaces without a limit are left out."""
    limits: dict[str, NamespaceLimit] = {}
    share = pool.spec.tenancy.max_share
    for namespace in set(namespaces):
        candidates: list[NamespaceLimit] = []
        if share.percent != 100:
            candidates.append(
                NamespaceLimit(share.of_rounded_down(slots), f"tenancy.maxShare {share.to_builtin()} of {slots} slots")
            )
        candidates.extend(
            NamespaceLimit(quota.slots, f"tenancy.quotas, {selector_text(quota.namespace_selector)}")
            for quota in pool.spec.tenancy.quotas
            if selects(quota.namespace_selector, labels.get(namespace, {}))
        )
        if candidates:
            limits[namespace] = min(candidates, key=lambda limit: limit.slots)
    return limits
