"""Which credential of which Secret is for which repository; and that no message or repr ever has a password in it."""

import base64
import contextlib
import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmpool_agent.oci.credentials import ANONYMOUS, Credential, Credentials
from wasmpool_agent.oci.errors import CredentialsInvalidError

SECRET = "hunter2-the-password"  # noqa: S105 - that is the point


def names(documents: dict[str, list[str]], registry: str, repository: str) -> list[str]:
    """By Secret its keys; the keys that are for this repository, in order."""
    texts = {
        source: json.dumps({"auths": {key: {"username": key, "password": source} for key in keys}})
        for source, keys in documents.items()
    }
    return [found.username for found in Credentials.parse(texts).for_repository(registry, repository)]


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "expected"),
    [
        (["a.io", "a.io/b", "a.io/b/c"], "a.io", "b/c", ["a.io/b/c", "a.io/b", "a.io"]),
        (["ghcr.io/acme"], "ghcr.io", "acme-two/app", []),
        (["ghcr.io/acme/app/more"], "ghcr.io", "acme/app", []),
        (["https://index.docker.io/v1/"], "docker.io", "library/alpine", ["https://index.docker.io/v1/"]),
        (["docker.io", "registry-1.docker.io"], "docker.io", "acme/app", ["docker.io", "registry-1.docker.io"]),
        (["https://registry.acme.io/v2/"], "registry.acme.io", "app", ["https://registry.acme.io/v2/"]),
        (["http://registry.acme.io/team"], "registry.acme.io", "team/app", ["http://registry.acme.io/team"]),
        (["*.acme.io", "eu.acme.io"], "eu.acme.io", "app", ["eu.acme.io", "*.acme.io"]),
        (["*.acme.io"], "acme.io", "app", []),
        (["*.acme.io"], "a.b.acme.io", "app", []),
        (["*.acme.io/team"], "eu.acme.io", "team/app", ["*.acme.io/team"]),
        (["registry:5000"], "registry:5000", "app", ["registry:5000"]),
        (["registry.io"], "registry.io:5000", "app", []),
        (["GHCR.io"], "ghcr.io", "app", ["GHCR.io"]),
        (["ghcr.io.evil.example"], "ghcr.io", "app", []),
    ],
)  # fmt: skip
def test_a_key_is_for(keys: list[str], registry: str, repository: str, expected: list[str]) -> None:
    assert names({"Secret a/b": keys}, registry, repository) == expected


def test_of_several_secrets_the_first_goes_first_unless_another_is_more_specific() -> None:
    documents = {"Secret a/1": ["ghcr.io"], "Secret a/2": ["ghcr.io", "ghcr.io/acme"]}
    texts = {
        source: json.dumps({"auths": {key: {"username": key, "password": source} for key in keys}})
        for source, keys in documents.items()
    }
    found = Credentials.parse(texts).for_repository("ghcr.io", "acme/app")
    assert [(each.username, each.password) for each in found] == [
        ("ghcr.io/acme", "Secret a/2"),
        ("ghcr.io", "Secret a/1"),
        ("ghcr.io", "Secret a/2"),
    ]


def test_the_same_credential_is_tried_once() -> None:
    entry = {"username": "ada", "password": "x"}
    document = json.dumps({"auths": {"ghcr.io": entry, "ghcr.io/acme": entry}})
    assert len(Credentials.parse({"a": document, "b": document}).for_repository("ghcr.io", "acme/app")) == 1


