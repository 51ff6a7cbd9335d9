"""Comparing runs: which keys differ, which figures moved, and which way is better."""

from pathlib import Path

import pytest

from agentlab.nas.config import MEASURED as NAS
from agentlab.runs.compare import RunComparison, compare, config_differences, metric_differences
from agentlab.runs.document import Table, Text
from agentlab.runs.manifest import Metric
from agentlab.runs.run import OpenRun, RunEnvironment, RunOutcome, RunSpec
from agentlab.runs.store import RunRecord, find


def test_only_differing_keys_are_listed_by_dotted_name() -> None:
    differences = config_differences({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "e": None, "d": [1]})
    assert [(d.key, d.first, d.second) for d in differences] == [("a.c", 2, 3)]


def test_better_follows_the_metric_direction() -> None:
    lower = {"mse": Metric(value=0.5, direction="lower")}, {"mse": Metric(value=0.4, direction="lower")}
    higher = {"acc": Metric(value=0.5, direction="higher")}, {"acc": Metric(value=0.4, direction="higher")}
    assert metric_differences(*lower, ("one", "two"))[0].better == "two"
    assert metric_differences(*higher, ("one", "two"))[0].better == "one"


def test_equal_figures_have_no_better_side() -> None:
    same = {"mse": Metric(value=0.5, direction="lower")}
    assert metric_differences(same, same, ("one", "two"))[0].better is None


def test_a_change_within_the_spreads_makes_neither_better_and_both_are_shown() -> None:
    def metrics(value: float, spread: float | None) -> dict[str, Metric]:
        return {"mse": Metric(value=value, spread=spread, direction="lower")}

    (near,) = metric_differences(metrics(0.5, 0.06), metrics(0.42, 0.08), ("one", "two"))
    (far,) = metric_differences(metrics(0.5, 0.01), metrics(0.4, None), ("one", "two"))
    assert (near.better, near.within_spread) == (None, True)
    assert (far.better, far.within_spread) == ("two", False)
    table = RunComparison(first="one", second="two", config=[], metrics=[near, far], not_comparable=[]).blocks()[-1]
    assert isinstance(table, Table)
    assert list(table.rows) == [
        ("mse", "0.5000 ± 0.0600", "0.4200 ± 0.0800", "-0.08", "within the spread"),
        ("mse", "0.5000 ± 0.0100", "0.4000", "-0.1", "two"),
    ]


def test_a_figure_of_one_run_keeps_its_row() -> None:
    (row,) = metric_differences({"mse": Metric(value=0.5, direction="lower")}, {}, ("one", "two"))
    assert (row.first, row.second, row.change) == (0.5, None, None)


def finished(folder: Path, name: str, config: str, mse: float, *, sha: str = "aa") -> RunRecord:
    """A search that has come to this error."""
    with OpenRun.create(folder, RunSpec("nas", config, "", "h", 0, name=name), RunEnvironment()) as run:
        run.start({})
        run.emit("study.opened", data=sha)
        run.complete(RunOutcome(metrics={"test_mse": Metric(value=mse, unit="scaled", direction="lower")}))
    return find(folder, name)


def test_of_runs_on_the_same_data_the_better_is_named(tmp_path: Path) -> None:
    comparison = compare(finished(tmp_path, "one", "seed: 0\n", 0.5), finished(tmp_path, "two", "seed: 1\n", 0.4), NAS)
    assert comparison.not_comparable == []
    assert comparison.metrics[0].better == "two"


@pytest.mark.parametrize(
    ("config", "sha", "reason"),
    [
        ("data: {horizon: 12}\n", "aa", "data.horizon: none versus 12"),
        ("data: {path: other.csv}\n", "bb", "data.path: none versus other.csv"),
        ("seed: 0\n", "bb", "the data files differ"),
    ],
)
def test_of_runs_on_other_data_none_is_better(tmp_path: Path, config: str, sha: str, reason: str) -> None:
    first = finished(tmp_path, "one", "seed: 0\n", 0.5)
    comparison = compare(first, finished(tmp_path, "two", config, 0.4, sha=sha), NAS)
    (row,) = comparison.metrics
    assert (row.first, row.second, row.change, row.better) == (0.5, 0.4, None, None)
    assert comparison.not_comparable == [reason]
    assert any(reason in block.text for block in comparison.blocks() if isinstance(block, Text))


def test_damaged_events_leave_what_the_config_says(tmp_path: Path) -> None:
    first = finished(tmp_path, "one", "seed: 0\n", 0.5)
    second = finished(tmp_path, "two", "data: {path: other.csv}\n", 0.4)
    (second.path / "events.jsonl").write_bytes(b"nonsense\n" * 3)
    assert compare(first, second, NAS).not_comparable == ["data.path: none versus other.csv"]
