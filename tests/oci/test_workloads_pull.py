"""What a workload's module.image comes to on a node: pinned once, fetched once, opened to nobody who could not pull it.

The registry is real, and asks a token service who may pull what.
"""

import asyncio
import base64
import json
import resource
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.cluster.certificates import Trust
from tests.oci.pulling import QUICK, module
from tests.oci.registry import Registry, tar
from tests.oci.tokens import Rules, TokenServer, User
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.budget import Budget
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.fetching import Modules
from wasmpool_agent.modules.images import Images
from wasmpool_agent.modules.pulled import Pulled
from wasmpool_agent.modules.sources import PullFailedError, Sources, digest_of
from wasmpool_agent.modules.store import Store
from wasmpool_agent.oci.client import RegistryClient
from wasmpool_agent.oci.settings import RegistrySettings
from wasmpool_agent.supervisor.ports import AbsentError, ConfigMap
from wasmpool_api.codec import decode
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision

pytestmark = pytest.mark.cluster

T = TypeVar("T")


@pytest.fixture
def rules() -> Rules:
    """ada may pull acme/private, bob may not; everybody may pull what is public."""
    users = {
        "ada": User("a", frozenset({"acme/private"})),
        "bob": User("b", frozenset()),
        "root": User("r", push=True),
    }
    return Rules(users, public=frozenset({"acme/public"}))


@pytest.fixture
def tokens(trust: Trust, rules: Rules) -> Iterator[TokenServer]:
    """What the registry believes."""
    with TokenServer(rules, trust) as made:
        yield made


@pytest.fixture
def guarded(tmp_path: Path, trust: Trust, tokens: TokenServer) -> Iterator[Registry]:
    """A registry that believes the token service."""
    with Registry(tmp_path / "registry", trust=trust, tokens=tokens, push_as=("root", "r")) as made:
        yield made


@dataclass
class Node:
    """One node's cache. `own`: each tenant's pull secret; `pools`: the pool's."""

    registry: Registry
    settings: tuple[RegistrySettings, ...]
    directory: Path
    own: dict[str, bytes] = field(default_factory=dict[str, bytes])
    pools: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def __post_init__(self) -> None:
        self.metrics = Metrics("web", "platform", "node-1")

    async def config_map(self, namespace: str, name: str) -> ConfigMap:
        raise AbsentError(name)

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        if namespace not in self.own:
            raise AbsentError(name)
        return {".dockerconfigjson": self.own[namespace]}

    def login(self, user: str, password: str) -> bytes:
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        return json.dumps({"auths": {self.registry.host: {"auth": auth}}}).encode()

    def revision(
        self, tenant: str, repository: str, *, image: str = "", digest: str = "", **source: object
    ) -> Revision:
        secrets = [{"name": "registry"}] if tenant in self.own else []
        return decode(
            Revision,
            {
                "workloadUid": "u",
                "workloadNamespace": tenant,
                "workloadName": "w",
                "module": {"image": f"{self.registry.host}/{repository}", "imagePullSecrets": secrets, **source},
                "run": {"command": {}},
                "image": image,
                "digest": digest,
            },
        )

    def pinned(self, tenant: str, pinned: tuple[str, bytes], **source: object) -> Revision:
        image, data = pinned
        return self.revision(tenant, "acme/private:1", image=image, digest=digest_of(data), **source)

    def do(self, work: Callable[[Modules], Awaitable[T]]) -> T:
        """As a supervisor would that has just started."""

        async def run() -> T:
            async with RegistryClient(self.settings, environment={}, limits=QUICK) as client:
                cache, pulled = Cache(Store(self.directory, 10**9), self.metrics), Pulled(self.directory)
                sources, memory = Sources(self, "platform", "web"), Budget(64 * 1024**2)
                images = Images(client, sources, lambda: self.pools, cache, pulled, self.metrics, memory)
                return await work(Modules(sources, images, cache, pulled, memory))

        return asyncio.run(run())

    def newest(self, revision: Revision) -> tuple[str, bytes]:
        return self.do(lambda modules: newest(modules, revision))

    def run(self, revision: Revision) -> bytes:
        async def pinned(modules: Modules) -> bytes:
            async with modules.pinned(revision) as data:
                return data

        return self.do(pinned)

    def refused(self, revision: Revision) -> PullFailedError:
        with pytest.raises(PullFailedError) as caught:
            self.run(revision)
        return caught.value

    def received(self) -> int:
        """Bytes that came over the network."""
        for line in self.metrics.text().decode().splitlines():
            if line.startswith("wasmpool_pulled_bytes_total{"):
                return int(float(line.split()[-1]))
        raise AssertionError("no such series")


