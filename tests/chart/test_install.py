"""The life of a release on a real API server: install, upgrade, uninstall, and what each leaves.

There are no nodes, so nothing runs; but every object is taken by the API server, which refuses unknown fields, bad CEL
and wrong names. Covered here: all sets of values; the kinds are upgraded with the release and kept after it; all else
goes; a second release says why it can't be; the first pool that the notes suggest is accepted.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.chart.conftest import SYSTEM, pool
from tests.chart.kube import CHART, Helm, Kubectl, Object, parse
from tests.chart.test_templates import MATRIX

pytestmark = pytest.mark.cluster

KINDS = ("instancepoolnodes.wasmpool.dev", "instancepools.wasmpool.dev", "wasmworkloads.wasmpool.dev")


@pytest.fixture
def namespace(admin: Kubectl) -> str:
    """The operator's namespace; a deleted one would stay for ever without a controller manager, so it is left."""
    admin("create", "namespace", SYSTEM)
    return SYSTEM


@pytest.fixture
def clean(admin: Kubectl, cluster_helm: Helm, namespace: str) -> object:
    """Nothing of wasmpool before, nothing after."""
    cluster_helm("uninstall", "wasmpool", "-n", namespace)
    remove_kinds(admin)
    yield None
    cluster_helm("uninstall", "wasmpool", "-n", namespace)
    remove_kinds(admin)


def remove_kinds(admin: Kubectl) -> None:
    admin("delete", "crd", *KINDS, "--ignore-not-found", "--wait=true").require()


def remaining(admin: Kubectl, objects: list[Object]) -> list[str]:
    """Which of these objects the API server has."""
    found = admin("get", "-f", "-", "--ignore-not-found", "-o", "name", stdin=yaml.safe_dump_all(objects))
    return sorted(found.require().split())


@pytest.mark.parametrize("case", MATRIX)
def test_the_api_server_takes_every_object_and_knows_every_field(
    helm: Helm, admin: Kubectl, namespace: str, case: str
) -> None:
    rendered = helm.render(MATRIX[case]).require()
    answer = admin(
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
        stdin=rendered,
    )
    answer.require()
    assert "Warning" not in answer.err


def test_install_upgrade_and_uninstall(
    helm: Helm, cluster_helm: Helm, admin: Kubectl, namespace: str, clean: None, tmp_path: Path
) -> None:
    older = tmp_path / "wasmpool"
    shutil.copytree(CHART, older)
    crd_file = next(path for path in (older / "files" / "crds").iterdir() if "pools" in path.name)
    crd = yaml.safe_load(crd_file.read_text())
    crd["spec"]["names"]["shortNames"] = ["oldpool"]
    crd_file.write_text(yaml.safe_dump(crd))

    cluster_helm("install", "wasmpool", older, "-n", namespace).require()
    assert short_names(admin) == ["oldpool"]
    admin("wait", "--for=condition=Established", "crd", KINDS[1], "--timeout=30s").require()
    admin.create(pool("survivor", "default"))

    cluster_helm("upgrade", "wasmpool", CHART, "-n", namespace, "--set", "operator.replicas=3").require()
    assert short_names(admin) == ["ipool"]
    assert admin.get("deployment", "wasmpool-operator", "-n", namespace)["spec"]["replicas"] == 3

    objects = [it for it in helm.objects() if "helm.sh/hook" not in it["metadata"].get("annotations", {})]
    assert len(remaining(admin, objects)) == len(objects)
    kept = cluster_helm("uninstall", "wasmpool", "-n", namespace).require()
    assert all(kind in kept for kind in KINDS)
    assert remaining(admin, objects) == [f"customresourcedefinition.apiextensions.k8s.io/{kind}" for kind in KINDS]
    assert admin.get("instancepool", "survivor", "-n", "default")["metadata"]["name"] == "survivor"

    cluster_helm("install", "wasmpool", CHART, "-n", namespace).require()


def short_names(admin: Kubectl) -> list[str]:
    names: list[str] = admin.get("crd", KINDS[1])["spec"]["names"]["shortNames"]
    return names


def test_a_second_release_is_refused_and_says_what_is_in_the_way(
    cluster_helm: Helm, namespace: str, clean: None
) -> None:
    cluster_helm("install", "wasmpool", CHART, "-n", namespace).require()
    refusal = cluster_helm("install", "another", CHART, "-n", namespace).refusal()
    assert 'must equal "another": current value is "wasmpool"' in refusal


def test_kinds_that_an_uninstalled_release_left_can_be_taken_over(
    cluster_helm: Helm, namespace: str, clean: None
) -> None:
    cluster_helm("install", "wasmpool", CHART, "-n", namespace).require()
    cluster_helm("uninstall", "wasmpool", "-n", namespace).require()
    cluster_helm("install", "another", CHART, "-n", namespace).refusal()
    cluster_helm("install", "another", CHART, "-n", namespace, "--take-ownership").require()
    cluster_helm("uninstall", "another", "-n", namespace).require()


def test_the_pool_that_the_notes_suggest_is_accepted(
    cluster_helm: Helm, admin: Kubectl, namespace: str, clean: None
) -> None:
    notes = cluster_helm("install", "wasmpool", CHART, "-n", namespace).require()
    _, _, rest = notes.partition("<<'POOL'\n")
    suggested = parse("\n".join(line.removeprefix("     ") for line in rest.partition("POOL\n")[0].splitlines()))
    assert [it["kind"] for it in suggested] == ["InstancePool"]
    admin("wait", "--for=condition=Established", "crd", KINDS[1], "--timeout=30s").require()
    admin("create", "--validate=strict", "--dry-run=server", "-f", "-", stdin=json.dumps(suggested[0])).require()
