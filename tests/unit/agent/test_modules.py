"""Where modules and environment come from, and what is kept of them on disk.

Covers: a missing ConfigMap, a missing key, a namespace without consent: each says which, and what to do; environment
from ConfigMaps; what the API has and this agent has not; the cache, when it is damaged and when it is full.
"""

import asyncio
import base64
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from wasmpool_agent.modules.inspecting import NAME_SHOWN, shown
from wasmpool_agent.modules.objects import config_map_of, secret_entries
from wasmpool_agent.modules.pulled import Pulled
from wasmpool_agent.modules.sources import PullFailedError, Sources, digest_of, refuse_unsupported
from wasmpool_agent.modules.store import Kind, Store, compiled_key, cpu_features
from wasmpool_agent.supervisor.ports import AbsentError, ConfigMap, ForbiddenError, PortError, UnavailableError
from wasmpool_api.codec import decode
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision


class _Objects:
    """The port, over dictionaries of entries by name: the same for ConfigMaps and Secrets."""

    def __init__(self, found: Mapping[str, Mapping[str, bytes]], error: PortError | None = None) -> None:
        self._found = found
        self._error = error

    async def config_map(self, namespace: str, name: str) -> ConfigMap:
        if self._error is not None:
            raise self._error
        if name not in self._found:
            raise AbsentError(name)
        return ConfigMap(namespace, name, self._found[name])

    async def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        return (await self.config_map(namespace, name)).entries


def _revision(*, module: object = None, env: object = (), run: object = None) -> Revision:
    return decode(
        Revision,
        {
            "workloadUid": "u",
            "workloadNamespace": "tenant",
            "workloadName": "w",
            "module": module or {"configMap": {"name": "guests", "key": "a.wasm"}},
            "run": run or {"command": {"env": list(env) if isinstance(env, list | tuple) else env}},
        },
    )


def _module(found: Mapping[str, Mapping[str, bytes]], error: PortError | None = None) -> bytes:
    return asyncio.run(Sources(_Objects(found, error), "platform", "web").module(_revision()))


def _environment(env: list[object], found: Mapping[str, Mapping[str, bytes]]) -> tuple[tuple[str, str], ...]:
    return asyncio.run(Sources(_Objects(found), "platform", "web").environment(_revision(env=env)))


def test_a_module_is_the_entry_of_its_config_map() -> None:
    assert _module({"guests": {"a.wasm": b"\0asm"}}) == b"\0asm"


def test_a_missing_config_map_is_named() -> None:
    with pytest.raises(PullFailedError, match="there is no ConfigMap tenant/guests") as caught:
        _module({})
    assert caught.value.reason is Waiting.MODULE_PULL_FAILED
    assert not caught.value.permanent


def test_a_missing_key_is_named_with_those_that_are_there() -> None:
    with pytest.raises(PullFailedError, match=r"tenant/guests has no key a\.wasm; it has b\.wasm, c\.wasm"):
        _module({"guests": {"c.wasm": b"", "b.wasm": b""}})


def test_without_consent_the_role_binding_to_make_is_named() -> None:
    with pytest.raises(PullFailedError) as caught:
        _module({}, ForbiddenError("403"))
    message = caught.value.message
    for part in ("RoleBinding in namespace tenant", "wasmpool-module-reader", "ServiceAccount platform/wasmpool-web"):
        assert part in message


def test_an_api_server_that_does_not_answer_is_told_as_it_is() -> None:
    with pytest.raises(PullFailedError, match="tenant/guests: connection refused"):
        _module({}, UnavailableError("connection refused"))


def test_environment_comes_from_values_and_config_maps_in_order() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "b"}}},
        {"name": "C"},
        {"name": "D", "valueFrom": {"configMapKeyRef": {"name": "nowhere", "key": "d", "optional": True}}},
        {"name": "E", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "e", "optional": True}}},
    ]
    assert _environment(env, {"settings": {"b": b"two"}}) == (("A", "1"), ("B", "two"), ("C", ""))


