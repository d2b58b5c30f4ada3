"""What a registry wants to see before it answers: a name and password, or a token of its token service.

A token is kept until shortly before it expires, for the credential that it was given to, and never written anywhere.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from yarl import URL

from wasmpool_agent.oci.challenge import Challenge
from wasmpool_agent.oci.credentials import Credential
from wasmpool_agent.oci.errors import RejectedError, UnauthorizedError, shown
from wasmpool_agent.oci.settings import Endpoint
from wasmpool_agent.oci.transport import Request, Transport

CLIENT_ID: Final = "wasmpool-agent"
MOST_ANSWER_BYTES: Final = 256 * 1024
MOST_TOKENS: Final = 1000
DEFAULT_SECONDS: Final = 60.0
MOST_SECONDS: Final = 3600.0
USED_PART: Final = 0.8
"""Of a token's life: clocks differ, and a request takes time."""


class _TokenAnswer(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True, repr=False)
class _Kept:
    header: str
    until: float


class Tokens:
    """Headers by endpoint and credential. `now`: a clock that never jumps, in seconds."""

    def __init__(self, transport: Transport, now: Callable[[], float]) -> None:
        self._transport = transport
        self._now = now
        self._kept: dict[tuple[str, str, str], _Kept] = {}

    def known(self, endpoint: Endpoint, credential: Credential) -> str | None:
        """The header that worked before, if it is still good."""
        kept = self._kept.get(_key(endpoint, credential))
        return kept.header if kept is not None and kept.until > self._now() else None

    def forget(self, endpoint: Endpoint, credential: Credential) -> None:
        """The registry does not take it any more."""
        self._kept.pop(_key(endpoint, credential), None)

    async def header(
        self, endpoint: Endpoint, credential: Credential, challenges: tuple[Challenge, ...], what: str
    ) -> str:
        """The Authorization header that was asked for. Raises PullError."""
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if credential.registry_token:
            kept = _Kept(f"Bearer {_safe(credential.registry_token, what)}", self._now() + MOST_SECONDS)
        elif "bearer" in by_scheme:
            kept = await self._token(endpoint, credential, by_scheme["bearer"], what)
        elif "basic" in by_scheme:
            kept = _Kept(_basic(endpoint, credential, what), self._now() + MOST_SECONDS)
        else:
            schemes = ", ".join(shown(each.scheme, 40) for each in challenges) or "nothing that can be shown"
            raise UnauthorizedError(
                f"{what}: 401: the registry asks for {schemes}; known are Bearer and Basic", status=401
            )
        self._keep(_key(endpoint, credential), kept)
        return kept.header

    def _keep(self, key: tuple[str, str, str], kept: _Kept) -> None:
        self._kept = {name: it for name, it in self._kept.items() if it.until > self._now()}
        while len(self._kept) >= MOST_TOKENS:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = kept

    async def _token(self, endpoint: Endpoint, credential: Credential, challenge: Challenge, what: str) -> _Kept:
        asked = f"{what}: a token from {shown(challenge.parameters.get('realm', ''), 100)}"
        request = _token_request(endpoint, credential, challenge, asked)
        began = self._now()
        async with self._transport.open(request) as answer:
            if answer.status == 400:  # how some say that they do not know this user: another credential may do
                raise UnauthorizedError(str(await answer.refusal()), status=400)
            if answer.status != 200:
                raise await answer.refusal()
            data = await answer.read(MOST_ANSWER_BYTES)
        try:
            found = msgspec.json.decode(data, type=_TokenAnswer)
        except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError):
            # NB: without the cause, which may have the token in it
            raise RejectedError(f"{asked}: the answer can't be read") from None
        token = found.token or found.access_token
        if not token:
            raise RejectedError(f"{asked}: the answer has neither token nor access_token")
        seconds = min(max(found.expires_in or DEFAULT_SECONDS, 0.0), MOST_SECONDS)
        return _Kept(f"Bearer {_safe(token, asked)}", began + seconds * USED_PART)


def _token_request(endpoint: Endpoint, credential: Credential, challenge: Challenge, asked: str) -> Request:
    try:
        url = URL(challenge.parameters.get("realm", ""))
    except ValueError:
        url = URL()
    if url.host is None:
        raise RejectedError(f"{asked}: the registry names no URL for it")
    url = url.with_user(None).with_fragment(None)
    scope = challenge.parameters.get("scope") or f"repository:{endpoint.repository}:pull"
    wanted = {"scope": scope}
    if "service" in challenge.parameters:
        wanted["service"] = challenge.parameters["service"]
    headers = {"Accept": "application/json"}
    if credential.identity_token:
        form = wanted | {
            "grant_type": "refresh_token",
            "client_id": CLIENT_ID,
            "refresh_token": credential.identity_token,
        }
        return Request("POST", url, asked, headers, form=form)
    if not credential.anonymous:
        wanted["account"] = credential.username
    return Request(
        "GET",
        url.extend_query(wanted),
        asked,
        headers,
        authorization=None if credential.anonymous else _login(credential),
    )


def _basic(endpoint: Endpoint, credential: Credential, what: str) -> str:
    if credential.anonymous:
        raise UnauthorizedError(
            f"{what}: 401: {endpoint.registry} asks for a user name and a password, and none are given",
            status=401,
        )
    if not credential.username and not credential.password:
        raise UnauthorizedError(
            f"{what}: 401: {endpoint.registry} asks for a user name and password, {credential.source} has a token",
            status=401,
        )
    return _login(credential)


def _login(credential: Credential) -> str:
    login = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(login).decode()}"


def _safe(token: str, what: str) -> str:
    if not token.isascii() or not token.isprintable():
        raise RejectedError(f"{what}: a token with characters that no header may have")
    return token


def _key(endpoint: Endpoint, credential: Credential) -> tuple[str, str, str]:
    return endpoint.registry, endpoint.repository, credential.fingerprint
