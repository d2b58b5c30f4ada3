"""Every PromQL expression that the chart ships: of panels, of dashboard variables, of alerts.

Used by the chart's own tests and by the end-to-end tests, which ask them of a Prometheus that scraped a real operator
and real agents:

    problems = unanswered(server, every_query())
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tests.chart.kube import CHART
from tests.chart.prometheus import Prometheus, QueryError

ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARDS = CHART / "dashboards"

# What Grafana would put in: all namespaces and pools, and a window of a few scrapes.
VARIABLES = {"$namespace": ".*", "$pool": ".*", "$__rate_interval": "30s"}
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), *(?P<label>\w+)\)")
SELECTOR = re.compile(r"\bwasmpool_\w+(?:\{[^}]*\})?")


@dataclass(frozen=True)
class Query:
    """An expression without variables, and where it is from. An alert's is empty while all is well."""

    where: str
    expr: str
    alert: bool = False

    def selectors(self) -> list[str]:
        """The series that it reads."""
        return sorted(set(SELECTOR.findall(self.expr)))


def every_query() -> list[Query]:
    """Of all dashboards and all alerts."""
    return [*dashboard_queries(), *alert_queries()]


def dashboard_queries() -> Iterator[Query]:
    """Panels in any depth of rows, and template variables."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                yield Query(f"{path.name}, variable {variable['name']}", of_variable(variable["query"]))
        for panel in panels(board["panels"]):
            for target in panel.get("targets") or ():
                yield Query(f"{path.name}, panel {panel['title']!r} {target['refId']}", interpolate(target["expr"]))


def panels(of: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """All of them, those inside of rows too."""
    for panel in of:
        yield panel
        yield from panels(panel.get("panels") or ())


def alert_queries() -> Iterator[Query]:
    """The expressions of the rules."""
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield Query(f"alert {rule['alert']}", rule["expr"], alert=True)


def interpolate(expr: str) -> str:
    """With the variables' values put in, the longest name first."""
    for name in sorted(VARIABLES, key=len, reverse=True):
        expr = expr.replace(name, VARIABLES[name])
    assert "$" not in expr, f"a variable without a value: {expr}"
    return expr


def of_variable(query: str) -> str:
    """Grafana's label_values(selector, label), as PromQL."""
    parts = LABEL_VALUES.fullmatch(query)
    assert parts, f"only label_values(selector, label) is known: {query}"
    return f"count by ({parts['label']}) ({interpolate(parts['selector'])})"


def unanswered(server: Prometheus, queries: Sequence[Query]) -> list[str]:
    """What is wrong with each query that Prometheus refuses, that gives no data, or that reads a series not there.

    An alert may give no data; but each series that it reads must be there.
    """
    problems: list[str] = []
    for query in queries:
        try:
            result, *read = server.queries([query.expr, *query.selectors()])
        except QueryError as refusal:
            problems.append(f"{query.where}: {refusal}")
            continue
        missing = [selector for selector, found in zip(query.selectors(), read, strict=True) if not found]
        if missing:
            problems.append(f"{query.where}: no series {', '.join(missing)}")
        elif not result and not query.alert:
            problems.append(f"{query.where}: no data for {query.expr}")
    return problems
