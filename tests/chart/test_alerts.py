"""The alerts, by Prometheus' own promtool: they are valid, they fire when they should and not before, and each has its
section in docs/operations.md.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.kube import REPOSITORY, run
from tests.chart.prometheus import programs
from tests.chart.queries import ALERTS

# Needs promtool.
pytestmark = pytest.mark.cluster

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
CASES = Path(__file__).with_name("alerts_test.yaml")


def test_the_rules_are_valid() -> None:
    run([programs() / "promtool", "check", "rules", "--lint=all", "--lint-fatal", ALERTS]).require()


def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES.read_text().replace("RULES", str(ALERTS)))
    answer = run([programs() / "promtool", "test", "rules", cases])
    assert answer.code == 0, answer.out + answer.err


def test_each_alert_is_tested() -> None:
    fires = {
        case["alertname"]
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fires == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_how_bad_it_is_what_is_wrong_and_links_to_its_section(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (.+)$", (REPOSITORY / page).read_text(), re.MULTILINE)
    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower()


def test_each_section_of_the_runbook_is_of_an_alert() -> None:
    headings = re.findall(r"^## (Wasmpool.+)$", (REPOSITORY / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
