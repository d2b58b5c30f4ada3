"""Addresses, proxies, settings and challenges, as functions: nothing is asked here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from wasmpool_agent.oci.addresses import why_forbidden
from wasmpool_agent.oci.challenge import parse_challenges
from wasmpool_agent.oci.errors import SettingsInvalidError
from wasmpool_agent.oci.proxies import Proxies
from wasmpool_agent.oci.reference import parse
from wasmpool_agent.oci.settings import Registries, RegistrySettings


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.0.1",
        "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200", "0.0.0.1", "::",
        "fd20:ce::254", "fd00:ec2::23", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fec0::1", "::169.254.169.254",
        "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "224.0.0.1", "ff02::1", "nonsense", "",
    ],
)  # fmt: skip
def test_is_never_asked_even_if_it_is_set(address: str) -> None:
    assert why_forbidden(address, loopback=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "::127.0.0.1"])
def test_loopback_is_asked_if_it_is_set(address: str) -> None:
    assert "loopback" in why_forbidden(address, loopback=False)
    assert not why_forbidden(address, loopback=True)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "140.82.112.33", "fd00::1", "2606:50c0::1"])
def test_networks_inside_and_outside_are_asked(address: str) -> None:
    assert not why_forbidden(address, loopback=False)


@given(st.ip_addresses())
def test_every_address_has_an_answer(address: object) -> None:
    assert why_forbidden(str(address), loopback=False) or not why_forbidden(str(address), loopback=True)


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "ghcr.io", False),
        ("", "localhost", True),
        ("", "127.0.0.1", True),
        ("*", "ghcr.io", True),
        ("ghcr.io", "ghcr.io", True),
        ("ghcr.io", "sub.ghcr.io", True),
        (".ghcr.io", "ghcr.io", False),
        ("*.ghcr.io", "sub.ghcr.io", True),
        ("hcr.io", "ghcr.io", False),
        ("a, .svc ,b", "registry.team.svc", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("ghcr.io:443", "ghcr.io", True),
        ("ghcr.io:5000", "ghcr.io", False),
        ("GHCR.IO", "ghcr.io", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(no_proxy: str, host: str, direct: bool) -> None:
    proxies = Proxies({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy})
    assert (proxies.of(URL(f"https://{host}/v2/")) is None) == direct


def test_each_scheme_has_its_own_proxy() -> None:
    proxies = Proxies({"https_proxy": "proxy:1", "HTTP_PROXY": "http://u:p@proxy:2/"})
    secure, plain = proxies.of(URL("https://a.example")), proxies.of(URL("http://a.example"))
    assert (str(secure.url), secure.authorization) == ("http://proxy:1", None) if secure else False
    assert (str(plain.url), plain.authorization) == ("http://proxy:2", "Basic dTpw") if plain else False
    assert "dTpw" not in repr(plain)


@given(st.text(max_size=30))
def test_any_text_is_a_proxy_or_refused_without_being_shown(text: str) -> None:
    said = "HTTPS_PROXY is no URL of a proxy; allowed is http://[user:password@]host:port"
    try:
        Proxies({"HTTPS_PROXY": text}).of(URL("https://a.example"))
    except SettingsInvalidError as error:
        said = str(error)
    assert said == "HTTPS_PROXY is no URL of a proxy; allowed is http://[user:password@]host:port"


def test_mirrors_are_asked_first_and_each_by_its_own_settings() -> None:
    registries = Registries(
        [
            RegistrySettings("docker.io", mirrors=("mirror.local:5000/hub", "other.example")),
            RegistrySettings("mirror.local:5000", plain_http=True),
        ]
    )
    urls = [str(each.url("manifests", "latest")) for each in registries.endpoints(parse("alpine"))]
    assert urls == [
        "http://mirror.local:5000/v2/hub/library/alpine/manifests/latest",
        "https://other.example/v2/library/alpine/manifests/latest",
        "https://registry-1.docker.io/v2/library/alpine/manifests/latest",
    ]


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://ghcr.io/v2/", True),
        ("https://ghcr.io:443/v2/", True),
        ("https://ghcr.io:444/v2/", False),
        ("http://ghcr.io/v2/", True),
        ("https://registry-1.docker.io/v2/", True),
        ("https://[::1]:5000/v2/", True),
        ("https://mirror.example:1/v2/", True),
        ("https://other.example/v2/", False),
    ],
)
def test_settings_hold_for_one_host_and_port(url: str, named: bool) -> None:
    registries = Registries(
        [
            RegistrySettings("ghcr.io"),
            RegistrySettings("docker.io", mirrors=("mirror.example:1/x",)),
            RegistrySettings("[::1]:5000"),
        ]
    )
    assert registries.names(URL(url)) == named


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([RegistrySettings("https://ghcr.io")], "host is 'https://ghcr.io', allowed is host or host:port"),
        ([RegistrySettings("ghcr.io"), RegistrySettings("GHCR.io")], "ghcr.io is given twice"),
        ([RegistrySettings("a.io", plain_http=True, ca_bundle=b"x")], "plainHTTP and caBundle are both given"),
        ([RegistrySettings("a.io", mirrors=("http://b.io",))], "mirrors: 'http://b.io' is given"),
        ([RegistrySettings("a.io", mirrors=("b.io/",))], "mirrors: 'b.io/' is given"),
    ],
)
def test_settings_that_make_no_sense_are_refused(entries: list[RegistrySettings], problem: str) -> None:
    with pytest.raises(SettingsInvalidError, match=problem):
        Registries(entries)


CHALLENGES: list[tuple[list[str], list[tuple[str, dict[str, str]]]]] = [
    (
        ['Bearer realm="https://a/t",service="s,1",scope="repository:a/b:pull"'],
        [("bearer", {"realm": "https://a/t", "service": "s,1", "scope": "repository:a/b:pull"})],
    ),
    (["Basic realm=x"], [("basic", {"realm": "x"})]),
    (['Basic realm="x", Bearer realm="y"'], [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})]),
    (["Negotiate", 'BEARER Realm = "a\\"b"'], [("negotiate", {}), ("bearer", {"realm": 'a"b'})]),
    (['Bearer realm="never closed'], [("bearer", {})]),
    (["", "=", '"x"'], []),
]


@pytest.mark.parametrize(("headers", "expected"), CHALLENGES)
def test_challenges_are_read(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(each.scheme, each.parameters) for each in parse_challenges(headers)] == expected


@given(
    st.lists(
        st.text(max_size=60) | st.from_regex(r'[A-Za-z]+ ([a-z]+="?[a-z ,]*"?,? ?){0,4}', fullmatch=True), max_size=3
    )
)
def test_any_header_is_read_as_far_as_it_goes(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()
