"""The report says everything there is to say, in the order a reader asks, and nothing that there is not."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from agentlab.nas.config import TrialConfig
from agentlab.nas.report import blocks, next_step
from agentlab.nas.result import (
    ChannelRow,
    FinalistRow,
    NasResult,
    NoiseRow,
    PublishedRow,
    ReferenceRow,
    SourceRow,
    TrialRow,
    Winner,
)
from agentlab.runs.document import Block, Code, Figure, Heading, Table, Text
from agentlab.study.calls import ModelRow, Planner
from agentlab.study.control import Pair

ALWAYS = {f"plots/{name}.svg" for name in ("error_by_trial", "learning_curves", "forecasts", "error_by_step")} | {
    "plots/finalists.svg"
}
MODEL = ModelRow(
    model="tiny",
    task="nas.propose",
    calls=1,
    answered=1,
    usable=1,
    share=1.0,
    accepted=1,
    input_tokens=1,
    output_tokens=1,
    cost_usd=0.0,
)


@pytest.fixture
def result() -> Callable[..., NasResult]:
    trial = TrialRow(
        run_id="run_0000",
        source="default",
        arm="shared",
        val_mse=0.5,
        trainings=1,
        accepted=True,
        reason="first trial that finished",
        judge="rule",
        parameters=10,
        seconds=1.0,
        changes={},
        note="",
        error="",
    )
    winner = Winner(
        run_id="run_0000",
        source="default",
        params={"model.d_model": 16},
        changes={},
        trainings=1,
        val_mse=0.5,
        test_mse=0.3,
        test_mae=0.4,
        test_mse_spread=None,
        test_mae_spread=None,
        parameters=10,
        exported="run_0000-f0",
    )

    def make(**changes: Any) -> NasResult:
        fields: dict[str, Any] = {
            "series": "a series",
            "winner": winner,
            "references": [ReferenceRow(name="last", note="", val_mse=0.5, val_mae=0.4, test_mse=0.4, test_mae=0.4)],
            "published": [],
            "test_looks": 1,
            "by_step": [0.1],
            "by_channel": [ChannelRow(name="load", mse=0.25, rmse=5.0)],
            "finalists": [FinalistRow(run_id="run_0000", search_val_mse=0.5, val_mse=[0.4], failed=0, mean=0.4)],
            "noise": NoiseRow(deviation=0.02, trainings=3, note="Noise was measured."),
            "trials": [trial],
            "sources": [SourceRow(source="default", trials=1, failed=0, accepted=1, best_val_mse=0.5)],
            "importances": {},
            "planner": Planner(calls=0, answered=0, input_tokens=0, output_tokens=0, cost_usd=0.0),
            "models": [],
            "pairs": [],
            "control": None,
            "control_note": "No agent.",
        }
        return NasResult(**fields | changes)

    return make


def headings(blocks: list[Block]) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Heading)]


def columns(blocks: list[Block]) -> list[str]:
    """The first column and the last one of every table."""
    return [f"{block.columns[0]}…{block.columns[-1]}" for block in blocks if isinstance(block, Table)]


def figures(blocks: list[Block]) -> set[str]:
    return {block.file for block in blocks if isinstance(block, Figure)}


def report(result: NasResult, *pictures: str) -> list[Block]:
    return blocks(result, TrialConfig(), frozenset([*ALWAYS, *pictures]))


def test_questions_are_answered_in_the_order_a_reader_asks(result: Callable[..., NasResult]) -> None:
    blocks = report(result())
    assert headings(blocks) == [
        "How good is it?",
        "Did the agent help?",
        "Trials",
        "The last round",
        "Best configuration",
    ]
    assert figures(blocks) == ALWAYS
    assert all(block.alt for block in blocks if isinstance(block, Figure))


def test_the_noise_is_told_with_the_trials(result: Callable[..., NasResult]) -> None:
    blocks = report(result())
    after = blocks[blocks.index(Heading("Trials")) + 1]
    assert isinstance(after, Text)
    assert after.text.startswith("Noise was measured. A trial is accepted only if")


@pytest.mark.parametrize(
    ("changes", "pictures", "table"),
    [
        ({"importances": {"model.d_model": 1.0}}, ["plots/importances.svg"], "key…share"),
        (
            {"pairs": [Pair(seed=0, agent=0.3, control=0.4)]},
            ["plots/paired_studies.svg"],
            "seed…lower by",
        ),
        (
            {"published": [PublishedRow(model="Informer", mse=0.5, mae=0.5, source="arXiv", note="")]},
            [],
            "model…note",
        ),
        ({"models": [MODEL]}, [], "model…cost"),
    ],
    ids=["importances", "pairs", "published", "models"],
)
def test_what_was_not_measured_is_not_shown(
    result: Callable[..., NasResult], changes: dict[str, Any], pictures: list[str], table: str
) -> None:
    without, with_ = report(result()), report(result(**changes), *pictures)
    assert table not in columns(without)
    assert table in columns(with_)
    assert figures(with_) - figures(without) == set(pictures)


def test_pairs_that_all_failed_have_a_table_and_no_picture(result: Callable[..., NasResult]) -> None:
    blocks = report(result(pairs=[Pair(seed=0, agent=None, control=0.4)]))
    assert "seed…lower by" in columns(blocks)
    assert "plots/paired_studies.svg" not in figures(blocks)


def test_the_best_configuration_can_be_copied(result: Callable[..., NasResult]) -> None:
    (code,) = [block for block in report(result()) if isinstance(block, Code)]
    config = TrialConfig.model_validate(yaml.safe_load(code.text))
    assert config.model.d_model == 16


def test_the_next_step_is_a_forecast_unless_a_simple_one_is_better(result: Callable[..., NasResult]) -> None:
    worse, better = (
        ReferenceRow(name="mean", note="", val_mse=error, val_mae=error, test_mse=error, test_mae=error)
        for error in (9.0, 0.0)
    )
    assert next_step(result(references=[worse]), "r").startswith("agentlab nas predict r ")
    assert next_step(result(references=[worse, better]), "r") == "agentlab nas --resume r --max-iterations 2"
