"""A dashboard of Grafana in its classic form (schema 36, which newer versions migrate)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries, xychart
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.xychart import SeriesMapping

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
# What a reader may choose, and where the choices come from.
_VARIABLES = {
    "job": "label_values(bitladder_build_info, job)",
    "model": "label_values(bitladder_live_workers, model)",
    "tier": 'label_values(bitladder_live_workers{model=~"$model"}, tier)',
}
Panel = Any  # the SDK's panels share no class


@dataclass(frozen=True)
class Board:
    """One dashboard: its rows, each with its panels."""

    name: str
    title: str
    about: str
    rows: dict[str, list[Panel]]

    def as_json(self) -> str:
        board = self._empty()
        numbers = iter(range(1, 1000))
        for title, panels in self.rows.items():
            board.with_row(dashboard.Row(title).id(next(numbers)))
            for panel in panels:
                board.with_panel(panel.id(next(numbers)))
        encoded: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
        encoded["id"] = None
        return json.dumps(encoded, indent=1, sort_keys=True) + "\n"

    def _empty(self) -> dashboard.Dashboard:
        links = dashboard.DashboardLink("bitladder").type(DashboardLinkType.DASHBOARDS).tags(["bitladder"])
        board = dashboard.Dashboard(f"bitladder: {self.title}").uid(f"bitladder-{self.name}").description(self.about)
        board.tags(["bitladder"]).tooltip(DashboardCursorSync.CROSSHAIR).time("now-1h", "now").refresh("10s")
        board.link(links.as_dropdown(True).include_vars(True).keep_time(True))
        board.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        for name, query in _VARIABLES.items():
            variable = dashboard.QueryVariable(name).label(name.capitalize()).query(query).datasource(_SOURCE)
            variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*")
            board.with_variable(variable)
        return board


def figure(title: str, query: str, about: str, unit: str = "short", empty: str = "No traffic") -> Panel:
    """Return a panel of one number."""
    panel = stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).span(4).height(4)
    return _described(panel, title, about, unit, empty).with_target(_target("A", "", query))


def graph(title: str, queries: dict[str, str], about: str, unit: str = "short", empty: str = "No traffic") -> Panel:
    """Return a panel of lines over time; queries are given as legend -> expression."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = timeseries.Panel().legend(legend.show_legend(True).calcs([])).fill_opacity(10).span(8).height(8)
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    for letter, (text, query) in zip("ABCDEFGH", queries.items(), strict=False):
        panel.with_target(_target(letter, text, query))
    return _described(panel, title, about, unit, empty)


def heat(title: str, query: str, about: str, unit: str = "s") -> Panel:
    """Return a panel of a histogram's buckets over time."""
    target = _target("A", "{{le}}", query).format(PromQueryFormat.HEATMAP)
    panel = heatmap.Panel().calculate(False).span(8).height(8).with_target(target)
    return _described(panel, title, about, unit, "No traffic")


def scatter(title: str, queries: dict[str, str], along: str, about: str, unit: str) -> Panel:
    """Return a panel of points: one for each value of the label `along`, which is a number, and each query."""
    panel = xychart.Panel().series_mapping(SeriesMapping.AUTO).span(8).height(8)
    for letter, (_, query) in zip("ABCDEFGH", queries.items(), strict=False):
        panel.with_target(_target(letter, "", query).instant().format(PromQueryFormat.TABLE))
    names = {f"Value #{letter}": text for letter, text in zip("ABCDEFGH", queries, strict=False)}
    times = {f"Time {number}": True for number in range(1, len(queries) + 1)}
    for kind, options in (
        ("joinByField", {"byField": along, "mode": "outer"}),
        ("convertFieldType", {"conversions": [{"targetField": along, "destinationType": "number"}]}),
        ("organize", {"excludeByName": times, "renameByName": names}),
    ):
        panel.with_transformation(DataTransformerConfig(id_val=kind, options=options))
    return _described(panel, title, about, unit, "No traffic")


def _target(letter: str, text: str, query: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(letter).datasource(_SOURCE).expr(query).legend_format(text)


def _described(panel: Panel, title: str, about: str, unit: str, empty: str) -> Panel:
    return panel.title(title).datasource(_SOURCE).description(about).unit(unit).no_value(empty)
