"""From an assignment to something that can be started: revision, module, verdict, compiled code, environment."""

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, ParamSpec

from wasmpool_agent.compiler import CompileFailed, CompileReason, compile_module, engine_settings, sealed_copy
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.inspecting import Finding, examine
from wasmpool_agent.modules.sources import PullFailedError, Sources, digest_of, refuse_unsupported
from wasmpool_agent.modules.store import Store, compiled_key, cpu_features
from wasmpool_agent.protocol import start_fits
from wasmpool_agent.supervisor.claims import Claim, Prepared, Step
from wasmpool_agent.supervisor.ports import AbsentError, DesiredState, PortError
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_api.codec import FieldError
from wasmpool_api.instance_pool import Backing, InstancePool
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision

MODULE_MOST_BYTES: Final = 256 * 1024**2

P = ParamSpec("P")

log = logging.getLogger(__name__)


class NotNowError(Exception):
    """Preparation failed, and is tried again. `step`: where it stands meanwhile."""

    def __init__(self, step: Step, reason: Waiting, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.reason = reason
        self.message = message


class NeverError(Exception):
    """This revision can't run here, whatever happens. `finding`: what is known of the module."""

    def __init__(self, reason: Refusal, message: str, finding: Finding | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.finding = finding


@dataclass(slots=True)
class Artifact:
    """Compiled code in a sealed memfd. `users`: claims that may still start it; without any it is closed."""

    key: str
    digest: str
    fd: int
    size: int
    sha256: str
    users: set[ClaimKey] = field(default_factory=set[ClaimKey])


class Preparer:
    """Owns the artifacts' descriptors. One module is compiled at a time; equal ones only once."""

    def __init__(
        self,
        *,
        desired: DesiredState,
        pool: InstancePool,
        pool_file: Path,
        store: Store,
        metrics: Metrics,
    ) -> None:
        self._desired = desired
        self._pool = pool
        self._pool_file = pool_file
        self._store = store
        self._metrics = metrics
        self._sources = Sources(desired, pool.metadata.namespace, pool.metadata.name)
        self._artifacts: dict[str, Artifact] = {}
        self._compiling: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._compilers = asyncio.Semaphore(1)
        self._settings: str | None = None
        self._judged: dict[ClaimKey, tuple[str, str]] = {}
        self._machine = cpu_features()

    def artifact(self, key: str) -> Artifact | None:
        """Known compiled code."""
        return self._artifacts.get(key)

    def release(self, claim: ClaimKey) -> list[str]:
        """The claim starts nothing any more. Gives the keys of artifacts that nobody uses now; they are closed."""
        self._judged.pop(claim, None)
        unused: list[str] = []
        for key, artifact in list(self._artifacts.items()):
            artifact.users.discard(claim)
            if not artifact.users:
                os.close(artifact.fd)
                del self._artifacts[key]
                unused.append(key)
        return unused

    def discard(self, key: str) -> None:
        """Compiled code that a worker could not load: it is made anew."""
        self._store.drop_compiled(key)
        artifact = self._artifacts.pop(key, None)
        if artifact is not None:
            os.close(artifact.fd)

    def close(self) -> None:
        """Idempotent."""
        for artifact in self._artifacts.values():
            os.close(artifact.fd)
        self._artifacts.clear()

    async def inspect(self, claim: Claim) -> Finding:
        """The module as it is now, and the verdict. Raises NotNowError, NeverError."""
        revision = await self._revision(claim)
        data = await self._fetch(revision)
        finding = await self._examine(claim, data, revision)
        if finding.admitted:
            await self._keep(self._store.keep_module, data)
        return finding

    async def prepare(
        self, claim: Claim, backing: Backing | None, on_step: Callable[[Step], None]
    ) -> tuple[Prepared, Finding]:
        """Everything for a Start. `backing`: the region's, where it is a fallback. Raises NotNowError, NeverError."""
        revision = await self._revision(claim)
        data = await self._pinned(revision)
        finding = await self._examine(claim, data, revision)
        if not finding.admitted:
            raise NeverError(Refusal(finding.reason), finding.message, finding)
        try:
            environment = await self._sources.environment(revision)
        except PullFailedError as error:
            raise NotNowError(Step.PULLING, Waiting.MODULE_PULL_FAILED, error.message) from error
        command = revision.run.command
        assert command is not None, "refuse_unsupported has seen to it"  # noqa: S101
        args = (revision.workload_name, *command.args)
        taken, allowed = start_fits(args, environment)
        if taken > allowed:
            raise NeverError(
                Refusal.UNSUPPORTED_FEATURE,
                f"run.command: args and env take {taken} bytes, encoded as JSON; {allowed} are allowed",
                finding,
            )
        on_step(Step.COMPILING)
        artifact = await self._compiled(revision.digest, data, backing)
        artifact.users.add(claim.key)
        prepared = Prepared(
            revision=revision,
            artifact=artifact.key,
            args=args,
            env=environment,
            entrypoint=command.entrypoint,
            deadline_seconds=float(command.deadline) if command.deadline is not None else None,
            memory_pages=revision.limits.memory_pages,
        )
        return prepared, finding

    async def _revision(self, claim: Claim) -> Revision:
        name = claim.assignment.revision
        try:
            revision = await self._desired.revision(name)
        except AbsentError as error:
            raise NotNowError(
                Step.PULLING, Waiting.MODULE_PULL_FAILED, f"there is no ControllerRevision {name}"
            ) from error
        except PortError as error:
            raise NotNowError(
                Step.PULLING, Waiting.MODULE_PULL_FAILED, f"ControllerRevision {name}: {error}"
            ) from error
        except FieldError as error:
            raise NeverError(Refusal.AGENT_TOO_OLD, f"ControllerRevision {name} can't be read: {error}") from error
        if revision.workload_uid != claim.assignment.uid:
            # Names are hashes, which somebody may have made equal: a workload never runs as another one.
            raise NeverError(
                Refusal.MODULE_INVALID,
                f"ControllerRevision {name} is of the workload with uid {revision.workload_uid}, "
                f"{claim.assignment.uid} is assigned",
            )
        try:
            refuse_unsupported(revision)
        except PullFailedError as error:
            raise NeverError(Refusal.UNSUPPORTED_FEATURE, error.message) from error
        return revision

    async def _fetch(self, revision: Revision) -> bytes:
        try:
            data = await self._sources.module(revision)
        except PullFailedError as error:
            raise NotNowError(Step.PULLING, Waiting.MODULE_PULL_FAILED, error.message) from error
        if len(data) > MODULE_MOST_BYTES:
            raise NotNowError(
                Step.PULLING,
                Waiting.MODULE_PULL_FAILED,
                f"module: {len(data)} bytes are given, {MODULE_MOST_BYTES} are allowed",
            )
        return data

    async def _pinned(self, revision: Revision) -> bytes:
        if not revision.digest:
            raise NeverError(Refusal.MODULE_INVALID, f"revision {revision.name} pins no digest, so it can't be run")
        try:
            kept = await asyncio.to_thread(self._store.module, revision.digest)
        except OSError as error:
            log.warning("the cache can't be read: %s", error)
            kept = None
        if kept is not None:
            return kept
        data = await self._fetch(revision)
        found = digest_of(data)
        if found != revision.digest:
            source = revision.module.config_map
            where = f"ConfigMap {revision.workload_namespace}/{source.name}, key {source.key}" if source else "module"
            raise NotNowError(
                Step.PULLING,
                Waiting.MODULE_PULL_FAILED,
                f"{where} has another module than this revision pins: {found} is there, {revision.digest} is wanted",
            )
        await self._keep(self._store.keep_module, data)
        return data

    async def _examine(self, claim: Claim, data: bytes, revision: Revision) -> Finding:
        entrypoint = revision.run.command.entrypoint if revision.run.command is not None else "_start"
        finding = await asyncio.to_thread(examine, data, self._pool, revision.limits, entrypoint)
        # A module that is refused is looked at again and again; its verdict counts once.
        verdict = (digest_of(data), finding.message)
        if self._judged.get(claim.key) != verdict:
            self._judged[claim.key] = verdict
            self._metrics.judged(admitted=finding.admitted, reason=finding.reason)
        return finding

    async def _compiled(self, digest: str, data: bytes, backing: Backing | None) -> Artifact:
        try:
            if self._settings is None:
                self._settings = await engine_settings(self._pool_file, backing=backing or "")
            key = compiled_key(digest, self._settings, self._machine)
            async with self._compiling[key]:
                known = self._artifacts.get(key)
                if known is None:
                    known = await self._load_or_compile(key, digest, data, backing)
                    self._artifacts[key] = known
                return known
        except CompileFailed as error:
            if error.reason.permanent:
                refusal = (
                    Refusal.MODULE_INVALID
                    if error.reason is CompileReason.MODULE_INVALID
                    else Refusal.UNSUPPORTED_FEATURE
                )
                raise NeverError(refusal, error.message) from error
            raise NotNowError(
                Step.COMPILING, Waiting.COMPILE_FAILED, f"{error.reason.value}: {error.message}"
            ) from error
        except OSError as error:
            raise NotNowError(Step.COMPILING, Waiting.COMPILE_FAILED, f"{error}") from error

    async def _load_or_compile(self, key: str, digest: str, data: bytes, backing: Backing | None) -> Artifact:
        code = await asyncio.to_thread(self._store.compiled, key)
        if code is not None:
            sealed = await asyncio.to_thread(sealed_copy, code)
            return Artifact(key, digest, sealed.fd, sealed.size, sealed.sha256)
        async with self._compilers:
            compiled = await compile_module(data, self._pool_file, backing=backing or "")
        self._metrics.compiled(compiled.seconds)
        try:
            await self._keep(self._keep_compiled, key, compiled.fd, compiled.size)
        except BaseException:
            compiled.close()
            raise
        return Artifact(key, digest, compiled.fd, compiled.size, compiled.sha256)

    async def _keep(self, keep: Callable[P, object], *arguments: P.args, **named: P.kwargs) -> None:
        """On disk, in a thread, with room made for it. A cache that can't be written is none, and no more than that."""
        try:
            await asyncio.to_thread(keep, *arguments, **named)
            digests = frozenset(it.digest for it in self._artifacts.values())
            await asyncio.to_thread(self._store.prune, digests, frozenset(self._artifacts))
        except OSError as error:
            log.warning("the cache can't be written: %s", error)

    def _keep_compiled(self, key: str, fd: int, size: int) -> None:
        self._store.keep_compiled(key, os.pread(fd, size, 0))
