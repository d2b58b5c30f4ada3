"""What the chart makes of its values.

Rendered by the real helm. Covered here: the operator's pod is hardened and gets the flags it needs; names are those
that operator, agents and policies rely on; the CRDs are the canonical ones; optional parts come only when asked for;
rights are no wider than said.
"""

from typing import Any

import pytest
import yaml

from tests.chart.kube import CHART, REPOSITORY, Helm, Object, kinds, named

# Needs helm, which is built from source on first use.
pytestmark = pytest.mark.cluster

MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "imagePullSecrets": [{"name": "registry"}],
        "commonLabels": {"team": "platform"},
        "operator": {
            "replicas": 2,
            "logLevel": "debug",
            "extraArgs": ["--relist-seconds=60"],
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "serviceAccount": {"annotations": {"example.com/role": "none"}},
            "podLabels": {"team": "platform"},
            "podAnnotations": {"example.com/a": "b"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "wasmpool-operator"}},
                }
            ],
            "priorityClassName": "system-cluster-critical",
            "podDisruptionBudget": {"enabled": True, "maxUnavailable": "50%"},
            "networkPolicy": {
                "enabled": True,
                "metricsFrom": [{"namespaceSelector": {"matchLabels": {"monitoring": "true"}}}],
                "apiServerCIDRs": ["10.0.0.1/32"],
            },
        },
        "monitoring": {"dashboards": {"enabled": True, "annotations": {"grafana_folder": "wasmpool"}}},
    },
    "least": {
        "crds": {"install": False},
        "rbac": {"aggregate": False},
        "admissionPolicies": {"agentStatus": False, "operatorScope": False},
        "operator": {"resources": None, "replicas": 0},
    },
    "nothing where a map may be": {"commonLabels": None, "operator": {"podLabels": None, "podAnnotations": None}},
    "network policy for all": {"operator": {"networkPolicy": {"enabled": True}}},
    "digests": {
        "operator": {"image": {"digest": "sha256:" + "a" * 64}},
        "agent": {"image": {"digest": "sha256:" + "b" * 64}},
    },
}
MONITORS = {
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "runbookUrl": "https://runbooks/wasm"},
    }
}


def operator_pod(objects: list[Object]) -> Object:
    pod: Object = named(objects, "Deployment")["spec"]["template"]
    return pod


def rules_of(objects: list[Object], kind: str, name: str) -> list[Object]:
    rules: list[Object] = named(objects, kind, name)["rules"]
    return rules


def test_helm_finds_nothing_to_complain_about(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART).require()


