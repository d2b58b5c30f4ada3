"""From an assignment to something that can be started: revision, module, verdict, compiled code, environment."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from wasmpool_agent.compiler import CompileFailed, CompileReason, memfd, seal
from wasmpool_agent.egress import allowed_hosts
from wasmpool_agent.files import FILES_MOST_BYTES, pack_files
from wasmpool_agent.metrics import Metrics
from wasmpool_agent.modules.cache import Cache
from wasmpool_agent.modules.fetching import Modules
from wasmpool_agent.modules.inspecting import Finding, Use, examine
from wasmpool_agent.modules.sources import PullFailedError, Sources, refuse_unsupported
from wasmpool_agent.protocol import ArtifactKind, start_fits
from wasmpool_agent.store_limits import StoreLimits
from wasmpool_agent.supervisor.artifacts import Artifact, Artifacts
from wasmpool_agent.supervisor.claims import Claim, Prepared, Step
from wasmpool_agent.supervisor.pod_memory import UNLIMITED, PodMemory
from wasmpool_agent.supervisor.ports import AbsentError, DesiredState, PortError
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.threads import in_thread
from wasmpool_api.admission import SLOT_FIELDS, slot_fields_of
from wasmpool_api.codec import FieldError
from wasmpool_api.instance_pool import Admission, Backing, InstancePool
from wasmpool_api.instance_pool_node import NodeAdmission
from wasmpool_api.limits import ComponentLimits, ModuleLimits
from wasmpool_api.reasons import Refusal, Waiting
from wasmpool_api.revisions import Revision
from wasmpool_api.wasm_workload import ComponentHost

_HOSTS: Final = {
    ArtifactKind.COMPONENT: ComponentHost.CANONICAL_ABI,
    ArtifactKind.COMPONENT_API: ComponentHost.COMPONENT_API,
}

L = TypeVar("L", ModuleLimits, ComponentLimits)

OnStep = Callable[[Step, str], None]
"""Where the preparation stands, and what it waits for."""


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


class Preparer:
    """Owns the compiled code."""

    def __init__(
        self,
        *,
        desired: DesiredState,
        pool: InstancePool,
        pool_file: Path,
        sources: Sources,
        modules: Modules,
        cache: Cache,
        metrics: Metrics,
        memory: PodMemory = UNLIMITED,
    ) -> None:
        self._desired = desired
        self._own_pool = self._pool = pool
        self._limits = 0
        """A number for the limits in `_pool`. Invariant: no verdict leaves here that was made by others."""
        self._sources = sources
        self._modules = modules
        self._metrics = metrics
        self._memory = memory
        self._artifacts = Artifacts(pool_file, cache, metrics, memory.compile_bytes)
        self._judged: dict[ClaimKey, tuple[str, str]] = {}
        self._files: dict[ClaimKey, int] = {}

    def judge_by(self, admission: NodeAdmission | None) -> bool:
        """The limits that hold from now on. Gives whether they are others than before."""
        before, self._pool = self._pool, in_force(self._own_pool, admission)
        if self._pool == before:
            return False
        self._limits += 1
        return True

    def artifact(self, key: str) -> Artifact | None:
        """Known compiled code."""
        return self._artifacts.get(key)

    def release(self, claim: ClaimKey) -> list[str]:
        """The claim starts nothing any more. Gives the keys of artifacts that nobody uses now; they are closed."""
        self._judged.pop(claim, None)
        files = self._files.pop(claim, None)
        if files is not None:
            os.close(files)
        return self._artifacts.release(claim)

    def discard(self, key: str) -> None:
        """Compiled code that a worker could not load: it is made anew."""
        self._artifacts.discard(key)

    def close(self) -> None:
        """Idempotent."""
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        self._artifacts.close()

    async def inspect(self, claim: Claim) -> Finding:
        """The module as it is now, and the verdict. Raises NotNowError, NeverError."""
        revision = await self._revision(claim)
        claim.from_registry = revision.module.image is not None
        try:
            async with self._modules.newest(revision) as fetched:
                while True:
                    finding = await self._examine(claim, fetched.data, revision, fetched.image)
                    limits = self._limits  # which the verdict is by
                    if finding.admitted and not fetched.image:
                        await self._modules.keep(revision, fetched.data)
                    if limits == self._limits:
                        return finding
        except PullFailedError as error:
            raise _not_fetched(error) from error

    async def prepare(self, claim: Claim, backing: Backing | None, on_step: OnStep) -> tuple[Prepared, Finding]:
        """Everything for a Start. `backing`: the region's, where it is a fallback. Raises NotNowError, NeverError."""
        revision = await self._revision(claim)
        if not revision.digest:
            raise NeverError(Refusal.MODULE_INVALID, f"revision {revision.name} pins no digest, so it can't be run")
        command, http = revision.run.command, revision.run.http
        args = (revision.workload_name, *(command.args if command is not None else ()))
        while True:
            limits = self._limits
            finding = await self._judge(claim, revision)
            environment = await self._environment(revision)
            hosts = allowed_hosts(http.allowed_hosts, self._own_pool.spec.egress.allowed_hosts) if http else ()
            taken, allowed = start_fits(args, environment, hosts)
            if taken > allowed:
                raise NeverError(
                    Refusal.UNSUPPORTED_FEATURE,
                    f"run: args, env and allowedHosts take {taken} bytes, encoded as JSON; {allowed} are allowed",
                    finding,
                )
            await self._files_of(claim, revision)
            artifact = await self._compiled(claim, revision, backing, on_step)
            if limits == self._limits:
                break
        spec = self._pool.spec
        component = finding.module.component if finding.module is not None else None
        deadline = (http.deadline or spec.runtime.request_deadline) if http else command.deadline if command else None
        prepared = Prepared(
            revision=revision,
            artifact=artifact.key,
            args=args,
            env=environment,
            entrypoint=command.entrypoint if command is not None else "",
            deadline_seconds=float(deadline) if deadline is not None else None,
            limits=StoreLimits.of(spec, revision.limits.memory_pages, component),
            queue_seconds=float(self._own_pool.spec.http.queue_timeout) if http is not None else None,
            allowed_hosts=hosts,
            files=self._files.get(claim.key),
            component_host=_HOSTS.get(artifact.kind),
        )
        return prepared, finding

    async def _files_of(self, claim: Claim, revision: Revision) -> None:
        """In a sealed memfd of the claim's, for as long as it lives; none where it wants no files."""
        try:
            mounts = await self._sources.files(revision)
        except PullFailedError as error:
            raise _not_fetched(error) from error
        if not mounts:
            return
        size = sum(len(content) for files in mounts.values() for content in files.values())
        if size > FILES_MOST_BYTES:
            raise NeverError(
                Refusal.UNSUPPORTED_FEATURE, f"run: files have {size} bytes together, {FILES_MOST_BYTES} are allowed"
            )

        def made() -> int:
            fd = memfd("wasmpool-files", pack_files(mounts))
            return seal(fd).fd

        fd = await in_thread(made, os.close)
        before = self._files.pop(claim.key, None)
        if before is not None:
            os.close(before)
        self._files[claim.key] = fd

    async def _judge(self, claim: Claim, revision: Revision) -> Finding:
        """Of the pinned module, which is in memory only in here. Raises NeverError where it is refused."""
        try:
            async with self._modules.pinned(revision) as data:
                finding = await self._examine(claim, data, revision, revision.image)
        except PullFailedError as error:
            raise _not_fetched(error) from error
        if not finding.admitted:
            raise NeverError(Refusal(finding.reason), finding.message, finding)
        return finding

    async def _environment(self, revision: Revision) -> tuple[tuple[str, str], ...]:
        try:
            return await self._sources.environment(revision)
        except PullFailedError as error:
            raise _not_fetched(error) from error

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

    async def _examine(self, claim: Claim, data: bytes, revision: Revision, image: str) -> Finding:
        entrypoint = revision.run.command.entrypoint if revision.run.command is not None else "_start"
        use = Use.HTTP if revision.run.http is not None else Use.COMMAND
        while True:
            limits, began = self._limits, time.perf_counter()
            finding = await asyncio.to_thread(examine, data, self._pool, revision.limits, entrypoint, use)
            self._metrics.inspected(time.perf_counter() - began)
            if limits == self._limits:
                break
        if finding.module is not None and image:
            finding = finding.found_in(image)
        # A module that is refused is looked at again and again; its verdict counts once.
        verdict = (finding.module.digest if finding.module is not None else "", finding.message)
        if self._judged.get(claim.key) != verdict:
            self._judged[claim.key] = verdict
            self._metrics.judged(finding.result, finding.reason)
        return finding

    async def _compiled(self, claim: Claim, revision: Revision, backing: Backing | None, on_step: OnStep) -> Artifact:
        def on_wait(before: int) -> None:
            on_step(Step.COMPILING, f"waits for the compiler; modules before it: {before}" if before else "")

        on_wait(0)
        try:
            return await self._artifacts.obtain(
                claim.key, revision.digest, lambda: self._modules.opened(revision), backing, on_wait
            )
        except PullFailedError as error:
            raise _not_fetched(error) from error
        except CompileFailed as error:
            if error.reason.permanent:
                refusal = (
                    Refusal.MODULE_INVALID
                    if error.reason is CompileReason.MODULE_INVALID
                    else Refusal.UNSUPPORTED_FEATURE
                )
                raise NeverError(refusal, error.message) from error
            hint = self._memory.hint if error.reason is CompileReason.MEMORY_LIMIT else ""
            message = f"{error.reason.value}: {error.message}{'; ' if hint else ''}{hint}"
            raise NotNowError(Step.COMPILING, Waiting.COMPILE_FAILED, message) from error
        except OSError as error:
            raise NotNowError(Step.COMPILING, Waiting.COMPILE_FAILED, f"{error}") from error


