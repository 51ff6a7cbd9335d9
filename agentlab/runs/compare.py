"""Two runs side by side: what was configured differently, what came out differently."""

from collections.abc import Mapping
from math import hypot
from typing import Any

from pydantic import Field

from agentlab.config.base import flatten
from agentlab.config.yaml_tree import read_yaml
from agentlab.runs.comparability import Basis, MeasuredRun, differences, other_figures
from agentlab.runs.document import AnswerDocument, Block, Heading, Table, Text, figure_or_dash, with_spread
from agentlab.runs.manifest import Metric
from agentlab.runs.store import RunRecord


class ConfigDifference(AnswerDocument):
    """A key whose values differ; None where a run does not have it."""

    key: str
    first: Any
    second: Any


class MetricDifference(AnswerDocument):
    """A headline figure in both runs. `change` is second minus first; None, as `better`, if they are not comparable.

    A change that the spreads explain makes neither better: it is `within_spread`.
    """

    name: str
    unit: str
    direction: str
    first: float | None
    second: float | None
    first_spread: float | None = None
    second_spread: float | None = None
    change: float | None
    better: str | None
    within_spread: bool = False


class RunComparison(AnswerDocument):
    """The answer of `runs compare`."""

    first: str
    second: str
    config: list[ConfigDifference]
    metrics: list[MetricDifference]
    not_comparable: list[str] = Field(description="Reasons why the figures are not comparable; empty if they are.")

    def blocks(self) -> list[Block]:
        """Config first: a difference in figures means nothing before that is known."""
        keys = [(d.key, figure_or_dash(d.first), figure_or_dash(d.second)) for d in self.config]
        figures = [
            (
                m.name,
                with_spread(m.first, m.first_spread),
                with_spread(m.second, m.second_spread),
                figure_or_dash(m.change, "+.4g"),
                m.better or ("within the spread" if m.within_spread and m.change is not None else "–"),
            )
            for m in self.metrics
        ]
        return [
            Heading("Configuration"),
            Table(("key", self.first, self.second), keys) if keys else Text("Both runs have the same configuration."),
            Heading("Figures"),
            *([Text(f"Not comparable: {'; '.join(self.not_comparable)}.")] if figures and self.not_comparable else []),
            Table(("figure", self.first, self.second, "change", "better"), figures)
            if figures
            else Text("Neither run has headline figures yet."),
        ]


def compare(first: RunRecord, second: RunRecord, basis: Basis) -> RunComparison:
    """Compare what two runs were told and found; `basis` is the first command's. Errors as of `read_measured_run`."""
    first_run, second_run = read_measured_run(first), read_measured_run(second)
    reasons = differences(first_run, second_run, basis)
    unlike_figures = other_figures(first_run.metrics, second_run.metrics)
    return RunComparison(
        first=first.id,
        second=second.id,
        config=config_differences(first_run.config, second_run.config),
        metrics=[
            row.model_copy(update={"change": None, "better": None}) if reasons or row.name in unlike_figures else row
            for row in metric_differences(first_run.metrics, second_run.metrics, (first.id, second.id))
        ],
        not_comparable=[*reasons, *unlike_figures.values()],
    )


def read_measured_run(record: RunRecord) -> MeasuredRun:
    """What a run was told and found. Raises ConfigError or RunUnreadableError if its config is damaged or absent."""
    config = read_yaml(record.text("config.yaml"), str(record.path / "config.yaml")).data
    return MeasuredRun(record.manifest.command, config, record.known_events(), record.manifest.metrics)


def config_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[ConfigDifference]:
    """Every dotted key whose values differ, in the order of its name. Pure."""
    a, b = flatten(first), flatten(second)
    return [
        ConfigDifference(key=key, first=a.get(key), second=b.get(key))
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]


def metric_differences(
    first: Mapping[str, Metric], second: Mapping[str, Metric], names: tuple[str, str]
) -> list[MetricDifference]:
    """Headline figures of both runs. One that only one run has keeps its row. Pure."""
    rows = []
    for key in sorted(first.keys() | second.keys()):
        a, b = first.get(key), second.get(key)
        metric = a or second[key]
        change = b.value - a.value if a and b else None
        spreads = a.spread if a else None, b.spread if b else None
        within = change is not None and 0 < abs(change) <= hypot(*(spread or 0.0 for spread in spreads))
        rows.append(
            MetricDifference(
                name=key,
                unit=metric.unit,
                direction=metric.direction,
                first=a.value if a else None,
                second=b.value if b else None,
                first_spread=spreads[0],
                second_spread=spreads[1],
                change=change,
                better=None if not change or within else names[int((change < 0) == (metric.direction == "lower"))],
                within_spread=within,
            )
        )
    return rows
