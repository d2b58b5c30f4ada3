"""Claims in line with the assignments: made, prepared in tasks of their own, and let go."""

import asyncio
import logging
from functools import partial
from typing import Final

from wasmpool_agent.protocol import LoadReason, ModuleFailed
from wasmpool_agent.supervisor.backoff import PULLS, REGISTRY_LOOKS
from wasmpool_agent.supervisor.claims import Claim, Service, Step
from wasmpool_agent.supervisor.journal import Journal
from wasmpool_agent.supervisor.preparing import NeverError, NotNowError, Preparer
from wasmpool_agent.supervisor.promises import ClaimKey, accept, key_of
from wasmpool_agent.supervisor.resuming import resumed
from wasmpool_agent.supervisor.state import State
from wasmpool_api.instance_pool_node import Assignment
from wasmpool_api.reasons import Refusal, Waiting

_LOOKED: Final = frozenset({Step.REFUSED, Step.INSPECTED})
LOOK_SECONDS: Final = 5.0
LOOKS_PER_SECOND: Final = 10.0
"""A refused module is read anew so often, for somebody may be mending it; all of them together not more often."""

log = logging.getLogger(__name__)


class Claiming:
    """Owns the claims and their tasks; what happens to a claim that is prepared is the dispatcher's."""

    def __init__(self, state: State, preparer: Preparer, journal: Journal) -> None:
        self._state = state
        self._preparer = preparer
        self._journal = journal
        self._tasks: dict[ClaimKey, asyncio.Task[None]] = {}
        self._last_workload_id = 0

    def take_over(self, assignments: tuple[Assignment, ...]) -> None:
        """Claims as the assignments are; those without one end."""
        claims = self._state.claims
        wanted = {key_of(it): it for it in assignments}
        for key, assignment in wanted.items():
            claim = claims.get(key)
            if claim is None or claim.assignment.inspect != assignment.inspect:
                if claim is not None and claim.held:
                    continue  # its instances end first
                self._forget(key)
                self._last_workload_id += 1
                claims[key] = Claim(assignment, workload_id=self._last_workload_id)
            else:
                claim.assignment, claim.assigned = assignment, True
        for key, claim in claims.items():
            claim.assigned = key in wanted
        before = {key: claim.accepted for key, claim in claims.items()}
        held = {key: claim.used for key, claim in claims.items() if claim.used}
        accepted = accept(wanted.values(), self._state.allocatable(), before, held)
        for key, claim in claims.items():
            claim.accepted = accepted.get(key, 0) if claim.assigned else 0
            if claim.runs is not None:
                claim.runs.assign(claim.accepted, claim.indexes if claim.assigned else frozenset())

    def prepare(self, group: asyncio.TaskGroup) -> None:
        """Starts what is not prepared yet, and is not being prepared."""
        for key, claim in self._state.claims.items():
            if not claim.assigned or claim.prepared is not None or claim.step is Step.REFUSED or _inspected(claim):
                continue
            task = self._tasks.get(key)
            if task is None or task.done():
                self._tasks[key] = group.create_task(self._prepare(claim), name=f"prepare-{claim.label}")

    def judge_again(self) -> None:
        """The limits have changed: what was refused may be admitted now, and what was only inspected be refused."""
        for key, claim in self._state.claims.items():
            if claim.step in _LOOKED:
                task = self._tasks.pop(key, None)
                if task is not None:
                    task.cancel()
                claim.step, claim.reason, claim.message = Step.WAITING, "", ""

    def let_go(self) -> None:
        """Of claims that are neither assigned nor hold a slot."""
        for key in [key for key, claim in self._state.claims.items() if not claim.assigned and not claim.held]:
            # NB: the journal stays, for the same claim may come back, and what it has begun must not begin again.
            self._forget(key)

    def module_failed(self, failed: ModuleFailed) -> None:
        """A worker could not load what was compiled: compiled anew, or refused."""
        if failed.reason is not LoadReason.UNSUPPORTED_IMPORT:
            self._preparer.discard(failed.key)
        for claim in self._state.claims.values():
            if claim.prepared is None or claim.prepared.artifact != failed.key:
                continue
            claim.prepared = None
            if failed.reason is LoadReason.UNSUPPORTED_IMPORT:
                claim.step, claim.reason, claim.message = Step.REFUSED, Refusal.UNSUPPORTED_FEATURE, failed.message
            else:
                claim.load_failures += 1
                claim.step, claim.reason, claim.message = Step.COMPILING, Waiting.COMPILE_FAILED, failed.message
        self._state.changed()

    def cancel(self) -> None:
        """No claim is prepared any more."""
        for task in self._tasks.values():
            task.cancel()

    def _forget(self, key: ClaimKey) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
        if self._state.claims.pop(key, None) is not None:
            for unused in self._preparer.release(key):
                if self._state.workers is not None:
                    self._state.workers.drop(unused)

    async def _prepare(self, claim: Claim) -> None:
        """Until the claim is inspected, prepared, or can't be. What is broken may be mended, so it is tried again."""
        failures = 0
        await asyncio.sleep(PULLS.seconds(claim.load_failures))
        while True:
            if claim.step not in _LOOKED:
                claim.step = Step.PULLING
            try:
                if claim.assignment.inspect:
                    if await self._inspect(claim) and not self._refused_beside(claim):
                        return
                else:
                    await self._make_ready(claim)
                    return
            except NotNowError as error:
                claim.step, claim.reason, claim.message = error.step, error.reason, error.message
            except NeverError as error:
                claim.step, claim.reason, claim.message = Step.REFUSED, error.reason, error.message
                if error.finding is not None:
                    claim.module = error.finding.module
                if not claim.assignment.inspect:
                    self._state.changed()
                    return
            except Exception as error:  # a bug that one tenant's module finds must not end everybody's agent
                log.exception("%s could not be prepared", claim.label)
                claim.step, claim.reason = Step.PULLING, Waiting.MODULE_PULL_FAILED
                claim.message = f"the agent failed to prepare it, which is its own fault: {error!r}"
            self._state.changed()
            failures += 1
            looked = claim.step in _LOOKED
            await asyncio.sleep(self._look_seconds(claim, failures) if looked else PULLS.seconds(failures))

    def _refused_beside(self, claim: Claim) -> bool:
        """Whether this node can't run what was pinned of the same workload: another module is waited for."""
        uid = claim.assignment.uid
        return any(it.step is Step.REFUSED and it.assignment.uid == uid for it in self._state.claims.values())

    def _look_seconds(self, claim: Claim, failures: int) -> float:
        if claim.from_registry:
            return REGISTRY_LOOKS.seconds(failures)
        refused = sum(it.step is Step.REFUSED for it in self._state.claims.values())
        return max(LOOK_SECONDS, refused / LOOKS_PER_SECOND)

    async def _inspect(self, claim: Claim) -> bool:
        """False where the module is refused, and looked at again later."""
        finding = await self._preparer.inspect(claim)
        claim.module = finding.module
        claim.step = Step.INSPECTED if finding.admitted else Step.REFUSED
        claim.reason = "" if finding.admitted else finding.reason
        claim.message = "" if finding.admitted else finding.message
        self._state.changed()
        return finding.admitted

    async def _make_ready(self, claim: Claim) -> None:
        state = self._state
        if not state.reserved.is_set():
            claim.step = Step.WAITING
            state.changed()
            await state.reserved.wait()
        memory = state.memory
        assert memory is not None, "set before `reserved` is"  # noqa: S101

        def on_step(step: Step, message: str) -> None:
            claim.step, claim.reason, claim.message = step, "", message
            state.changed()

        prepared, finding = await self._preparer.prepare(claim, memory.fallback, on_step)
        claim.module = finding.module
        command = prepared.revision.run.command
        if command is None:
            claim.service = claim.service or Service(partial(memory.table.used_by, claim.workload_id))
        elif claim.runs is None:
            claim.runs = resumed(claim, command, state, self._journal)
        claim.prepared = prepared
        claim.step, claim.reason, claim.message = Step.PREPARED, "", ""
        state.changed()


def _inspected(claim: Claim) -> bool:
    return claim.assignment.inspect and claim.step is Step.INSPECTED
