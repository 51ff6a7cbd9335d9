"""Which runs measured the same thing, so that their figures may be compared."""

from typing import Any

import pytest

from agentlab.commands import COMMANDS
from agentlab.runs.comparability import MeasuredRun, differences, digest, other_figures
from agentlab.runs.events import Event
from agentlab.runs.manifest import Metric

WEATHER: dict[str, Any] = {"path": "weather.csv", "horizon": 24, "target": "temp", "input_length": 96}


def reasons(first: MeasuredRun, second: MeasuredRun) -> list[str]:
    return differences(first, second, COMMANDS[first.command].basis())


def nas(*, sha: str | None = None, **changes: Any) -> MeasuredRun:
    events = [] if sha is None else [Event(0, 1.0, "study.opened", data={"data": sha})]
    return MeasuredRun("nas", {"seed": 0, "data": {**WEATHER, **changes}}, events)


def test_what_is_tried_may_differ() -> None:
    variant = nas(sha="aa", input_length=48)
    assert reasons(nas(sha="aa"), variant) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"horizon": 12}, "data.horizon: 24 versus 12"),
        ({"path": None, "sha": "bb"}, "data.path: weather.csv versus none"),
        ({"target": "wind", "sha": "bb"}, "data.target: temp versus wind"),
        ({"sha": "bb"}, "the data files differ"),
    ],
)
def test_what_it_is_tried_on_may_not(changes: dict[str, Any], reason: str) -> None:
    assert reasons(nas(sha="aa"), nas(**{"sha": "aa", **changes})) == [reason]


def test_the_same_data_in_another_file_is_the_same_data() -> None:
    assert reasons(nas(sha="aa"), nas(sha="aa", path="copy.csv")) == []
    assert reasons(nas(sha="aa"), nas(path="copy.csv")) == ["data.path: weather.csv versus copy.csv"]  # who knows


def test_what_was_measured_on_has_a_name() -> None:
    def name(run: MeasuredRun) -> str:
        return digest(run, COMMANDS["nas"].basis())

    assert name(nas(sha="aa")) == name(nas(sha="aa", path="copy.csv", input_length=48))
    different_runs = [nas(sha="bb"), nas(sha="aa", horizon=12), nas(), nas(path="copy.csv")]
    assert len({name(run) for run in [nas(sha="aa"), *different_runs]}) == 5


def test_runs_of_two_commands_measured_two_things() -> None:
    assert reasons(nas(), MeasuredRun("pipeline", {})) == ["the runs are from different commands, nas and pipeline"]


def test_a_persona_is_judged_by_its_own_conversations() -> None:
    def run(sha: str, **config: Any) -> MeasuredRun:
        return MeasuredRun("train-persona", config, [Event(0, 1.0, "data.checked", "tom", {"sha256": sha})])

    assert reasons(run("aa", lora={"r": 8}), run("aa", lora={"r": 16})) == []
    assert reasons(run("aa"), run("bb")) == ["the data files differ"]
    assert reasons(run("aa", base="small"), run("aa", base="large")) == ["base: small versus large"]


def test_a_figure_of_another_unit_is_another_figure() -> None:
    one, other_unit = Metric(value=3, unit="of 5", direction="higher"), Metric(value=3, unit="of 7", direction="higher")
    assert other_figures({"answered": one}, {"answered": one}) == {}
    assert list(other_figures({"answered": one, "x": one}, {"answered": other_unit})) == ["answered"]


def test_a_long_value_is_cut() -> None:
    (reason,) = reasons(nas(path="x" * 10_000), nas())
    assert len(reason) < 200


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_is_one_of_the_command(command: str) -> None:
    """A key that is renamed in a config must be renamed here, too: otherwise it would be compared no more."""
    basis = COMMANDS[command].basis()
    for key in (*basis.keys, *basis.data_keys):
        model: Any = COMMANDS[command].config_model()
        for part in key.split("."):
            assert part in model.model_fields, key
            model = model.model_fields[part].annotation