def in_force(pool: InstancePool, admission: NodeAdmission | None) -> InstancePool:
    """The agent's own pool with the limits that its InstancePoolNode has.

    What the region was cut for stays: a larger memory fits only once the agent is replaced.
    """
    if admission is None:
        return pool
    own, fields = pool.spec, slot_fields_of(pool.spec)
    module_limits = _within(admission.module_limits, own.module_limits, fields)
    # Wasmtime's own pool sets memory aside for components as well; a slot does not care which module a memory is of.
    sums = fields if fields > SLOT_FIELDS else frozenset[str]()
    component_limits = _within(admission.component_limits, own.component_limits, sums)
    spec = msgspec.structs.replace(
        pool.spec,
        admission=Admission(mode=admission.mode),
        module_limits=module_limits,
        component_limits=component_limits,
    )
    return msgspec.structs.replace(pool, spec=spec)


def _within(limits: L, own: L, fields: frozenset[str]) -> L:
    """No more than its own in the fields that memory was set aside for."""
    lowered = {
        field.name: min(getattr(limits, field.name), getattr(own, field.name))
        for field in msgspec.structs.fields(type(limits))
        if field.encode_name in fields
    }
    return msgspec.structs.replace(limits, **lowered)


def _not_fetched(error: PullFailedError) -> NotNowError | NeverError:
    if isinstance(error.reason, Refusal):
        return NeverError(error.reason, error.message)
    return NotNowError(Step.PULLING, error.reason, error.message)
