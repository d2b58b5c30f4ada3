"""Workloads that answer requests: listeners, and which workers serve what.

A workload's listener is made here once, whatever its revisions, and outlives workers: what waits to be accepted when a
worker dies is accepted by the next. A workload lives in as many home workers as it may have instances, at most in all.
Where two revisions of it are assigned, both are served, and workers hand over to the newer once that one answers.
"""

import logging
import socket
from collections.abc import Iterable, Mapping
from typing import Final

from wasmpool_agent.protocol import (
    GiveWay,
    Result,
    Serve,
    ServeFailed,
    Serving,
    Starved,
    Trapped,
    Withdrawn,
)
from wasmpool_agent.supervisor.claims import Claim, Prepared, Step
from wasmpool_agent.supervisor.preparing import Preparer
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.supervisor.runs import Ended
from wasmpool_agent.supervisor.worker import Worker
from wasmpool_agent.supervisor.workers import Workers

BACKLOG: Final = 1024
LISTEN_RETRY_SECONDS: Final = 2.0
READY_MOST: Final = 8
"""Instances of one revision that one worker makes ahead."""

log = logging.getLogger(__name__)


class Services:
    """Owns the listeners, by workload uid. `host`: the address they are bound to; empty for all of the pod's."""

    def __init__(self, preparer: Preparer, host: str) -> None:
        self._preparer = preparer
        self._host = host
        self._listeners: dict[str, socket.socket] = {}

    def carry_out(
        self, claims: Mapping[ClaimKey, Claim], workers: Workers, *, grace_seconds: float, now: float
    ) -> float | None:
        """One round over all claims. Gives the time at which the next is due, if nothing happens before."""
        due: float | None = None
        for claim in claims.values():
            if claim.service is None:
                continue
            if claim.assigned and claim.prepared is not None and claim.step is Step.PREPARED:
                if not self._serve(claim, claim.prepared, claims.values(), workers):
                    due = now + LISTEN_RETRY_SECONDS
            elif not claim.assigned:
                workers.withdraw(claim.key, grace_seconds)
            homes = workers.homes(claim.key)
            claim.service.homes = len(homes)
            claim.service.answering = sum(home.answering for home in homes.values())
        self._close_unused(claims.values())
        return due

    def withdraw_all(self, claims: Iterable[Claim], workers: Workers, grace_seconds: float) -> None:
        """No request is taken any more; those that run have so long."""
        for claim in claims:
            if claim.service is not None:
                workers.withdraw(claim.key, grace_seconds)

    def close(self) -> None:
        """Idempotent."""
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def heard(
        self,
        message: Serving | ServeFailed | Trapped | Starved | Withdrawn,
        worker: Worker,
        claims: Mapping[ClaimKey, Claim],
        workers: Workers,
    ) -> None:
        """From a worker."""
        if isinstance(message, Starved):
            workers.tell_others(worker, message.site, GiveWay(site=message.site))
            return
        claim = claims.get(ClaimKey(message.site, message.revision))
        if isinstance(message, Trapped | ServeFailed) and claim is not None and claim.service is not None:
            ended = Ended(message.result, message=message.message)
            claim.service.failures += 1
            claim.service.last = ended
            log.info("%s: %s", claim.label, ended.describe(), extra={"backtrace": message.backtrace})
        elif isinstance(message, Serving) and claim is not None and claim.service is not None:
            last = claim.service.last
            if last is not None and last.result is Result.ERROR:  # of an instance that could not be made, and now can
                claim.service.last = None

    def _serve(self, claim: Claim, prepared: Prepared, claims: Iterable[Claim], workers: Workers) -> bool:
        """False where it can't be served now."""
        service = claim.service
        assert service is not None  # noqa: S101 - see carry_out
        artifact = self._preparer.artifact(prepared.artifact)
        if artifact is None:
            return True  # it is compiled anew
        try:
            listener = self._listener(claim)
        except OSError as error:
            service.blocked = f"port {claim.assignment.port} can't be listened on: {error.strerror or error}"
            log.warning("%s: %s", claim.label, service.blocked)
            return False
        service.blocked = ""
        most = claim.accepted + claim.assignment.burst
        serve = Serve(
            site=claim.assignment.uid,
            revision=claim.assignment.revision,
            workload_id=claim.workload_id,
            workload=claim.label,
            artifact=prepared.artifact,
            env=prepared.env,
            deadline_seconds=prepared.deadline_seconds or 0.0,
            queue_seconds=prepared.queue_seconds or 0.0,
            ready=min(READY_MOST, claim.accepted // max(1, min(most, workers.ready))),
            outdated=_outdated(claim, claims),
            limits=prepared.limits,
            allowed_hosts=prepared.allowed_hosts,
            files=prepared.files is not None,
        )
        fds = (listener.fileno(), *((prepared.files,) if prepared.files is not None else ()))
        workers.serve(claim.key, serve, artifact, fds, homes=max(1, most))
        return True

    def _listener(self, claim: Claim) -> socket.socket:
        found = self._listeners.get(claim.assignment.uid)
        if found is None:
            family = socket.AF_INET6 if not self._host and socket.has_dualstack_ipv6() else socket.AF_INET
            found = socket.create_server(
                (self._host, claim.assignment.port),
                family=family,
                backlog=BACKLOG,
                dualstack_ipv6=family is socket.AF_INET6,
            )
            found.setblocking(False)
            self._listeners[claim.assignment.uid] = found
            log.info("%s listens on port %d", claim.label, claim.assignment.port)
        return found

    def _close_unused(self, claims: Iterable[Claim]) -> None:
        used = {claim.assignment.uid for claim in claims if claim.service is not None}
        for uid in [uid for uid in self._listeners if uid not in used]:
            self._listeners.pop(uid).close()


def _outdated(claim: Claim, claims: Iterable[Claim]) -> bool:
    """Whether another revision of the workload is to take over: the operator says so, by the order of its wishes."""
    return claim.assignment.outdated and any(
        it.assigned and it.assignment.uid == claim.assignment.uid and not it.assignment.outdated for it in claims
    )
