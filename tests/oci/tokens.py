"""A token service: signs who may pull what, and the real registry checks it."""

import base64
import datetime
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from tests.cluster.certificates import Trust
from tests.oci.serving import Serving, say

SERVICE: Final = "registry.test"
ISSUER: Final = "tokens.test"


@dataclass(frozen=True)
class User:
    """`pull`: repositories; `push`: whether it may push to all."""

    password: str
    pull: frozenset[str] = frozenset()
    push: bool = False


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    parameters: Mapping[str, str]
    user: str


@dataclass
class Rules:
    """What a test changes. `identities`: identity tokens, and whose they are. `field`: of the answer."""

    users: dict[str, User] = field(default_factory=dict[str, User])
    identities: dict[str, str] = field(default_factory=dict[str, str])
    public: frozenset[str] = frozenset()
    field: str = "token"
    seconds: int = 300


class TokenServer(Serving):
    """`asked`: what came, in order."""

    def __init__(self, rules: Rules, trust: Trust | None = None) -> None:
        super().__init__(trust)
        self.rules = rules
        self.asked: list[Asked] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._certificate = _self_signed(self._key)

    def configuration(self, certificate: Path) -> dict[str, object]:
        """Of a registry that trusts it; writes its certificate there."""
        certificate.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        return {
            "realm": f"{self.url}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(certificate),
        }

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        query = urlsplit(handler.path).query
        if handler.command == "POST":
            query = handler.rfile.read(int(handler.headers.get("Content-Length", "0"))).decode()
        parameters = {name: values[-1] for name, values in parse_qs(query).items()}
        user = self._user(handler, parameters)
        self.asked.append(Asked(handler.command, parameters, "refused" if user is None else user))
        if user is None:
            say(handler, 401, json.dumps({"details": "incorrect username or password"}).encode())
            return
        token = self._sign(user, self._access(user, parameters.get("scope", "")))
        body = {self.rules.field: token, "expires_in": self.rules.seconds}
        say(handler, 200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _user(self, handler: BaseHTTPRequestHandler, parameters: Mapping[str, str]) -> str | None:
        """Empty for nobody; None where the password is wrong."""
        if handler.command == "POST":
            if parameters.get("grant_type") == "password":  # oras pushes so
                found = self.rules.users.get(parameters.get("username", ""))
                return parameters["username"] if found and found.password == parameters.get("password") else None
            return self.rules.identities.get(parameters.get("refresh_token", ""))
        given = handler.headers.get("Authorization", "")
        if not given:
            return ""
        name, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        found = self.rules.users.get(name)
        return name if found is not None and found.password == password else None

    def _access(self, name: str, scopes: str) -> list[dict[str, object]]:
        user = self.rules.users.get(name, User(""))
        granted: list[dict[str, object]] = []
        for scope in scopes.split():
            kind, repository, actions = scope.split(":")
            allowed: set[str] = set()
            if user.push:
                allowed |= {"pull", "push"}
            if repository in user.pull | self.rules.public:
                allowed.add("pull")
            granted.append({"type": kind, "name": repository, "actions": sorted(allowed & set(actions.split(",")))})
        return granted

    def _sign(self, user: str, access: list[dict[str, object]]) -> str:
        now = int(datetime.datetime.now(datetime.UTC).timestamp())
        chain = base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER)).decode()
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + self.rules.seconds,
            "nbf": now - 60,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        head = ".".join(_part(part) for part in ({"typ": "JWT", "alg": "RS256", "x5c": [chain]}, claims))
        signature = self._key.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{head}.{_base64url(signature)}"


def _part(content: Mapping[str, object]) -> str:
    return _base64url(json.dumps(content).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _self_signed(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
