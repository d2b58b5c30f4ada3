"""Where modules and environment come from, and what is kept of them on disk.

Covers: a missing ConfigMap, a missing key, a namespace without consent: each says which, and what to do; environment
from ConfigMaps; what the API has and this agent has not; the cache, when it is damaged and when it is full.
"""

import asyncio
import base64
import hashlib
import os
import resource
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wasmpool_agent.compiler import memfd
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
        ({"run": {"http": {}, "command": {}}}, "run"),
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


def _keep_compiled(store: Store, key: str, code: bytes) -> None:
    fd = memfd("code", code)
    store.keep_compiled(key, fd, hashlib.sha256(code).hexdigest())
    os.close(fd)


def _compiled(store: Store, key: str) -> bytes | None:
    fd = memfd("code")
    found = store.compiled(key, fd)
    code = os.pread(fd, 1000, 0)
    os.close(fd)
    return code if found else None


def _prune(store: Store, digests: Iterable[str] = (), keys: Iterable[str] = ()) -> dict[Kind, int]:
    return dict(store.prune(digests, keys).removed)


def test_damaged_compiled_code_is_never_given_out(tmp_path: Path) -> None:
    store, key = Store(tmp_path, 10**9), compiled_key("sha256:0", "settings", "cpu")
    _keep_compiled(store, key, b"machine code")
    assert _compiled(store, key) == b"machine code"
    (file,) = (tmp_path / "compiled").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert _compiled(store, key) is None
    assert list((tmp_path / "compiled").iterdir()) == []


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
    assert _prune(store, {digests[0]}) == {Kind.MODULE: 2}
    assert [store.module(digest) is not None for digest in digests] == [True, False, False, True]


def test_the_bound_holds_for_modules_and_compiled_code_together(tmp_path: Path) -> None:
    store = Store(tmp_path, 250)
    digest = store.keep_module(b"m" * 150)
    _keep_compiled(store, "key", b"c" * 150)
    (store.downloads / "sha256:0.part").write_bytes(b"d" * 150)
    for age, path in enumerate([store.downloads, tmp_path / "modules", tmp_path / "compiled"]):
        (file,) = path.iterdir()
        os.utime(file, (1000 + age, 1000 + age))
    pruned = store.prune((), ())
    assert pruned.removed == {Kind.DOWNLOAD: 1, Kind.MODULE: 1}
    assert pruned.sizes == {Kind.MODULE: 0, Kind.COMPILED: 182, Kind.DOWNLOAD: 0}
    assert store.module(digest) is None
    assert _compiled(store, "key") is not None
    assert _prune(store) == {}


def test_what_runs_is_never_evicted_even_from_a_cache_that_is_too_small(tmp_path: Path) -> None:
    store = Store(tmp_path, 1)
    digest = store.keep_module(b"module")
    _keep_compiled(store, "key", b"code")
    assert _prune(store, {digest}, {"key"}) == {}
    assert _prune(store, (), {"key"}) == {Kind.MODULE: 1}


def test_keeping_one_more_looks_at_no_other_file_while_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, 1000)
    store.keep_module(b"0" * 100)
    assert store.prune((), ()).sizes[Kind.MODULE] == 100
    looks: list[Path] = []
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: looks.append(path) or real(path))
    for number in range(1, 10):
        store.keep_module(b"%d" % number * 100)
        assert store.prune((), ()).sizes[Kind.MODULE] == 100 * (number + 1)
    assert looks == []
    store.keep_module(b"x" * 100)
    assert _prune(store) == {Kind.MODULE: 1}
    assert len(looks) == 3
    assert len(list((tmp_path / "modules").iterdir())) == 10


def test_a_module_is_opened_as_a_file_only_if_it_is_unchanged(tmp_path: Path) -> None:
    store = Store(tmp_path, 10**9)
    digest = store.keep_module(b"wasm")
    fd = store.open_module(digest)
    assert fd is not None
    assert os.read(fd, 10) == b"wasm"
    os.close(fd)
    (tmp_path / "modules" / digest.removeprefix("sha256:")).write_bytes(b"wasn")
    assert store.open_module(digest) is None
    assert store.open_module("sha256:../../etc/passwd") is None
    assert list((tmp_path / "modules").iterdir()) == []


