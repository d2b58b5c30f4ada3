"""Which agents answer for an http workload, and how willingly. Pure.

    ready         its node is to run it and does, and its pod answers its probe
    serving       the same, though it may be about to end: what is under way goes on, and it is better than nothing
    terminating   its pod is ending, or its node is to run it no more

Addresses are those of pods that the pool's DaemonSet owns, never what an agent says of itself.
"""

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wasmpool_api.instance_pool_node import WorkloadState
from wasmpool_operator.conditions import condition_of
from wasmpool_operator.pool.members import Member
from wasmpool_operator.views import DaemonSet, controlled_by
from wasmpool_operator.workload.reports import Report

MAX_ENDPOINTS: Final = 100
"""Of one slice."""
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
FAMILIES: Final = ("IPv4", "IPv6")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One agent's pod. `addresses`: by family."""

    member: Member
    addresses: Mapping[str, str]
    serving: bool
    terminating: bool

    def manifest(self, family: str) -> dict[str, Any]:
        """As an entry of a slice of that family."""
        pod, node = self.member.pod, self.member.node
        assert pod is not None  # noqa: S101 - see endpoints_of
        found: dict[str, Any] = {
            "addresses": [self.addresses[family]],
            "conditions": {
                "ready": self.serving and not self.terminating,
                "serving": self.serving,
                "terminating": self.terminating,
            },
            "nodeName": self.member.name,
            "targetRef": {
                "kind": "Pod",
                "namespace": pod.metadata.namespace,
                "name": pod.metadata.name,
                "uid": pod.metadata.uid,
            },
        }
        zone = node.metadata.labels.get(ZONE_LABEL) if node is not None else None
        return found | ({"zone": zone} if zone else {})


def endpoints_of(
    members: Mapping[str, Member], daemon_set: DaemonSet | None, planned: Collection[str], reports: Iterable[Report]
) -> list[Endpoint]:
    """By the nodes' names. `planned`: nodes that are to run the workload; `reports`: what agents say of it."""
    running = {
        it.member.name for it in reports if it.entry.state is WorkloadState.RUNNING and members[it.member.name].fresh
    }
    found: list[Endpoint] = []
    for name in sorted(running.union(planned)):
        member = members.get(name)
        pod = member.pod if member is not None else None
        if member is None or pod is None or pod.finished:
            continue
        if daemon_set is None or not controlled_by(pod.metadata, daemon_set.metadata.uid):
            continue
        addresses = dict(_families(it.ip for it in pod.status.pod_ips))
        if addresses:
            found.append(
                Endpoint(
                    member,
                    addresses,
                    serving=name in running and pod.answering,
                    terminating=pod.deleting or _draining(member) or name not in planned,
                )
            )
    return found


def in_slices(endpoints: Sequence[Endpoint]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Family and content of each slice that is needed."""
    for family in FAMILIES:
        entries = [it.manifest(family) for it in endpoints if family in it.addresses]
        for begin in range(0, len(entries), MAX_ENDPOINTS):
            yield family, entries[begin : begin + MAX_ENDPOINTS]


def _families(addresses: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        yield f"IPv{address.version}", text


def _draining(member: Member) -> bool:
    draining = condition_of(member.status.conditions, "Draining") if member.status is not None else None
    return draining is not None and draining.status == "True"