@pytest.mark.parametrize("case", MATRIX)
def test_every_object_carries_the_labels_of_the_release(helm: Helm, case: str) -> None:
    for it in helm.objects(MATRIX[case]):
        labels = it["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "wasmpool"
        if it["kind"] != "Pod":
            assert labels["app.kubernetes.io/managed-by"] == "Helm"
            common: dict[str, str] = MATRIX[case].get("commonLabels") or {}
            assert labels.get("team") == common.get("team")


@pytest.mark.parametrize("case", MATRIX)
def test_namespaced_objects_are_in_the_namespace_of_the_release(helm: Helm, case: str) -> None:
    cluster_wide = ("Cluster", "Validating", "CustomResource")
    for it in helm.objects(MATRIX[case]):
        if not it["kind"].startswith(cluster_wide):
            assert it["metadata"]["namespace"] == "wasmpool-system"


def test_without_a_choice_agents_mount_no_directory_of_a_node(helm: Helm) -> None:
    policy = named(helm.objects(), "ValidatingAdmissionPolicy", "wasmpool-operator-daemonsets")
    allowed = {it["name"]: it["expression"] for it in policy["spec"]["variables"]}["cachePaths"]
    assert allowed.startswith("[].map(")


def test_the_operator_gets_its_flags_and_its_name(helm: Helm) -> None:
    container = operator_pod(helm.objects({"agent": {"image": {"tag": "dev"}}}))["spec"]["containers"][0]
    assert container["args"] == [
        "run",
        "--agent-image=wasmpool.dev/agent:dev",
        "--agent-cluster-role=wasmpool-agent",
        "--lease-namespace=wasmpool-system",
        "--listen=0.0.0.0:9464",
        "--log-level=info",
    ]
    assert {it["name"] for it in container["env"]} == {"POD_NAME", "POD_NAMESPACE"}


def test_images_are_named_by_the_charts_version_unless_said_otherwise(helm: Helm) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    container = operator_pod(helm.objects())["spec"]["containers"][0]
    assert container["image"] == f"wasmpool.dev/operator:{version}"
    container = operator_pod(helm.objects(MATRIX["digests"]))["spec"]["containers"][0]
    assert container["image"] == "wasmpool.dev/operator@sha256:" + "a" * 64
    assert "--agent-image=wasmpool.dev/agent@sha256:" + "b" * 64 in container["args"]


@pytest.mark.parametrize("case", MATRIX)
def test_pods_are_held_to_the_restricted_profile_and_a_read_only_root(helm: Helm, case: str) -> None:
    objects = helm.objects(MATRIX[case])
    for spec in (operator_pod(objects)["spec"], named(objects, "Pod")["spec"]):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_labels_by_which_others_find_the_pods_can_not_be_overwritten(helm: Helm) -> None:
    labels = {"app.kubernetes.io/name": "mine", "team": "platform"}
    for wrong in ({"operator": {"podLabels": labels}}, {"commonLabels": labels}):
        objects = helm.objects(wrong, "--skip-schema-validation")
        assert (operator_pod(objects)["metadata"]["labels"].items()) >= {
            "app.kubernetes.io/name": "wasmpool-operator",
            "team": "platform",
        }.items()


def test_nothing_of_the_values_makes_a_key_twice(helm: Helm) -> None:
    # NB: YAML readers take the last of two, the API server's strict ones refuse them.
    wrong = {
        "commonLabels": {"app.kubernetes.io/name": "mine", "helm.sh/chart": "mine"},
        "operator": {"podAnnotations": {"kubectl.kubernetes.io/default-container": "mine"}},
    }
    rendered = helm.render({**MONITORS, **wrong}, "--skip-schema-validation").require()
    assert "mine" not in rendered
    assert rendered.count("kubectl.kubernetes.io/default-container: operator") == 1


@pytest.mark.parametrize("case", MATRIX)
def test_selectors_fit_the_pods(helm: Helm, case: str) -> None:
    objects = helm.objects({**MATRIX[case], **MONITORS})
    labels = operator_pod(objects)["metadata"]["labels"].items()
    assert named(objects, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels
    service = named(objects, "Service")
    assert service["spec"]["selector"].items() <= labels
    monitor = named(objects, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        for it in objects:
            if it["kind"] == kind:
                selector = it["spec"].get("selector") or it["spec"]["podSelector"]
                assert selector["matchLabels"].items() <= labels


def test_the_kinds_are_the_canonical_ones_and_are_kept(helm: Helm) -> None:
    canonical = [
        yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "crds" / "manifests").glob("*.yaml"))
    ]
    assert [it["spec"]["names"]["kind"] for it in canonical] == ["InstancePoolNode", "InstancePool", "WasmWorkload"]
    objects = helm.objects()
    for crd in canonical:
        rendered = named(objects, "CustomResourceDefinition", crd["metadata"]["name"])
        assert rendered["spec"] == crd["spec"]
        assert rendered["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert rendered["metadata"]["annotations"].items() >= crd["metadata"].get("annotations", {}).items()


def test_the_kinds_go_with_the_release_only_if_asked_for(helm: Helm) -> None:
    for it in helm.objects({"crds": {"keep": False}}):
        if it["kind"] == "CustomResourceDefinition":
            assert "helm.sh/resource-policy" not in it["metadata"].get("annotations", {})


def test_the_least_is_a_deployment_with_its_rights(helm: Helm) -> None:
    assert set(kinds(helm.objects(MATRIX["least"]))) == {
        "ServiceAccount/wasmpool-operator",
        "Deployment/wasmpool-operator",
        "Service/wasmpool-operator-metrics",
        "ClusterRole/wasmpool-operator",
        "ClusterRole/wasmpool-agent",
        "ClusterRole/wasmpool-module-reader",
        "ClusterRole/wasmpool-secret-reader",
        "ClusterRoleBinding/wasmpool-operator",
        "Role/wasmpool-operator-lease",
        "RoleBinding/wasmpool-operator-lease",
        "Pod/wasmpool-test-operator",
    }


def test_the_chart_itself_has_no_objects_of_its_own_kinds(helm: Helm) -> None:
    # NB: they would have to be applied after the kinds, which Helm does not promise in one release.
    assert not [it for it in helm.objects(MATRIX["everything"]) if it["apiVersion"].startswith("wasmpool.dev/")]


def test_nobody_has_all_of_anything_and_only_consent_names_secrets(helm: Helm) -> None:
    for it in helm.objects():
        for rule in it.get("rules", []):
            for part in ("apiGroups", "resources", "verbs"):
                assert "*" not in rule[part]
            if it["metadata"]["name"] != "wasmpool-secret-reader":
                assert "secrets" not in rule["resources"], it["metadata"]["name"]
            if "events" in rule["resources"]:
                assert (it["metadata"]["name"], rule["verbs"]) == ("wasmpool-operator", ["create", "patch"])


def test_a_namespaces_owner_consents_to_its_config_maps_being_read_and_no_more(helm: Helm) -> None:
    (rule,) = rules_of(helm.objects(), "ClusterRole", "wasmpool-module-reader")
    assert rule == {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}


def test_consent_to_secrets_is_a_role_of_its_own_that_nobody_has_by_the_chart(helm: Helm) -> None:
    objects = helm.objects()
    (rule,) = rules_of(objects, "ClusterRole", "wasmpool-secret-reader")
    assert rule == {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    consent = named(objects, "ClusterRole", "wasmpool-secret-reader")
    assert not [it for it in consent["metadata"]["labels"] if it.startswith("rbac.authorization.k8s.io/")]
    bound = {it["roleRef"]["name"] for it in objects if it["kind"] in {"RoleBinding", "ClusterRoleBinding"}}
    assert bound == {"wasmpool-operator", "wasmpool-operator-lease"}


def test_the_chart_asks_for_a_cluster_that_selects_by_fields_of_the_kinds(helm: Helm) -> None:
    # NB: selectableFields of a definition are dropped, without a word, before 1.31.
    refusal = helm.render({}, "--kube-version", "1.30.0").refusal()
    assert "requires kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.0" in refusal
    helm.render({}, "--kube-version", "1.31.0").require()


def test_the_operator_may_bind_one_role_by_name(helm: Helm) -> None:
    powers = [
        rule
        for rule in rules_of(helm.objects(), "ClusterRole", "wasmpool-operator")
        if {"bind", "escalate", "impersonate"} & set(rule["verbs"])
    ]
    assert [(rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in powers] == [
        (["clusterroles"], ["wasmpool-agent"], ["bind"])
    ]


def test_only_people_who_may_administer_a_namespace_make_pools(helm: Helm) -> None:
    objects = helm.objects()
    for name, label, kind in (
        ("wasmpool-view", "view", None),
        ("wasmpool-edit", "edit", "wasmworkloads"),
        ("wasmpool-admin", "admin", "instancepools"),
    ):
        labels = named(objects, "ClusterRole", name)["metadata"]["labels"]
        assert labels[f"rbac.authorization.k8s.io/aggregate-to-{label}"] == "true"
        writable = [
            rule["resources"][0] for rule in rules_of(objects, "ClusterRole", name) if "create" in rule["verbs"]
        ]
        assert writable == ([kind] if kind else [])


def test_monitors_find_operator_and_agents(helm: Helm) -> None:
    objects = helm.objects(MONITORS)
    agents = named(objects, "PodMonitor")
    assert agents["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": "wasmpool-agent"}
    assert agents["spec"]["namespaceSelector"] == {"any": True}
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        assert named(objects, kind)["metadata"]["labels"]["release"] == "prometheus"


def test_the_rule_holds_the_alerts_as_they_are_with_links_to_the_given_runbook(helm: Helm) -> None:
    text = (CHART / "files" / "alerts.yaml").read_text().replace("docs/operations.md", "https://runbooks/wasm")
    assert named(helm.objects(MONITORS), "PrometheusRule")["spec"] == yaml.safe_load(text)


def test_dashboards_come_as_they_are_where_grafana_looks_for_them(helm: Helm) -> None:
    objects = helm.objects({"monitoring": {"dashboards": {"enabled": True, "namespace": "grafana"}}})
    board = named(objects, "ConfigMap")
    assert board["metadata"]["namespace"] == "grafana"
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["data"]["wasmpool-fleet.json"] == (CHART / "dashboards" / "fleet.json").read_text()