def test_a_pull_is_remembered_for_the_credential_that_made_it_and_no_other(tmp_path: Path) -> None:
    Pulled(tmp_path).learn("r.example/a@sha256:1", "alice", "sha256:2")
    pulled = Pulled(tmp_path)
    assert pulled.module("r.example/a@sha256:1", "alice") == "sha256:2"
    assert pulled.module("r.example/a@sha256:1", "bob") is None
    assert pulled.module("r.example/b@sha256:1", "alice") is None


def test_a_blob_is_remembered_for_the_repository_that_gave_it_and_a_module_for_the_namespace(tmp_path: Path) -> None:
    pulled = Pulled(tmp_path)
    pulled.learn_supplied("r.example/a", "sha256:1", "sha256:2")
    pulled.learn_read("tenant", "sha256:2")
    assert pulled.supplied("r.example/a", "sha256:1") == "sha256:2"
    assert pulled.supplied("r.example/b", "sha256:1") is None
    assert pulled.module("r.example/a", "sha256:1") is None
    assert pulled.was_read("tenant", "sha256:2")
    assert not pulled.was_read("other", "sha256:2")
    assert not pulled.was_read("tenant", "sha256:1")


def test_records_of_the_first_version_which_proved_nothing_open_nothing(tmp_path: Path) -> None:
    image, who = "r.example/a@sha256:1", "anonymous"
    pulled = Pulled(tmp_path)
    old = tmp_path / "pulled" / hashlib.sha256(f"{image}\n{who}".encode()).hexdigest()
    old.write_text("sha256:2", encoding="ascii")
    assert pulled.module(image, who) is None


def test_of_too_many_records_those_go_that_were_not_used_for_longest(tmp_path: Path) -> None:
    pulled = Pulled(tmp_path, most_records=10)
    for number in range(10):
        pulled.learn_read("tenant", f"sha256:{number}")
    for age, path in enumerate((tmp_path / "pulled").iterdir()):
        os.utime(path, (1000 + age, 1000 + age))
    oldest = min((tmp_path / "pulled").iterdir(), key=lambda it: it.stat().st_mtime).read_text()
    assert pulled.was_read("tenant", oldest)
    pulled.learn_read("tenant", "sha256:new")
    assert len(list((tmp_path / "pulled").iterdir())) == 10
    assert pulled.was_read("tenant", oldest)


def test_records_that_others_remove_meanwhile_are_no_failure(tmp_path: Path) -> None:
    pulled = Pulled(tmp_path, most_records=20)

    def learn(who: int) -> None:
        for number in range(100):
            pulled.learn_read(f"tenant-{who}", f"sha256:{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(learn, range(8)))  # raises what a thread has raised
    assert len(list((tmp_path / "pulled").iterdir())) <= 20 + 8


def test_a_record_that_can_not_be_written_is_logged_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pulled = Pulled(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))
    try:
        pulled.learn("r.example/a@sha256:1", "alice", "sha256:2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "what was pulled can't be written down: " in caplog.text
    assert pulled.module("r.example/a@sha256:1", "alice") != "sha256:2"


def test_names_out_of_a_module_are_shown_short_and_harmless() -> None:
    assert shown("env") == "env"
    assert shown("a\x1b[31m\nb") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b"
    assert shown("x" * NAME_SHOWN) == "x" * NAME_SHOWN
    assert shown("x" * 200_000) == "x" * (NAME_SHOWN - 1) + "…"


def test_a_file_that_is_to_be_a_directory_too_is_refused_by_its_path() -> None:
    items = [{"key": "a", "path": "x"}, {"key": "a", "path": "x/y"}]
    files = [{"mountPath": "/etc", "configMap": {"name": "settings", "items": items}}]
    sources = Sources(_Objects({"settings": {"a": b"1"}}), "platform", "web")
    with pytest.raises(PullFailedError, match=r"run\.command\.files /etc: x/y is below another item's path"):
        asyncio.run(sources.files(_revision(run={"command": {"files": files}})))
