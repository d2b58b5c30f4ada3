"""Who may pull is decided by the registry: passwords, tokens of a token service, the most specific credential first."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.certificates import Trust
from tests.oci.front import Front, Pass, Say, Seen
from tests.oci.pulling import login, module, pull, resolve, with_client
from tests.oci.registry import ADA, BOB, Registry
from tests.oci.tokens import Rules, TokenServer, User
from wasmpool_agent.oci.client import RegistryClient
from wasmpool_agent.oci.credentials import NO_CREDENTIALS, Credentials
from wasmpool_agent.oci.errors import NotFoundError, PullError, RejectedError, UnauthorizedError, UnreachableError
from wasmpool_agent.oci.reference import parse
from wasmpool_agent.oci.settings import RegistrySettings

pytestmark = pytest.mark.cluster

PUSHER = ("pusher", "push it")


@pytest.fixture(scope="module")
def with_passwords(tmp_path_factory: pytest.TempPathFactory, trust: Trust) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("passwords"), trust=trust, logins=(ADA, BOB)) as made:
        made.push_artifact("acme/app:1", {"app.wasm": module()})
        yield made


@pytest.fixture
def tokens(trust: Trust) -> Iterator[TokenServer]:
    users = {
        PUSHER[0]: User(PUSHER[1], push=True),
        "ada": User("a:1", frozenset({"acme/app"})),
        "bob": User("b", frozenset({"acme/other"})),
    }
    with TokenServer(Rules(users, identities={"identity of ada": "ada"}), trust) as made:
        yield made


@pytest.fixture
def with_tokens(tmp_path: Path, trust: Trust, tokens: TokenServer) -> Iterator[Registry]:
    with Registry(tmp_path / "registry", trust=trust, tokens=tokens, push_as=PUSHER) as made:
        for name in ("acme/app:1", "acme/public:1"):
            made.push_artifact(name, {"app.wasm": module()})
        tokens.rules.public = frozenset({"acme/public"})
        tokens.asked.clear()
        yield made


def settings(registry: Registry, tokens: TokenServer) -> list[RegistrySettings]:
    return [registry.settings(), RegistrySettings(tokens.host, ca_bundle=registry.ca)]


def test_a_password_is_shown_to_whom_it_is_for(with_passwords: Registry, downloads: Path) -> None:
    credentials = login({with_passwords.host: (ADA.name, ADA.password)})
    text = f"{with_passwords.host}/acme/app:1"
    assert pull([with_passwords.settings()], text, downloads, credentials).startswith(b"\0asm")
    expected = credentials.for_repository(with_passwords.host, "acme/app")[0].fingerprint
    assert resolve([with_passwords.settings()], text, credentials).fingerprint == expected


def test_without_a_password_or_with_a_wrong_one_the_answer_says_who_asked(with_passwords: Registry) -> None:
    text = f"{with_passwords.host}/acme/app:1"
    with pytest.raises(UnauthorizedError, match="asks for a user name and a password, and none are given") as caught:
        resolve([with_passwords.settings()], text)
    assert not caught.value.temporary
    with pytest.raises(UnauthorizedError) as caught:
        resolve([with_passwords.settings()], text, login({with_passwords.host: ("ada", "wrong one")}))
    assert f"with the credentials of Secret team/registry for {with_passwords.host}" in str(caught.value)
    assert "UNAUTHORIZED authentication required" in str(caught.value)
    assert "wrong one" not in str(caught.value)


def test_the_right_one_of_several_is_found_and_named(with_passwords: Registry) -> None:
    host = with_passwords.host
    credentials = login(
        {f"{host}/acme/app": ("ada", "wrong"), f"{host}/acme": (BOB.name, BOB.password), host: ("x", "y")}
    )
    pinned = resolve([with_passwords.settings()], f"{host}/acme/app:1", credentials).reference
    fingerprint = with_client([with_passwords.settings()], lambda client: client.authorize(pinned, credentials))
    assert fingerprint == credentials.for_repository(host, "acme/app")[1].fingerprint


def test_who_may_not_pull_has_no_fingerprint(with_passwords: Registry) -> None:
    credentials = login({with_passwords.host: (ADA.name, ADA.password)})
    pinned = resolve([with_passwords.settings()], f"{with_passwords.host}/acme/app:1", credentials).reference
    with pytest.raises(UnauthorizedError):
        with_client([with_passwords.settings()], lambda client: client.authorize(pinned, NO_CREDENTIALS))


def test_where_nobody_is_asked_the_fingerprint_is_of_nobody(registry: Registry) -> None:
    registry.push_artifact("acme/app:1", {"app.wasm": module()})
    credentials = login({registry.host: (ADA.name, ADA.password)})
    resolved = resolve([registry.settings()], f"{registry.host}/acme/app:1", credentials)
    assert resolved.fingerprint == "anonymous"
    fingerprint = with_client([registry.settings()], lambda client: client.authorize(resolved.reference, credentials))
    assert fingerprint == "anonymous"


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_a_token_is_fetched_once_and_used_until_it_expires(
    with_tokens: Registry, tokens: TokenServer, downloads: Path, field: str
) -> None:
    tokens.rules.field = field
    credentials = login({f"{with_tokens.host}/acme": ("ada", "a:1")})
    text = f"{with_tokens.host}/acme/app:1"
    assert pull(settings(with_tokens, tokens), text, downloads, credentials).startswith(b"\0asm")
    (asked,) = tokens.asked
    assert (asked.method, asked.user) == ("GET", "ada")
    assert asked.parameters["scope"] == "repository:acme/app:pull"


def test_an_expired_token_is_fetched_anew(with_tokens: Registry, tokens: TokenServer) -> None:
    credentials = login({with_tokens.host: ("ada", "a:1")})
    tokens.rules.seconds = 1
    text = f"{with_tokens.host}/acme/app:1"

    async def twice(client: RegistryClient) -> None:
        resolved = await client.resolve(parse(text), credentials)
        await asyncio.sleep(1.1)
        await client.authorize(resolved.reference, credentials)

    with_client(settings(with_tokens, tokens), twice)
    assert [asked.user for asked in tokens.asked] == ["ada", "ada"]


def test_an_identity_token_is_changed_for_another_one(
    with_tokens: Registry, tokens: TokenServer, downloads: Path
) -> None:
    auth = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    entry = {"auth": auth, "identitytoken": "identity of ada"}
    credentials = Credentials.parse({"Secret a/b": json.dumps({"auths": {with_tokens.host: entry}})})
    text = f"{with_tokens.host}/acme/app:1"
    assert pull(settings(with_tokens, tokens), text, downloads, credentials).startswith(b"\0asm")
    assert [(asked.method, asked.user) for asked in tokens.asked] == [("POST", "ada")]


def test_a_token_of_somebody_who_may_not_is_refused_by_the_registry(with_tokens: Registry, tokens: TokenServer) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        resolve(
            settings(with_tokens, tokens), f"{with_tokens.host}/acme/app:1", login({with_tokens.host: ("bob", "b")})
        )
    assert [asked.user for asked in tokens.asked] == ["bob", ""], "then without any"
    assert "with the credentials of Secret team/registry" in str(caught.value)
    assert "without credentials" in str(caught.value)


def test_wrong_credentials_do_not_keep_from_what_is_public(
    with_tokens: Registry, tokens: TokenServer, downloads: Path
) -> None:
    credentials = login({with_tokens.host: ("ada", "wrong")})
    text = f"{with_tokens.host}/acme/public:1"
    assert pull(settings(with_tokens, tokens), text, downloads, credentials).startswith(b"\0asm")
    assert resolve(settings(with_tokens, tokens), text, credentials).fingerprint == "anonymous"


def test_credentials_never_go_to_a_token_service_in_the_clear(
    tmp_path: Path, trust: Trust, tokens: TokenServer
) -> None:
    challenge = 'Bearer realm="http://127.0.0.1:1/token",service="x"'
    with Front(1, lambda seen: Say(401, headers={"WWW-Authenticate": challenge}), trust=trust) as front:
        entries = [RegistrySettings(front.host, ca_bundle=trust.ca.read_bytes())]
        with pytest.raises(UnreachableError, match="is not HTTPS") as caught:
            resolve(entries, f"{front.host}/acme/app:1", login({front.host: ("ada", "a:1")}))
    assert not caught.value.temporary


@pytest.mark.parametrize(
    ("challenge", "problem"),
    [
        ("", "asks for nothing that can be shown"),
        ("Negotiate", "asks for negotiate; known are Bearer"),
        ("Bearer", "the registry names no URL for it"),
        ('Bearer realm="ftp://127.0.0.1/"', "is not HTTPS"),
        ('Bearer realm="https://169.254.169.254/token"', "is never contacted"),
        ('Bearer realm="https://127.0.0.1:1/token"', "is never contacted"),
    ],
)
def test_what_a_registry_asks_for_is_not_believed(challenge: str, problem: str) -> None:
    front = Front(1, lambda seen: Say(401, headers={"WWW-Authenticate": challenge}))
    with front, pytest.raises(PullError, match=problem):
        resolve([RegistrySettings(front.host, plain_http=True)], f"{front.host}/acme/app:1")


def test_a_registry_that_hides_what_one_may_not_see_is_asked_with_the_next_credential(registry: Registry) -> None:
    registry.push_artifact("acme/app:1", {"app.wasm": module()})
    right = "Basic " + base64.b64encode(b"ada:right").decode()

    def hiding(seen: Seen) -> Pass | Say:
        if "authorization" not in seen.headers:
            return Say(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return Pass() if seen.headers["authorization"] == right else Say(404)

    with Front(registry.port, hiding) as front:
        entries = [RegistrySettings(front.host, plain_http=True)]
        credentials = login({f"{front.host}/acme": ("ada", "other"), front.host: ("ada", "right")})
        resolved = resolve(entries, f"{front.host}/acme/app:1", credentials)
        assert resolved.fingerprint == credentials.for_repository(front.host, "acme/app")[1].fingerprint
        with pytest.raises(NotFoundError, match="may say so of what these credentials may not pull"):
            resolve(entries, f"{front.host}/acme/app:1", login({front.host: ("ada", "other")}))


def test_a_token_answer_that_is_none_is_no_token() -> None:
    def answering(seen: Seen) -> Pass | Say:
        if seen.path.startswith("/token"):
            return Say(200, b'{"token": "a\\nb"}')
        return Say(401, headers={"WWW-Authenticate": f'Bearer realm="http://{front.host}/token"'})

    with Front(1, answering) as front, pytest.raises(RejectedError, match="characters that no header may have"):
        resolve([RegistrySettings(front.host, plain_http=True)], f"{front.host}/acme/app:1")


def test_where_a_redirect_leads_nobody_is_shown_credentials_whatever_he_asks_for(registry: Registry) -> None:
    with Front(1, lambda _: Say(401, headers={"WWW-Authenticate": 'Basic realm="mine"'})) as thief:
        away = {"Location": f"http://{thief.host}/v2/acme/app/manifests/1"}
        with Front(registry.port, lambda _: Say(307, headers=away)) as front:
            entries = [RegistrySettings(host, plain_http=True) for host in (front.host, thief.host)]
            with pytest.raises(UnauthorizedError):
                resolve(entries, f"{front.host}/acme/app:1", login({front.host: ("ada", "secret")}))
        assert thief.seen
        assert not any("authorization" in seen.headers for seen in thief.seen)


def test_a_token_service_that_says_400_leaves_the_next_credential_its_turn() -> None:
    right = "Basic " + base64.b64encode(b"ada:right").decode()

    def answering(seen: Seen) -> Pass | Say:
        if seen.path.startswith("/token"):
            good = seen.headers.get("authorization") == right
            return Say(200, b'{"token": "good"}') if good else Say(400, b'{"error": "no such user"}')
        if seen.headers.get("authorization") == "Bearer good":
            return Say(404)
        return Say(401, headers={"WWW-Authenticate": f'Bearer realm="http://{front.host}/token"'})

    with Front(1, answering) as front:
        entries = [RegistrySettings(front.host, plain_http=True)]
        credentials = login({f"{front.host}/acme": ("ada", "other"), front.host: ("ada", "right")})
        with pytest.raises(UnauthorizedError, match=r"400: no such user.*; .*404"):
            resolve(entries, f"{front.host}/acme/app:1", credentials)


def test_what_is_signed_in_a_url_is_in_no_message(registry: Registry) -> None:
    away = {"Location": "https://storage.invalid/blob?X-Signature=s3cr3t&X-Other=1"}
    with Front(registry.port, lambda _: Say(307, headers=away)) as front, pytest.raises(PullError) as caught:
        resolve([RegistrySettings(front.host, plain_http=True)], f"{front.host}/acme/app:1")
    chain: BaseException | None = caught.value
    assert "storage.invalid" in str(chain)
    assert "s3cr3t" not in str(chain)
