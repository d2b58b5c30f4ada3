"""Where a workload's requests may go: its patterns under its pool's, and what a pattern covers.

Held by examples, and for any two lists by what `allowed_hosts` means: a host is allowed exactly if both lists allow it.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wasmpool_agent.egress import allowed_hosts, is_allowed

LABELS = st.sampled_from(["a", "b", "api"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PORTS = st.sampled_from(["", ":80", ":443"])
PATTERNS = st.tuples(st.one_of(NAMES, NAMES.map(lambda it: f"*.{it}"), st.just("*")), PORTS).map("".join)
LISTS = st.lists(PATTERNS, max_size=4)


@pytest.mark.parametrize(
    ("pattern", "host", "port", "allowed"),
    [
        ("a.test", "a.test", 443, True),
        ("a.test", "A.Test.", 443, True),
        ("A.test", "a.test", 443, True),
        ("a.test", "b.a.test", 443, False),
        ("a.test", "a.test.evil", 443, False),
        ("a.test", "xa.test", 443, False),
        ("a.test:80", "a.test", 80, True),
        ("a.test:80", "a.test", 443, False),
        ("*.a.test", "b.a.test", 443, True),
        ("*.a.test", "c.b.a.test", 443, True),
        ("*.a.test", "a.test", 443, False),
        ("*.a.test", ".a.test", 443, False),
        ("*.a.test", "ba.test", 443, False),
        ("*.a.test:80", "b.a.test", 443, False),
        ("*", "anything.test", 1, True),
        ("*:443", "anything.test", 80, False),
        ("10.0.0.1", "10.0.0.1", 80, True),
    ],
)
def test_a_pattern_covers_what_it_says(pattern: str, host: str, port: int, allowed: bool) -> None:
    assert is_allowed(host, port, [pattern]) is allowed


@pytest.mark.parametrize(
    ("workload", "pool", "left"),
    [
        (["a.test"], [], ()),
        ([], ["*"], ()),
        (["a.test", "b.test"], ["a.test"], ("a.test",)),
        (["*"], ["*.corp.test", "x.test:443"], ("*.corp.test", "x.test:443")),
        (["a.corp.test:80"], ["*.corp.test"], ("a.corp.test:80",)),
        (["a.corp.test"], ["*.corp.test:443"], ("a.corp.test:443",)),
        (["a.test:80"], ["a.test:443"], ()),
        (["*.corp.test"], ["corp.test"], ()),
        (["*.b.corp.test"], ["*.corp.test"], ("*.b.corp.test",)),
        (["127.0.0.1:80", "10.0.0.1"], ["*"], ("10.0.0.1",)),
        (["127.0.0.1"], ["127.0.0.1:80"], ("127.0.0.1:80",)),
        (["*"], ["127.0.0.1:80"], ("127.0.0.1:80",)),
    ],
)
def test_what_is_left_of_a_workloads_hosts_under_its_pools_ceiling(
    workload: list[str], pool: list[str], left: tuple[str, ...]
) -> None:
    assert allowed_hosts(workload, pool) == left


@given(LISTS, LISTS, NAMES, st.sampled_from([80, 443, 8080]))
def test_a_host_is_allowed_exactly_if_workload_and_pool_allow_it(
    workload: list[str], pool: list[str], host: str, port: int
) -> None:
    both = is_allowed(host, port, workload) and is_allowed(host, port, pool)
    assert is_allowed(host, port, allowed_hosts(workload, pool)) == both
