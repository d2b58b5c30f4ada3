"""Whoever names another tenant's module gets it neither from the cache nor from a download that is under way.

Covers: a registry of one's own that names a foreign layer, as an artifact and in a plain image; two that are asked at
once; a revision that pins a foreign digest with a ConfigMap as its source; what is still had from the cache, and by
whom.
"""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.oci.pulling import HEADER, QUICK
from tests.oci.registry import tar
from tests.oci.serving import Serving, say
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

T = TypeVar("T")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SECRET = HEADER + b"\0\x20\x05token" + b"the key of tenant ada 1234"
IMAGE_LAYER = tar({"app/a.wasm": SECRET})


def manifest(media_type: str, layer: bytes) -> bytes:
    described = {"mediaType": media_type, "digest": digest_of(layer), "size": len(layer)}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(b"{}"), "size": 2}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [described]}).encode()


ARTIFACT = manifest("application/wasm", SECRET)
IMAGE = manifest("application/vnd.oci.image.layer.v1.tar", IMAGE_LAYER)


class Private(Serving):
    """Gives the secret to ada. `asked`: the paths, in order. `gate`: blobs wait for it."""

    def __init__(self, about: bytes = ARTIFACT, blob: bytes = SECRET) -> None:
        super().__init__()
        self._about = about
        self._blob = blob
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        expected = "Basic " + base64.b64encode(b"ada:secret").decode()
        if handler.headers.get("Authorization") != expected:
            say(handler, 401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            return
        self.asked.append(handler.path)
        if "/manifests/" in handler.path:
            say(handler, 200, self._about, {"Content-Type": MANIFEST})
            return
        self.gate.wait(10)
        say(handler, 200, self._blob)


class Evil(Serving):
    """Names the same, asks for no credentials, and has no blob but what it is given."""

    def __init__(self, about: bytes = ARTIFACT, blob: bytes | None = None) -> None:
        super().__init__()
        self._about = about
        self._blob = blob
        self.asked: list[str] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        if "/manifests/" in handler.path:
            say(handler, 200, self._about, {"Content-Type": MANIFEST})
        elif self._blob is None:
            say(handler, 404)
        else:
            say(handler, 200, self._blob)


class Node:
    """One node that both tenants' workloads run on. `config_maps`: by namespace, the module in each one's `m`."""

    def __init__(self, directory: Path, *registries: Serving, hosts: Mapping[str, str] | None = None) -> None:
        self._directory = directory
        self._settings = [RegistrySettings(it.host, plain_http=True) for it in registries]
        self.logins = dict(hosts or {})
        self.config_maps: dict[str, bytes] = {}
        self.read: list[str] = []

    async def config_map(self, namespace: str, name: str) -> ConfigMap:
        self.read.append(namespace)
        if namespace not in self.config_maps:
            raise AbsentError(name)
        return ConfigMap(namespace, name, {"a.wasm": self.config_maps[namespace]})

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        auths = {self.logins[namespace]: {"username": "ada", "password": "secret"}}
        return {".dockerconfigjson": json.dumps({"auths": auths}).encode()}

    def revision(self, tenant: str, image: str = "", /, **more: object) -> Revision:
        secrets = [{"name": "registry"}] if tenant in self.logins else []
        source: dict[str, Any] = {"image": image, "imagePullSecrets": secrets}
        if not image:
            source = {"configMap": {"name": "m", "key": "a.wasm"}}
        run: dict[str, Any] = {"command": {}}
        base: dict[str, object] = {
            "workloadUid": tenant,
            "workloadNamespace": tenant,
            "workloadName": "w",
            "module": source,
            "run": run,
        }
        return decode(Revision, base | more)

    @asynccontextmanager
    async def modules(self) -> AsyncGenerator[Modules]:
        metrics = Metrics("web", "platform", "node-1")
        async with RegistryClient(self._settings, environment={}, limits=QUICK) as client:
            cache, pulled = Cache(Store(self._directory, 10**9), metrics), Pulled(self._directory)
            sources, memory = Sources(self, "platform", "web"), Budget(64 * 1024**2)
            images = Images(client, sources, dict, cache, pulled, metrics, memory)
            yield Modules(sources, images, cache, pulled, memory)

    def do(self, work: Callable[[Modules], Awaitable[T]]) -> T:
        async def run() -> T:
            async with self.modules() as modules:
                return await work(modules)

        return asyncio.run(run())

    def newest(self, revision: Revision) -> tuple[str, bytes]:
        return self.do(lambda modules: newest(modules, revision))

    def pinned(self, revision: Revision) -> bytes:
        async def get(modules: Modules) -> bytes:
            async with modules.pinned(revision) as data:
                return data

        return self.do(get)


async def newest(modules: Modules, revision: Revision) -> tuple[str, bytes]:
    async with modules.newest(revision) as found:
        return found.image, found.data


async def asked_for_a_blob(registry: Private | Evil) -> None:
    async with asyncio.timeout(5):
        while not any("/blobs/" in path for path in registry.asked):  # noqa: ASYNC110 - its thread appends
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("about", "blob"), [pytest.param(ARTIFACT, SECRET, id="artifact"), pytest.param(IMAGE, IMAGE_LAYER, id="image")]
)
def test_a_registry_of_ones_own_that_names_a_foreign_layer_opens_nothing(
    tmp_path: Path, about: bytes, blob: bytes
) -> None:
    with Private(about, blob) as private, Evil(about) as evil:
        node = Node(tmp_path, private, evil, hosts={"ada": private.host})
        ours, theirs = f"{private.host}/acme/private", f"{evil.host}/eve/x"
        image, data = node.newest(node.revision("ada", f"{ours}:1"))
        assert data == SECRET
        theirs_pinned = image.replace(ours, theirs)
        for _ in range(2):  # what the first try leaves behind opens nothing either
            with pytest.raises(PullFailedError, match="eve/x") as caught:
                node.newest(node.revision("eve", f"{theirs}:1"))
            assert caught.value.reason is Waiting.MODULE_PULL_FAILED
            with pytest.raises(PullFailedError, match="eve/x"):
                node.pinned(node.revision("eve", f"{theirs}:1", image=theirs_pinned, digest=digest_of(SECRET)))
        assert any("/blobs/" in path for path in evil.asked)
        private.asked.clear()
        assert node.pinned(node.revision("ada", f"{ours}:1", image=image, digest=digest_of(SECRET))) == SECRET
        assert private.asked == []


