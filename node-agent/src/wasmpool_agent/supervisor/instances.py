"""Starts and stops instances as their claims' runs say, and tells the runs what became of them."""

import logging
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

from wasmpool_agent.protocol import Exited, Result, Start, Started
from wasmpool_agent.supervisor.claims import Claim, Step
from wasmpool_agent.supervisor.journal import Journal
from wasmpool_agent.supervisor.preparing import Preparer
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.supervisor.runs import Ended
from wasmpool_agent.supervisor.workers import Workers
from wasmpool_api.wasm_workload import RestartPolicy

JOURNAL_RETRY_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class Dispatcher:
    """Invariant: an instance is in `_owners` from its Start until it has been reported as ended or lost, once."""

    def __init__(self, preparer: Preparer, journal: Journal, clock: Callable[[], float]) -> None:
        self._preparer = preparer
        self._journal = journal
        self._clock = clock
        self._owners: dict[int, Claim] = {}
        self._last_instance = 0

    def carry_out(
        self, claims: Iterable[Claim], workers: Workers, announced: Container[ClaimKey], now: float
    ) -> float | None:
        """One round over all claims. Gives the time at which the next is due, if nothing happens before.

        `announced`: claims in the status that was written last. A Never run begins only after its claim is there, so
        that whoever follows this agent can tell what it may have begun.
        """
        due: list[float] = []
        for claim in claims:
            if claim.step is not Step.PREPARED or claim.runs is None or claim.prepared is None:
                continue
            plan = claim.runs.plan(now)
            for instance in plan.stop:
                claim.runs.stopping(instance)
                workers.stop_instance(instance)
            if plan.start and (claim.runs.policy is not RestartPolicy.NEVER or claim.key in announced):
                retry_at = self._start(claim, plan.start, workers)
                if retry_at is not None:
                    due.append(retry_at)
            if plan.wake_at is not None:
                due.append(plan.wake_at)
        return min(due, default=None)

    def stop_all(self) -> None:
        """The workers have been told to end: what ends now was stopped."""
        for instance, claim in self._owners.items():
            if claim.runs is not None:
                claim.runs.stopping(instance)

    def started(self, started: Started) -> None:
        """From a worker."""
        claim = self._owners.get(started.instance)
        if claim is not None and claim.runs is not None:
            claim.runs.running_now(started.instance)

    def exited(self, exited: Exited) -> None:
        """From a worker."""
        if exited.backtrace:
            claim = self._owners.get(exited.instance)
            name = claim.label if claim is not None else "?"
            log.info("instance of %s: %s", name, exited.message, extra={"backtrace": exited.backtrace})
        self._ended(
            exited.instance,
            Ended(exited.result, exited.seconds, exited.exit_code, exited.message),
        )

    def lost(self, instances: Iterable[int]) -> None:
        """Their worker has died."""
        for instance in sorted(instances):
            self._ended(instance, Ended(Result.ERROR, lost=True))

    def _start(self, claim: Claim, positions: Sequence[int], workers: Workers) -> float | None:
        """As many as there are workers for now; the others' turn comes when a worker has loaded the module.

        Gives when to try again, where it was the journal that failed.
        """
        runs, prepared = claim.runs, claim.prepared
        assert runs is not None and prepared is not None  # noqa: PT018, S101 - see carry_out
        artifact = self._preparer.artifact(prepared.artifact)
        chosen = workers.choose(artifact, len(positions)) if artifact is not None else []
        if not chosen:
            return None
        starting = list(zip(positions, chosen, strict=False))
        if runs.policy is RestartPolicy.NEVER:
            try:
                self._journal.begun(claim.key, *(position for position, _ in starting))
            except OSError as error:
                # What can't be written down must not begin, for after a crash it would begin again.
                retry_at = self._clock() + JOURNAL_RETRY_SECONDS
                runs.put_off((position for position, _ in starting), retry_at)
                log.warning("%s is not started: its journal can't be written: %s", claim.label, error)
                return retry_at
        for position, worker in starting:
            self._last_instance += 1
            runs.begun(position, self._last_instance)
            self._owners[self._last_instance] = claim
            workers.start(
                worker,
                Start(
                    instance=self._last_instance,
                    workload_id=claim.workload_id,
                    workload=claim.label,
                    revision=claim.assignment.revision,
                    artifact=prepared.artifact,
                    index=position if runs.counted else None,
                    args=prepared.args,
                    env=prepared.env,
                    entrypoint=prepared.entrypoint,
                    deadline_seconds=prepared.deadline_seconds,
                    limits=prepared.limits,
                    files=prepared.files is not None,
                ),
                (prepared.files,) if prepared.files is not None else (),
            )
        return None

    def _ended(self, instance: int, ended: Ended) -> None:
        claim = self._owners.pop(instance, None)
        if claim is None or claim.runs is None:
            return
        runs = claim.runs
        position = runs.ended(instance, ended, self._clock())
        if position is not None and runs.counted and position in runs.completed | runs.failed:
            try:
                self._journal.ended(claim.key, position, completed=position in runs.completed)
            except OSError as error:
                log.warning("%s: the end of index %d can't be written down: %s", claim.label, position, error)
        if ended.result not in {Result.SUCCESS, Result.STOPPED, Result.NO_SLOT}:
            log.info("instance of %s ended: %s", claim.label, ended.describe())
