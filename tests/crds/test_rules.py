"""Covers: every CEL rule, on a real API server: what it refuses, and what it then says.

RULES has an entry for each rule of the three definitions, by its place; a rule without one fails the first test. Each
entry has changes that break that rule and no other, and what the message must say: the field, what was given and what
is allowed.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from tests.crds.api import Api, Object, refused, taken
from tests.crds.objects import full, smallest, with_changes
from tests.crds.schemas import rules


class Case(NamedTuple):
    """`changes` to `start` that break a rule; the message that says so."""

    changes: Mapping[str, Any]
    says: str
    start: Object


def pool(changes: Mapping[str, Any], says: str) -> Case:
    """A change to the smallest pool."""
    return Case(changes, says, smallest("InstancePool"))


def command(changes: Mapping[str, Any], says: str) -> Case:
    """A change to the smallest workload that runs a command."""
    return Case(changes, says, smallest("WasmWorkload"))


def http(changes: Mapping[str, Any], says: str) -> Case:
    """A change to a small workload that serves http."""
    return Case(changes, says, with_changes(smallest("WasmWorkload"), {"spec.run": {"http": {}}}))


def expressions(path: str, start: str) -> list[Case]:
    """What is wrong with a label selector's matchExpressions at `path`."""
    return [
        Case({path: [{"key": "k", "operator": "In"}]}, "operator In needs values, there are none", full(start)),
        Case({path: [{"key": "k", "operator": "NotIn", "values": []}]}, "operator NotIn needs values", full(start)),
        Case(
            {path: [{"key": "k", "operator": "Exists", "values": ["a", "b"]}]},
            "operator Exists takes no values, 2 are given",
            full(start),
        ),
    ]


def both(path: str) -> list[Case]:
    """An environment variable, of a list of the full workload, with both kinds of value."""
    start = "wasmworkload-http" if "http" in path else "wasmworkload-command"
    return [
        Case(
            {f"{path}[1].value": "text"},
            "env FROM_CONFIG has both value and valueFrom; one of them is allowed",
            full(start),
        )
    ]


def references(path: str) -> list[Case]:
    """An environment variable of the full workload with two sources, or none."""
    start = "wasmworkload-http" if "http" in path else "wasmworkload-command"
    wanted = "valueFrom needs exactly one of configMapKeyRef and secretKeyRef, "
    return [
        Case({f"{path}[1].valueFrom.secretKeyRef": {"name": "s", "key": "k"}}, wanted + "both are given", full(start)),
        Case({f"{path}[1].valueFrom": {}}, wanted + "neither is given", full(start)),
    ]


def files(path: str) -> dict[str, list[Case]]:
    """What is wrong with a workload's files at `path`."""
    start = "wasmworkload-http" if "http" in path else "wasmworkload-command"
    one = f"{path}[0].configMap.items"
    wanted = "files at /etc/app needs exactly one of configMap and secret, "
    rules = {
        "[]#0": [
            Case({f"{path}[0].secret": {"name": "s"}}, wanted + "both are given", full(start)),
            Case({f"{path}[0]": {"mountPath": "/etc/app"}}, wanted + "neither is given", full(start)),
        ],
        "[].mountPath#0": [
            Case({f"{path}[0].mountPath": given}, f"files: mountPath {given} has a part that is . or ..", full(start))
            for given in ("/etc/../app", "/.", "/..", "/a/./b")
        ],
    }
    for kind, index in (("configMap", 0), ("secret", 1)):
        one = f"{path}[{index}].{kind}.items"
        rules[f"[].{kind}.items#0"] = [
            Case(
                {one: [{"key": "a", "path": given} for given in paths]},
                "files has items of which one's path is a directory of another's",
                full(start),
            )
            for paths in (("a", "a/b"), ("a/b/c", "x", "a/b"))
        ]
        rules[f"[].{kind}.items[].path#0"] = [
            Case({f"{one}[0].path": given}, f"files: path {given} has a part that is . or ..", full(start))
            for given in ("..", "../etc/passwd", "a/./b")
        ]
    return {f"WasmWorkload.{path}{place}": cases for place, cases in rules.items()}