def test_a_registry_that_has_the_layer_itself_is_believed_once_it_has_sent_it(tmp_path: Path) -> None:
    with Private() as private, Evil(blob=SECRET) as other:
        node = Node(tmp_path, private, other, hosts={"ada": private.host})
        node.newest(node.revision("ada", f"{private.host}/acme/private:1"))
        for _ in range(2):
            assert node.newest(node.revision("bob", f"{other.host}/bob/x:1"))[1] == SECRET
        assert sum("/blobs/" in path for path in other.asked) == 1


def test_a_registry_that_sends_something_else_under_a_foreign_digest_is_told_so(tmp_path: Path) -> None:
    with Private() as private, Evil(blob=b"x" * len(SECRET)) as evil:
        node = Node(tmp_path, private, evil, hosts={"ada": private.host})
        node.newest(node.revision("ada", f"{private.host}/acme/private:1"))
        with pytest.raises(PullFailedError, match="eve/x"):
            node.newest(node.revision("eve", f"{evil.host}/eve/x:1"))


def test_a_download_that_is_under_way_is_shared_with_no_other_registry(tmp_path: Path) -> None:
    with Private() as private, Evil() as evil:
        node = Node(tmp_path, private, evil, hosts={"ada": private.host})
        private.gate.clear()

        async def both(modules: Modules) -> tuple[object, object]:
            ours = asyncio.create_task(newest(modules, node.revision("ada", f"{private.host}/acme/private:1")))
            await asked_for_a_blob(private)
            theirs = asyncio.create_task(newest(modules, node.revision("eve", f"{evil.host}/eve/x:1")))
            await asked_for_a_blob(evil)  # it does not wait for ada's: it asks its own registry
            private.gate.set()
            return await asyncio.gather(ours, theirs, return_exceptions=True)

        ours, theirs = node.do(both)
        assert isinstance(ours, tuple)
        assert ours[1] == SECRET
        assert isinstance(theirs, PullFailedError)


