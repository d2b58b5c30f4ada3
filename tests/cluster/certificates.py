"""The cluster's own certificate authority, and what it signs. Made anew for every cluster, valid for a year."""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVICE_NAMES: Final = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)


@dataclass(frozen=True)
class Trust:
    """Files of a directory that only its owner may read."""

    directory: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.crt"

    def certificate(self, name: str) -> Path:
        """Of `apiserver`, `kubelet-client` or a node."""
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Belongs to `certificate(name)`; `service-accounts` is the key that signs tokens."""
        return self.directory / f"{name}.key"


class Authority:
    """Signs, and writes what it signed into one directory."""

    def __init__(self, directory: Path, *, now: datetime.datetime) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.trust = Trust(directory)
        self._from = now - datetime.timedelta(minutes=5)
        self._until = now + datetime.timedelta(days=365)
        self._name = _name("wasmpool-test-ca", ())
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        _write(self.trust.ca, certificate.public_bytes(serialization.Encoding.PEM))

    def serve(self, file: str, addresses: Sequence[str]) -> None:
        """A server's certificate, for the API server's names and these IP addresses."""
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in SERVICE_NAMES]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        self._sign(file, _name(file, ()), ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName(names))

    def identify(self, file: str, user: str, groups: Sequence[str]) -> None:
        """A client's certificate: this user in these groups."""
        self._sign(file, _name(user, groups), ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def sign_service_accounts(self) -> None:
        """The key pair that service account tokens are signed with."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        _write(self.trust.key("service-accounts"), _pem(key))

    def _sign(
        self, file: str, subject: x509.Name, use: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            # NB: Python 3.13 and later refuse a chain without it
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write(self.trust.certificate(file), certificate.public_bytes(serialization.Encoding.PEM))
        _write(self.trust.key(file), _pem(key))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._from)
            .not_valid_after(self._until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
