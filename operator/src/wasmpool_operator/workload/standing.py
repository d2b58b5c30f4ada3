"""What is known of a workload once its slots are placed: what its status is made from. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from wasmpool_api.placement import Shortfall
from wasmpool_api.wasm_workload import Rollout
from wasmpool_operator.workload.assess import Assessment
from wasmpool_operator.workload.completions import Completions
from wasmpool_operator.workload.progress import rollout_of
from wasmpool_operator.workload.reports import Report, running_instances


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a workload after placement. `slots`: by revision and node, as the specs will have them.

    `address`: where its Service is, once there is one. `assigned`: revisions that nodes are told to run, with slots or
    without.
    """

    assessment: Assessment
    slots: Mapping[str, Mapping[str, int]]
    shortfall: Shortfall | None
    reports: tuple[Report, ...]
    completions: Completions | None
    address: str = ""
    assigned: frozenset[str] = frozenset()

    @property
    def older(self) -> frozenset[str]:
        """Revisions that the present one has still to replace."""
        return self.assigned - {self.assessment.revision.name}

    @property
    def serves(self) -> bool:
        """Whether it answers requests."""
        return self.assessment.workload.spec.run.http is not None

    @property
    def reserved(self) -> int:
        """Slots over all revisions and nodes."""
        return sum(sum(nodes.values()) for nodes in self.slots.values())

    @property
    def must_be_recorded(self) -> bool:
        """Whether the status will hold something that the agents forget once their assignment changes."""
        status = self.assessment.workload.status
        counted = self.completions is not None and self.completions.text != status.completions
        module, revision = self.assessment.module, self.assessment.revision
        inspected = module is not None and module != status.module
        return counted or inspected or (bool(revision.digest) and revision.name != status.updated_revision)


def rolling_out(standing: Standing, now: datetime) -> Rollout | None:
    """How far the present revision has come, while an older one is there and it may take over."""
    assessment = standing.assessment
    if assessment.refused:
        return None
    target = assessment.revision.name
    return rollout_of(
        assessment.workload,
        target,
        standing.older,
        reserved=sum(standing.slots.get(target, {}).values()),
        ready=running(standing, target),
        now=now,
    )


def running(standing: Standing, revision: str = "") -> int:
    """Instances that run; of one revision, or of all."""
    # NB: counted against what is reserved: an agent that has not yet seen a scale-down still reports the old number.
    total = 0
    for report in standing.reports:
        if report.current and revision in {"", report.entry.revision}:
            slots = standing.slots.get(report.entry.revision, {}).get(report.member.name, 0)
            total += min(slots, running_instances(report.entry, serves=standing.serves))
    return total
