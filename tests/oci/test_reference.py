"""References are read as the distribution project's grammar has them; what is none is refused with the reason."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wasmpool_agent.oci.errors import ReferenceInvalidError
from wasmpool_agent.oci.reference import Reference, is_digest, parse

DIGEST = "sha256:" + "0123456789abcdef" * 4

component = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
repositories = st.lists(component, min_size=1, max_size=4).map("/".join)
hosts = st.one_of(
    st.from_regex(r"[a-z0-9]{1,8}(\.[a-z0-9]{1,8}){1,2}(:[1-9][0-9]{0,3})?", fullmatch=True),
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,8}:[1-9][0-9]{0,3}", fullmatch=True),
    st.sampled_from(["[::1]", "[fe80::1]:5000"]),
)
tags = st.from_regex(re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", re.ASCII), fullmatch=True)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3"),
        ("acme/thumbs", "docker.io/acme/thumbs:latest"),
        ("index.docker.io/acme/thumbs", "docker.io/acme/thumbs:latest"),
        ("registry-1.docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("GHCR.io/acme/app", "ghcr.io/acme/app:latest"),
        (f"ghcr.io/acme/app@{DIGEST}", f"ghcr.io/acme/app@{DIGEST}"),
        (f"ghcr.io/acme/app:1@{DIGEST}", f"ghcr.io/acme/app:1@{DIGEST}"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("ghcr.io/a/b/c/d__e-f.g:v1_2.3-x", "ghcr.io/a/b/c/d__e-f.g:v1_2.3-x"),
    ],
)
def test_short_names_and_long_ones_mean(given: str, meant: str) -> None:
    assert str(parse(given)) == meant


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("", "is no repository"),
        (":1", "is no repository"),
        ("ghcr.io/", "is no repository"),
        ("ghcr.io/Acme/app", "is no repository; allowed are lower-case"),
        ("ghcr.io/acme//app", "is no repository"),
        ("ghcr.io/acme/../app", "is no repository"),
        ("ghcr.io/acme/app:", "allowed as a tag"),
        ("ghcr.io/acme/app:-1", "allowed as a tag"),
        (f"ghcr.io/acme/app:{'a' * 129}", "allowed as a tag"),
        ("ghcr.io/acme/app@sha256:abc", "allowed as a digest"),
        ("ghcr.io/acme/app@", "allowed as a digest"),
        (f"ghcr.io/acme/app@{DIGEST.upper()}", "allowed as a digest"),
        ("oci://ghcr.io/acme/app", "it starts with a scheme"),
        ("ghcr.io:99999/app", "is no host"),
        ("ghcr.io:0/app", "is no host"),
        ("-ghcr.io/app", "is no host"),
        ("user@ghcr.io/app", "allowed as a digest"),
        (f"ghcr.io/{'a' * 256}", "allowed are 255"),
        ("a" * 2000, "allowed are 1024"),
        ("ghcr.io/app:1\n", "allowed as a tag"),
        ("ghcr.io/äpp", "is no repository"),
    ],
)
def test_what_is_none_is_refused_with_what_is_allowed(given: str, problem: str) -> None:
    with pytest.raises(ReferenceInvalidError, match=re.escape(problem)) as caught:
        parse(given)
    assert caught.value.given == given


@given(hosts, repositories, st.none() | tags, st.none() | st.just(DIGEST))
def test_the_canonical_text_of_a_reference_means_the_same(
    host: str, repository: str, tag: str | None, digest: str | None
) -> None:
    parsed = parse(str(Reference(host, repository, tag, digest)))
    assert parse(str(parsed)) == parsed
    assert (parsed.registry, parsed.repository, parsed.digest) == (host, repository, digest)
    assert parsed.tag == (tag if tag is not None or digest is not None else "latest")


@example("A/0")
@given(st.text(max_size=200) | st.from_regex(r"[a-zA-Z0-9./:@_-]{0,60}", fullmatch=True))
def test_whatever_is_given_is_a_reference_or_refused(text: str) -> None:
    try:
        parsed = parse(text)
    except ReferenceInvalidError:
        return
    assert parse(str(parsed)) == parsed
    assert parsed.tag is not None or parsed.digest is not None


def test_a_reference_is_pinned_by_a_digest_and_by_nothing_else() -> None:
    pinned = parse("ghcr.io/acme/app:1").with_digest(DIGEST)
    assert (pinned.tag, pinned.digest, pinned.asked) == ("1", DIGEST, DIGEST)
    with pytest.raises(ReferenceInvalidError):
        pinned.with_digest("sha256:../../etc/passwd")
    assert not is_digest(DIGEST + "\n")
