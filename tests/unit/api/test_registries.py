"""Covers: certificates of a registry that are none are told by the field, before any agent is started with them."""

import base64

import pytest

from wasmpool_api.instance_pool import InstancePoolSpec, Registry
from wasmpool_api.limits import InstanceLimits
from wasmpool_api.registries import registries_problem

BEGIN, END = b"-----BEGIN CERTIFICATE-----\n", b"\n-----END CERTIFICATE-----\n"
SEQUENCE = base64.b64encode(b"\x30\x03\x02\x01\x01")


def problem(pem: bytes) -> str | None:
    bundle = base64.b64encode(pem).decode()
    registries = (Registry(host="plain.example"), Registry(host="r.example", ca_bundle=bundle))
    return registries_problem(InstancePoolSpec(instance_limits=InstanceLimits(count=1), registries=registries))


def test_certificates_with_whatever_stands_around_them_are_taken() -> None:
    assert problem(BEGIN + SEQUENCE + END) is None
    assert problem(b"# ours\n" + BEGIN + SEQUENCE + END + BEGIN + SEQUENCE + END) is None


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (b"hello", "no certificate in it"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "no certificate in it"),
        (BEGIN + b"!!!!" + END, "block that is no certificate"),
        (BEGIN + base64.b64encode(b"text") + END, "block that is no certificate"),
        (BEGIN + SEQUENCE + END + BEGIN + b"AAAA" + END, "block that is no certificate"),
    ],
)
def test_what_is_no_certificate_is_told_by_its_field(pem: bytes, said: str) -> None:
    found = problem(pem)
    assert found is not None
    assert found.startswith("spec.registries: r.example: caBundle ")
    assert said in found
    assert "allowed are -----BEGIN CERTIFICATE----- blocks" in found


def test_what_is_no_base64_is_told() -> None:
    registry = Registry(host="r.example", ca_bundle="not base64!")
    spec = InstancePoolSpec(instance_limits=InstanceLimits(count=1), registries=(registry,))
    assert "caBundle is not base64" in str(registries_problem(spec))
