"""A workload that one node's agent won't run, and others do, on a real API server, with the test playing the agents.

Covers: only that node loses its slots; runs that are counted go on elsewhere; what all nodes refuse is refused.
"""

import pytest

from tests.operator.stage import Stage
from tests.operator.test_workloads import ready, ready_pool, status

pytestmark = pytest.mark.cluster

REASONS = ["AgentTooOld", "ExceedsModuleLimits", "UnsupportedFeature", "ModuleInvalid"]


@pytest.mark.parametrize("reason", REASONS)
def test_a_node_that_refuses_takes_no_slot_from_those_that_run_it(stage: Stage, reason: str) -> None:
    first, second = ready_pool(stage, nodes=2)
    stage.workload("app", instances=3)
    stage.play(lambda: ready(stage, "app"))
    kept = second.slots_of("app")
    assert kept
    first.refusals["app"] = (reason, "not here")

    def moved() -> bool:
        assert second.slots_of("app") >= kept, "nothing was taken where it runs"
        return second.slots_of("app") == 3

    stage.play(moved)
    stage.play(lambda: first.slots_of("app") == 0 and ready(stage, "app"))
    admitted = stage.workload_condition("Admitted", "app")
    assert admitted["status"] == "True"
    assert admitted["message"] == f"within the limits of pool web; not on node {first.node}: {reason}: not here"
    for _ in range(3):
        first.obey()
        assert first.slots_of("app") == 0, "it goes on saying so, and is not asked again"

    second.refusals["app"] = (reason, "nor here")
    stage.play(lambda: stage.workload_condition("Admitted", "app").get("status") == "False")
    stage.play(lambda: second.slots_of("app") == 0)


def test_indexes_of_a_node_that_refuses_go_out_again_elsewhere(stage: Stage) -> None:
    first, second = ready_pool(stage, nodes=2)
    second.states["job"] = {"state": "Running"}
    stage.workload("job", instances=4, command={"restartPolicy": "Never"})
    stage.play(lambda: first.slots_of("job") and second.slots_of("job"))
    first.refusals["job"] = ("AgentTooOld", "not here")
    stage.play(lambda: first.slots_of("job") == 0 and second.slots_of("job") == 4)
    (assignment,) = [it for it in second.assignments() if it["slots"]]
    assert assignment["indexes"] == "0-3"
    assert status(stage, "job").get("completions", "") == ""