async def newest(modules: Modules, revision: Revision) -> tuple[str, bytes]:
    async with modules.newest(revision) as found:
        return found.image, found.data


@pytest.fixture
def node(guarded: Registry, tokens: TokenServer, tmp_path: Path) -> Node:
    """ada and bob have pull secrets of their own."""
    service = RegistrySettings(f"127.0.0.1:{tokens.port}", ca_bundle=guarded.ca)
    made = Node(guarded, (guarded.settings(), service), tmp_path / "cache")
    made.own = {"ada": made.login("ada", "a"), "bob": made.login("bob", "b")}
    return made


def test_a_tag_is_resolved_once_and_every_node_runs_what_it_meant_then(node: Node, tmp_path: Path) -> None:
    first, second = module(), module()
    digest = node.registry.push_artifact("acme/private:1", {"a.wasm": first})
    pinned = node.newest(node.revision("ada", "acme/private:1"))
    assert pinned == (f"{node.registry.host}/acme/private@{digest}", first)
    node.registry.push_artifact("acme/private:1", {"a.wasm": second})
    assert node.newest(node.revision("ada", "acme/private:1"))[1] == second
    other = Node(node.registry, node.settings, tmp_path / "other", node.own)
    assert other.run(other.pinned("ada", pinned)) == first


def test_what_is_there_is_not_fetched_again_even_after_a_restart_without_the_registry(node: Node) -> None:
    data = module()
    node.registry.push_artifact("acme/private:1", {"a.wasm": data})
    pinned = node.newest(node.revision("ada", "acme/private:1"))
    node.registry.stop()
    assert node.run(node.pinned("ada", pinned)) == data
    assert node.received() == len(data)


def test_a_private_module_in_the_cache_does_not_open_to_who_could_not_pull_it(node: Node) -> None:
    data = module()
    node.registry.push_artifact("acme/private:1", {"a.wasm": data})
    pinned = node.newest(node.revision("ada", "acme/private:1"))
    for tenant in ("bob", "nobody"):
        refused = node.refused(node.pinned(tenant, pinned))
        assert refused.reason is Waiting.MODULE_PULL_FAILED
        assert "acme/private" in refused.message
    assert "Secret bob/registry" in node.refused(node.pinned("bob", pinned)).message
    node.registry.stop()
    assert node.refused(node.pinned("bob", pinned)).reason is Waiting.MODULE_PULL_FAILED
    assert node.run(node.pinned("ada", pinned)) == data


def test_who_may_pull_it_too_gets_it_from_the_cache_once_the_registry_has_said_so(node: Node, rules: Rules) -> None:
    data = module()
    node.registry.push_artifact("acme/private:1", {"a.wasm": data})
    pinned = node.newest(node.revision("ada", "acme/private:1"))
    rules.users["bob"] = User("b", frozenset({"acme/private"}))
    assert node.run(node.pinned("bob", pinned)) == data
    assert node.received() == len(data)
    node.registry.stop()
    assert node.run(node.pinned("bob", pinned)) == data


def test_always_asks_the_registry_every_time(node: Node, rules: Rules) -> None:
    data = module()
    node.registry.push_artifact("acme/private:1", {"a.wasm": data})
    pinned = node.newest(node.revision("ada", "acme/private:1"))
    always = node.pinned("ada", pinned, pullPolicy="Always")
    assert node.run(always) == data
    assert node.received() == len(data)
    rules.users["ada"] = User("a", frozenset())
    assert "ada/registry" in node.refused(always).message
    assert node.run(node.pinned("ada", pinned)) == data


