"""The few kinds of panel that the dashboards are made of, on top of grafana-foundation-sdk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig as Thresholds
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models.dashboard import DataSourceRef, DataTransformerConfig, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
GREEN, RED = "green", "red"
# Grafana's grid has 24 columns.
WIDTH = 24
STAT_HEIGHT, GRAPH_HEIGHT, TABLE_HEIGHT = 4, 8, 8


@dataclass(frozen=True)
class Query:
    """PromQL and the legend of what it returns (`{{label}}`)."""

    expr: str
    legend: str = ""


def to_json(board: Dashboard) -> str:
    """The dashboard as Grafana imports it; the same bytes for the same dashboard."""
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def number(
    title: str, description: str, query: Query, unit: str = "short", bad_from: float | None = None
) -> stat.Panel:
    """One figure; red from `bad_from` up."""
    steps = [Threshold(value=None, color=GREEN)]
    if bad_from is not None:
        steps.append(Threshold(value=bad_from, color=RED))
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .span(WIDTH // 6)
        .height(STAT_HEIGHT)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(Thresholds().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    )
    return panel.with_target(target(query, "A", instant=True))


def graph(
    title: str, description: str, queries: Sequence[Query], unit: str = "short", stacked: bool = False
) -> timeseries.Panel:
    """Lines over time, a third of the width, stacked where the parts make a whole."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .span(WIDTH // 3)
        .height(GRAPH_HEIGHT)
        .line_width(1)
        .fill_opacity(30 if stacked else 5)
        .tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(models.StackingMode.NORMAL))
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(target(query, letter))
    return panel


def rows(
    title: str, description: str, columns: Mapping[str, str], hidden: Sequence[str] = (), span: int = WIDTH
) -> table.Panel:
    """A table of one line per set of labels; `columns` maps a heading to the PromQL of its figures."""
    panel = table.Panel().title(title).description(description).datasource(DATASOURCE).span(span).height(TABLE_HEIGHT)
    names = dict(zip((f"Value #{letter}" for letter in "ABCDEFGH"), columns, strict=False))
    for letter, expr in zip("ABCDEFGH", columns.values(), strict=False):
        panel = panel.with_target(target(Query(expr), letter, instant=True).format(PromQueryFormat.TABLE))
    return panel.with_transformation(DataTransformerConfig(id_val="merge", options={})).with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={"excludeByName": dict.fromkeys(["Time", *hidden], True), "renameByName": names},
        )
    )


def target(query: Query, letter: str, instant: bool = False) -> prometheus.Dataquery:
    """One query of a panel."""
    made = prometheus.Dataquery().datasource(DATASOURCE).ref_id(letter).expr(query.expr).legend_format(query.legend)
    return made.instant() if instant else made.range()
