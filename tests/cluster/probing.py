"""Pods that try something and say what came of it; their program is go/probe, which is all that their image holds."""

import json
from pathlib import Path
from typing import Final

from tests.cluster import binaries, images, oci
from tests.cluster.client import Object
from tests.cluster.running import Running

IMAGE: Final = "wasmpool.dev/probe:1"


def load(found: Running, directory: Path) -> None:
    """Put the image on all nodes, by way of an archive in `directory`."""
    archive = directory / "probe.tar"
    oci.pack_program(binaries.one("probe"), IMAGE, archive)
    images.load(found, archive)


def pod(name: str, *questions: str, node: str | None = None, huge_pages: int = 0, restart: str = "Never") -> Object:
    """A pod with no rights on its node that asks these questions. `node`: past the scheduler, straight to this one."""
    limits = {"memory": "32Mi", **({"hugepages-2Mi": f"{huge_pages * 2}Mi"} if huge_pages else {})}
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            **({"nodeName": node} if node else {}),
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "probe",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "args": list(questions),
                    "resources": {"limits": limits},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                    },
                }
            ],
        },
    }


def create(found: Running, manifest: Object) -> str:
    """Make the pod in namespace `default`; its name."""
    found.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **manifest}))
    name: str = manifest["metadata"]["name"]
    return name


def answers(found: Running, manifest: Object) -> str:
    """What a pod that comes to an end has printed."""
    name = create(found, manifest)
    wait_for(found, name, "jsonpath={.status.phase}=Succeeded")
    return found.kubectl("logs", name).stdout


def wait_for(found: Running, name: str, condition: str, *, seconds: int = 60) -> None:
    """kubectl's --for. Raises ClusterError, with the pod's description, if it is not so after `seconds`."""
    done = found.kubectl("wait", f"pod/{name}", f"--for={condition}", f"--timeout={seconds}s", check=False)
    if done.returncode != 0:
        described = found.kubectl("describe", "pod", name, check=False).stdout
        raise AssertionError(f"{done.stderr.strip()}\n{described[-3000:]}")


def address(found: Running, name: str) -> str:
    """The pod's, once it runs."""
    wait_for(found, name, "condition=Ready")
    return found.kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}").stdout
