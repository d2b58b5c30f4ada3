"""One question, put to whoever may answer it: mirror after mirror, credential after credential, again after a while."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from wasmpool_agent.oci.auth import Tokens
from wasmpool_agent.oci.challenge import parse_challenges
from wasmpool_agent.oci.credentials import ANONYMOUS, Credential, Credentials
from wasmpool_agent.oci.errors import (
    NotFoundError,
    PullError,
    TooSlowError,
    UnauthorizedError,
    UnreachableError,
    all_of,
)
from wasmpool_agent.oci.reference import Reference
from wasmpool_agent.oci.settings import Endpoint, Limits, Registries
from wasmpool_agent.oci.transport import Answer, Request, Transport

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


def _none() -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Means:
    """What all questions share. `jitter`: a random number from 0 to 1, so that nodes don't come back at once."""

    registries: Registries
    transport: Transport
    tokens: Tokens
    limits: Limits
    sleep: Callable[[float], Awaitable[None]]
    jitter: Callable[[], float]


@dataclass(slots=True)
class Asking:
    """About one reference, with one workload's credentials. `last`: what went wrong last, and may be over."""

    means: Means
    reference: Reference
    credentials: Credentials
    last: PullError | None = field(default=None, init=False)

    async def within(self, seconds: float, what: str, work: Awaitable[_Result]) -> _Result:
        """Its result, or UnreachableError when the time is over."""
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise
            last = f"; last: {self.last}" if self.last is not None else ""
            raise UnreachableError(f"{what} {self.reference}: not done after {seconds:g} s{last}") from error

    async def anywhere(
        self, ask: Callable[[Endpoint, Credential], Awaitable[_Result]], progress: Callable[[], int] = _none
    ) -> _Result:
        """At its mirrors, then at the registry itself. `progress`: grows while trying again is worth it."""
        endpoints = self.means.registries.endpoints(self.reference)
        errors: list[PullError] = []
        for number, endpoint in enumerate(endpoints, start=1):
            # Where there is another one to ask, waiting is of no use.
            attempts = self.means.limits.attempts if number == len(endpoints) else 1
            try:
                return await self._with_any(endpoint, ask, attempts, progress)
            except PullError as error:
                if attempts == 1:
                    log.info("%s", error)
                errors.append(error)
        raise all_of(errors, errors[-1])

    @asynccontextmanager
    async def asked(
        self, endpoint: Endpoint, credential: Credential, request: Request
    ) -> AsyncGenerator[tuple[Answer, str]]:
        """The answer once the registry has seen what it asks for, and the fingerprint of what it has seen."""
        tokens = self.means.tokens
        header = tokens.known(endpoint, credential)
        for last in (False, True):
            async with self.means.transport.open(request.authorized(header)) as answer:
                # NB: what a server asks for to which we were only redirected is not for these credentials to give.
                if answer.status != 401 or last or not answer.asked:
                    if answer.status == 401:
                        tokens.forget(endpoint, credential)
                    yield answer, credential.fingerprint if header is not None else ANONYMOUS.fingerprint
                    return
                challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", []))
            tokens.forget(endpoint, credential)
            header = await tokens.header(endpoint, credential, challenges, request.what)

    async def _with_any(
        self,
        endpoint: Endpoint,
        ask: Callable[[Endpoint, Credential], Awaitable[_Result]],
        attempts: int,
        progress: Callable[[], int],
    ) -> _Result:
        """With each credential for it, the most specific first, then without."""
        candidates = (*self.credentials.for_repository(endpoint.registry, endpoint.repository), ANONYMOUS)
        errors: list[PullError] = []
        for credential in candidates:
            try:
                return await self._again(endpoint, credential, ask, attempts, progress)
            except (UnauthorizedError, NotFoundError) as error:
                errors.append(type(error)(f"{error} ({credential.title})", status=error.status))
        raise all_of(errors, errors[0])

    async def _again(
        self,
        endpoint: Endpoint,
        credential: Credential,
        ask: Callable[[Endpoint, Credential], Awaitable[_Result]],
        attempts: int,
        progress: Callable[[], int],
    ) -> _Result:
        """Until it works, or fails for good, or `attempts` brought nothing new."""
        failures, before = 0, progress()
        while True:
            try:
                return await ask(endpoint, credential)
            except PullError as error:
                self.last = error
                reached = progress()
                failures = 1 if reached > before else failures + 1
                before = reached
                if not error.temporary or failures >= attempts or isinstance(error, TooSlowError):
                    raise
                await self.means.sleep(self._wait(failures, error.retry_after))

    def _wait(self, failures: int, asked: float | None) -> float:
        limits = self.means.limits
        wait = max(limits.first_wait_seconds * 2.0 ** min(failures - 1, 30), asked or 0.0)
        return min(limits.most_wait_seconds, wait) * (0.75 + 0.5 * self.means.jitter())