def test_the_pools_secrets_serve_workloads_without_their_own(node: Node) -> None:
    data = module()
    node.registry.push_artifact("acme/private:1", {"a.wasm": data})
    node.pools = {"Secret platform/registry": node.login("ada", "a")}
    assert node.newest(node.revision("nobody", "acme/private:1"))[1] == data


def test_a_module_in_a_plain_image_is_unpacked_once(registry: Registry, tmp_path: Path) -> None:
    # crane takes no tokens from loopback, so everybody may pull here
    node, data = Node(registry, (registry.settings(),), tmp_path), module(50_000)
    node.registry.push_image("acme/private:1", [tar({"app/a.wasm": data})])
    pinned = node.newest(node.revision("ada", "acme/private:1"))
    assert pinned[1] == data
    received = node.received()
    assert node.newest(node.revision("ada", "acme/private:1")) == pinned
    assert node.run(node.pinned("ada", pinned)) == data
    assert node.received() == received


def test_many_that_want_the_same_module_at_once_fetch_it_once(node: Node) -> None:
    data = module(3_000_000)
    node.registry.push_artifact("acme/public:1", {"a.wasm": data})
    node.registry.push_artifact("acme/public:2", {"other-name.wasm": data})
    revisions = [node.revision("ada", f"acme/public:{1 + at % 2}") for at in range(10)]

    async def all_at_once(modules: Modules) -> list[tuple[str, bytes]]:
        return await asyncio.gather(*(newest(modules, it) for it in revisions))

    assert {found for _, found in node.do(all_at_once)} == {data}
    assert node.received() == len(data)


def test_an_image_that_pins_another_module_than_the_revision_is_refused(node: Node) -> None:
    node.registry.push_artifact("acme/private:1", {"a.wasm": module()})
    image, _ = node.newest(node.revision("ada", "acme/private:1"))
    refused = node.refused(node.revision("ada", "acme/private:1", image=image, digest=digest_of(b"other")))
    assert refused.reason is Refusal.MODULE_INVALID
    assert digest_of(b"other") in refused.message


def test_what_is_no_module_is_refused_for_good_and_what_is_not_there_is_waited_for(node: Node) -> None:
    node.registry.push_artifact("acme/public:text", {"a.wasm": b"hello, world"})
    cases: list[tuple[str, Any]] = [
        ("acme/public:text", Refusal.MODULE_INVALID),
        ("acme/public:typo", Waiting.MODULE_PULL_FAILED),
    ]
    for repository, reason in cases:
        with pytest.raises(PullFailedError, match=repository.partition(":")[0]) as caught:
            node.newest(node.revision("ada", repository))
        assert caught.value.reason is reason
    with pytest.raises(PullFailedError, match="no image reference") as caught:
        node.newest(node.revision("ada", "Acme/Public"))
    assert caught.value.reason is Refusal.MODULE_INVALID


def test_a_disk_that_takes_no_more_is_told_and_nothing_half_is_used(node: Node) -> None:
    data = module(2_000_000)
    node.registry.push_artifact("acme/public:1", {"a.wasm": data})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(PullFailedError, match="cache can't be written: File too large") as caught:
            node.newest(node.revision("ada", "acme/public:1"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.reason is Waiting.MODULE_PULL_FAILED
    assert node.newest(node.revision("ada", "acme/public:1"))[1] == data


def test_a_pull_secret_that_can_not_be_read_is_named_without_its_content(node: Node) -> None:
    node.own["ada"] = b'{"auths": {"r": {"auth": "c2VjcmV0"}}}'
    node.registry.push_artifact("acme/public:1", {"a.wasm": module()})
    with pytest.raises(PullFailedError, match=r"Secret ada/registry: auths\[r\]: auth is not base64 of user") as caught:
        node.newest(node.revision("ada", "acme/public:1"))
    assert "secret" not in str(caught.value).replace("Secret", "").replace("secrets", "")
