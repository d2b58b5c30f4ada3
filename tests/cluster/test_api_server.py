"""The control plane without nodes: trust, rights, admission by policy, tokens; and that it ends with its owner."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import processes, running, standing_alone
from tests.cluster.client import ApiError, Client
from tests.cluster.paths import ROOT
from tests.cluster.running import Running

pytestmark = pytest.mark.cluster


@pytest.fixture
def admin(api_server: Running) -> Iterator[Client]:
    with api_server.client() as client:
        yield client


def test_kubectl_and_helm_reach_it(api_server: Running) -> None:
    namespaces = json.loads(api_server.kubectl("get", "namespaces", "-o", "json").stdout)
    assert "kube-system" in {item["metadata"]["name"] for item in namespaces["items"]}
    assert api_server.helm("list", "-A", "-o", "json").stdout.strip() == "[]"


def test_a_stranger_is_refused(api_server: Running) -> None:
    with api_server.client("nobody") as stranger, pytest.raises(ApiError) as refused:
        stranger.get("/api/v1/namespaces")
    assert refused.value.code == 401


def test_service_accounts_get_tokens_and_only_their_rights(api_server: Running, admin: Client) -> None:
    admin.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "guest"}})
    answer = admin.create("/api/v1/namespaces/default/serviceaccounts/guest/token", {"spec": {}})
    wanted = pytest.raises(ApiError, match="system:serviceaccount:default:guest")
    with api_server.client(answer["status"]["token"]) as guest, wanted as refused:
        guest.get("/api/v1/namespaces/default/configmaps")
    assert refused.value.code == 403


def test_admission_policies_are_enforced(admin: Client) -> None:
    group = "/apis/admissionregistration.k8s.io/v1"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    admin.create(
        f"{group}/validatingadmissionpolicies",
        {
            "metadata": {"name": "no-secrets-here"},
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": "object.metadata.name != 'forbidden'", "message": "not that name"}],
            },
        },
    )
    admin.create(
        f"{group}/validatingadmissionpolicybindings",
        {
            "metadata": {"name": "no-secrets-here"},
            "spec": {"policyName": "no-secrets-here", "validationActions": ["Deny"]},
        },
    )
    _until_refused(admin)


def test_two_of_them_run_side_by_side(admin: Client, tmp_path: Path) -> None:
    other = standing_alone.up(tmp_path, controllers=False, owned=True)
    try:
        with other.client() as there:
            there.create("/api/v1/namespaces", {"metadata": {"name": "only-there"}})
        with pytest.raises(ApiError, match="not found"):
            admin.get("/api/v1/namespaces/only-there")
    finally:
        standing_alone.down(tmp_path)
    assert processes.all_of(tmp_path) == []


def test_it_ends_with_an_owner_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys; from tests.cluster import standing_alone\n"
        "standing_alone.up(pathlib.Path(sys.argv[1]), controllers=False, owned=True); signal.pause()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT)
    try:
        _until(lambda: running.load(tmp_path) is not None)
        assert len(processes.all_of(tmp_path)) == 2
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    _until(lambda: not processes.all_of(tmp_path))


def test_what_a_killed_start_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    first = standing_alone.up(tmp_path, controllers=False, owned=True)
    with first.client() as client:
        client.create("/api/v1/namespaces", {"metadata": {"name": "of-the-first"}})
    processes.kill([found.pid for found in processes.named(tmp_path, "kube-apiserver")])
    second = standing_alone.up(tmp_path, controllers=False, owned=True)
    try:
        with second.client() as client, pytest.raises(ApiError, match="not found"):
            client.get("/api/v1/namespaces/of-the-first")
        assert len(processes.all_of(tmp_path)) == 2
    finally:
        standing_alone.down(tmp_path)


def _until_refused(admin: Client) -> None:
    def refused() -> bool:
        try:
            admin.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "forbidden"}}, dryRun="All")
        except ApiError as error:
            return "not that name" in error.message
        return False

    _until(refused)


def _until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so within {seconds:.0f} s"
        time.sleep(0.1)
