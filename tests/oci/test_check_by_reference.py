"""`wasmpool-agent check oci://...` and `run` with module.image, as a person runs them, against a real registry."""

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from tests.cluster.certificates import Trust
from tests.oci.registry import ADA, Registry
from tests.standalone.agent import COMMAND, LARGE, Files, prints, running

pytestmark = pytest.mark.cluster


def check(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """To its end, with nobody's credentials unless `environment` says so."""
    return subprocess.run(
        [COMMAND, "check", *arguments],
        env={**os.environ, "DOCKER_CONFIG": "/nonexistent", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def wasm(text: str) -> bytes:
    """Of WAT."""
    return bytes(wasmtime.wat2wasm(text))


def reached(registry: Registry, **settings: object) -> list[dict[str, Any]]:
    """As a pool's spec.registries."""
    return [{"host": registry.host, "plainHTTP": True, **settings}]


def test_a_reference_gets_the_verdict_and_the_exit_status_of_a_file(registry: Registry, files: Files) -> None:
    digest = registry.push_artifact("acme/hello:1", {"hello.wasm": wasm(prints())})
    registry.push_artifact("acme/large:1", {"large.wasm": wasm(LARGE)})
    files.write_pool(registries=reached(registry))
    hello, large = (f"oci://{registry.host}/acme/{name}:1" for name in ("hello", "large"))
    admitted = check(hello, "--pool", files.pool, "--output", "json")
    assert admitted.returncode == 0, admitted.stderr
    (found,) = json.loads(admitted.stdout)["modules"]
    assert found["file"] == hello
    assert found["image"] == f"{registry.host}/acme/hello@{digest}"
    both = check(hello, large, "--pool", files.pool)
    assert both.returncode == 1
    assert f"{large}: Refused, ExceedsModuleLimits: memory 0 needs 64 pages, pool small allows 32" in both.stdout


def test_a_registry_without_tls_is_spoken_to_only_where_the_pool_says_so(registry: Registry, files: Files) -> None:
    registry.push_artifact("acme/hello:1", {"hello.wasm": wasm(prints())})
    done = check(f"oci://{registry.host}/acme/hello:1", "--pool", files.pool)
    assert done.returncode == 2
    assert "is never contacted: it is loopback" in done.stderr
    files.write_pool(registries=[{"host": registry.host}])
    done = check(f"oci://{registry.host}/acme/hello:1", "--pool", files.pool)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("oci://HOST/acme/typo:1", "404"),
        ("oci://HOST/Acme/hello", "no image reference"),
        ("oci://", "no image reference"),
        ("no-such-file.wasm", "No such file or directory"),
    ],
)
def test_what_can_not_be_had_is_said_in_a_line(registry: Registry, files: Files, reference: str, said: str) -> None:
    files.write_pool(registries=reached(registry))
    done = check(reference.replace("HOST", registry.host), "--pool", files.pool)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_login_of_docker_is_used(trust: Trust, files: Files, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry", trust=trust, logins=(ADA,)) as private:
        private.push_artifact("acme/hello:1", {"hello.wasm": wasm(prints())})
        assert private.ca is not None
        # As PEM is given to the API: in base64.
        bundle = base64.b64encode(private.ca).decode()
        files.write_pool(registries=[{"host": private.host, "caBundle": bundle}])
        reference = f"oci://{private.host}/acme/hello:1"
        assert "401" in check(reference, "--pool", files.pool).stderr
        auths = {private.host: {"username": ADA.name, "password": ADA.password}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
        done = check(reference, "--pool", files.pool, environment={"DOCKER_CONFIG": str(tmp_path)})
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("bundle", "problem"),
    [
        ("not base64!", "is not base64"),
        (base64.b64encode(b"hello").decode(), "has no certificate in it"),
        (
            base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----").decode(),
            "is no list of PEM certificates",
        ),
    ],
)
def test_a_broken_setting_of_a_registry_names_its_field(files: Files, bundle: str, problem: str) -> None:
    files.write_pool(registries=[{"host": "registry.test", "caBundle": bundle}])
    done = check("oci://registry.test/a", "--pool", files.pool)
    assert done.returncode == 2
    assert f"spec.registries: registry.test: caBundle {problem}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_workload_runs_an_image_without_a_cluster(registry: Registry, files: Files) -> None:
    registry.push_artifact("acme/hello:1", {"hello.wasm": wasm(prints())})
    files.write_pool(registries=reached(registry))
    image = f"{registry.host}/acme/hello:1"
    files.manifest("hello", module={"image": image}, run={"command": {"restartPolicy": "Never"}})
    with running(files) as agent:
        agent.until_state("hello", "Succeeded", "Succeeded")
    assert agent.said("hello") == ["hello"]