@pytest.mark.parametrize(
    ("content", "problem"),
    [({}, "no key b; it is empty"), ({"b": b"\xff"}, "not UTF-8"), ({"b": b"x\0y"}, "zero byte")],
)
def test_environment_that_can_not_be_had_names_the_variable(content: dict[str, bytes], problem: str) -> None:
    env: list[object] = [{"name": "B", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "b"}}}]
    with pytest.raises(PullFailedError, match=rf"run\.command\.env B: .*{problem}"):
        _environment(env, {"settings": content})


def _secret_env(*, optional: bool = False) -> list[object]:
    return [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password", "optional": optional}}}]


def test_environment_comes_from_secrets() -> None:
    assert _environment(_secret_env(), {"db": {"password": b"hunter2"}}) == (("S", "hunter2"),)
    assert _environment(_secret_env(optional=True), {}) == ()


def test_a_secret_without_consent_names_the_role_binding_to_make_even_if_it_is_optional() -> None:
    sources = Sources(_Objects({}, ForbiddenError("403")), "platform", "web")
    with pytest.raises(
        PullFailedError,
        match=r"^run\.command\.env S: Secret tenant/db may not be read by the agents of pool web; to allow it, make a "
        r"RoleBinding in namespace tenant of ClusterRole wasmpool-secret-reader "
        r"to ServiceAccount platform/wasmpool-web$",
    ):
        asyncio.run(sources.environment(_revision(env=_secret_env(optional=True))))


def test_the_content_of_a_secret_is_in_no_message() -> None:
    with pytest.raises(PullFailedError) as caught:
        _environment(_secret_env(), {"db": {"password": b"\xffhunter2"}})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UnavailableError) as unreadable:
        secret_entries({"metadata": {"name": "db"}, "data": {"password": "hunter2!"}})
    assert "hunter2" not in str(unreadable.value)
    assert "data.password" in str(unreadable.value)


def test_pull_secrets_are_those_of_the_workloads_namespace() -> None:
    module = {"image": "r.example/a", "imagePullSecrets": [{"name": "registry"}]}
    sources = Sources(_Objects({"registry": {".dockerconfigjson": b"{}"}}), "platform", "web")
    assert asyncio.run(sources.pull_secrets(_revision(module=module))) == {"tenant/registry": b"{}"}
    sources = Sources(_Objects({"registry": {"token": b"{}"}}), "platform", "web")
    with pytest.raises(PullFailedError, match=r"imagePullSecrets registry: Secret tenant/registry has no key \.docker"):
        asyncio.run(sources.pull_secrets(_revision(module=module)))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"module": {"pullPolicy": "Always"}}, "module"),
        ({"run": {"http": {}}}, r"run\.http"),
    ],
)
def test_what_this_agent_can_not_do_is_refused_by_name(changed: dict[str, object], field: str) -> None:
    with pytest.raises(PullFailedError, match=rf"{field}: .*allowed (is|are)") as caught:
        refuse_unsupported(_revision(**changed))
    assert caught.value.reason is Refusal.UNSUPPORTED_FEATURE


def test_text_and_binary_entries_of_a_config_map_are_bytes() -> None:
    found = config_map_of(
        {
            "metadata": {"name": "m", "namespace": "n"},
            "data": {"text": "ä"},
            "binaryData": {"binary": base64.encodebytes(bytes(range(200))).decode()},
        }
    )
    assert found.entries == {"text": "ä".encode(), "binary": bytes(range(200))}


@pytest.mark.parametrize("text", ["?", "AAA", "ä"])
def test_binary_data_that_is_not_base64_names_the_key(text: str) -> None:
    with pytest.raises(UnavailableError, match=r"n/m: binaryData\.x is not base64"):
        config_map_of({"metadata": {"name": "m", "namespace": "n"}, "binaryData": {"x": text}})


def test_a_module_is_found_again_by_its_digest(tmp_path: Path) -> None:
    digest = Store(tmp_path, 10**9).keep_module(b"wasm")
    assert digest == digest_of(b"wasm")
    assert Store(tmp_path, 10**9).module(digest) == b"wasm"
    assert Store(tmp_path, 10**9).module(digest_of(b"other")) is None


