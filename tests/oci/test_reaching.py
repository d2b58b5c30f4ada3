"""How a registry is reached: TLS by its own authority, plain HTTP only where set, proxies, mirrors, addresses."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.certificates import Trust
from tests.oci.front import ConnectProxy, Front, Pass, Say, Seen
from tests.oci.pulling import MOST, QUICK, login, module, pull, resolve, with_client
from tests.oci.registry import Registry
from wasmpool_agent.oci.client import RegistryClient
from wasmpool_agent.oci.credentials import NO_CREDENTIALS
from wasmpool_agent.oci.errors import (
    AddressForbiddenError,
    NotFoundError,
    RejectedError,
    SettingsInvalidError,
    UnreachableError,
)
from wasmpool_agent.oci.reference import parse
from wasmpool_agent.oci.settings import RegistrySettings

pytestmark = pytest.mark.cluster

NAME = "kubernetes.default.svc"
"""A name of the certificate that no name server knows."""


@pytest.fixture(scope="module")
def wasm(secure: Registry, registry: Registry) -> bytes:
    data = module()
    for each in (secure, registry):
        each.push_artifact("acme/app:1", {"app.wasm": data})
    return data


def test_tls_with_the_registrys_own_authority(secure: Registry, wasm: bytes, downloads: Path) -> None:
    assert pull([secure.settings()], f"{secure.host}/acme/app:1", downloads) == wasm


def test_a_certificate_of_an_unknown_authority_is_refused_for_good(secure: Registry, wasm: bytes) -> None:
    with pytest.raises(UnreachableError, match=r"the certificate of 127\.0\.0\.1:[0-9]+ is not trusted") as caught:
        resolve([RegistrySettings(secure.host)], f"{secure.host}/acme/app:1")
    assert not caught.value.temporary


def test_a_certificate_for_another_name_is_refused(secure: Registry, wasm: bytes, trust: Trust) -> None:
    with (
        ConnectProxy({"other.example:443": secure.port}) as proxy,
        pytest.raises(UnreachableError, match="not trusted"),
    ):
        with_client(
            [RegistrySettings("other.example", ca_bundle=secure.ca)],
            lambda client: client.resolve(parse("other.example/acme/app:1")),
            environment={"HTTPS_PROXY": proxy.url},
        )


def test_plain_http_only_where_it_is_set(registry: Registry, wasm: bytes, downloads: Path) -> None:
    text = f"{registry.host}/acme/app:1"
    assert pull([registry.settings()], text, downloads) == wasm
    with pytest.raises(UnreachableError):
        resolve([RegistrySettings(registry.host)], text)


def test_tls_is_not_tried_where_plain_http_is_set(secure: Registry, wasm: bytes) -> None:
    with pytest.raises(RejectedError, match="400: Client sent an HTTP request to an HTTPS server"):
        resolve([RegistrySettings(secure.host, plain_http=True)], f"{secure.host}/acme/app:1")


def test_loopback_is_reached_only_where_it_is_set(registry: Registry, wasm: bytes) -> None:
    with pytest.raises(AddressForbiddenError, match="is loopback, and no registry's settings name it") as caught:
        resolve([], f"{registry.host}/acme/app:1")
    assert not caught.value.temporary


@pytest.mark.parametrize("host", ["169.254.169.254", "169.254.169.254:80", "[fe80::1]", "[fd00:ec2::254]", "0.0.0.1"])
def test_metadata_services_are_never_asked_whatever_is_set(host: str) -> None:
    with pytest.raises(AddressForbiddenError, match="is never contacted"):
        resolve([RegistrySettings(host, plain_http=True)], f"{host}/acme/app:1")


def test_a_name_that_leads_to_a_forbidden_address_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    def lying(host: str, port: int, *_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    # The machine's name service is what can't be had otherwise: all above it is real.
    monkeypatch.setattr(socket, "getaddrinfo", lying)
    with pytest.raises(AddressForbiddenError, match=r"169\.254\.169\.254 is never contacted: it is link-local"):
        resolve([], "images.example.com/acme/app:1")


def test_a_name_service_that_says_nothing_is_temporary_and_holds_up_nobody_else(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, wasm: bytes, downloads: Path
) -> None:
    asked, answer, real = threading.Semaphore(0), threading.Event(), socket.getaddrinfo

    def stuck(host: str, *rest: Any) -> object:
        if host == "127.0.0.1":
            return real(host, *rest)
        asked.release()
        answer.wait(30)
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", stuck)

    async def work(client: RegistryClient) -> bytes:
        waiting = [asyncio.create_task(client.resolve(parse(f"{name}.example/a:1"))) for name in "abcdefgh"]
        try:
            assert await asyncio.to_thread(asked.acquire, timeout=10)
            resolved = await client.resolve(parse(f"{registry.host}/acme/app:1"))
            module = await client.fetch(resolved, NO_CREDENTIALS, downloads, MOST)
            said = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(it, UnreachableError) and "no name server has said" in str(it) for it in said), said
            return module
        finally:
            answer.set()

    limits = replace(QUICK, connect_seconds=0.3, attempts=1)
    assert with_client([RegistrySettings(registry.host, plain_http=True)], work, limits=limits) == wasm


def test_nobody_there_is_temporary() -> None:
    with pytest.raises(UnreachableError, match=r"can't connect to 127\.0\.0\.1:1") as caught:
        resolve([RegistrySettings("127.0.0.1:1")], "127.0.0.1:1/acme/app:1")
    assert caught.value.temporary


def test_the_first_mirror_that_answers_serves(registry: Registry, wasm: bytes, downloads: Path) -> None:
    with Front(registry.port, lambda _: Pass()) as mirror:
        entries = [
            RegistrySettings("images.invalid", mirrors=("127.0.0.1:1", mirror.host)),
            RegistrySettings(mirror.host, plain_http=True),
        ]
        assert pull(entries, "images.invalid/acme/app:1", downloads) == wasm
        assert mirror.seen[0].path == "/v2/acme/app/manifests/1"


def test_a_mirrors_path_goes_before_the_repository(registry: Registry, wasm: bytes) -> None:
    registry.push_artifact("hub/library/thing:latest", {"app.wasm": wasm})
    entries = [RegistrySettings("docker.io", mirrors=(f"{registry.host}/hub",)), registry.settings()]
    assert str(resolve(entries, "thing").reference).startswith("docker.io/library/thing:latest@sha256:")


def test_where_no_mirror_has_it_the_registry_itself_is_asked(registry: Registry, wasm: bytes, downloads: Path) -> None:
    with Front(1, lambda _: Say(404)) as empty, Front(registry.port, lambda _: Pass()) as itself:
        entries = [
            RegistrySettings(itself.host, plain_http=True, mirrors=(empty.host,)),
            RegistrySettings(empty.host, plain_http=True),
        ]
        assert pull(entries, f"{itself.host}/acme/app:1", downloads) == wasm
        assert empty.seen


def test_a_mirror_that_tampers_is_passed_over(registry: Registry, wasm: bytes, downloads: Path) -> None:
    with (
        Front(registry.port, lambda _: Pass(tamper=lambda body: body[:-1] + b"x")) as bad,
        Front(registry.port, lambda _: Pass()) as itself,
    ):
        entries = [
            RegistrySettings(itself.host, plain_http=True, mirrors=(bad.host,)),
            RegistrySettings(bad.host, plain_http=True),
        ]
        assert pull(entries, f"{itself.host}/acme/app:1", downloads) == wasm


def test_what_a_tampering_mirror_left_half_done_does_no_harm(registry: Registry, downloads: Path) -> None:
    data = module(3_000_000)
    registry.push_artifact("acme/large:1", {"app.wasm": data})

    def tampering(seen: Seen) -> Pass:
        return Pass(cut_after=2_000_000, tamper=lambda body: b"x" * len(body)) if seen.is_blob else Pass()

    with Front(registry.port, tampering) as bad, Front(registry.port, lambda _: Pass()) as itself:
        entries = [
            RegistrySettings(itself.host, plain_http=True, mirrors=(bad.host,)),
            RegistrySettings(bad.host, plain_http=True),
        ]
        assert pull(entries, f"{itself.host}/acme/large:1", downloads) == data


def test_if_all_fail_the_error_has_what_each_said(registry: Registry) -> None:
    with Front(1, lambda _: Say(404)) as empty:
        entries = [
            RegistrySettings(registry.host, plain_http=True, mirrors=("127.0.0.1:1", f"{empty.host}/all")),
            RegistrySettings(empty.host, plain_http=True),
        ]
        with pytest.raises(NotFoundError) as caught:
            resolve(entries, f"{registry.host}/acme/missing:1")
    said = str(caught.value)
    assert "can't connect to 127.0.0.1:1" in said
    assert f"GET manifest 1 of {empty.host}/all/acme/missing: 404" in said
    assert f"GET manifest 1 of {registry.host}/acme/missing: 404: MANIFEST_UNKNOWN" in said
    assert caught.value.temporary, "the first mirror may come back"


def test_a_mirror_sees_its_own_credentials_and_no_others(registry: Registry, wasm: bytes) -> None:
    asking = Say(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with Front(registry.port, lambda seen: Pass() if "authorization" in seen.headers else asking) as mirror:
        entries = [
            RegistrySettings("images.invalid", mirrors=(mirror.host,)),
            RegistrySettings(mirror.host, plain_http=True),
        ]
        credentials = login({"images.invalid": ("ada", "of the registry"), mirror.host: ("ada", "of the mirror")})
        resolved = resolve(entries, "images.invalid/acme/app:1", credentials)
        assert resolved.fingerprint == credentials.for_repository(mirror.host, "acme/app")[0].fingerprint
        assert {seen.headers.get("authorization") for seen in mirror.seen} == {None, "Basic YWRhOm9mIHRoZSBtaXJyb3I="}


@pytest.fixture
def proxy(secure: Registry) -> Iterator[ConnectProxy]:
    with ConnectProxy({f"{NAME}:443": secure.port}) as made:
        yield made


def through(secure: Registry, environment: dict[str, str], text: str = f"{NAME}/acme/app:1") -> int:
    entries = [RegistrySettings(NAME, ca_bundle=secure.ca)]
    return with_client(entries, lambda client: client.resolve(parse(text)), environment=environment).size_bytes


def test_a_proxy_of_the_environment_is_used(secure: Registry, wasm: bytes, proxy: ConnectProxy) -> None:
    assert through(secure, {"HTTPS_PROXY": proxy.url.replace("http://", "http://ada:p%40ss@")}) == len(wasm)
    assert proxy.asked == [(f"{NAME}:443", "Basic YWRhOnBAc3M=")]


@pytest.mark.parametrize("exempt", [NAME, ".svc", "default.svc", "*"])
def test_no_proxy_is_heard(secure: Registry, wasm: bytes, proxy: ConnectProxy, exempt: str) -> None:
    with pytest.raises(UnreachableError, match=f"can't connect to {NAME}:443"):
        through(secure, {"HTTPS_PROXY": proxy.url, "NO_PROXY": f"10.0.0.0/8, {exempt}"})
    assert not proxy.asked


def test_through_a_proxy_too_no_forbidden_address_is_asked(secure: Registry, proxy: ConnectProxy) -> None:
    with pytest.raises(AddressForbiddenError):
        through(secure, {"HTTPS_PROXY": proxy.url}, "169.254.169.254/acme/app:1")
    assert not proxy.asked


def test_without_trust_env_there_is_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://nobody")
    RegistryClient(trust_env=False)
    with pytest.raises(SettingsInvalidError, match="HTTPS_PROXY is no URL of a proxy"):
        RegistryClient()


def test_an_authority_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(SettingsInvalidError, match=r"registries: a\.example: caBundle is no list of PEM certificates"):
        RegistryClient([RegistrySettings("a.example", ca_bundle=b"-----BEGIN")])