SPACE = "spec.instanceLimits.addressSpaceSize"
PORTS = "spec.http.portRange"
ROLLING = "spec.strategy.rollingUpdate"
SELECTORS = {
    "spec.tenancy.allowedNamespaces.selector": "instancepool",
    "spec.run.http.ingress.selector": "wasmworkload-http",
}
NO_LABELS = ("", "a b", "-a", "a/", "/a", "A.example.com/b", "a/b/c", "a" * 64)
QUOTA = "spec.tenancy.quotas[0].namespaceSelector.matchExpressions"

RULES: Mapping[str, list[Case]] = {
    "InstancePool#0": [
        pool(
            {"metadata.name": "a" * 41},
            f"metadata.name {'a' * 41}: at most 40 characters without a dot are allowed, it has 41",
        ),
        pool(
            {"metadata.name": "a.b"},
            "metadata.name a.b: at most 40 characters without a dot are allowed, it has 3 and a dot",
        ),
    ],
    "InstancePool.spec#0": [
        pool(
            {"spec.allocation": {"backing": "BasePages", "fallback": "BasePages"}},
            "allocation.fallback BasePages is for a backing of huge pages; with backing BasePages only None is allowed",
        )
    ],
    "InstancePool.spec#1": [
        pool(
            {"spec.allocation": {"backing": "BasePages", "strategy": "Random"}},
            "allocation.strategy Random needs backing HugePages2Mi or HugePages1Gi",
        )
    ],
    "InstancePool.spec#2": [
        pool(
            {"spec.tenancy.allowedNamespaces": {"from": "Selector"}},
            "tenancy.allowedNamespaces.from is Selector, but there is no selector",
        ),
        pool(
            {"spec.tenancy.allowedNamespaces": {"from": "All", "selector": {}}},
            "tenancy.allowedNamespaces.selector is only allowed with from Selector, from is All",
        ),
    ],
    "InstancePool.spec#3": [
        pool(
            {SPACE: "8Mi"},
            "addressSpaceSize is 8Mi, but a slot of memories 1 with memoryPages 160 takes 10485760 bytes",
        ),
        pool(
            {SPACE: 4294967296, "spec.moduleLimits": {"memories": 2, "memoryPages": 65536}},
            "instanceLimits.addressSpaceSize is 4294967296, but a slot of memories 2 with memoryPages 65536 takes "
            "8589934592 bytes",
        ),
    ],
    "InstancePool.spec#4": [
        pool(
            {
                "spec.instanceLimits.count": 100000,
                "spec.allocation": allocation,
                "spec.moduleLimits": {"memoryPages": 65536},
            },
            "instanceLimits.count 100000 with memories 1 and memoryPages 65536 makes a region of 429496729600000 bytes "
            "on each node; at most 140737488355328 (128Ti) are allowed",
        )
        for allocation in ({"type": "OnDemand"}, {"backing": "HugePages2Mi"}, {"backing": "BasePages"})
    ],
    "InstancePool.spec#5": [
        pool(
            {"spec.instanceLimits.count": count, "spec.allocation": {"backing": backing}, "spec.moduleLimits": limits},
            f"instanceLimits.count {count} with memories {limits.get('memories', 1)} and addressSpaceSize 6Gi: each "
            "memory takes 4 GiB and more of address space, of which a process has 85 TiB; count may be at most "
            f"{most}: lower count, or set addressSpaceSize below 4Gi for compact slots",
        )
        for count, backing, limits, most in (
            (100_000, "HugePages2Mi", {}, 21_539),
            (21_540, "HugePages2Mi", {}, 21_539),
            (14_507, "HugePages1Gi", {}, 14_506),
            (10_000, "HugePages2Mi", {"memories": 3}, 7_179),
        )
    ],
    "InstancePool.spec#6": [
        pool(
            {"spec.instanceLimits.count": count, "spec.allocation": allocation, **more},
            f"instanceLimits.count {count} on base pages with {memories} memories (of moduleLimits and "
            "componentLimits, the larger): each memory takes 4 GiB and more of address space, of which a process has "
            f"85 TiB; count may be at most {most}: lower count, or take huge pages without a fallback and "
            "addressSpaceSize below 4Gi",
        )
        for count, allocation, more, memories, most in (
            (21_592, {"backing": "BasePages"}, {}, 1, 21_591),
            (10_000, {"backing": "BasePages"}, {"spec.componentLimits": {"memories": 3}}, 3, 7_197),
            (100_000, {"fallback": "BasePages"}, {SPACE: "2Gi"}, 1, 21_591),
            (15_000, {"fallback": "BasePages"}, {"spec.componentLimits": {"memories": 2}}, 2, 10_795),
        )
    ],
    f"InstancePool.{SPACE}#0": [
        pool(
            {SPACE: given},
            f"instanceLimits.addressSpaceSize is {given}; a multiple of 64Ki from 64Ki to 128Ti is allowed",
        )
        for given in ("0", "1Ki", "65537", "65536.5", "100M", "129Ti", "0.3Ki", "9999999Ei", 65535, 140737488420864)
    ],
    "InstancePool.spec.runtime.requestDeadline#0": [
        pool({"spec.runtime.requestDeadline": given}, f"runtime.requestDeadline is {given}; more than zero is wanted")
        for given in ("0s", "0h0m0.00s")
    ],
    "InstancePool.spec.runtime.requestDeadline#1": [
        pool({"spec.runtime.requestDeadline": given}, f"runtime.requestDeadline is {given}; at most 24h is allowed")
        for given in ("24h1ms", "24h0.000000001s", "1441m", "9999h999999m99999999s999999999ms")
    ],
    "InstancePool.spec.nodeSelector#0": [
        pool({"spec.nodeSelector": {key: ""}}, "nodeSelector has a key that no label has") for key in NO_LABELS
    ],
    "InstancePool.spec.agent.podLabels#0": [
        pool({"spec.agent.podLabels": {key: ""}}, "agent.podLabels has a key that no label has") for key in NO_LABELS
    ],
    **{
        f"InstancePool.spec.agent.resources.{part}.memory#0": [
            pool(
                {f"spec.agent.resources.{part}": {"memory": given}},
                f"agent.resources memory is {given}; at most 64Ti is allowed",
            )
            for given in ("65Ti", "9223372036854775807Ei", 70368744177665)
        ]
        for part in ("limits", "requests")
    },
    "WasmWorkload.spec.placement.nodeSelector#0": [
        command({"spec.placement.nodeSelector": {key: ""}}, "placement.nodeSelector has a key that no label has")
        for key in NO_LABELS
    ],
    "WasmWorkload.spec.run.http.deadline#1": [
        http({"spec.run.http.deadline": given}, f"http.deadline is {given}; at most 24h is allowed")
        for given in ("24h1ms", "86401s")
    ],
    "InstancePool.spec.tenancy.allowedNamespaces.selector.matchExpressions[]#0": expressions(
        "spec.tenancy.allowedNamespaces.selector.matchExpressions", "instancepool"
    ),
    "InstancePool.spec.tenancy.quotas[].namespaceSelector.matchExpressions[]#0": expressions(QUOTA, "instancepool"),
    f"InstancePool.{PORTS}#0": [
        pool({PORTS: given}, f"http.portRange is {given}; first-last with 1024 <= first <= last <= 65535 is allowed")
        for given in ("1023-2000", "30001-30000", "60000-65536", "10000-99999")
    ],
    f"InstancePool.{PORTS}#1": [
        pool({PORTS: given}, f"http.portRange {given} contains 9464, the port of the agent itself")
        for given in ("9000-9999", "9464-9464", "1024-9464", "9464-65535")
    ],
    "InstancePool.spec.http.queueTimeout#0": [
        pool({"spec.http.queueTimeout": given}, f"http.queueTimeout is {given}; at most 60s is allowed")
        for given in ("1m1ms", "61s", "1h")
    ],
    "InstancePool.spec.registries[]#0": [
        pool(
            {"spec.registries": [{"host": "a.example.com", "plainHTTP": True, "caBundle": "LS0tLS1CRUdJTg=="}]},
            "registries: plainHTTP and caBundle are both given, and without TLS there is no certificate to check; "
            "one of them is allowed",
        )
    ],
    "InstancePool.spec.agent.cache.sizeLimit#0": [
        pool({"spec.agent.cache": {"sizeLimit": given}}, f"agent.cache.sizeLimit is {given}; 64Mi to 64Ti is allowed")
        for given in ("63Mi", 0, "65Ti", 70368744177665)
    ],
    "InstancePool.spec.agent.cache.hostPath#0": [
        pool({"spec.agent.cache": {"hostPath": given}}, "agent.cache.hostPath has a part that is . or ..")
        for given in ("/var/cache/../..", "/..", "/./etc")
    ],
    "InstancePool.spec.agent.env[]#0": [
        pool(
            {"spec.agent.env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]},
            "agent.env A has both value and valueFrom; one of them is allowed",
        )
    ],
    "InstancePool.spec.agent.env[].valueFrom#0": [
        pool(
            {"spec.agent.env": [{"name": "A", "valueFrom": given}]},
            f"agent.env valueFrom needs exactly one of fieldRef and resourceFieldRef, {says}",
        )
        for given, says in (
            ({}, "neither is given; secretKeyRef and configMapKeyRef are not allowed"),
            (
                {"fieldRef": {"fieldPath": "status.podIP"}, "resourceFieldRef": {"resource": "limits.cpu"}},
                "both are given",
            ),
        )
    ],
    "InstancePool.spec.updateStrategy.maxUnavailable#0": [
        pool(
            {"spec.updateStrategy.maxUnavailable": given},
            "maxUnavailable is 0, with which no agent could ever be replaced",
        )
        for given in (0, "0%")
    ],
    "InstancePoolNode#0": [
        Case(
            {"metadata.name": "q.n"},
            "metadata.name is q.n, p.n (spec.poolName.spec.nodeName) is wanted",
            smallest("InstancePoolNode"),
        )
    ],
    "WasmWorkload#0": [
        http({"metadata.name": given}, f"metadata.name {given}: an http workload gives its name to a Service")
        for given in ("a.b", "1a", "a" * 64)
    ],
    "WasmWorkload.spec#0": [
        command({"spec.minInstances": 2}, "minInstances is 2, at most instances, 1, is allowed"),
        command({"spec.instances": 3, "spec.minInstances": 4}, "minInstances is 4, at most instances, 3, is allowed"),
    ],
    "WasmWorkload.spec#1": [
        command(
            {"spec.burst": 2, "spec.run.command.restartPolicy": given},
            "burst is 2, 0 is allowed with run.command: a command runs in the slots that it has reserved",
        )
        for given in ("Always", "Never", "OnFailure")
    ],
    "WasmWorkload.spec#2": [
        command({ROLLING: {"maxSurge": surge, "maxUnavailable": unavailable}}, "nothing could ever be replaced")
        for surge, unavailable in ((0, 0), ("0%", 0), (0, "0%"), ("0%", "0%"))
    ],
    "WasmWorkload.spec#3": [
        Case(
            {"spec.ttlSecondsAfterFinished": 60},
            "ttlSecondsAfterFinished is 60, but only a command with restartPolicy OnFailure or Never ever finishes",
            start,
        )
        for start in (
            smallest("WasmWorkload"),
            with_changes(smallest("WasmWorkload"), {"spec.run": {"http": {}}}),
        )
    ],
    "WasmWorkload.spec.progressDeadline#0": [
        command({"spec.progressDeadline": given}, f"progressDeadline is {given}; more than zero is wanted")
        for given in ("0s", "0h0m0.00s")
    ],
    **files("spec.run.command.files"),
    **files("spec.run.http.files"),
    "WasmWorkload.spec.module#0": [
        command(
            {"spec.module.configMap": {"name": "c", "key": "k"}},
            "module needs exactly one of image and configMap, both are given",
        ),
        command({"spec.module": {}}, "module needs exactly one of image and configMap, neither is given"),
    ],
    "WasmWorkload.spec.run#0": [
        command({"spec.run.http": {}}, "run needs exactly one of command and http, both are given"),
        command({"spec.run": {}}, "run needs exactly one of command and http, neither is given"),
    ],
    "WasmWorkload.spec.run.http#0": [
        http({"spec.run.http.ingress": {"from": "Selector"}}, "ingress.from is Selector, but there is no selector"),
        http(
            {"spec.run.http.ingress": {"selector": {}}},
            "ingress.selector is only allowed with from Selector, from is Same",
        ),
    ],
    "WasmWorkload.spec.run.http.ingress.selector.matchExpressions[]#0": expressions(
        "spec.run.http.ingress.selector.matchExpressions", "wasmworkload-http"
    ),
    **{
        f"WasmWorkload.spec.run.{run}.deadline#0": [
            case({f"spec.run.{run}.deadline": given}, f"{run}.deadline is {given}; more than zero is wanted")
            for given in ("0s", "0h0m0.00s")
        ]
        for run, case in (("command", command), ("http", http))
    },
    **{f"WasmWorkload.spec.run.{run}.env[]#0": both(f"spec.run.{run}.env") for run in ("command", "http")},
    **{
        f"WasmWorkload.spec.run.{run}.env[].valueFrom#0": references(f"spec.run.{run}.env")
        for run in ("command", "http")
    },
}
CHANGES: Mapping[str, list[Case]] = {
    "WasmWorkload.spec#4": [
        Case(
            changes,
            f"module and run of a command with restartPolicy {policy} can't be changed: what has run can't run again "
            "as something else; delete the workload and make it anew",
            with_changes(smallest("WasmWorkload"), {"spec.run.command.restartPolicy": policy}),
        )
        for policy in ("Never", "OnFailure")
        for changes in (
            {"spec.module.image": "registry.example.com/m:2"},
            {"spec.module": {"image": None, "configMap": {"name": "c", "key": "k"}}},
            {"spec.run.command.args": ["again"]},
            {"spec.run.command.restartPolicy": "Always"},
        )
    ],
    "WasmWorkload.spec.poolRef#0": [
        command({"spec.poolRef.name": "q"}, "poolRef can't be changed; make a new WasmWorkload for another pool"),
        command({"spec.poolRef.namespace": "q"}, "poolRef can't be changed"),
    ],
    "WasmWorkload.spec.run#1": [
        command({"spec.run": {"http": {}, "command": None}}, "run is command and its kind can't be changed"),
        http({"spec.run": {"command": {}, "http": None}}, "run is http and its kind can't be changed"),
    ],
}
"""Rules on what an update changes."""

TAKEN_CHANGES: Mapping[str, Case] = {
    "another number of completions": Case(
        {"spec.instances": 3}, "", with_changes(smallest("WasmWorkload"), {"spec.run.command.restartPolicy": "Never"})
    ),
    "another module of what runs for ever": command({"spec.module.image": "registry.example.com/m:2"}, ""),
    "an end for what ran for ever": command({"spec.run.command.restartPolicy": "Never"}, ""),
}
"""Updates that no rule forbids."""

TAKEN: Mapping[str, Case] = {
    "a name of 40 characters": pool({"metadata.name": "a" * 40}, ""),
    "the smallest address space that holds a slot": pool({SPACE: "10Mi"}, ""),
    "a slot of 64 KiB": pool({SPACE: "64Ki", "spec.moduleLimits": {"memoryPages": 1}}, ""),
    "an address space as a number": pool({SPACE: 2147483648}, ""),
    "an address space of a fraction": pool({SPACE: "1.5Gi"}, ""),
    "the largest region": pool(
        {
            "spec.instanceLimits.count": 32768,
            "spec.allocation": {"type": "OnDemand"},
            "spec.moduleLimits": {"memoryPages": 65536},
        },
        "",
    ),
    "the most guarded slots": pool({"spec.instanceLimits.count": 21_539}, ""),
    "the most base pages": pool({"spec.instanceLimits.count": 21_591, "spec.allocation": {"backing": "BasePages"}}, ""),
    "the most compact slots": pool({"spec.instanceLimits.count": 100_000, SPACE: "2Gi"}, ""),
    "a day for a request": pool({"spec.runtime.requestDeadline": "23h59m59s1000ms"}, ""),
    "keys of labels": pool({"spec.nodeSelector": {"disk": "a_b.C", "example.com/" + "a" * 63: "", "A_b.c": ""}}, ""),
    "an agent of 64 TiB": pool({"spec.agent.resources": {"limits": {"memory": "64Ti"}}}, ""),
    "ports around the agent's": pool({PORTS: "9465-65535"}, ""),
    "one port": pool({PORTS: "1024-1024"}, ""),
    "no instances with a minimum": command({"spec.instances": 0, "spec.minInstances": 2}, ""),
    "a burst of what serves requests": http({"spec.instances": 0, "spec.burst": 2}, ""),
    "a finished command that goes at once": command(
        {"spec.ttlSecondsAfterFinished": 0, "spec.run.command.restartPolicy": "Never"}, ""
    ),
    "files at the root and beside each other": command(
        {
            "spec.run.command.files": [
                {"mountPath": "/", "configMap": {"name": "a", "items": [{"key": "a", "path": "..a/b.."}]}},
                {"mountPath": "/etc", "secret": {"name": "b"}},
                {"mountPath": "/etc/b", "secret": {"name": "b"}},
            ]
        },
        "",
    ),
    "a command with a dot in its name": command({"metadata.name": "a.b"}, ""),
    "an empty selector": pool({"spec.tenancy.allowedNamespaces": {"from": "Selector", "selector": {}}}, ""),
    "random slots on demand": pool(
        {"spec.allocation": {"type": "OnDemand", "backing": "BasePages", "strategy": "Random"}}, ""
    ),
}


def test_every_rule_has_a_case() -> None:
    assert sorted(rule.id for rule in rules()) == sorted([*RULES, *CHANGES])


ALL_CASES = [pytest.param(it, id=f"{rule}-{n}") for rule, cases in RULES.items() for n, it in enumerate(cases)]


@pytest.mark.cluster
@pytest.mark.parametrize("case", ALL_CASES)
def test_a_rule_refuses_and_says_why(api: Api, case: Case) -> None:
    answer = refused(api.create(with_changes(case.start, case.changes), dry_run=True))
    assert answer.code == 422
    assert answer.says(case.says), answer
    assert len(answer.causes) == 1, f"one mistake, one message: {answer.causes}"


@pytest.mark.cluster
@pytest.mark.parametrize(
    "case", [pytest.param(it, id=f"{rule}-{n}") for rule, cases in CHANGES.items() for n, it in enumerate(cases)]
)
def test_a_rule_refuses_a_change_and_says_why(api: Api, case: Case) -> None:
    kind, name = case.start["kind"], case.start["metadata"]["name"]
    api.delete(kind, name)
    taken(api.create(case.start))
    try:
        (change,) = case.changes.items()
        answer = refused(api.patch(kind, name, with_changes({}, {change[0]: change[1]})))
        assert answer.code == 422
        assert answer.says(case.says), answer
    finally:
        api.delete(kind, name)


@pytest.mark.cluster
@pytest.mark.parametrize("name", TAKEN_CHANGES)
def test_a_change_that_no_rule_forbids_is_taken(api: Api, name: str) -> None:
    case = TAKEN_CHANGES[name]
    kind, workload = case.start["kind"], case.start["metadata"]["name"]
    api.delete(kind, workload)
    taken(api.create(case.start))
    try:
        taken(api.patch(kind, workload, with_changes({}, case.changes)))
    finally:
        api.delete(kind, workload)


@pytest.mark.cluster
@pytest.mark.parametrize("name", TAKEN)
def test_what_is_just_within_the_rules_is_taken(api: Api, name: str) -> None:
    taken(api.create(with_changes(TAKEN[name].start, TAKEN[name].changes), dry_run=True))
