"""Calls of the real helm and kubectl, and the Kubernetes objects that come back.

Both are given everything by argument (kubeconfig, token), nothing by the environment of the person who runs the tests.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "wasmpool"

Object: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended (0: well)."""

    code: int
    out: str
    err: str

    def require(self) -> str:
        """Its output; an AssertionError with its complaint where it did not end well."""
        assert self.code == 0, f"exit {self.code}: {self.err}\n{self.out}"
        return self.out

    def refusal(self) -> str:
        """Its complaint, in one line; an AssertionError where it ended well."""
        assert self.code != 0, f"this should have been refused:\n{self.out}"
        return " ".join(self.err.split())


def run(command: Sequence[str | Path], stdin: str = "", timeout: float = 120) -> Answer:
    """Run one command to its end, at most `timeout` seconds."""
    done = subprocess.run(
        [str(part) for part in command], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Helm:
    """The helm program, with or without a cluster."""

    program: Path
    kubeconfig: Path | None = None

    def __call__(self, *arguments: str | Path, timeout: float = 120) -> Answer:
        cluster: list[str | Path] = ["--kubeconfig", self.kubeconfig] if self.kubeconfig else []
        return run([self.program, *cluster, *arguments], timeout=timeout)

    def render(self, values: Mapping[str, Any] | None = None, *arguments: str, release: str = "wasmpool") -> Answer:
        """`helm template` of the chart in namespace wasmpool-system with these values."""
        command: list[str | Path] = [self.program, "template", release, CHART, "--namespace", "wasmpool-system"]
        return run([*command, "--values", "-", *arguments], stdin=json.dumps(values or {}))

    def objects(self, values: Mapping[str, Any] | None = None, *arguments: str) -> list[Object]:
        """What the chart makes of these values."""
        return parse(self.render(values, *arguments).require())


@dataclass(frozen=True)
class Kubectl:
    """The kubectl program as one user of one cluster."""

    program: Path
    kubeconfig: Path
    token: str = ""

    def __call__(self, *arguments: str | Path, stdin: str | Object = "") -> Answer:
        user: list[str | Path] = ["--token", self.token] if self.token else []
        text = stdin if isinstance(stdin, str) else json.dumps(stdin)
        return run([self.program, "--kubeconfig", self.kubeconfig, *user, *arguments], stdin=text)

    def as_token(self, token: str) -> "Kubectl":
        """The same cluster, seen by the bearer of another token."""
        return Kubectl(self.program, self.kubeconfig, token)

    def get(self, *arguments: str) -> Object:
        """`kubectl get -o json`."""
        found: Object = json.loads(self("get", *arguments, "-o", "json").require())
        return found

    def create(self, manifest: Object) -> Object:
        """Create it and return it as the API server stored it."""
        made: Object = json.loads(self("create", "-f", "-", "-o", "json", stdin=manifest).require())
        return made

    def token_for(self, service_account: str, namespace: str, pod: Object | None = None) -> str:
        """A token of the TokenRequest API, bound to `pod` as the kubelet's are, or to nothing."""
        bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod["metadata"]["name"]] if pod else []
        return self("create", "token", service_account, "-n", namespace, *bound).require().strip()


def parse(text: str) -> list[Object]:
    """The objects of a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def named(objects: Sequence[Object], kind: str, name: str | None = None) -> Object:
    """The one object of this kind (and name)."""
    found = [it for it in objects if it["kind"] == kind and name in (None, it["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def kinds(objects: Sequence[Object]) -> Iterator[str]:
    """kind/name of each."""
    return (f"{it['kind']}/{it['metadata']['name']}" for it in objects)
