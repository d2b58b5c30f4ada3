"""What is wrong with a pool's registries that its schema can't say. Pure."""

import base64
import binascii
import re
from typing import Final

from wasmpool_api.instance_pool import InstancePoolSpec

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.+?)-----END CERTIFICATE-----", re.DOTALL)
_DER_SEQUENCE: Final = 0x30
_ALLOWED: Final = "allowed are -----BEGIN CERTIFICATE----- blocks, in base64"


def registries_problem(spec: InstancePoolSpec) -> str | None:
    """The field at fault, what it says and what is allowed; None if its certificates look like some."""
    for registry in spec.registries:
        if not registry.ca_bundle:
            continue
        field = f"spec.registries: {registry.host}: caBundle"
        try:
            pem = base64.b64decode("".join(registry.ca_bundle.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            return f"{field} is not base64: {error}; allowed is PEM in base64"
        found = _CERTIFICATE.findall(pem)
        if not found:
            return f"{field} has no certificate in it; {_ALLOWED}"
        if not all(_is_der(body) for body in found):
            return (
                f"{field} has a block that is no certificate; allowed are -----BEGIN CERTIFICATE----- blocks, in base64"
            )
    return None


def _is_der(body: bytes) -> bool:
    try:
        decoded = base64.b64decode(b"".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return decoded[:1] == bytes([_DER_SEQUENCE])