def test_a_damaged_module_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path, 10**9)
    digest = store.keep_module(b"wasm")
    (file,) = (tmp_path / "modules").iterdir()
    file.write_bytes(b"wasn")
    assert store.module(digest) is None
    assert list((tmp_path / "modules").iterdir()) == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc/passwd", "sha256:" + "A" * 64, "../x"])
def test_a_digest_that_is_none_opens_no_file(tmp_path: Path, digest: str) -> None:
    assert Store(tmp_path, 10**9).module(digest) is None


def test_damaged_compiled_code_is_never_given_out(tmp_path: Path) -> None:
    store, key = Store(tmp_path, 10**9), compiled_key("sha256:0", "settings", "cpu")
    store.keep_compiled(key, b"machine code")
    assert store.compiled(key) == b"machine code"
    (file,) = (tmp_path / "compiled").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert store.compiled(key) is None


def test_compiled_code_is_of_one_engine_and_one_machine() -> None:
    assert (
        len({compiled_key(*parts) for parts in (("a", "b", "c"), ("a", "b", "d"), ("a", "c", "c"), ("b", "b", "c"))})
        == 4
    )
    assert cpu_features()


def test_what_a_crash_left_half_written_is_cleared(tmp_path: Path) -> None:
    Store(tmp_path, 10**9)
    (tmp_path / "modules" / ".new-x").write_bytes(b"half")
    Store(tmp_path, 10**9)
    assert list((tmp_path / "modules").iterdir()) == []


def test_a_full_cache_loses_the_longest_unused_but_nothing_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path, 250)
    digests = [store.keep_module(bytes([number]) * 100) for number in range(4)]
    for age, digest in enumerate(reversed(digests)):
        os.utime(tmp_path / "modules" / digest.removeprefix("sha256:"), (1000 - age, 1000 - age))
    assert store.prune({digests[0]}, ()) == {Kind.MODULE: 2}
    assert [store.module(digest) is not None for digest in digests] == [True, False, False, True]


def test_the_bound_holds_for_modules_and_compiled_code_together(tmp_path: Path) -> None:
    store = Store(tmp_path, 250)
    digest = store.keep_module(b"m" * 150)
    store.keep_compiled("key", b"c" * 150)
    (store.downloads / "sha256:0.part").write_bytes(b"d" * 150)
    for age, path in enumerate([store.downloads, tmp_path / "modules", tmp_path / "compiled"]):
        (file,) = path.iterdir()
        os.utime(file, (1000 + age, 1000 + age))
    assert store.sizes() == {Kind.MODULE: 150, Kind.COMPILED: 182, Kind.DOWNLOAD: 150}
    assert store.prune((), ()) == {Kind.DOWNLOAD: 1, Kind.MODULE: 1}
    assert store.module(digest) is None
    assert store.compiled("key") is not None
    assert store.prune((), ()) == {}


def test_what_runs_is_never_evicted_even_from_a_cache_that_is_too_small(tmp_path: Path) -> None:
    store = Store(tmp_path, 1)
    digest = store.keep_module(b"module")
    store.keep_compiled("key", b"code")
    assert store.prune({digest}, {"key"}) == {}
    assert store.prune((), {"key"}) == {Kind.MODULE: 1}


def test_a_pull_is_remembered_for_the_credential_that_made_it_and_no_other(tmp_path: Path) -> None:
    Pulled(tmp_path).learn("r.example/a@sha256:1", "alice", "sha256:2")
    pulled = Pulled(tmp_path)
    assert pulled.module("r.example/a@sha256:1", "alice") == "sha256:2"
    assert pulled.module("r.example/a@sha256:1", "bob") is None
    assert pulled.module("r.example/b@sha256:1", "alice") is None
    pulled.forget("r.example/a@sha256:1", "alice")
    assert pulled.module("r.example/a@sha256:1", "alice") is None


def test_names_out_of_a_module_are_shown_short_and_harmless() -> None:
    assert shown("env") == "env"
    assert shown("a\x1b[31m\nb") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b"
    assert shown("x" * NAME_SHOWN) == "x" * NAME_SHOWN
    assert shown("x" * 200_000) == "x" * (NAME_SHOWN - 1) + "…"
