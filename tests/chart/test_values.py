"""What the chart takes as values, and how it refuses the rest.

values.schema.json is strict: a misspelt or misplaced value is an error that names it, what was given and what is
wanted. Covered here: every kind of wrong value; what the schema can't say (a budget for one replica); that the schema
describes every value and has no values that the chart does not have.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from tests.chart.kube import CHART, Helm

# Needs helm, which is built from source on first use.
pytestmark = pytest.mark.cluster

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize(
    ("values", "where", "complaint"),
    [
        ({"replicas": 2}, "''", "additional properties 'replicas' not allowed"),
        ({"operator": {"replica": 2}}, "/operator", "additional properties 'replica' not allowed"),
        ({"operator": {"replicas": "two"}}, "/operator/replicas", "got string, want integer"),
        ({"operator": {"replicas": -1}}, "/operator/replicas", "minimum: got -1, want 0"),
        ({"operator": {"logLevel": "verbose"}}, "/operator/logLevel", "value must be one of 'debug', 'info'"),
        ({"operator": {"image": {"tag": "a b"}}}, "/operator/image/tag", "'a b' does not match pattern"),
        ({"operator": {"image": {"digest": "sha256:12"}}}, "/operator/image/digest", "does not match pattern"),
        ({"operator": {"image": {"repository": ""}}}, "/operator/image/repository", "minLength: got 0, want 1"),
        ({"operator": {"image": {"pullPolicy": "Sometimes"}}}, "/operator/image/pullPolicy", "value must be one of"),
        ({"operator": {"extraArgs": ["run"]}}, "/operator/extraArgs/0", "'run' does not match pattern '^-'"),
        ({"operator": {"resources": {"limits": {"memory": "lots"}}}}, "/operator/resources/limits/memory", "oneOf"),
        ({"operator": {"resources": {"limit": {}}}}, "/operator/resources", "'limit' not allowed"),
        ({"operator": {"tolerations": [{"effect": "Never"}]}}, "/operator/tolerations/0/effect", "must be one of"),
        ({"operator": {"podLabels": {"a": "b c"}}}, "/operator/podLabels/a", "does not match pattern"),
        (
            {"operator": {"podLabels": {"app.kubernetes.io/instance": "x"}}},
            "/operator/podLabels/app.kubernetes.io~1instance",
            "false schema",
        ),
        ({"commonLabels": {"app.kubernetes.io/name": "foo"}}, "/commonLabels/app.kubernetes.io~1name", "false schema"),
        ({"commonLabels": {"helm.sh/chart": "foo"}}, "/commonLabels/helm.sh~1chart", "false schema"),
        (
            {"commonLabels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}},
            "/commonLabels/rbac.authorization.k8s.io~1aggregate-to-edit",
            "false schema",
        ),
        (
            {"operator": {"podAnnotations": {"kubectl.kubernetes.io/default-container": "x"}}},
            "/operator/podAnnotations/kubectl.kubernetes.io~1default-container",
            "false schema",
        ),
        ({"operator": {"networkPolicy": {"apiServerCIDRs": ["10.0.0.1"]}}}, "/apiServerCIDRs/0", "does not match"),
        ({"operator": {"networkPolicy": {"apiServerPorts": [0]}}}, "/apiServerPorts/0", "minimum: got 0, want 1"),
        ({"agent": {"image": {"pullPolicy": "Always"}}}, "/agent/image", "'pullPolicy' not allowed"),
        ({"crds": {"install": "yes"}}, "/crds/install", "got string, want boolean"),
        ({"monitoring": {"podMonitor": {"interval": "often"}}}, "/podMonitor/interval", "does not match pattern"),
        ({"monitoring": {"dashboards": {"namespace": "Bad_Name"}}}, "/dashboards/namespace", "does not match pattern"),
        ({"imagePullSecrets": ["mine"]}, "/imagePullSecrets/0", "got string, want object"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Helm, values: Mapping[str, Any], where: str, complaint: str) -> None:
    refusal = helm.render(values).refusal()
    assert where in refusal
    assert complaint in refusal


def test_a_disruption_budget_for_a_single_replica_is_refused(helm: Helm) -> None:
    refusal = helm.render({"operator": {"podDisruptionBudget": {"enabled": True}}}).refusal()
    assert "operator.podDisruptionBudget.enabled: true needs operator.replicas of 2 or more, given 1" in refusal


def test_a_directory_for_caches_in_another_one_is_refused(helm: Helm) -> None:
    """In the outer one, whoever has the pool of that name could lay a link for the inner one."""
    answer = helm.render({"agent": {"cacheHostPaths": ["/srv/a", "/srv/ab", "/srv/a/team.web"]}})
    assert "agent.cacheHostPaths: /srv/a/team.web is below /srv/a" in answer.refusal()
    helm.render({"agent": {"cacheHostPaths": ["/srv/a", "/srv/ab"]}}).require()


def test_a_chart_that_contains_this_one_may_pass_globals(helm: Helm) -> None:
    helm.render({"global": {"anything": 1}}).require()


def test_the_charts_own_values_fit_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def test_the_schema_has_the_same_values_as_the_chart_and_describes_each() -> None:
    described = dict(properties(SCHEMA))
    assert all(part.get("description") for part in described.values())
    beside_defaults = {"global", "operator.resources.claims"} | {
        path for path in described if path.startswith("operator.affinity.")
    }
    assert set(described) - beside_defaults == set(paths(VALUES, described))


def properties(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, part) of every property, groups too."""
    for name, part in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, part
        yield from properties(part, here)


def paths(values: Any, described: Mapping[str, Mapping[str, Any]], path: str = "") -> Iterator[str]:
    """The path of every value, groups too; not the keys of free-form maps."""
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        yield here
        if isinstance(value, dict) and "properties" in described.get(here, {}):
            yield from paths(value, described, here)
