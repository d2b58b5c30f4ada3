"""Where an earlier process of this agent, or its predecessor on the node, has left a claim."""

import logging
from contextlib import suppress

from wasmpool_agent.protocol import Result
from wasmpool_agent.supervisor.claims import Claim, Step
from wasmpool_agent.supervisor.journal import Journal
from wasmpool_agent.supervisor.preparing import NotNowError
from wasmpool_agent.supervisor.promises import ClaimKey
from wasmpool_agent.supervisor.runs import Ended, Runs
from wasmpool_agent.supervisor.state import State
from wasmpool_api.indexes import IndexesError, parse_indexes
from wasmpool_api.instance_pool_node import NodeWorkload
from wasmpool_api.reasons import Waiting
from wasmpool_api.wasm_workload import Command, RestartPolicy

log = logging.getLogger(__name__)


def resumed(claim: Claim, command: Command, state: State, journal: Journal) -> Runs:
    """With the indexes that have ended, here or on the agent before. Raises NotNowError where nobody knows yet."""
    policy = command.restart_policy
    runs = Runs(policy, command.backoff_limit)
    if not runs.counted:
        return runs
    record = journal.read(claim.key)
    runs.completed |= record.completed
    runs.failed |= record.failed
    reported = _reported(claim, state)
    for entry in reported:
        with suppress(IndexesError):
            runs.completed |= parse_indexes(entry.completed)
            runs.failed |= parse_indexes(entry.failed)
    if policy is RestartPolicy.NEVER:
        if not state.confirmed:
            raise NotNowError(
                Step.WAITING,
                Waiting.NO_READY_NODES,
                "the API server has not been reached yet, so nobody knows what an earlier agent has begun",
            )
        lost = set(record.lost) - runs.completed - runs.failed
        if state.predecessor_gone and reported:
            # The agent before this one may have begun them: nobody can tell how far it came.
            lost |= claim.indexes - runs.completed - runs.failed
        for index in sorted(lost):
            journal.ended(claim.key, index, completed=False)
        if lost:
            log.warning("%s: indexes %s were begun by an agent that is gone: failed", claim.label, sorted(lost))
            runs.last, runs.last_position = Ended(Result.ERROR, lost=True), max(lost)
        runs.failed |= lost
    runs.failed -= runs.completed
    return runs


def _reported(claim: Claim, state: State) -> list[NodeWorkload]:
    found = state.found.workloads if state.found is not None else ()
    return [entry for entry in found if ClaimKey(entry.uid, entry.revision) == claim.key]