def test_every_form_of_an_entry_is_read() -> None:
    auth = base64.b64encode(b"ada:with:colons").decode()
    entries = {
        "a.io": {"auth": auth},
        "b.io": {"username": "ada", "password": "x", "email": "ada@example.com"},
        "c.io": {"auth": base64.b64encode(b"0000:").decode(), "identitytoken": "t"},
        "d.io": {"registrytoken": "r"},
        "e.io": {},
        "f.io": None,
    }
    found = Credentials.parse({"Secret a/b": json.dumps({"auths": entries, "credsStore": "desktop"})})
    by_host = {host: found.for_repository(host, "app") for host in entries}
    assert [(each.username, each.password) for each in by_host["a.io"]] == [("ada", "with:colons")]
    assert [(each.username, each.password) for each in by_host["b.io"]] == [("ada", "x")]
    assert [each.identity_token for each in by_host["c.io"]] == ["t"]
    assert [each.registry_token for each in by_host["d.io"]] == ["r"]
    assert by_host["e.io"] == by_host["f.io"] == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f'{{"auths": {{"ghcr.io": {{"auth": "{SECRET}"', "it is not JSON"),
        (f'{{"auths": {{"ghcr.io": {{"auth": ["{SECRET}"]}}}}}}', "it is no docker config"),
        (f'{{"auths": {{"ghcr.io": "{SECRET}"}}}}', "it is no docker config"),
        (f'{{"auths": {{"ghcr.io": {{"auth": "{SECRET}"}}}}}}', "auths[ghcr.io]: auth is not base64 of UTF-8"),
        (
            json.dumps({"auths": {"ghcr.io": {"auth": base64.b64encode(SECRET.encode()).decode()}}}),
            "auths[ghcr.io]: auth is not base64 of user:password",
        ),
        (f'{{"ghcr.io": {{"password": "{SECRET}"}}}}', "it has no auths"),
        (f'{{"auths": {{"https://": {{"password": "{SECRET}"}}}}}}', "auths[https://] names no registry"),
        (f'"{SECRET}"', "it is no docker config"),
        (f'{{"auths": {{"ghcr.io": {{"password": "\\ud800{SECRET}"}}}}}}', "it is not JSON"),
    ],
)
def test_a_broken_document_is_named_and_never_shown(text: str, problem: str) -> None:
    with pytest.raises(CredentialsInvalidError) as caught:
        Credentials.parse({"Secret team/registry": text})
    assert str(caught.value).startswith(f"Secret team/registry: {problem}")
    # A traceback ends with the messages of all that led to it: of parsers, too, unless they are left out.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert SECRET not in "".join(traceback.format_exception_only(caught.value))


KEYS = st.sampled_from(["auths", "auth", "username", "password", "ghcr.io", "*.io", "", "[", "a:b"]) | st.text(
    max_size=5
)
CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(CONTENT)
def test_any_json_is_credentials_or_refused(content: object) -> None:
    for document in (content, {"auths": content}):
        with contextlib.suppress(CredentialsInvalidError):
            Credentials.parse({"Secret a/b": json.dumps(document)}).for_repository("ghcr.io", "acme/app")


@given(st.binary(max_size=100))
def test_any_bytes_are_credentials_or_refused(data: bytes) -> None:
    with pytest.raises(CredentialsInvalidError):
        Credentials.parse({"Secret a/b": data})


@given(st.text(min_size=1), st.text(min_size=1))
def test_nothing_that_prints_a_credential_prints_its_secret(username: str, password: str) -> None:
    marked = f"{username}<{SECRET}>{password}"
    for credential in (
        Credential(username, marked),
        Credential(identity_token=marked),
        Credential(registry_token=marked),
    ):
        for text in (repr(credential), str(credential), f"{credential}", credential.title, credential.fingerprint):
            assert SECRET not in text


def test_a_fingerprint_tells_credentials_apart_and_nothing_else() -> None:
    all_of_them = [
        Credential("a", "bc"),
        Credential("ab", "c"),
        Credential("a", "b", "c"),
        Credential("a", "b", "", "c"),
        ANONYMOUS,
    ]
    assert len({each.fingerprint for each in all_of_them}) == len(all_of_them)
    assert Credential("a", "b", source="x").fingerprint == Credential("a", "b", source="y").fingerprint
    assert ANONYMOUS.fingerprint == "anonymous"
    assert len(all_of_them[0].fingerprint) == 64
