"""What `--dry-run` says: how much will be trained, by whom, and what it may cost."""

from collections.abc import Callable
from typing import Any

import pytest

from agentlab.nas.config import DataConfig, NasConfig
from agentlab.nas.plan import NasPlan, describe_series, plan_of
from agentlab.nas.series import Series
from agentlab.runs.document import Table
from agentlab.search.screen import ScreenEstimate

MODEL = {
    "providers": {"p": {"kind": "scripted", "mode": "first"}},
    "models": {"m": {"provider": "p", "id": "tiny-1", "tier": "pick"}},
    "roles": {"primary": ["m"]},
}


@pytest.fixture
def planned(make_series: Callable[..., Series]) -> Callable[..., NasPlan]:
    def plan(*, agent: bool = False, **settings: Any) -> NasPlan:
        config = NasConfig.model_validate({"max_iterations": 10, **({"llm": MODEL} if agent else {}), **settings})
        return plan_of(config, make_series(), ["model.d_model"], ScreenEstimate(12_345, 10 << 20), 2.0, agent=agent)

    return plan


def facts(plan: NasPlan) -> dict[str, str]:
    (table,) = plan.blocks()
    assert isinstance(table, Table)
    return {row[0]: row[1] for row in table.rows}


def test_without_a_model_there_are_no_calls_and_no_cost(planned: Callable[..., NasPlan]) -> None:
    plan = planned()
    assert (plan.trials, plan.workers, plan.proposals, plan.paired_studies) == (10, 1, 0, 0)
    fact_texts = facts(plan)
    assert fact_texts["trials"] == "10"
    assert fact_texts["proposers"] == "gp"
    assert fact_texts["trial 0"] == "12,345 weights, about 10 MiB of memory to train"
    assert fact_texts["language model"] == "none: the classical optimiser proposes every trial"
    assert not {"model calls", "model cost", "full control"} & set(fact_texts)


def test_a_model_proposes_about_half_of_the_trials(planned: Callable[..., NasPlan]) -> None:
    plan = planned(agent=True)
    assert plan.proposals == 4
    fact_texts = facts(plan)
    assert fact_texts["language model"] == "m (tiny-1)"
    assert fact_texts["model calls"] == "about 4 for proposals"  # a model that only picks is no judge
    assert "at most 1 USD" in fact_texts["model cost"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "2 to measure the noise, 9 in the last round, up to 24 if more trials qualify"),
        (
            {"evaluator": {"noise": 0.05}, "max_iterations": 3},
            "0 to measure the noise, 9 in the last round",
        ),
        ({"evaluator": {"repeats": 0}, "finals": {"count": 0}}, "0 to measure the noise, 0 in the last round"),
        ({"max_iterations": 2, "finals": {"seeds": 4}}, "2 to measure the noise, 8 in the last round"),
    ],
)
def test_further_trainings_are_counted(planned: Callable[..., NasPlan], settings: dict[str, Any], words: str) -> None:
    assert facts(planned(**settings))["further trainings"] == words


def test_a_model_that_can_judge_is_asked_about_near_ties_too(planned: Callable[..., NasPlan]) -> None:
    models = {"m": {"provider": "p", "id": "large-1", "tier": "full"}}
    plan = planned(agent=True, llm={**MODEL, "models": models})
    assert plan.judges
    assert facts(plan)["model calls"] == "about 4 for proposals, plus one per near tie"


def test_full_control_names_its_studies_and_their_calls(planned: Callable[..., NasPlan]) -> None:
    plan = planned(agent=True, control="full", control_seeds=6)
    assert plan.paired_studies == 11  # the main one is half of the first pair
    assert plan.proposals == 6 * 4
    assert facts(plan)["full control"] == "11 more studies, 10 training runs in each"


def test_without_an_agent_there_is_nothing_to_pair(planned: Callable[..., NasPlan]) -> None:
    assert planned(control="full").paired_studies == 0


def test_workers_are_told(planned: Callable[..., NasPlan]) -> None:
    assert facts(planned(workers=3))["trials"] == "10, 3 at a time"


def test_an_empty_space_searches_nothing(make_series: Callable[..., Series]) -> None:
    plan = plan_of(NasConfig(max_iterations=1), make_series(), [], ScreenEstimate(1, 1), 1.0, agent=False)
    assert facts(plan)["searched"] == "nothing"


def test_a_series_is_told_in_a_sentence(make_series: Callable[..., Series]) -> None:
    text = describe_series(make_series(rows=400, channels=9), DataConfig())
    assert text.startswith("synthetic: 400 rows, 9 columns (c0, c1, c2, c3, c4, c5, c6, c7, …), one row per h, ")
    assert "2024-01-01T00:00 to 2024-01-17T15:00." in text


@pytest.mark.parametrize(
    ("changes", "is_idle"),
    [({"target": "c0"}, True), ({"target": "c8"}, False), ({}, False), ({"target": "c0", "features": "MS"}, False)],
)
def test_a_target_without_effect_is_named(
    make_series: Callable[..., Series], changes: dict[str, str], is_idle: bool
) -> None:
    text = describe_series(make_series(rows=400, channels=9), DataConfig.model_validate(changes))
    assert ("data.target=c0 has no effect" in text) == is_idle


def test_time_counts_every_training_and_shares_it_among_workers(make_series: Callable[..., Series]) -> None:
    config = NasConfig.model_validate({"max_iterations": 10, "workers": 2, "evaluator": {"repeats": 2}})
    plan = plan_of(config, make_series(), [], ScreenEstimate(1, 1), 3.0, agent=False)
    assert plan.seconds == (10 + 2 + plan.finals) * 3.0 / 2
    assert "training, extrapolated from" in facts(plan)["time"]