def test_a_config_map_revision_gets_no_module_that_no_config_map_of_its_namespace_has_had(tmp_path: Path) -> None:
    with Private() as private:
        node = Node(tmp_path, private, hosts={"ada": private.host})
        node.newest(node.revision("ada", f"{private.host}/acme/private:1"))
    pinned = node.revision("eve", digest=digest_of(SECRET))
    with pytest.raises(PullFailedError, match="there is no ConfigMap eve/m"):
        node.pinned(pinned)
    node.config_maps["eve"] = HEADER
    with pytest.raises(PullFailedError, match=f"ConfigMap eve/m, key a.wasm has another module .* {digest_of(HEADER)}"):
        node.pinned(pinned)
    node.config_maps["eve"] = SECRET  # who has it needs nobody's leave
    assert node.pinned(pinned) == SECRET


def test_what_a_config_map_has_had_is_kept_for_its_namespace_and_no_other(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.config_maps["ada"] = SECRET
    pinned = node.revision("ada", digest=digest_of(SECRET))

    async def inspect(modules: Modules) -> None:
        async with modules.newest(node.revision("ada")) as found:
            await modules.keep(node.revision("ada"), found.data)

    node.do(inspect)
    node.config_maps.clear()
    node.read.clear()
    assert node.pinned(pinned) == SECRET
    assert node.read == []
    with pytest.raises(PullFailedError, match="there is no ConfigMap eve/m"):
        node.pinned(node.revision("eve", digest=digest_of(SECRET)))
    for record in (tmp_path / "pulled").iterdir():
        record.unlink()
    with pytest.raises(PullFailedError, match="there is no ConfigMap ada/m"):  # lost records close, they never open
        node.pinned(pinned)


def test_a_record_that_can_not_be_written_fails_no_pull_that_succeeded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Private() as private:
        node = Node(tmp_path, private, hosts={"ada": private.host})
        revision = node.revision("ada", f"{private.host}/acme/private:1")
        Pulled(tmp_path)
        for file in (tmp_path / "pulled").iterdir():
            file.unlink()
        (tmp_path / "pulled").rmdir()

        async def pull(modules: Modules) -> bytes:
            (tmp_path / "pulled").rmdir()  # after `Pulled` has made it: nothing can be written there
            return (await newest(modules, revision))[1]

        assert node.do(pull) == SECRET
    assert "what was pulled can't be written down" in caplog.text


def test_a_module_that_is_larger_than_the_pods_memory_lets_it_be_names_what_to_change(tmp_path: Path) -> None:
    async def pull() -> None:
        metrics = Metrics("web", "platform", "node-1")
        async with RegistryClient([RegistrySettings(evil.host, plain_http=True)], environment={}) as client:
            cache, pulled = Cache(Store(tmp_path, 10**9), metrics), Pulled(tmp_path)
            images = Images(
                client,
                Sources(node, "p", "w"),
                dict,
                cache,
                pulled,
                metrics,
                Budget(10),
                most_bytes=10,
                hint="raise it",
            )
            await images.newest(node.revision("eve", f"{evil.host}/eve/x:1"))

    with Evil(blob=SECRET) as evil:
        node = Node(tmp_path, evil)
        with pytest.raises(PullFailedError, match=r"allowed are 10.*; raise it$") as caught:
            asyncio.run(pull())
        assert caught.value.reason is not Refusal.MODULE_INVALID
