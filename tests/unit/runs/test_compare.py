"""Comparing runs: which keys differ, which figures moved, and which way is better."""

from agentlab.runs.compare import config_differences, metric_differences
from agentlab.runs.manifest import Metric


def test_only_differing_keys_are_listed_by_dotted_name() -> None:
    found = config_differences({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "e": None, "d": [1]})
    assert [(d.key, d.first, d.second) for d in found] == [("a.c", 2, 3)]


def test_better_follows_the_metric_direction() -> None:
    lower = {"mse": Metric(value=0.5, direction="lower")}, {"mse": Metric(value=0.4, direction="lower")}
    higher = {"acc": Metric(value=0.5, direction="higher")}, {"acc": Metric(value=0.4, direction="higher")}
    assert metric_differences(*lower, ("one", "two"))[0].better == "two"
    assert metric_differences(*higher, ("one", "two"))[0].better == "one"


def test_equal_figures_have_no_better_side() -> None:
    same = {"mse": Metric(value=0.5, direction="lower")}
    assert metric_differences(same, same, ("one", "two"))[0].better is None


def test_a_figure_of_one_run_keeps_its_row() -> None:
    (row,) = metric_differences({"mse": Metric(value=0.5, direction="lower")}, {}, ("one", "two"))
    assert (row.first, row.second, row.change) == (0.5, None, None)
